// A heat map drawn over a picture.
//
// The map and the labels, of any size, are resized to the picture: a pixel takes the cell that its centre falls in, so
// row i of n sees row floor((2 i + 1) h / (2 n)) of h; columns likewise. A score s in 0 .. 1 has entry floor(s * steps)
// of a table of colours, 1 the last one; scores below 0 and NaN have the first entry, scores above 1 the last. The
// table holds colours (RGB in 0 .. 255) times their opacity, of which the picture keeps the rest:
//
//     blended = keep * picture + colour
//
// A pixel is on a border where the one to its right or below it sees another label. There white is mixed in:
// 0.6 blended + 0.4 * 255. The result is cut to 0 .. 255 and rounded to the nearest byte, halves to the even one.
// All of it in float32, one IEEE operation after the other; only s * steps is of the score's own type.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/hd.hpp"

namespace midgrain::core {

inline constexpr float kBorderKeep = 0.6f;
inline constexpr float kBorderWhite = 0.4f * 255.0f;

// The cell of `cells` that the centre of pixel i of n falls in.
MIDGRAIN_HD std::int64_t nearest_cell(std::int64_t i, std::int64_t n, std::int64_t cells) {
    return (2 * i + 1) * cells / (2 * n);
}

// Entry of a table of `steps` colours.
template <class T>
MIDGRAIN_HD int colour_step(T score, int steps) {
    const T raised = score > T{0} ? score : T{0};
    const T clamped = raised < T{1} ? raised : T{1};
    const int step = static_cast<int>(clamped * static_cast<T>(steps));
    return step < steps ? step : steps - 1;
}

MIDGRAIN_HD float draw_border(float blended) { return kBorderKeep * blended + kBorderWhite; }

// NaN becomes 0.
MIDGRAIN_HD std::uint8_t to_byte(float value) {
    const float raised = value > 0.0f ? value : 0.0f;
    const float clamped = raised < 255.0f ? raised : 255.0f;
    // Above 2^23 floats are integers: the sum rounds as wanted, and its last byte is the result.
    const float sum = clamped + 8388608.0f;
    std::uint32_t bits;
    std::memcpy(&bits, &sum, sizeof bits);
    return static_cast<std::uint8_t>(bits);
}

// What is drawn where.
struct Overlay {
    std::int64_t picture_width;             // pixels in a row of the whole picture
    std::int64_t top, left, height, width;  // of the part that is drawn on
    std::int64_t heat_height, heat_width;
    std::int64_t label_height, label_width;
    int steps;
    float keep;
};

}  // namespace midgrain::core

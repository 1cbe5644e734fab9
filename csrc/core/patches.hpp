// Jitter-CAM patches (Thesis 5.3): windows of an enlarged image or clip, and the mean of the maps they give.
//
// Per axis: an image of `source` pixels is enlarged to `size`; patch i of `grid` covers `patch` pixels from
// floor(i * patch / cells + 1/2) on, the patch being `cells` map cells long, so that neighbours are one cell apart.
// Patches are numbered in row-major order (z, y, x). Position e of the enlarged axis lies at
// (2 e + 1) source / (2 size) - 1/2 of the source axis, pixel centres being integers there, clamped to the first and
// last: linear interpolation without aligned corners, low + weight (high - low). The position is an exact fraction; the
// weight is rounded to float64 and then to the image's type. On a pixel it is that pixel. x is interpolated first, then
// y, then z, each rounded to the image's type. A constant image therefore stays that constant.
//
// Adjoint, all in the patches' type and in ascending order: every enlarged position adds the patches that contain it;
// every pixel then adds, along x, the positions interpolated from it times their weights, and after that those along z
// and y times the product of their two weights.
//
// Aggregation: map i of cells m lies i cells into an axis of m + grid - 1 cells; every cell is the mean of the maps
// that cover it, summed in float64 in the order of the patches, divided by their number and rounded once.
//
// Overflow limits: source, size, patch, cells and grid at most 2^30; values below half of the type's largest number.
#pragma once

#include <cstdint>

#include "core/array_ref.hpp"
#include "core/hd.hpp"

namespace midgrain::core {

// What is interpolated between: high == low + 1, or high == low where the position falls on a pixel.
template <class T>
struct Tap {
    std::int32_t low, high;
    T weight;  // of high
};

template <class T>
MIDGRAIN_HD Tap<T> linear_tap(std::int64_t position, std::int64_t source, std::int64_t size) {
    const std::int64_t numerator = (2 * position + 1) * source - size;
    if (numerator <= 0) return {0, 0, T{0}};
    const auto low = static_cast<std::int32_t>(numerator / (2 * size));
    const std::int64_t rest = numerator % (2 * size);
    if (rest == 0 || low + 1 >= source) return {low, low, T{0}};
    return {low, low + 1, static_cast<T>(static_cast<double>(rest) / static_cast<double>(2 * size))};
}

template <class T>
MIDGRAIN_HD T interpolate(T low, T high, T weight) {
    return low + weight * (high - low);
}

// A row's value at a position; on a pixel it is that pixel, infinity included.
template <class T>
MIDGRAIN_HD T interpolate(const T* row, const Tap<T>& tap) {
    return tap.low == tap.high ? row[tap.low] : interpolate(row[tap.low], row[tap.high], tap.weight);
}

// The weight of `pixel`, one of the two, in what is interpolated.
template <class T>
MIDGRAIN_HD T weight_of(const Tap<T>& tap, std::int64_t pixel) {
    return pixel == tap.low ? T{1} - tap.weight : tap.weight;
}

// First pixel of patch i in the enlarged image.
MIDGRAIN_HD std::int64_t patch_offset(std::int64_t i, std::int64_t patch, std::int64_t cells) {
    return (2 * i * patch + cells) / (2 * cells);
}

// Pixels of the enlarged axis from its beginning to the end of the last patch.
MIDGRAIN_HD std::int64_t patches_extent(std::int64_t grid, std::int64_t patch, std::int64_t cells) {
    return patch_offset(grid - 1, patch, cells) + patch;
}

// The maps [first_map, last_map] that cover one cell of the aggregated axis.
MIDGRAIN_HD std::int64_t first_map(std::int64_t cell, std::int64_t cells) {
    return cell < cells ? 0 : cell - cells + 1;
}
MIDGRAIN_HD std::int64_t last_map(std::int64_t cell, std::int64_t grid) { return cell < grid ? cell : grid - 1; }

// The patches [start, start + count) of a grid.
struct PatchGrid {
    Dims patch, cells, grid, size;
    std::int64_t start, count;
};

}  // namespace midgrain::core

// What the entry points of every backend are told.
#pragma once

#include <cstdint>
#include <span>

#include "core/array_ref.hpp"
#include "core/hd.hpp"

namespace midgrain::core {

struct Range {
    float low, high;
};

struct SlicParameters {
    std::span<const double> weights;  // [channels], positive and finite
    std::span<const Range> ranges;    // [channels], or empty: each item's own minimum and maximum
    std::int64_t n_segments;          // 1 .. pixels of an item
    int max_num_iter;                 // at least 1
    double spacing[3];                // z, y, x; positive and finite
    std::int64_t min_size;            // pieces below it are merged away; 0: raw labels, not connected
};

// RGB pictures, gradient maps or both.
struct Pictures {
    const std::uint8_t* bytes;  // [items, pixels, 3] if channels_last, else [items, 3, pixels]; 0 .. 255
    const float* floats;        // the same; value * scale[c] + offset[c] is in 0 .. 1 (clamped)
    bool channels_last;
    float scale[3], offset[3];
    const float* gradient;  // [items, pixels], any range
    std::int64_t items;
    Dims dims;

    MIDGRAIN_HD_MEMBER bool has_colour() const { return bytes != nullptr || floats != nullptr; }
};

// What is pooled or painted. Over pixels [items, channels, pixels], or [items, pixels, channels] if channels_last; over
// regions the same with `regions` in place of `pixels`. labels [groups, pixels] in 0 .. regions-1: every group's labels
// serve items / groups items in a row.
struct PoolShape {
    std::int64_t groups, items, channels, pixels, regions;
    bool channels_last;
};

}  // namespace midgrain::core

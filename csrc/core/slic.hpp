// Gradient-augmented SLIC in integers (Thesis 3.4, eqs. 3.2 to 3.6). The definition every backend implements.
//
// An item has n = (z, y, x) pixels with `channels` float features f_c, each with a weight w_c and a range
// [low_c, high_c]. With K wanted superpixels and pixel spacing p_a (1 by default):
//
//   grid step   s   = (prod n_a p_a / K)^(1/d) over the d active axes. Axes of one pixel are inactive; an axis
//                     shorter than s gets one cell and leaves (shortest first), and s is taken over the rest.
//   cells       g_a = floor(n_a p_a / s) or one more (at most n_a), whichever product comes closest to K
//                     (ties: the earlier combination, counting z, y, x with x fastest and floor first).
//   units       F   = fixed-point units per unit of D'; the largest integer whose squared distances fit the budget.
//   features    q_c = rne((clamp(f_c, low_c, high_c) - (low_c + high_c) / 2) * float(F / w_c))    float32, then integer
//   positions   q_a = rne(i * (F p_a / s)) for pixel index i                                      double, then integer
//   distance    D^2 = sum_c (q_c - C_c)^2 + sum_a (q_a - C_a)^2   = F^2 D'^2
//
// Start: pixel i of axis a lies in cell floor(i g_a / n_a); centres are the means of their cells. One iteration:
// every pixel takes the centre with the smallest D^2 among those with |q_a - C_a| <= 2 F on every axis (ties: the
// lowest centre index, in z, y, x order of the cells); a pixel that no centre reaches keeps its label. Then every
// centre becomes the rounded mean of its members (core/fixed_point.hpp: divide_half_up); an empty one stays.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/array_ref.hpp"
#include "core/fixed_point.hpp"
#include "core/hd.hpp"

namespace midgrain::core {

inline constexpr int kMaxChannels = 64;

// D^2 budgets. Rounding adds at most one unit per channel and axis, so a budget B leaves room of
// 2 sqrt((kMaxChannels + 3) B) + kMaxChannels + 3 below the power of two.
// Narrow: features fit int16, D^2 fits int32 with 4 bits to spare for packing an index beside it.
inline constexpr std::int64_t kNarrowBudget = (std::int64_t{1} << 27) - (std::int64_t{1} << 18);
// Wide: features fit int32, D^2 fits int64. Taken where the narrow budget would leave too coarse a grid.
inline constexpr std::int64_t kWideBudget = std::int64_t{1} << 50;
inline constexpr std::int64_t kNarrowMinUnits = 64;
inline constexpr std::int64_t kWideMaxUnits = 4096;
// A position is below 2^30 and an item below 2^31 pixels, so a centre's sum stays below 2^61 and twice it in int64.
inline constexpr std::int64_t kMaxPosition = std::int64_t{1} << 30;
// Bounds of the caller's weights and spacing, far from where their quotients and products leave the range of floats.
inline constexpr double kMinWeight = 1e-30;
inline constexpr double kMinSpacing = 1e-30, kMaxSpacing = 1e30;
inline constexpr std::int64_t kMaxPixels = (std::int64_t{1} << 31) - 1;

// 2 * sqrt(67 * 2^27) + 67 = 189,726: the rounding slack of 64 channels and 3 axes fits in what the budget leaves.
static_assert(std::int64_t{189726} * 189726 > std::int64_t{4} * (kMaxChannels + 3) * (std::int64_t{1} << 27));
static_assert(189726 + kMaxChannels + 3 < (std::int64_t{1} << 18));
// One feature alone may use the whole narrow budget: 11,586^2 > 2^27, and half of it around zero fits int16.
static_assert(std::int64_t{11586} * 11586 > (std::int64_t{1} << 27) && 11586 < 32767);

struct SlicGeometry {
    Dims cells;           // centres per axis
    double step;          // s, in units of the spacing
    std::int64_t units;   // F; 0: the weights are too small for the ranges
    bool narrow;          // int16 features and int32 distances suffice
    double per_pixel[3];  // F p_a / s, the position of pixel 1

    MIDGRAIN_HD_MEMBER std::int64_t count() const { return cells.size(); }
    MIDGRAIN_HD_MEMBER std::int64_t window() const { return 2 * units; }
};

// The cell of a pixel index on one axis.
MIDGRAIN_HD std::int64_t initial_cell(std::int64_t index, std::int64_t pixels, std::int64_t cells) {
    return index * cells / pixels;
}

// float(F / w): the factor from a feature to its units.
MIDGRAIN_HD float feature_scale(std::int64_t units, double weight) {
    return static_cast<float>(static_cast<double>(units) / weight);
}

MIDGRAIN_HD float range_middle(float low, float high) { return 0.5f * low + 0.5f * high; }

MIDGRAIN_HD std::int32_t quantise(float value, float low, float high, float scale) {
    const float clamped = value < low ? low : value > high ? high : value;
    return round_half_even((clamped - range_middle(low, high)) * scale);
}

// x^(1/3) for x > 0, the same bits on every IEEE machine (libm's cbrt is not).
inline double cube_root_exact(double x) {
    double y = x > 1.0 ? x : 1.0;
    for (;;) {
        const double next = y - (y * y * y - x) / (3.0 * y * y);
        if (!(next < y)) return y;
        y = next;
    }
}

// The part of the geometry that does not depend on the features: cells and step.
inline SlicGeometry make_slic_grid(Dims dims, std::int64_t n_segments, const double* spacing) {
    SlicGeometry geometry{};
    double extent[3];
    bool active[3];
    double step = 0.0;
    for (int a = 0; a < 3; ++a) {
        extent[a] = static_cast<double>(dims[a]) * spacing[a];
        active[a] = dims[a] > 1;
        if (spacing[a] > step) step = spacing[a];
    }
    for (;;) {
        double volume = 1.0;
        int count = 0;
        for (int a = 0; a < 3; ++a) {
            if (!active[a]) continue;
            volume *= extent[a];
            ++count;
        }
        if (count == 0) break;
        step = volume / static_cast<double>(n_segments);
        if (count == 2) step = std::sqrt(step);
        if (count == 3) step = cube_root_exact(step);
        int shortest = -1;
        for (int a = 0; a < 3; ++a) {
            if (active[a] && extent[a] < step && (shortest < 0 || extent[a] < extent[shortest])) shortest = a;
        }
        if (shortest < 0) break;
        active[shortest] = false;
    }
    geometry.step = step;

    std::int64_t low[3], high[3];
    for (int a = 0; a < 3; ++a) {
        low[a] = high[a] = 1;
        if (!active[a]) continue;
        low[a] = static_cast<std::int64_t>(std::floor(extent[a] / step));
        if (low[a] < 1) low[a] = 1;
        if (low[a] > dims[a]) low[a] = dims[a];
        high[a] = low[a] + 1 > dims[a] ? dims[a] : low[a] + 1;
    }
    std::int64_t best = -1;
    for (int choice = 0; choice < 8; ++choice) {
        const std::int64_t z = choice & 4 ? high[0] : low[0];
        const std::int64_t y = choice & 2 ? high[1] : low[1];
        const std::int64_t x = choice & 1 ? high[2] : low[2];
        const std::int64_t difference = z * y * x - n_segments;
        const std::int64_t gap = difference < 0 ? -difference : difference;
        if (best < 0 || gap < best) {
            best = gap;
            geometry.cells = {z, y, x};
        }
    }
    return geometry;
}

// Adds the units and what follows from them to a grid. spreads[c] = (high_c - low_c) / w_c.
MIDGRAIN_HD void set_slic_units(SlicGeometry& geometry, Dims dims, const double* spacing, const double* spreads,
                                int channels) {
    double total = 12.0;  // (2 s / s)^2 on each of three axes
    for (int c = 0; c < channels; ++c) total += spreads[c] * spreads[c];
    geometry.units = static_cast<std::int64_t>(std::floor(std::sqrt(static_cast<double>(kNarrowBudget) / total)));
    geometry.narrow = geometry.units >= kNarrowMinUnits;
    if (!geometry.narrow) {
        const double units = std::floor(std::sqrt(static_cast<double>(kWideBudget) / total));
        geometry.units = units > static_cast<double>(kWideMaxUnits) ? kWideMaxUnits : static_cast<std::int64_t>(units);
    }
    for (int a = 0; a < 3; ++a) {
        const double extent = static_cast<double>(dims[a]) * spacing[a];
        const double limit = std::floor(static_cast<double>(kMaxPosition) / (extent / geometry.step));
        if (limit < static_cast<double>(geometry.units)) geometry.units = static_cast<std::int64_t>(limit);
    }
    for (int a = 0; a < 3; ++a) {
        geometry.per_pixel[a] = static_cast<double>(geometry.units) * spacing[a] / geometry.step;
    }
}

inline SlicGeometry make_slic_geometry(Dims dims, std::int64_t n_segments, const double* spacing, const double* spreads,
                                       int channels) {
    SlicGeometry geometry = make_slic_grid(dims, n_segments, spacing);
    set_slic_units(geometry, dims, spacing, spreads, channels);
    return geometry;
}

MIDGRAIN_HD std::int32_t pixel_position(std::int64_t index, double per_pixel) {
#if defined(__CUDA_ARCH__)
    return __double2int_rn(static_cast<double>(index) * per_pixel);
#else
    return static_cast<std::int32_t>(std::nearbyint(static_cast<double>(index) * per_pixel));
#endif
}

// First pixel of a cell on one axis: the smallest index whose initial_cell is `cell`.
MIDGRAIN_HD std::int64_t cell_begin(std::int64_t cell, std::int64_t pixels, std::int64_t cells) {
    return (cell * pixels + cells - 1) / cells;
}

}  // namespace midgrain::core

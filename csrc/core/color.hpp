// sRGB to CIELAB (D65, 2 degree observer) in float32, from IEEE additions, multiplications and divisions alone:
// no libm call, so that host and device agree bit for bit when neither contracts a*b+c (-ffp-contract=off,
// -fmad=false). Source: IEC 61966-2-1 (transfer curve), CIE 15 (Lab).
#pragma once

#include <cstdint>
#include <cstring>

#include "core/hd.hpp"

namespace midgrain::core {

// sRGB decoding is read from a table with linear interpolation: below 3e-8 from the exact curve.
inline constexpr int kSrgbCells = 4096;

struct Lab {
    float l, a, b;
};

// Bounds of CIELAB over the sRGB cube, rounded outwards: L, a, b.
inline constexpr double kLabLow[3] = {0.0, -87.0, -108.0};
inline constexpr double kLabHigh[3] = {100.0, 99.0, 95.0};

// x^(1/5) for x in (0, 1] by Newton's iteration from above; stops when it no longer falls.
MIDGRAIN_HD double fifth_root(double x) {
    double y = 1.0;
    for (;;) {
        const double y4 = y * y * y * y;
        const double next = y - (y4 * y - x) / (5.0 * y4);
        if (!(next < y)) return y;
        y = next;
    }
}

// Exact sRGB decoding of one value in [0, 1]; t^2.4 is t^2 * (t^2)^(1/5).
MIDGRAIN_HD double srgb_decode_exact(double value) {
    if (value <= 0.04045) return value / 12.92;
    const double t = (value + 0.055) / 1.055;
    return t * t * fifth_root(t * t);
}

// Entry i of the table, 0 .. kSrgbCells + 1; the last one repeats the end so that interpolation may read one beyond.
MIDGRAIN_HD float srgb_table_entry(int i) {
    const double value = i < kSrgbCells ? static_cast<double>(i) / kSrgbCells : 1.0;
    return static_cast<float>(srgb_decode_exact(value));
}

inline void fill_srgb_table(float* table) {
    for (int i = 0; i < kSrgbCells + 2; ++i) table[i] = srgb_table_entry(i);
}

// value is clamped to [0, 1].
MIDGRAIN_HD float srgb_decode(float value, const float* table) {
    const float clamped = value < 0.0f ? 0.0f : value > 1.0f ? 1.0f : value;
    const float position = clamped * static_cast<float>(kSrgbCells);
    const int cell = static_cast<int>(position);
    const float fraction = position - static_cast<float>(cell);
    return table[cell] + fraction * (table[cell + 1] - table[cell]);
}

// x^(1/3) for x in (0, 2), below 1 ulp, without a division: z = x^(-1/3) from the exponent's bits and two steps of
// third order (z times the series of c^(-1/3) around c = x z^3 = 1), then one Newton step for y = x z^2.
MIDGRAIN_HD float cube_root(float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    bits = 1419967116u - bits / 3u;
    float z;
    std::memcpy(&z, &bits, sizeof z);
    for (int step = 0; step < 2; ++step) {
        const float c = x * (z * z * z);
        z = z * (1.5555556f - c * (0.7777778f - 0.22222222f * c));
    }
    const float y = x * (z * z);
    return y - (y * y * y - x) * (z * z * 0.33333334f);
}

// CIE f(t): cube root above (6/29)^3, its tangent below.
MIDGRAIN_HD float lab_curve(float t) { return t > 0.008856452f ? cube_root(t) : 7.787037f * t + 0.137931034f; }

// Linear r, g, b in [0, 1]; L in [0, 100], a and b within kLabLow .. kLabHigh.
MIDGRAIN_HD Lab linear_to_lab(float r, float g, float b) {
    // Rows of the sRGB to XYZ matrix, each divided by its sum: the D65 white point. White is exactly (100, 0, 0).
    const float fx = lab_curve(0.43394994f * r + 0.37620977f * g + 0.18984029f * b);
    const float fy = lab_curve(0.21267288f * r + 0.71515213f * g + 0.07217499f * b);
    const float fz = lab_curve(0.01775658f * r + 0.10946796f * g + 0.87277546f * b);
    return {116.0f * fy - 16.0f, 500.0f * (fx - fy), 200.0f * (fy - fz)};
}

// r, g, b in [0, 1] as encoded in the file (clamped).
MIDGRAIN_HD Lab srgb_to_lab(float r, float g, float b, const float* table) {
    return linear_to_lab(srgb_decode(r, table), srgb_decode(g, table), srgb_decode(b, table));
}

}  // namespace midgrain::core

// Superpixel pooling (Thesis eq. 3.1 and table 3.6): one number per region from a plane of values.
//
// Sums are exact in fixed point and so independent of their order. A plane of n pixels with largest magnitude
// m < 2^k is scaled by 2^-k (exact), each term rounded once to a multiple of 2^-(62 - ceil(log2 n)), and summed in
// int64. The error of a term is at most half of that, relative to m (m^2 for squares): 2^-47 for 224 x 224 pixels. k is
// at least -1000, so the error of doubles below 2^-1000 is relative to that.
// For var and std, m is the plane's largest |v - mean|, so that a common offset does not drown a small spread.
//
//   mean  sum / count            sum                      abs-sum, l1  sum of |v|      l2  sqrt(sum of v^2)
//   var   mean of (v - mean)^2   std  sqrt(var)           max, min                     median (mean of the middle two)
//
// Channels are independent of each other, wherever they lie in memory. Of equal extremes (0 and -0) the first pixel's
// counts. Painting gives every pixel its region's number, NaN included.
//
// A region without pixels gives NaN for mean, var, std, max, min and median, 0 for the sums and norms.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/fixed_point.hpp"
#include "core/hd.hpp"

namespace midgrain::core {

enum class Reduce { kMean, kSum, kAbsSum, kL2, kVar, kStd, kMax, kMin, kMedian };

// Exponent e of the fixed-point unit 2^-e for n terms of magnitude at most 1: n * 2^e <= 2^62.
MIDGRAIN_HD int fixed_exponent(std::int64_t n) { return 62 - ceil_log2(n); }

// k with largest < 2^k, 0 for an all-zero plane; at least -1000, so that 2^-k is finite.
MIDGRAIN_HD int magnitude_exponent(double largest) {
    if (!(largest > 0.0)) return 0;
    // The exponent field; that of subnormal numbers is below -1000 in any case.
    std::uint64_t bits;
    std::memcpy(&bits, &largest, sizeof bits);
    const int exponent = static_cast<int>(bits >> 52) - 1022;
    return exponent < -1000 ? -1000 : exponent;
}

// ldexp(1.0, exponent), at the price of a few integer instructions for normal doubles.
MIDGRAIN_HD double power_of_two(int exponent) {
    if (exponent < -1022 || exponent > 1023) return std::ldexp(1.0, exponent);
    const std::uint64_t bits = static_cast<std::uint64_t>(exponent + 1023) << 52;
    double result;
    std::memcpy(&result, &bits, sizeof result);
    return result;
}

}  // namespace midgrain::core

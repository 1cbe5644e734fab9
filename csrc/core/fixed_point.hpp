// Rounding rules and bit budgets of the integer arithmetic. Integers make sums independent of their order,
// which is what makes every result independent of threads, batch, run and device.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/hd.hpp"

namespace midgrain::core {

// Nearest integer, ties to even. |value| must be below 2^31.
MIDGRAIN_HD std::int32_t round_half_even(float value) {
#if defined(__CUDA_ARCH__)
    return __float2int_rn(value);
#else
    return static_cast<std::int32_t>(std::nearbyintf(value));
#endif
}

// floor(total / n + 1/2), the rounded mean of n > 0 integers, for negative totals too.
// Overflow limit: |2 total| + n < 2^63.
MIDGRAIN_HD std::int64_t divide_half_up(std::int64_t total, std::int64_t n) {
    const std::int64_t numerator = 2 * total + n;
    const std::int64_t denominator = 2 * n;
    const std::int64_t quotient = numerator / denominator;
    return quotient - static_cast<std::int64_t>(numerator % denominator < 0);
}

// Smallest b with n <= 2^b, for n >= 1.
MIDGRAIN_HD int ceil_log2(std::int64_t n) {
    int bits = 0;
    while ((std::int64_t{1} << bits) < n) ++bits;
    return bits;
}

}  // namespace midgrain::core

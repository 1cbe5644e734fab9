// Least and largest values of planes, found by atomics that need memory cleared to zero and nothing else.
#pragma once

#include <cstring>

#include "cuda/kernels.hpp"
#include "cuda/launch.cuh"

namespace midgrain::cuda {

// Zero: no value yet. Otherwise complements of the least and plain bits of the largest value, in an order-preserving
// form that is never zero for a finite number.
struct Extremes {
    unsigned lowest, highest;
};

__device__ inline bool is_finite(float value) {
    std::uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (bits & 0x7F800000u) != 0x7F800000u;
}

// Unsigned integers in the order of the floats.
__device__ inline unsigned ordered_bits(float value) {
    unsigned bits;
    memcpy(&bits, &value, sizeof bits);
    return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

__device__ inline float ordered_float(unsigned bits) {
    bits = (bits & 0x80000000u) != 0 ? bits & 0x7FFFFFFFu : ~bits;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

__device__ inline float lowest_of(const Extremes& found) {
    return found.lowest == 0 ? 0.0f : ordered_float(~found.lowest);
}
__device__ inline float highest_of(const Extremes& found) {
    return found.highest == 0 ? 0.0f : ordered_float(found.highest);
}

// found [items, channels] of values [items, channels, pixels]; sets kNotFinite in status [items].
void launch_find_extremes(const float* values, std::int64_t items, int channels, std::int64_t pixels, Extremes* found,
                          std::int32_t* status, Stream stream);

}  // namespace midgrain::cuda

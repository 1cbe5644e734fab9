// A gradient map as a feature: rescaled to 0 .. 100 over its item (Thesis 3.4).
#pragma once

#include <cstdint>
#include <cstring>

#include "core/hd.hpp"

namespace midgrain::core {

// v becomes ((float)(v * unit) - low) / (high - low) * 100.
struct GradientScale {
    double unit;      // a power of two that brings the largest magnitude to 0.5 .. 1
    float low, high;  // of the map, times unit

    // A flat map says nothing.
    MIDGRAIN_HD_MEMBER bool is_flat() const { return !(high > low); }
};

// low and high: the map's least and largest value, finite. Differences of values scaled like this neither overflow nor
// vanish.
MIDGRAIN_HD GradientScale make_gradient_scale(float low, float high) {
    const float lowest = low < 0.0f ? -low : low, highest = high < 0.0f ? -high : high;
    const double largest = static_cast<double>(lowest > highest ? lowest : highest);
    double unit = 1.0;
    if (largest > 0.0) {
        // No float is subnormal as a double. 2^-(e + 1) with 2^e <= largest < 2^(e + 1), from the exponent's bits.
        std::uint64_t bits;
        std::memcpy(&bits, &largest, sizeof bits);
        bits = (2045 - (bits >> 52)) << 52;
        std::memcpy(&unit, &bits, sizeof unit);
    }
    return {unit, static_cast<float>(static_cast<double>(low) * unit),
            static_cast<float>(static_cast<double>(high) * unit)};
}

MIDGRAIN_HD float scale_gradient(float value, const GradientScale& scale) {
    const float scaled = static_cast<float>(static_cast<double>(value) * scale.unit);
    return (scaled - scale.low) / (scale.high - scale.low) * 100.0f;
}

}  // namespace midgrain::core

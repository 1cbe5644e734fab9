// Shapes and typed views without ownership.
#pragma once

#include <cstdint>

#include "core/hd.hpp"

namespace midgrain::core {

// The spatial shape of one item in pixels. An image is a volume with z == 1: it gives the same labels.
struct Dims {
    std::int64_t z, y, x;

    MIDGRAIN_HD_MEMBER std::int64_t size() const { return z * y * x; }
    MIDGRAIN_HD_MEMBER std::int64_t operator[](int axis) const { return axis == 0 ? z : axis == 1 ? y : x; }
};

// Contiguous channels-first features of a batch: [items, channels, z, y, x].
template <class T>
struct FeatureRef {
    const T* data;
    std::int64_t items;
    int channels;
    Dims dims;

    MIDGRAIN_HD_MEMBER const T* plane(std::int64_t item, int channel) const {
        return data + (item * channels + channel) * dims.size();
    }
};

}  // namespace midgrain::core

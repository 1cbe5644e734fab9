// Where SLIC's features come from: rows of float32, made when they are asked for.
#pragma once

#include <cstdint>

#include "core/array_ref.hpp"

namespace midgrain::cpu {

class FeatureRows {
public:
    virtual ~FeatureRows() = default;
    // Writes to values[c] where row (z, y) of channel c lies: [x]. `scratch` has room for the rows of all channels,
    // `stride` apart. False: a value that went into the row is NaN or infinite.
    virtual bool row(std::int64_t z, std::int64_t y, float* scratch, std::int64_t stride,
                     const float** values) const = 0;
};

// Rows of one item of a channels-first array.
class PlaneRows final : public FeatureRows {
public:
    PlaneRows(const core::FeatureRef<float>& features, std::int64_t item) : features_(features), item_(item) {}

    bool row(std::int64_t z, std::int64_t y, float*, std::int64_t, const float** values) const override {
        const core::Dims& dims = features_.dims;
        for (int c = 0; c < features_.channels; ++c) {
            values[c] = features_.plane(item_, c) + (z * dims.y + y) * dims.x;
        }
        return true;
    }

private:
    const core::FeatureRef<float>& features_;
    std::int64_t item_;
};

}  // namespace midgrain::cpu

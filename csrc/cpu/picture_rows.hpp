// Colour pictures and gradient maps as rows of SLIC features: L, a, b and g.
#pragma once

#include <cstdint>

#include "cpu/feature_rows.hpp"
#include "cpu/kernels.hpp"
#include "cpu/pixel_rows.hpp"

namespace midgrain::cpu {

// Tables of core::srgb_decode: at kSrgbCells steps of 0 .. 1 and at the 256 values of a byte.
const float* srgb_table();
const float* srgb_byte_table();

// What a gradient map's values become; throws InvalidValue for NaN or infinity.
core::GradientScale find_gradient_scale(const float* values, std::int64_t n, std::int64_t item, int threads);

// Linear-light r, g, b of n pixels from pixel `first` of an item on. False: NaN or infinity among them.
bool decode_pixels(const Pictures& pictures, std::int64_t item, std::int64_t first, std::int64_t n, float* const* out);

// Rows of one item: three of Lab where there is a picture, one of the gradient where `gradient` is not null.
class PictureRows final : public FeatureRows {
public:
    PictureRows(const Pictures& pictures, std::int64_t item, const core::GradientScale* gradient)
        : pictures_(pictures), item_(item), gradient_(gradient) {}

    bool row(std::int64_t z, std::int64_t y, float* scratch, std::int64_t stride, const float** values) const override;

private:
    const Pictures& pictures_;
    std::int64_t item_;
    const core::GradientScale* gradient_;
};

}  // namespace midgrain::cpu

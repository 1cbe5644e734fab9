// Rows of pictures and gradient maps on their way to SLIC, compiled once per instruction set. All variants do the
// same IEEE operations one by one (no contraction, no library calls) and so give the same bits.
#pragma once

#include <cstdint>

#include "core/gradient.hpp"
#include "cpu/variants.hpp"

namespace midgrain::cpu {

// Linear-light sRGB of one row: out_c[i] = decode(in[i * pixel_stride + c * channel_stride] ...).
using DecodeBytes = void (*)(const std::uint8_t* in, std::int64_t pixel_stride, std::int64_t channel_stride,
                             std::int64_t n, const float* table, float* const* out);
// The same for floats, value * scale[c] + offset[c] being in [0, 1] (clamped). False: NaN or infinity among them.
using DecodeFloats = bool (*)(const float* in, std::int64_t pixel_stride, std::int64_t channel_stride, std::int64_t n,
                              const float* scale, const float* offset, const float* table, float* const* out);
// CIELAB in place of linear r, g, b.
using LinearToLab = void (*)(float* const* planes, std::int64_t n);

// core::scale_gradient of a row.
using ScaleGradient = void (*)(const float* in, std::int64_t n, const core::GradientScale& scale, float* out);

// Lowers low and raises high to the values; false: NaN or infinity among them.
using FindRange = bool (*)(const float* in, std::int64_t n, float& low, float& high);

struct PixelKernels {
    DecodeBytes decode_bytes;
    DecodeFloats decode_floats;
    LinearToLab linear_to_lab;
    ScaleGradient scale_gradient;
    FindRange find_range;
};

MIDGRAIN_DECLARE_VARIANTS(PixelKernels, kPixelKernels)

// The variant in use (see instruction_set()).
const PixelKernels& pixel_kernels();

}  // namespace midgrain::cpu

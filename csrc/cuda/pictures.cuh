// Colours of pictures on the device: sRGB to CIELAB (core/color.hpp) with its table in the workspace.
#pragma once

#include "core/color.hpp"
#include "cuda/kernels.hpp"
#include "cuda/launch.cuh"
#include "cuda/ranges.cuh"

namespace midgrain::cuda {

constexpr int kSrgbEntries = core::kSrgbCells + 2;

// Fills table [kSrgbEntries].
void launch_fill_srgb_table(float* table, Stream stream);

// CIELAB of one pixel; raises `poison` where a value is NaN or infinite, which then counts as 0.
__device__ inline core::Lab lab_at(const core::Pictures& pictures, const float* table, std::int64_t item,
                                   std::int64_t pixel, bool& poison) {
    const std::int64_t pixels = pictures.dims.size();
    const std::int64_t pixel_stride = pictures.channels_last ? 3 : 1;
    const std::int64_t channel_stride = pictures.channels_last ? 1 : pixels;
    const std::int64_t at = item * 3 * pixels + pixel * pixel_stride;
    float value[3];
    for (int c = 0; c < 3; ++c) {
        if (pictures.bytes != nullptr) {
            value[c] = static_cast<float>(pictures.bytes[at + c * channel_stride]) / 255.0f;
            continue;
        }
        const float raw = pictures.floats[at + c * channel_stride];
        const bool finite = is_finite(raw);
        poison |= !finite;
        value[c] = finite ? raw * pictures.scale[c] + pictures.offset[c] : 0.0f;
        // Infinity is clamped, but a NaN (infinity less infinity) must not become an index into the table.
        if (!(value[c] == value[c])) value[c] = 0.0f;
    }
    return core::srgb_to_lab(value[0], value[1], value[2], table);
}

}  // namespace midgrain::cuda

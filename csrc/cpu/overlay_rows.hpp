// Rows of overlays (core/overlay.hpp), compiled once per instruction set; all variants give the same bits.
#pragma once

#include <cstdint>

#include "cpu/variants.hpp"

namespace midgrain::cpu {

// Whole vectors are written.
inline constexpr std::int64_t kOverlaySlack = 16;

struct OverlayKernels {
    // out = keep * picture + colours, n values.
    void (*blend)(const std::uint8_t* picture, const float* colours, float keep, std::int64_t n, float* out);
    // core::to_byte of n values.
    void (*to_bytes)(const float* values, std::int64_t n, std::uint8_t* out);
    // out[i] = from[at[i]].
    void (*gather)(const std::int32_t* from, const std::int32_t* at, std::int64_t n, std::int32_t* out);
    // The numbers of those of n labels that differ from the one below or the next one; returns how many. out has room
    // for n + kOverlaySlack.
    std::int64_t (*find_borders)(const std::int32_t* labels, const std::int32_t* below, std::int64_t n,
                                 std::int32_t* out);
};

MIDGRAIN_DECLARE_VARIANTS(OverlayKernels, kOverlayKernels)

// The variant in use (see instruction_set()).
const OverlayKernels& overlay_kernels();

}  // namespace midgrain::cpu

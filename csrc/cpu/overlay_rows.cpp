// Compiled once per instruction set with MIDGRAIN_ISA naming the namespace; see vector.hpp.
#include "cpu/overlay_rows.hpp"

#include "core/overlay.hpp"
#include "cpu/vector.hpp"

namespace midgrain::cpu::MIDGRAIN_ISA {
namespace {

void blend(const std::uint8_t* __restrict picture, const float* __restrict colours, float keep, std::int64_t n,
           float* __restrict out) {
    for (std::int64_t i = 0; i < n; ++i) out[i] = keep * static_cast<float>(picture[i]) + colours[i];
}

void to_bytes(const float* __restrict values, std::int64_t n, std::uint8_t* __restrict out) {
    for (std::int64_t i = 0; i < n; ++i) out[i] = core::to_byte(values[i]);
}

void gather(const std::int32_t* __restrict from, const std::int32_t* __restrict at, std::int64_t n,
            std::int32_t* __restrict out) {
    for (std::int64_t i = 0; i < n; ++i) out[i] = from[at[i]];
}

std::int64_t find_borders(const std::int32_t* labels, const std::int32_t* below, std::int64_t n, std::int32_t* out) {
    const Signed lane = lane_numbers();
    std::int32_t* end = out;
    std::int64_t x = 0;
    for (; x + kLanes < n; x += kLanes) {
        const Unsigned here = load<Unsigned>(labels + x);
        const Mask same = to_mask(equal(here, load<Unsigned>(labels + x + 1)) & equal(here, load<Unsigned>(below + x)));
        const Mask borders = kAllLanes & ~same;
        store_chosen(end, lane + static_cast<std::int32_t>(x), borders);
        end += count_bits(borders);
    }
    for (; x < n; ++x) {
        const bool border = labels[x] != below[x] || (x + 1 < n && labels[x] != labels[x + 1]);
        if (border) *end++ = static_cast<std::int32_t>(x);
    }
    return end - out;
}

}  // namespace

const OverlayKernels kOverlayKernels = {blend, to_bytes, gather, find_borders};

}  // namespace midgrain::cpu::MIDGRAIN_ISA

// Compiled once per instruction set with MIDGRAIN_ISA naming the namespace; see vector.hpp.
#include "cpu/slic_tiles.hpp"
#include "cpu/vector.hpp"

namespace midgrain::cpu::MIDGRAIN_ISA {
namespace {

// What a row of one channel gathers on its way.
struct Gathered {
    Signed lowest, highest, poison;
};

// core::quantise for narrow features, the same bits: adding and taking away 1.5 * 2^23 rounds a float below 2^22 to
// the nearest integer, ties to even.
[[gnu::always_inline]] inline Signed quantise(const PackChannel& channel, Float value, std::int32_t* column_sums,
                                              Gathered& gathered) {
    constexpr float kRounder = 12582912.0f;
    gathered.poison |= ((Signed)value & 0x7F800000) == 0x7F800000;
    // Written so that NaN, which `poison` tells of, becomes the lowest value: as an integer it would overflow the sums.
    const Float raised = value > channel.low ? value : Float{} + channel.low;
    const Float clamped = raised > channel.high ? Float{} + channel.high : raised;
    const Float rounded = ((clamped - channel.middle) * channel.scale + kRounder) - kRounder;
    const Signed q = __builtin_convertvector(rounded, Signed);
    store(column_sums, load<Signed>(column_sums) + q);
    gathered.lowest = minimum(gathered.lowest, q);
    gathered.highest = maximum(gathered.highest, q);
    return q;
}

// The pixels from i on; beyond the row its last one.
[[gnu::always_inline]] inline Float load_pixels(const float* values, std::int64_t i, std::int64_t n) {
    if (i + kLanes <= n) return load<Float>(values + i);
    Float result = Float{} + values[n - 1];
    for (std::int64_t j = i; j < n; ++j) result[j - i] = values[j];
    return result;
}

Gathered begin(const PackChannel& channel) { return {broadcast(channel.lowest), broadcast(channel.highest), Signed{}}; }

bool end(PackChannel& channel, const Gathered& gathered) {
    std::int32_t poison = 0;
    for (int i = 0; i < kLanes; ++i) {
        channel.lowest = gathered.lowest[i] < channel.lowest ? gathered.lowest[i] : channel.lowest;
        channel.highest = gathered.highest[i] > channel.highest ? gathered.highest[i] : channel.highest;
        poison |= gathered.poison[i];
    }
    return poison == 0;
}

bool pack_row(PackChannel& even, PackChannel* odd, std::int64_t n, int shift, std::int64_t tile_words,
              std::int32_t* out) {
    // Each tile's next row is asked for: hardware does not foresee so long steps.
    const std::int64_t next_row = tile_words / kTileRows;
    Gathered first = begin(even);
    if (odd == nullptr) {
        for (std::int64_t i = 0; i < n; i += kLanes, out += tile_words) {
            __builtin_prefetch(out + next_row, 1);
            const Signed q = quantise(even, load_pixels(even.values, i, n), even.column_sums + i, first);
            store(out, ((Unsigned)q << shift) & 0xFFFFu);
        }
        return end(even, first);
    }
    Gathered second = begin(*odd);
    for (std::int64_t i = 0; i < n; i += kLanes, out += tile_words) {
        const Signed low = quantise(even, load_pixels(even.values, i, n), even.column_sums + i, first);
        const Signed high = quantise(*odd, load_pixels(odd->values, i, n), odd->column_sums + i, second);
        __builtin_prefetch(out + next_row, 1);
        store(out, (((Unsigned)low << shift) & 0xFFFFu) | (Unsigned)high << (shift + 16));
    }
    const bool finite = end(even, first);
    return end(*odd, second) && finite;
}

}  // namespace

const PackRow kPackRow = pack_row;

}  // namespace midgrain::cpu::MIDGRAIN_ISA

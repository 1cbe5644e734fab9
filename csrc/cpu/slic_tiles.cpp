// Compiled once per instruction set with MIDGRAIN_ISA naming the namespace. It calls no inline function from
// elsewhere: the linker could otherwise keep a wide-vector copy of one for the baseline code too.
#include "cpu/slic_tiles.hpp"

#include "cpu/slic_candidates.hpp"
#include "cpu/vector.hpp"

namespace midgrain::cpu::MIDGRAIN_ISA {
namespace {

constexpr int kBlock = 8;  // rows compared at once: what the registers hold

[[gnu::always_inline]] inline std::int32_t smaller(std::int32_t a, std::int32_t b) { return a < b ? a : b; }

// Candidates of one group, as the comparison reads them.
template <int kPairs>
struct Group {
    alignas(64) std::uint32_t along_x[kMaxGroup][kLanes];
    alignas(64) std::uint32_t along_y[kMaxGroup][kTileRows];
    std::uint32_t coefficients[kMaxGroup][kPairs > 0 ? kPairs : 1];
};

template <int kPairs>
[[gnu::always_inline]] inline void prepare(const AssignTilesJob& job, const TilePlace& place,
                                           const std::int32_t* candidates, std::int32_t count, Group<kPairs>& group) {
    const int bits = job.key.bits();
    const Signed window = broadcast(job.window);
    const Unsigned beyond = broadcast(job.key.beyond);
    const Signed x = load<Signed>(job.position[2] + place.tile_x * kLanes);
    const std::int32_t* y = job.position[1] + place.tile_y * kTileRows;
    for (std::int32_t j = 0; j < count; ++j) {
        const std::int32_t k = candidates[j];
        const Signed dx = x - job.centres.position[2][k];
        const Unsigned square_x = ((Unsigned)dx * (Unsigned)dx) << bits;
        store(group.along_x[j], choose(at_most(maximum(dx, -dx), window), square_x, beyond));
        const auto dz = static_cast<std::uint32_t>(place.here_z - job.centres.position[0][k]);
        const std::uint32_t base = job.centres.base[k] + (dz * dz << bits) + static_cast<std::uint32_t>(j);
        for (int part = 0; part < kTileRows; part += kLanes) {
            const Signed dy = load<Signed>(y + part) - job.centres.position[1][k];
            const Unsigned square_y = ((Unsigned)dy * (Unsigned)dy) << bits;
            store(group.along_y[j] + part, choose(at_most(maximum(dy, -dy), window), square_y, beyond) + base);
        }
        for (int p = 0; p < kPairs; ++p) group.coefficients[j][p] = job.centres.coefficients[k * kPairs + p];
    }
}

// What the comparison of a tile found, per pixel: the smallest key and the number of the candidate that it belongs to,
// which is in the key's lower bits, too, where there is one group of candidates only.
struct Nearest {
    alignas(64) std::uint32_t key[kTileRows * kLanes];
    alignas(64) std::uint32_t index[kTileRows * kLanes];
};

// Compares kBlock rows of a tile with one group of candidates, those from number `first` on.
template <int kPairs>
[[gnu::always_inline]] inline void compare(const AssignTilesJob& job, const std::int32_t* features, int row,
                                           std::int32_t first, std::int32_t count, const Group<kPairs>& group,
                                           Nearest& nearest) {
    // The best key of earlier groups takes part without its candidate's number: of this group a candidate must then be
    // strictly closer, so of equally near centres the lowest index stays.
    const Unsigned low = broadcast(static_cast<std::uint32_t>(job.key.group() - 1));
    Unsigned best[kBlock];
#pragma GCC unroll 16
    for (int r = 0; r < kBlock; ++r) {
        best[r] = first == 0 ? ~Unsigned{} : load<Unsigned>(nearest.key + (row + r) * kLanes) & ~low;
    }
    if constexpr (kPairs > 0) {
        Unsigned pixels[kBlock][kPairs];
#pragma GCC unroll 16
        for (int r = 0; r < kBlock; ++r) {
#pragma GCC unroll 4
            for (int p = 0; p < kPairs; ++p) {
                pixels[r][p] = load<Unsigned>(features + ((row + r) * kPairs + p) * kLanes);
            }
        }
        for (std::int32_t j = 0; j < count; ++j) {
            const Unsigned x = load<Unsigned>(group.along_x[j]);
            Unsigned coefficient[kPairs];
#pragma GCC unroll 4
            for (int p = 0; p < kPairs; ++p) coefficient[p] = broadcast(group.coefficients[j][p]);
#pragma GCC unroll 16
            for (int r = 0; r < kBlock; ++r) {
                Unsigned key = x + broadcast(group.along_y[j][row + r]);
#pragma GCC unroll 4
                for (int p = 0; p < kPairs; ++p) key = add_products(key, pixels[r][p], coefficient[p]);
                best[r] = minimum(best[r], key);
            }
        }
    } else {
        const int pairs = job.grid.pairs;
        for (int r = 0; r < kBlock; ++r) {
            for (std::int32_t j = 0; j < count; ++j) {
                const std::uint32_t* coefficients =
                    job.centres.coefficients + std::int64_t{job.candidates[first + j]} * pairs;
                Unsigned key = load<Unsigned>(group.along_x[j]) + broadcast(group.along_y[j][row + r]);
                for (int p = 0; p < pairs; ++p) {
                    key = add_products(key, load<Unsigned>(features + ((row + r) * pairs + p) * kLanes),
                                       broadcast(coefficients[p]));
                }
                best[r] = minimum(best[r], key);
            }
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < kBlock; ++r) {
        std::uint32_t* keys = nearest.key + (row + r) * kLanes;
        std::uint32_t* indices = nearest.index + (row + r) * kLanes;
        Unsigned index = best[r] & low;
        if (first > 0) {
            const Condition same = equal(best[r], load<Unsigned>(keys) & ~low);
            index = choose(same, load<Unsigned>(indices), index + static_cast<std::uint32_t>(first));
        }
        store(indices, index);
        store(keys, best[r]);
    }
}

template <int kPairs>
void find_nearest(const AssignTilesJob& job, const std::int32_t* features, const TilePlace& place, std::int32_t count,
                  Nearest& nearest) {
    const std::int32_t size = job.key.group();
    Group<kPairs> group;
    for (std::int32_t first = 0; first < count; first += size) {
        const std::int32_t here = smaller(size, count - first);
        prepare<kPairs>(job, place, job.candidates + first, here, group);
        for (int row = 0; row < kTileRows; row += kBlock) {
            compare<kPairs>(job, features, row, first, here, group, nearest);
        }
    }
}

// Moves a pixel from one centre's sums to another's. `words`: its features, kLanes apart.
template <int kPairs>
[[gnu::always_inline]] inline void move_pixel(const std::int64_t* from_x, const std::int64_t* from_y, std::int64_t z,
                                              const std::int32_t* words, int pairs, std::int64_t* out_of,
                                              std::int64_t* into) {
    using Four = std::int64_t __attribute__((vector_size(32)));
    const Four header = load<Four>(from_x) + load<Four>(from_y) + Four{0, z, 0, 0};
    store(out_of, load<Four>(out_of) - header);
    store(into, load<Four>(into) + header);
    int p = 0;
#if defined(__AVX2__)
    const int n = kPairs > 0 ? kPairs : pairs;
    for (; p + 1 < n; p += 2) {
        const __m128i two =
            _mm_unpacklo_epi32(_mm_cvtsi32_si128(words[p * kLanes]), _mm_cvtsi32_si128(words[(p + 1) * kLanes]));
        const Four features = (Four)_mm256_cvtepi16_epi64(two);
        std::int64_t *from = out_of + kSumHeader + 2 * p, *to = into + kSumHeader + 2 * p;
        store(from, load<Four>(from) - features);
        store(to, load<Four>(to) + features);
    }
#else
    const int n = kPairs > 0 ? kPairs : pairs;
#endif
    for (; p < n; ++p) {
        const std::int32_t word = words[p * kLanes];
        const std::int64_t even = static_cast<std::int16_t>(word), odd = word >> 16;
        out_of[kSumHeader + 2 * p] -= even;
        out_of[kSumHeader + 2 * p + 1] -= odd;
        into[kSumHeader + 2 * p] += even;
        into[kSumHeader + 2 * p + 1] += odd;
    }
}

// Adds the candidates whose bits are set to the owners; if they are more than fit, no owner is known. Returns whether
// they fit.
bool remember(const std::int32_t* candidates, std::uint32_t used, TileState& state) {
    if (__builtin_popcount(used) > kMaxOwners - state.owner_count) {
        state.owner_count = 0;
        return false;
    }
    for (; used != 0; used &= used - 1) state.owners[state.owner_count++] = candidates[__builtin_ctz(used)];
    return true;
}

// The owners of a tile with more candidates than a word has bits.
void remember_many(const std::int32_t* candidates, std::int32_t count, const Nearest& nearest, TileState& state) {
    if (count <= 64) {
        Unsigned used[2] = {};
        for (int r = 0; r < kTileRows; ++r) {
            const Unsigned index = load<Unsigned>(nearest.index + r * kLanes);
            const Unsigned bit = single_bit(index & 31);
            const Condition first = below(index, broadcast(std::uint32_t{32}));
            used[0] |= choose(first, bit, Unsigned{});
            used[1] |= choose(first, Unsigned{}, bit);
        }
        if (remember(candidates + 32, any_bit(used[1]), state)) remember(candidates, any_bit(used[0]), state);
        return;
    }
    std::int32_t found = 0;
    for (const std::uint32_t index : nearest.index) {
        const std::int32_t label = candidates[index];
        std::int32_t at = found - 1;
        while (at >= 0 && state.owners[at] != label) --at;
        if (at >= 0) continue;
        if (found == kMaxOwners) return;
        state.owners[found++] = label;
    }
    state.owner_count = found;
}

// What one walk over a tile's result gathers.
struct Summary {
    Unsigned highest;      // D^2 - |q|^2 + offset
    Unsigned farthest;     // D^2 + offset
    Unsigned used;         // bits of the candidates that own pixels; only where they are at most 32
    std::int32_t changes;  // pixels whose label is another one
};

// Lists the pixels whose label changes, and describes the tile for the next round.
template <int kPairs>
[[gnu::always_inline]] inline Summary summarise(const AssignTilesJob& job, const TilePlace& place,
                                                const std::int32_t* features, std::int32_t count,
                                                const Nearest& nearest, const std::int32_t* labels,
                                                std::uint8_t* changed) {
    const int pairs = kPairs > 0 ? kPairs : job.grid.pairs;
    const int bits = job.key.bits(), shift = 2 * job.key.feature_shift;
    const int rows = smaller(kTileRows, static_cast<std::int32_t>(job.grid.dims.y - place.tile_y * kTileRows));
    const int columns = smaller(kLanes, static_cast<std::int32_t>(job.grid.dims.x - place.tile_x * kLanes));
    const Condition inside = at_most(lane_numbers(), broadcast(columns - 1));
    Summary summary{};
    for (int r = 0; r < kTileRows; ++r) {
        // The next tile's row: neither all at once, which no processor takes, nor too late. Past the end it does no
        // harm.
        for (int p = 0; p < pairs; ++p) __builtin_prefetch(features + ((kTileRows + r) * pairs + p) * kLanes);
        __builtin_prefetch(labels + (kTileRows + r) * kLanes, 1);
        const Unsigned value = load<Unsigned>(nearest.key + r * kLanes) >> bits;
        const Unsigned index = load<Unsigned>(nearest.index + r * kLanes);
        // |q|^2 times 2^shift is below 2^31.
        Unsigned square{};
        for (int p = 0; p < pairs; ++p) {
            const Unsigned words = load<Unsigned>(features + (r * pairs + p) * kLanes);
            square = add_products(square, words, words);
        }
        summary.highest = maximum(summary.highest, value);
        summary.farthest = maximum(summary.farthest, value + (square >> shift));
        summary.used |= single_bit(index & 31);
        if (r >= rows) continue;
        Signed label;
        if (count <= kMaxGroup) {
            label = look_up(job.candidates, index);
        } else {
            for (int i = 0; i < kLanes; ++i) label[i] = job.candidates[index[i]];
        }
        const Condition differs = differ(inside, label, load<Signed>(labels + r * kLanes));
        store_chosen_numbers(changed + summary.changes, static_cast<std::uint32_t>(r * kLanes), differs);
        summary.changes += count_bits(to_mask(differs));
    }
    return summary;
}

// Gives the changed pixels their new labels, and their new centres what they bring along.
template <int kPairs>
[[gnu::always_inline]] inline void move_pixels(const AssignTilesJob& job, const TilePlace& place,
                                               const std::int32_t* features, const Nearest& nearest,
                                               const std::uint8_t* changed, std::int32_t changes,
                                               std::int32_t* labels) {
    const int pairs = kPairs > 0 ? kPairs : job.grid.pairs;
    const std::int64_t* from_x = job.position_sums + place.tile_x * kLanes * kSumHeader;
    const std::int64_t* from_y = job.position_sums + (job.grid.padded_x() + place.tile_y * kTileRows) * kSumHeader;
    const std::int64_t width = kSumHeader + 2 * pairs;
    for (std::int32_t i = 0; i < changes; ++i) {
        const std::uint32_t at = changed[i];
        const std::uint32_t r = at / kLanes, column = at % kLanes;
        const std::int32_t fresh = job.candidates[nearest.index[at]];
        if (job.sums != nullptr) {
            move_pixel<kPairs>(from_x + column * kSumHeader, from_y + r * kSumHeader, place.here_z,
                               features + r * static_cast<std::uint32_t>(pairs * kLanes) + column, pairs,
                               job.sums + labels[at] * width, job.sums + fresh * width);
        }
        labels[at] = fresh;
    }
}

template <int kPairs, bool kVolume>
bool assign_tile(const AssignTilesJob& job, std::int64_t tile) {
    const int pairs = kPairs > 0 ? kPairs : job.grid.pairs;
    const std::int32_t* features = job.features + tile * kTileRows * pairs * kLanes;
    std::int32_t* labels = job.labels + tile * kTileRows * kLanes;
    TileState& state = job.states[tile];
    const TilePlace place = place_of(job, tile);
    const std::int32_t count = find_candidates<kVolume>(job, place, distance_limit(job, place, state));
    state.owner_count = 0;
    if (count == 0) return false;  // nobody reaches the tile: every pixel keeps its label
    Nearest nearest;
    find_nearest<kPairs>(job, features, place, count, nearest);

    static_assert(kTileRows * kLanes <= 256);
    alignas(64) std::uint8_t changed[kTileRows * kLanes + kLanes];
    const Summary summary = summarise<kPairs>(job, place, features, count, nearest, labels, changed);
    std::int32_t changes = summary.changes;
    const std::uint32_t unreached = job.key.beyond >> job.key.bits();
    if (largest(summary.highest) < unreached) {
        state.farthest = static_cast<std::int32_t>(largest(summary.farthest) - job.key.offset);
        if (count <= 32) {
            remember(job.candidates, any_bit(summary.used), state);
        } else {
            remember_many(job.candidates, count, nearest, state);
        }
    } else {
        // A pixel that no centre reaches keeps its label.
        std::int32_t kept = 0;
        for (std::int32_t i = 0; i < changes; ++i) {
            if (nearest.key[changed[i]] < job.key.beyond) changed[kept++] = changed[i];
        }
        changes = kept;
    }
    move_pixels<kPairs>(job, place, features, nearest, changed, changes, labels);
    return changes > 0;
}

template <int kPairs, bool kVolume>
bool assign_range(const AssignTilesJob& job, std::int64_t first, std::int64_t last) {
    bool moved = false;
    for (std::int64_t tile = first; tile < last; ++tile) moved |= assign_tile<kPairs, kVolume>(job, tile);
    return moved;
}

template <bool kVolume>
bool assign_pairs(const AssignTilesJob& job, std::int64_t first, std::int64_t last) {
    switch (job.grid.pairs) {
        case 1: return assign_range<1, kVolume>(job, first, last);
        case 2: return assign_range<2, kVolume>(job, first, last);
        case 3: return assign_range<3, kVolume>(job, first, last);
        case 4: return assign_range<4, kVolume>(job, first, last);
        default: return assign_range<0, kVolume>(job, first, last);
    }
}

bool assign(const AssignTilesJob& job, std::int64_t first, std::int64_t last) {
    return job.grid.dims.z > 1 ? assign_pairs<true>(job, first, last) : assign_pairs<false>(job, first, last);
}

}  // namespace

const TileKernels kTileKernels = {kLanes, assign};

}  // namespace midgrain::cpu::MIDGRAIN_ISA

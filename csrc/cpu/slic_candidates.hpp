// Which centres may win a pixel of a tile. As vector.hpp, everything has internal linkage: a part of slic_tiles.cpp.
#pragma once

#include <cstdint>

#include "cpu/slic_tiles.hpp"
#include "cpu/vector.hpp"

namespace midgrain::cpu::MIDGRAIN_ISA {
namespace {

constexpr std::int32_t kNoLimit = INT32_MAX;

[[gnu::always_inline]] inline float larger(float a, float b) { return a > b ? a : b; }

// Where a tile lies and the positions that bound it.
struct TilePlace {
    std::int64_t tile, z, tile_y, tile_x;
    std::int32_t here_z, low_y, high_y, low_x, high_x;
};

TilePlace place_of(const AssignTilesJob& job, std::int64_t tile) {
    const std::int64_t row = tile / job.grid.tiles_x;
    TilePlace place{tile, row / job.grid.tiles_y, row % job.grid.tiles_y, tile % job.grid.tiles_x, 0, 0, 0, 0, 0};
    const std::int32_t* y = job.position[1] + place.tile_y * kTileRows;
    const std::int32_t* x = job.position[2] + place.tile_x * kLanes;
    place.here_z = job.position[0][place.z];
    place.low_y = y[0];
    place.high_y = y[kTileRows - 1];
    place.low_x = x[0];
    place.high_x = x[kLanes - 1];
    return place;
}

// Is every pixel of the tile within the centre's window?
bool reaches_all(const AssignTilesJob& job, const TilePlace& place, std::int32_t k) {
    const std::int32_t z = job.centres.position[0][k], y = job.centres.position[1][k];
    const std::int32_t x = job.centres.position[2][k], window = job.window;
    return place.high_x - x <= window && x - place.low_x <= window && place.high_y - y <= window &&
           y - place.low_y <= window && place.here_z - z <= window && z - place.here_z <= window;
}

// A bound of the D^2 that any pixel of the tile now has to the nearest centre that reaches it: what it has to the
// centre it belonged to, where that one still reaches it for certain; else kNoLimit. Centres farther away than that
// cannot win. Rounding is upwards, so that the bound holds whatever the floats do.
std::int32_t distance_limit(const AssignTilesJob& job, const TilePlace& place, const TileState& state) {
    if (state.owner_count == 0) return kNoLimit;
    float moved = 0.0f;
    for (std::int32_t i = 0; i < state.owner_count; ++i) moved = larger(moved, job.centres.moved[state.owners[i]]);
    const float distance = (__builtin_sqrtf(static_cast<float>(state.farthest)) + moved) * 1.000001f;
    const float limit = distance * distance * 1.000001f + 1.0f;
    const float reach = static_cast<float>(job.window) * static_cast<float>(job.window);
    if (limit >= 3.0f * reach) return kNoLimit;
    if (limit >= 0.999999f * reach) {
        for (std::int32_t i = 0; i < state.owner_count; ++i) {
            if (!reaches_all(job, place, state.owners[i])) return kNoLimit;
        }
    }
    return static_cast<std::int32_t>(limit);
}

// Distance from a centre to the nearest position in [low, high], at most cap.
[[gnu::always_inline]] inline Signed gap(Signed centre, std::int32_t low, std::int32_t high, std::int32_t cap) {
    const Signed outside = maximum(broadcast(low) - centre, centre - broadcast(high));
    return minimum(maximum(outside, Signed{}), broadcast(cap));
}

// Centres that may win a pixel of the tile, in their order; returns how many.
template <bool kVolume>
std::int32_t find_candidates(const AssignTilesJob& job, const TilePlace& place, std::int32_t limit) {
    const std::int32_t window = job.window;
    const CellRange range_z = job.reach[0][place.z];
    const CellRange range_y = job.reach[1][place.tile_y], range_x = job.reach[2][place.tile_x];
    const Signed lane = lane_numbers();
    std::int32_t* out = job.candidates;
    for (std::int64_t cell_z = range_z.first; cell_z < range_z.last; ++cell_z) {
        for (std::int64_t cell_y = range_y.first; cell_y < range_y.last; ++cell_y) {
            const std::int64_t row = (cell_z * job.cells.y + cell_y) * job.cells.x;
            const auto last = static_cast<std::int32_t>(row + range_x.last);
            for (auto k = static_cast<std::int32_t>(row + range_x.first); k < last; k += kLanes) {
                const Signed dx = gap(load<Signed>(job.centres.position[2] + k), place.low_x, place.high_x, window + 1);
                const Signed dy = gap(load<Signed>(job.centres.position[1] + k), place.low_y, place.high_y, window + 1);
                Signed farthest = maximum(dx, dy), distance = dx * dx + dy * dy;
                if constexpr (kVolume) {
                    const Signed dz =
                        gap(load<Signed>(job.centres.position[0] + k), place.here_z, place.here_z, window + 1);
                    farthest = maximum(farthest, dz);
                    distance += dz * dz;
                }
                const Mask present = kAllLanes >> (last - k < kLanes ? kLanes - (last - k) : 0);
                const Mask mask = to_mask(at_most(farthest, broadcast(window)) & at_most(distance, broadcast(limit)));
                store_chosen(out, lane + k, mask & present);
                out += count_bits(mask & present);
            }
        }
    }
    return static_cast<std::int32_t>(out - job.candidates);
}

}  // namespace
}  // namespace midgrain::cpu::MIDGRAIN_ISA

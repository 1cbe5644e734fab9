// SLIC with narrow features on tiles: what the kernels of every instruction set share with the code that drives
// them (cpu/slic_narrow.cpp). All variants do the same integer arithmetic and so give the same labels.
//
// A tile is `lanes` x 16 pixels of one frame. Its features are stored together, row by row, as pairs of int16 in an
// int32; pixels beyond the picture repeat its last column and row. D^2 is compared in the expanded form
//
//   D^2 - |q|^2 = (|C|^2 - 2 q.C) + sum_a (q_a - C_a)^2          q, C: features; q_a, C_a: positions
//
// kept in the upper bits of a 32-bit key whose lower bits number the candidate, so that one unsigned minimum finds
// the nearest centre and, of equals, the lowest.
#pragma once

#include <cstdint>

#include "core/array_ref.hpp"
#include "core/hd.hpp"
#include "cpu/variants.hpp"

namespace midgrain::cpu {

inline constexpr int kTileRows = 16;
inline constexpr int kMaxLanes = 16;
// Candidates that one key can number at most, and the most owners of a tile that are remembered.
inline constexpr int kLargestKeyBits = 5;
inline constexpr int kMaxGroup = 1 << kLargestKeyBits;
inline constexpr int kMaxOwners = 16;
// Entries before the features in a centre's sums: members, then positions z, y, x.
inline constexpr int kSumHeader = 4;

struct TileGrid {
    core::Dims dims;
    int lanes;  // pixels of a tile's row
    int pairs;  // feature channels, in pairs
    std::int64_t tiles_x, tiles_y;

    MIDGRAIN_HD_MEMBER std::int64_t count() const { return dims.z * tiles_y * tiles_x; }
    MIDGRAIN_HD_MEMBER std::int64_t tile_rows() const { return dims.z * tiles_y; }
    MIDGRAIN_HD_MEMBER std::int64_t padded_x() const { return tiles_x * lanes; }
    MIDGRAIN_HD_MEMBER std::int64_t padded_y() const { return tiles_y * kTileRows; }
    MIDGRAIN_HD_MEMBER std::int64_t tile_words() const { return std::int64_t{kTileRows} * pairs * lanes; }
    MIDGRAIN_HD_MEMBER std::int64_t sum_width() const { return kSumHeader + 2 * pairs; }
};

// How D^2 is packed into a key (see SlicTiles::shift).
struct KeyFormat {
    int feature_shift;      // features are stored times 2^feature_shift
    int coefficient_shift;  // coefficients -2 C times 2^coefficient_shift
    std::uint32_t offset;   // added to D^2 - |q|^2, which makes it non-negative
    std::uint32_t beyond;   // every key of a reached centre is below this; one or two of it mark an unreached one

    MIDGRAIN_HD_MEMBER int bits() const { return feature_shift + coefficient_shift; }
    MIDGRAIN_HD_MEMBER int group() const { return 1 << bits(); }
};

// Centres, one array per quantity, each with kMaxLanes spare entries at its end.
struct CentreTable {
    const std::int32_t* position[3];
    const std::uint32_t* base;          // (|C|^2 + offset) << bits
    const std::uint32_t* coefficients;  // [count, pairs] of two int16
    const float* moved;                 // how far the last update moved it, in units of D, rounded up
};

// One axis of the search: for every tile along it, the cells whose centres may reach the tile.
struct CellRange {
    std::int32_t first, last;
};

// The pixels of a tile and what the last round left in it.
struct TileState {
    std::int32_t owners[kMaxOwners];  // centres that own pixels, in any order
    std::int32_t owner_count;         // 0: not known, nor is the next
    std::int32_t farthest;            // largest D^2 of a pixel to its owner
};

struct AssignTilesJob {
    TileGrid grid;
    KeyFormat key;
    CentreTable centres;
    core::Dims cells;
    const CellRange* reach[3];          // [z], [tiles_y], [tiles_x]
    const std::int32_t* position[3];    // of every index, padded like the tiles
    const std::int64_t* position_sums;  // see TileSums
    std::int32_t window;                // 2 F
    const std::int32_t* features;       // [tile, row, pair, lane]
    TileState* states;                  // [tile]
    std::int32_t* labels;               // [tile, row, lane]
    std::int64_t* sums;                 // this worker's, [count, sum_width]; null in the last round
    std::int32_t* candidates;           // this worker's, room for all centres and kMaxLanes more
};

// Assigns the tiles [first, last); returns whether a label changed.
using AssignTiles = bool (*)(const AssignTilesJob& job, std::int64_t first, std::int64_t last);

// Centres become the rounded means of their members (core::divide_half_up); an empty one stays.
struct UpdateCentresJob {
    const std::int64_t* const* sums;  // [workers]: [count, width]
    int workers, pairs;
    std::int64_t width;
    KeyFormat key;
    core::Dims cells;
    std::int32_t* position[3];  // [count]
    std::int32_t* features;     // [count, 2 pairs]
    std::uint32_t* base;        // as in CentreTable
    std::uint32_t* coefficients;
    float* moved;
    const std::int32_t* home[3];  // where a cell's centre started, per cell index
    std::int32_t drift[3];        // out: how far one of these centres is from there at most
};
using UpdateCentres = void (*)(UpdateCentresJob& job, std::int64_t first, std::int64_t last);

// A channel of a row on its way into the tiles.
struct PackChannel {
    const float* values;  // [n]
    float low, high, middle, scale;
    std::int32_t* column_sums;     // [padded n], added to
    std::int32_t lowest, highest;  // of the quantised features so far, updated
};
// Quantises two channels of a row (core::quantise; null: no second one) and writes them as pairs of int16, times
// 2^shift: out[tile * tile_words + lane]. False: a value is NaN or infinite.
using PackRow = bool (*)(PackChannel& even, PackChannel* odd, std::int64_t n, int shift, std::int64_t tile_words,
                         std::int32_t* out);

struct TileKernels {
    int lanes;
    AssignTiles assign;
};

MIDGRAIN_DECLARE_VARIANTS(TileKernels, kTileKernels)
MIDGRAIN_DECLARE_VARIANTS(UpdateCentres, kUpdateCentres)
MIDGRAIN_DECLARE_VARIANTS(PackRow, kPackRow)

// The variant in use (see instruction_set()), all of one set: rows are packed as wide as tiles are read.
struct NarrowVariant {
    const TileKernels* tiles;
    UpdateCentres update_centres;
    PackRow pack_row;
};
NarrowVariant narrow_variant();

}  // namespace midgrain::cpu

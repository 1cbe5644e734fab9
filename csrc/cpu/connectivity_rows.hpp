// The parts of connectivity that touch every pixel or every run, compiled once per instruction set.
#pragma once

#include <cstdint>

#include "cpu/variants.hpp"

namespace midgrain::cpu {

// An item's pixels as runs: stretches of one label within a row. Runs are numbered in raster order, with gaps where
// one worker's rows end. The last run of a worker is followed by an entry of `first` that only marks its end.
struct RunTable {
    const std::int32_t* labels;  // [rows, row_stride]
    std::int64_t row_stride;
    std::int64_t rows, y, x, words;  // all rows, rows of a frame, pixels of a row, 64-bit words of a row
    std::uint64_t* begins;           // [rows, words]: bit x is set where a run begins
    std::uint32_t* rank;             // [rows, words]: the first run that begins in this word or after it
    std::uint32_t* first;            // [runs]: linear index of a run's first pixel
    std::uint32_t* parent;           // [runs]: union-find; a root is its piece's first run
};

struct RowsVariant {
    // Finds the runs of rows [first_row, last_row), numbers them from `run` on, and unites those of these rows that
    // touch over a face and have the same label. Returns the end of the numbers; writes up to 8 entries beyond it.
    std::uint32_t (*find_runs)(const RunTable&, std::int64_t first_row, std::int64_t last_row, std::uint32_t run);
    // Unites the runs of two neighbouring rows, `before` the earlier one.
    void (*unite_rows)(const RunTable&, std::int64_t before, std::int64_t row);
    // For each of `count` pieces the neighbouring piece that it shares most faces with (ties: the lowest), or itself
    // where it has no neighbour. next: a ring of every piece's runs. tallies: one per run, in use at all roots: a
    // mark in the upper half, faces in the lower. No mark may be above `mark`; afterwards `mark` + `count` is the
    // highest.
    void (*choose)(const RunTable&, const std::uint32_t* next, const std::uint32_t* pieces, std::uint32_t count,
                   std::uint64_t* tallies, std::uint32_t mark, std::uint32_t* choices);
    // Writes label[parent] of the runs [begin, end) over their pixels, and nothing outside of them.
    void (*fill)(const RunTable&, std::uint32_t begin, std::uint32_t end, const std::uint32_t* label,
                 std::int32_t* out);
};

MIDGRAIN_DECLARE_VARIANTS(RowsVariant, kRows)

// The variant in use (see instruction_set()).
const RowsVariant& rows_variant();

}  // namespace midgrain::cpu

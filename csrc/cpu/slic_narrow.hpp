// SLIC of one item whose features fit int16 (core/slic.hpp: narrow), on tiles.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "core/slic.hpp"
#include "cpu/feature_rows.hpp"
#include "cpu/kernels.hpp"
#include "cpu/parallel.hpp"
#include "cpu/slic_tiles.hpp"
#include "cpu/workspace.hpp"

namespace midgrain::cpu {

class NarrowClustering {
public:
    // `ranges`, `weights`: [channels]. Everything is allocated here: run() does not throw.
    NarrowClustering(const FeatureRows& rows, core::Dims dims, const core::SlicGeometry& geometry,
                     std::span<const Range> ranges, std::span<const double> weights, int max_num_iter, int workers,
                     Workspace& workspace);

    // Called by every worker of the team; the result is complete when all have met again.
    void run(Team& team, int index);

    // Afterwards: the index of every pixel's centre, rows of [z, y, x] counted through all frames.
    void write_labels(Share rows, std::int32_t* out) const;
    // False where a feature was NaN or infinite; then there are no labels.
    bool finite() const;

private:
    // What one worker alone writes, on cache lines of its own.
    struct alignas(64) Worker {
        std::int64_t* sums;        // [count, sum_width]
        std::int32_t* candidates;  // [count] and room for whole vectors and tables
        CellRange* reach[3];       // [z], [tiles_y], [tiles_x]
        std::int32_t* lowest;      // [channels], of the quantised features
        std::int32_t* highest;     // [channels]
        std::int32_t drift[3];     // farthest that one of its centres is from where it started
        bool finite, changed;
        std::atomic<std::int64_t> claimed;  // tiles of its share that some worker has taken
    };

    std::int64_t cell_size(int axis, std::int64_t cell) const;
    void pack(Share tile_rows, Worker& worker);
    void flush_columns(std::int64_t z, std::int64_t y, Worker& worker, std::int32_t* columns);
    void choose_key(const Team& team);
    void count_cells(Share centres, Worker& worker);
    void update(const Team& team, Share centres, Worker& worker);
    void find_reach(const Team& team, Worker& worker);
    void assign(const Team& team, int index, bool last);
    AssignTilesJob job(const Worker& worker) const;

    const FeatureRows& rows_;
    core::SlicGeometry geometry_;
    std::span<const Range> ranges_;
    std::span<const double> weights_;
    int max_num_iter_;
    int channels_;
    std::int64_t count_;
    NarrowVariant variant_;
    TileGrid grid_;
    KeyFormat key_{};

    std::int32_t* position_[3];
    std::int64_t* position_sums_;
    std::int32_t* home_[3];           // where the centres of a cell index start, per axis
    std::int64_t* cell_position_[3];  // sum of the positions in a cell, per axis
    std::int32_t* features_;
    std::int32_t* labels_;
    TileState* states_;
    std::int32_t* centre_position_[3];
    std::int32_t* centre_features_;  // [count, 2 pairs]
    std::uint32_t* base_;
    std::uint32_t* coefficients_;
    float* moved_;
    std::span<Worker> workers_;
    const std::int64_t** sums_;  // of every worker
    std::byte* row_scratch_;     // per worker
    std::int64_t row_scratch_bytes_;
};

}  // namespace midgrain::cpu

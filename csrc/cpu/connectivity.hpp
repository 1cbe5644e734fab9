// Connectivity of one item by a team of threads (core/connectivity.hpp has the definition).
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "core/array_ref.hpp"
#include "cpu/connectivity_rows.hpp"
#include "cpu/parallel.hpp"
#include "cpu/workspace.hpp"

namespace midgrain::cpu {

// Workspace and result for items of one size, one after the other.
//
// Every array is taken for the worst case, a run per pixel, but only as much of it is written as there are runs: the
// system gives no memory to the rest. So run() never allocates and cannot fail.
class Connectivity {
public:
    // For teams of at most `workers`. Throws std::bad_alloc.
    Connectivity(core::Dims dims, std::int64_t min_size, int workers, Workspace& workspace);

    // Called by every worker of the team with its index. labels: rows of dims.x values (any int32), `row_stride`
    // elements from row to row, rows counted through all frames. out: contiguous [z, y, x]; it may be `labels` where
    // row_stride == dims.x. When all workers have returned and met, out is complete and the next item may begin.
    // The team meets a few times inside, each worker equally often.
    void run(Team& team, int index, const std::int32_t* labels, std::int64_t row_stride, std::int32_t* out);

    // Superpixels of the last item.
    std::int32_t count() const { return count_; }

private:
    // One worker's rows. Its run numbers are [begin, end), and its list in pieces_ starts at `begin`.
    struct Strip {
        Share rows;
        std::uint32_t begin, end;
        std::uint32_t pieces;  // the first runs of what is connected within these rows
    };

    template <class Visit>
    void visit_pieces(const Team& team, Visit&& visit) const;
    void measure(Strip& strip);
    void stitch(const RunTable& table, std::int64_t first_row, std::int64_t middle, std::int64_t last_row) const;
    void gather(const Team& team);
    void choose(const RunTable& table, std::uint32_t first, std::uint32_t count, std::uint64_t* tallies,
                std::uint32_t& mark);
    void choose_with_others(const RunTable& table, int index, int choosers, std::uint32_t& mark);
    void join(std::uint32_t a, std::uint32_t b);
    void merge();
    void keep_small();
    void lead(const Team& team, const RunTable& table, std::uint32_t& mark);

    core::Dims dims_;
    std::uint32_t min_size_;
    std::int32_t count_ = 0;
    RunTable table_{};
    std::uint32_t* size_;    // of a root: its pixels; in the end: its label
    std::uint32_t* next_;    // a ring of every piece's runs
    std::uint32_t* pieces_;  // the strips' lists
    std::uint32_t* small_;   // pieces below the least size
    std::uint32_t* choice_;  // the neighbour that each of them chose
    std::uint32_t small_count_ = 0, small_pixels_ = 0;
    std::vector<std::uint64_t*> tallies_;              // of the workers that choose
    std::vector<std::atomic<std::uint32_t>> claimed_;  // pieces of each one's part of small_ that are taken
    std::vector<Strip> strips_;
};

}  // namespace midgrain::cpu

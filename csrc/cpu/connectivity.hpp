// Connectivity of one item by a team of threads (core/connectivity.hpp has the definition).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "core/array_ref.hpp"
#include "cpu/connectivity_rows.hpp"
#include "cpu/parallel.hpp"

namespace midgrain::cpu {

// Workspace and result for items of one size, one after the other.
//
// Every array is reserved for the worst case, a run per pixel, but only as much of it is written as there are runs:
// the system gives no memory to the rest. So run() never allocates and cannot fail.
class Connectivity {
public:
    // For teams of at most `workers`. Throws std::bad_alloc.
    Connectivity(core::Dims dims, std::int64_t min_size, int workers);

    // Called by every worker of the team with its index. labels: rows of dims.x values (any int32), `row_stride`
    // elements from row to row, rows counted through all frames. out: contiguous [z, y, x]; it may be `labels` where
    // row_stride == dims.x. When all workers have returned and met, out is complete.
    void run(Team& team, int index, const std::int32_t* labels, std::int64_t row_stride, std::int32_t* out);

    // Superpixels of the last item.
    std::int32_t count() const { return count_; }

private:
    // One worker's rows. Its run numbers are [begin, end), and so are the places of its lists in pieces_ and small_.
    struct Strip {
        Share rows;
        std::uint32_t begin, end;
        std::uint32_t pieces;  // the first runs of what is connected within these rows
        std::uint32_t small;   // those of them that begin a piece below the least size
    };

    struct Free {
        void operator()(std::byte* memory) const { std::free(memory); }
    };

    void measure(Strip& strip);
    void stitch(const RunTable& table, int strips);
    void list_small(Strip& strip, const std::uint32_t* candidates, std::uint32_t count);
    void choose(const RunTable& table, const Strip& strip, int chooser);
    bool merge(const Strip& strip);
    void join(std::uint32_t a, std::uint32_t b);
    void finish(const RunTable& table, int strips);

    core::Dims dims_;
    std::uint32_t min_size_;
    std::int32_t count_ = 0;
    std::unique_ptr<std::byte, Free> memory_;
    RunTable table_{};
    std::uint32_t* size_;    // of a root: its pixels; in the end: its label
    std::uint32_t* next_;    // a ring of every piece's runs
    std::uint32_t* pieces_;  // lists of the strips
    std::uint32_t* small_;
    std::uint32_t* choice_;  // of the entries of small_
    std::vector<Tally*> tallies_;
    std::vector<std::uint32_t> marks_;
    std::vector<Strip> strips_;
};

}  // namespace midgrain::cpu

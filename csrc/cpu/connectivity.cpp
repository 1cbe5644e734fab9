// Connectivity on the CPU (core/connectivity.hpp): union-find over runs of equal labels, then over pieces.
#include "cpu/connectivity.hpp"

#include <algorithm>
#include <deque>
#include <utility>

#include "core/connectivity.hpp"
#include "cpu/kernels.hpp"

namespace midgrain::cpu {
namespace {

using core::Dims;

constexpr std::int64_t kPixelsPerWorker = 8192;
// Run numbers between those of two strips: room for an end mark and for what find_runs writes beyond.
constexpr std::int64_t kGap = 16;
// Workers that choose neighbours of small pieces: each needs a tally per run.
constexpr int kMostChoosers = 4;
// Small pieces that a worker takes at a time.
constexpr std::uint32_t kClaim = 4;
// Pixels of all small pieces below which sharing them costs more than it brings.
constexpr std::uint32_t kFewPixels = 1024;

}  // namespace

Connectivity::Connectivity(Dims dims, std::int64_t min_size, int workers, Workspace& workspace)
    : dims_(dims),
      // No piece is larger than the item; one of its size has no neighbour to merge with.
      min_size_(static_cast<std::uint32_t>(std::min(min_size, dims.size()))),
      tallies_(static_cast<std::size_t>(std::min(workers, kMostChoosers))),
      claimed_(tallies_.size()),
      strips_(static_cast<std::size_t>(workers)) {
    table_.rows = dims.z * dims.y;
    table_.y = dims.y;
    table_.x = dims.x;
    table_.words = (dims.x + 63) / 64;
    const std::int64_t words = table_.rows * table_.words, runs = dims.size() + kGap * workers;
    table_.begins = workspace.take<std::uint64_t>(words);
    table_.rank = workspace.take<std::uint32_t>(words);
    for (std::uint32_t** array : {&table_.first, &table_.parent, &size_, &next_, &pieces_, &small_, &choice_}) {
        *array = workspace.take<std::uint32_t>(runs);
    }
    for (std::uint64_t*& tallies : tallies_) tallies = workspace.take<std::uint64_t>(runs);
}

void Connectivity::run(Team& team, int index, const std::int32_t* labels, std::int64_t row_stride, std::int32_t* out) {
    RunTable table = table_;
    table.labels = labels;
    table.row_stride = row_stride;
    Strip& strip = strips_[static_cast<std::size_t>(index)];
    strip.rows = team.share(table.rows, index);
    strip.begin = static_cast<std::uint32_t>(strip.rows.first * dims_.x + index * kGap);
    strip.end = rows_variant().find_runs(table, strip.rows.first, strip.rows.last, strip.begin);
    measure(strip);
    team.meet();
    // Pairs of strips, then pairs of pairs: those at work at the same time have no run in common.
    for (int span = 1; span < team.size(); span *= 2) {
        if (index % (2 * span) == 0 && index + span < team.size()) {
            const int last = std::min(index + 2 * span, team.size()) - 1;
            stitch(table, strip.rows.first, strips_[static_cast<std::size_t>(index + span)].rows.first,
                   strips_[static_cast<std::size_t>(last)].rows.last);
        }
        team.meet();
    }
    std::uint32_t mark = 0;
    const int choosers = std::min(team.size(), static_cast<int>(tallies_.size()));
    if (index < choosers) {
        std::uint64_t* tallies = tallies_[static_cast<std::size_t>(index)];
        visit_pieces(team, [tallies](std::uint32_t piece) { tallies[piece] = 0; });
    }
    if (index == 0) {
        gather(team);
        lead(team, table, mark);
    }
    team.meet();
    while (small_count_ > 0) {
        if (index < choosers) choose_with_others(table, index, choosers, mark);
        team.meet();
        if (index == 0) {
            merge();
            lead(team, table, mark);
        }
        team.meet();
    }
    rows_variant().fill(table, strip.begin, strip.end, size_, out);
}

// All strips' pieces in raster order.
template <class Visit>
void Connectivity::visit_pieces(const Team& team, Visit&& visit) const {
    for (int s = 0; s < team.size(); ++s) {
        const Strip& strip = strips_[static_cast<std::size_t>(s)];
        for (std::uint32_t i = strip.begin; i < strip.begin + strip.pieces; ++i) visit(pieces_[i]);
    }
}

// Points every run of the strip at its root, and collects the roots, their sizes and rings.
void Connectivity::measure(Strip& strip) {
    std::uint32_t* parent = table_.parent;
    std::uint32_t* pieces = pieces_ + strip.begin;
    std::uint32_t count = 0;
    for (std::uint32_t run = strip.begin; run < strip.end; ++run) {
        const std::uint32_t root = parent[parent[run]];
        parent[run] = root;
        size_[run] = 0;
        size_[root] += table_.first[run + 1] - table_.first[run];
        next_[run] = run;
        std::swap(next_[run], next_[root]);
        pieces[count] = run;
        count += root == run;
    }
    strip.pieces = count;
}

// Unites what touches between rows [first_row, middle) and [middle, last_row).
void Connectivity::stitch(const RunTable& table, std::int64_t first_row, std::int64_t middle,
                          std::int64_t last_row) const {
    if (first_row == middle || middle == last_row) return;
    if (middle % table.y != 0) rows_variant().unite_rows(table, middle - 1, middle);
    const std::int64_t last = std::min(middle + table.y, last_row);
    for (std::int64_t row = std::max(middle, first_row + table.y); row < last; ++row) {
        rows_variant().unite_rows(table, row - table.y, row);
    }
}

// Gives whole pieces what their parts in other strips have, and lists the small ones.
void Connectivity::gather(const Team& team) {
    small_count_ = 0;
    visit_pieces(team, [this](std::uint32_t piece) {
        small_[small_count_++] = piece;
        const std::uint32_t root = core::find_root(table_.parent, piece);
        if (root == piece) return;
        size_[root] += size_[piece];
        std::swap(next_[root], next_[piece]);
    });
    keep_small();
}

// The choices of small_[first, first + count).
void Connectivity::choose(const RunTable& table, std::uint32_t first, std::uint32_t count, std::uint64_t* tallies,
                          std::uint32_t& mark) {
    rows_variant().choose(table, next_, small_ + first, count, tallies, mark, choice_ + first);
    mark += count;
}

// A worker begins with the part of the list whose pieces lie mostly in its own strip, then helps with the others.
void Connectivity::choose_with_others(const RunTable& table, int index, int choosers, std::uint32_t& mark) {
    std::uint64_t* tallies = tallies_[static_cast<std::size_t>(index)];
    for (int turn = 0; turn < choosers; ++turn) {
        const std::int64_t part = (index + turn) % choosers, count = small_count_;
        const auto first = static_cast<std::uint32_t>(count * part / choosers);
        const auto last = static_cast<std::uint32_t>(count * (part + 1) / choosers);
        for (;;) {
            const std::uint32_t begin = first + claimed_[static_cast<std::size_t>(part)].fetch_add(kClaim);
            if (begin >= last) break;
            choose(table, begin, std::min(kClaim, last - begin), tallies, mark);
        }
    }
}

void Connectivity::join(std::uint32_t a, std::uint32_t b) {
    const std::uint32_t root_a = core::find_root(table_.parent, a), root_b = core::find_root(table_.parent, b);
    if (root_a == root_b) return;
    const auto [low, high] = std::minmax(root_a, root_b);
    table_.parent[high] = low;
    size_[low] += size_[high];
    std::swap(next_[low], next_[high]);
}

// Ends a round: unites every small piece with its choice.
void Connectivity::merge() {
    bool merged = false;
    for (std::uint32_t i = 0; i < small_count_; ++i) {
        merged |= choice_[i] != small_[i];
        join(small_[i], choice_[i]);
    }
    if (merged) {
        keep_small();
    } else {
        small_count_ = 0;  // a piece without a neighbour is the only one
    }
}

// Drops what is no piece of its own any more, or large enough. Shortens all paths: a search for neighbours does not.
void Connectivity::keep_small() {
    std::uint32_t kept = 0;
    small_pixels_ = 0;
    for (std::uint32_t i = 0; i < small_count_; ++i) {
        const std::uint32_t piece = small_[i];
        const std::uint32_t keep = core::find_root(table_.parent, piece) == piece && size_[piece] < min_size_;
        small_[kept] = piece;
        kept += keep;
        small_pixels_ += keep * size_[piece];
    }
    small_count_ = kept;
    for (auto& claimed : claimed_) claimed = 0;
}

// What one worker does between rounds: those that are not worth sharing and, after the last, the labels.
void Connectivity::lead(const Team& team, const RunTable& table, std::uint32_t& mark) {
    while (small_count_ > 0 && (team.size() == 1 || small_pixels_ < kFewPixels)) {
        choose(table, 0, small_count_, tallies_[0], mark);
        merge();
    }
    if (small_count_ > 0) return;
    std::uint32_t count = 0;
    // A parent comes before its child, so it has its label when the child's turn comes.
    visit_pieces(team, [this, &count](std::uint32_t piece) {
        const std::uint32_t parent = table_.parent[piece];
        size_[piece] = parent == piece ? count++ : size_[parent];
    });
    count_ = static_cast<std::int32_t>(count);
}

void enforce_connectivity(const std::int32_t* labels_in, std::int64_t items, Dims dims, std::int64_t min_size,
                          int threads, std::int32_t* labels_out, std::int32_t* counts) {
    // A single column per frame has the same neighbours as a row of its length, and rows of one pixel are slow.
    if (dims.x == 1) dims = {1, dims.z, dims.y};
    const std::int64_t pixels = dims.size();
    if (items < threads) {
        const int wanted = useful_workers(static_cast<int>(std::min<std::int64_t>(threads, dims.z * dims.y)), pixels,
                                          kPixelsPerWorker);
        Workspace workspace;
        Connectivity connectivity(dims, min_size, wanted, workspace);
        run_team(wanted, [&](Team& team, int index) {
            for (std::int64_t item = 0; item < items; ++item) {
                connectivity.run(team, index, labels_in + item * pixels, dims.x, labels_out + item * pixels);
                team.meet();
                if (index == 0) counts[item] = connectivity.count();
            }
        });
        return;
    }
    const int wanted = useful_workers(threads, items * pixels, kPixelsPerWorker);
    Workspace workspace;
    std::deque<Connectivity> all;
    for (int worker = 0; worker < wanted; ++worker) all.emplace_back(dims, min_size, 1, workspace);
    run_team(wanted, [&](Team& team, int index) {
        const Share mine = team.share(items, index);
        Connectivity& own = all[static_cast<std::size_t>(index)];
        Team alone(1);
        for (std::int64_t item = mine.first; item < mine.last; ++item) {
            own.run(alone, 0, labels_in + item * pixels, dims.x, labels_out + item * pixels);
            counts[item] = own.count();
        }
    });
}

}  // namespace midgrain::cpu

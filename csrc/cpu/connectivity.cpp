// Connectivity on the CPU (core/connectivity.hpp): union-find over runs of equal labels, then over pieces.
#include "cpu/connectivity.hpp"

#include <algorithm>
#include <new>
#include <utility>

#include "core/connectivity.hpp"
#include "cpu/kernels.hpp"

namespace midgrain::cpu {
namespace {

using core::Dims;

constexpr std::int64_t kPixelsPerWorker = 8192;
// Run numbers between those of two strips: room for an end mark and for what find_runs writes beyond.
constexpr std::int64_t kGap = 16;
// Workers that look for neighbours of small pieces: each needs a tally per run.
constexpr int kMostChoosers = 4;

// Hands out arrays one after the other; with nullptr it only adds up their sizes.
class Carver {
public:
    explicit Carver(std::byte* memory) : memory_(memory) {}

    template <class T>
    T* take(std::int64_t n) {
        constexpr std::size_t kLine = 64;
        T* array = memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + used_);
        used_ += (static_cast<std::size_t>(n) * sizeof(T) + kLine - 1) / kLine * kLine;
        return array;
    }

    std::size_t used() const { return used_; }

private:
    std::byte* memory_;
    std::size_t used_ = 0;
};

}  // namespace

Connectivity::Connectivity(Dims dims, std::int64_t min_size, int workers)
    : dims_(dims),
      // No piece is larger than the item; one of its size has no neighbour to merge with.
      min_size_(static_cast<std::uint32_t>(std::min(min_size, dims.size()))),
      tallies_(static_cast<std::size_t>(std::min(workers, kMostChoosers))),
      marks_(tallies_.size()),
      strips_(static_cast<std::size_t>(workers)) {
    table_.rows = dims.z * dims.y;
    table_.y = dims.y;
    table_.x = dims.x;
    table_.words = (dims.x + 63) / 64;
    const std::int64_t words = table_.rows * table_.words, runs = dims.size() + kGap * workers;
    const auto carve = [&](std::byte* memory) {
        Carver carver(memory);
        table_.begins = carver.take<std::uint64_t>(words);
        table_.rank = carver.take<std::uint32_t>(words);
        for (std::uint32_t** array : {&table_.first, &table_.parent, &size_, &next_, &pieces_, &small_, &choice_}) {
            *array = carver.take<std::uint32_t>(runs);
        }
        for (Tally*& tallies : tallies_) tallies = carver.take<Tally>(runs);
        return carver.used();
    };
    memory_.reset(static_cast<std::byte*>(std::malloc(carve(nullptr))));
    if (!memory_) throw std::bad_alloc();
    carve(memory_.get());
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
    if (index == 0) stitch(table, team.size());
    team.meet();
    // Strips of one chooser after the other share its tallies.
    const int choosers = std::min(team.size(), static_cast<int>(tallies_.size()));
    if (index < choosers) {
        for (int s = 0; s < team.size(); ++s) {
            const Strip& other = strips_[static_cast<std::size_t>(s)];
            Tally* tallies = tallies_[static_cast<std::size_t>(index)];
            std::for_each_n(pieces_ + other.begin, other.pieces, [&](std::uint32_t p) { tallies[p].mark = 0; });
        }
        marks_[static_cast<std::size_t>(index)] = 0;
        for (int s = index; s < team.size(); s += choosers) {
            Strip& own = strips_[static_cast<std::size_t>(s)];
            list_small(own, pieces_ + own.begin, own.pieces);
            choose(table, own, index);
        }
    }
    team.meet();
    if (index == 0) finish(table, team.size());
    team.meet();
    rows_variant().fill(table, strip.begin, strip.end, size_, out);
}

// Points every run of the strip at its root, and collects the roots, their sizes and rings.
void Connectivity::measure(Strip& strip) {
    std::uint32_t* parent = table_.parent;
    std::uint32_t* pieces = pieces_ + strip.begin;
    std::uint32_t count = 0;
    for (std::uint32_t run = strip.begin; run < strip.end; ++run) {
        const std::uint32_t root = parent[parent[run]];
        const bool is_root = root == run;
        parent[run] = root;
        size_[root] = (is_root ? 0 : size_[root]) + table_.first[run + 1] - table_.first[run];
        const std::uint32_t after = is_root ? run : next_[root];
        next_[root] = run;
        next_[run] = after;
        pieces[count] = run;
        count += is_root;
    }
    strip.pieces = count;
}

// Unites what touches across the strips.
void Connectivity::stitch(const RunTable& table, int strips) {
    if (strips == 1) return;
    for (int s = 1; s < strips; ++s) {
        const Share rows = strips_[static_cast<std::size_t>(s)].rows;
        if (rows.first == rows.last) continue;
        if (rows.first % table.y != 0) rows_variant().unite_rows(table, rows.first - 1, rows.first);
        const std::int64_t last = std::min(rows.first + table.y, rows.last);
        for (std::int64_t row = std::max(rows.first, table.y); row < last; ++row) {
            rows_variant().unite_rows(table, row - table.y, row);
        }
    }
    for (int s = 0; s < strips; ++s) {
        const Strip& strip = strips_[static_cast<std::size_t>(s)];
        std::for_each_n(pieces_ + strip.begin, strip.pieces, [&](std::uint32_t piece) {
            const std::uint32_t root = core::find_root(table_.parent, piece);
            if (root == piece) return;
            size_[root] += size_[piece];
            std::swap(next_[root], next_[piece]);
        });
    }
}

// Those of the candidates that are pieces below the least size.
void Connectivity::list_small(Strip& strip, const std::uint32_t* candidates, std::uint32_t count) {
    std::uint32_t* small = small_ + strip.begin;
    strip.small = 0;
    for (std::uint32_t i = 0; i < count; ++i) {
        const std::uint32_t piece = candidates[i];
        small[strip.small] = piece;
        strip.small += table_.parent[piece] == piece && size_[piece] < min_size_;
    }
}

void Connectivity::choose(const RunTable& table, const Strip& strip, int chooser) {
    std::uint32_t& mark = marks_[static_cast<std::size_t>(chooser)];
    rows_variant().choose(table, next_, small_ + strip.begin, strip.small, tallies_[static_cast<std::size_t>(chooser)],
                          mark, choice_ + strip.begin);
    mark += strip.small;
}

void Connectivity::join(std::uint32_t a, std::uint32_t b) {
    const std::uint32_t root_a = core::find_root(table_.parent, a), root_b = core::find_root(table_.parent, b);
    if (root_a == root_b) return;
    const auto [low, high] = std::minmax(root_a, root_b);
    table_.parent[high] = low;
    size_[low] += size_[high];
    std::swap(next_[low], next_[high]);
}

// Unites every small piece of the strip with its choice; tells whether there was one.
bool Connectivity::merge(const Strip& strip) {
    bool merged = false;
    for (std::uint32_t i = strip.begin; i < strip.begin + strip.small; ++i) {
        merged |= choice_[i] != small_[i];
        join(small_[i], choice_[i]);
    }
    return merged;
}

// All rounds once the first choices are made, then the labels.
void Connectivity::finish(const RunTable& table, int strips) {
    const auto begin = strips_.begin(), end = begin + strips;
    for (;;) {
        bool merged = false;
        for (auto strip = begin; strip != end; ++strip) merged |= merge(*strip);
        if (!merged) break;
        for (auto strip = begin; strip != end; ++strip) list_small(*strip, small_ + strip->begin, strip->small);
        for (auto strip = begin; strip != end; ++strip) choose(table, *strip, 0);
    }
    std::uint32_t count = 0;
    for (auto strip = begin; strip != end; ++strip) {
        // A parent comes before its child, so it has its label when the child's turn comes.
        std::for_each_n(pieces_ + strip->begin, strip->pieces, [&](std::uint32_t piece) {
            const std::uint32_t parent = table_.parent[piece];
            size_[piece] = parent == piece ? count++ : size_[parent];
        });
    }
    count_ = static_cast<std::int32_t>(count);
}

void enforce_connectivity(const std::int32_t* labels_in, std::int64_t items, Dims dims, std::int64_t min_size,
                          int threads, std::int32_t* labels_out, std::int32_t* counts) {
    const std::int64_t pixels = dims.size();
    if (items < threads) {
        const int wanted = useful_workers(static_cast<int>(std::min<std::int64_t>(threads, dims.z * dims.y)), pixels,
                                          kPixelsPerWorker);
        Connectivity connectivity(dims, min_size, wanted);
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
    std::vector<Connectivity> workspaces;
    workspaces.reserve(static_cast<std::size_t>(wanted));
    for (int worker = 0; worker < wanted; ++worker) workspaces.emplace_back(dims, min_size, 1);
    run_team(wanted, [&](Team& team, int index) {
        const Share mine = team.share(items, index);
        Connectivity& own = workspaces[static_cast<std::size_t>(index)];
        Team alone(1);
        for (std::int64_t item = mine.first; item < mine.last; ++item) {
            own.run(alone, 0, labels_in + item * pixels, dims.x, labels_out + item * pixels);
            counts[item] = own.count();
        }
    });
}

}  // namespace midgrain::cpu

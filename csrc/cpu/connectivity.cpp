// Connectivity on the CPU (core/connectivity.hpp): union-find over pixels, then over pieces.
#include "core/connectivity.hpp"

#include <algorithm>
#include <exception>
#include <mutex>
#include <vector>

#include "cpu/kernels.hpp"
#include "cpu/parallel.hpp"

namespace midgrain::cpu {
namespace {

using core::Dims;

constexpr std::int64_t kPixelsPerWorker = 8192;

// `count` faces between pieces low < high.
struct Border {
    std::int32_t low, high;
    std::int64_t count;
};

// Calls visit(pixel, neighbour before it) for every face of the grid.
template <class Visit>
void visit_faces(Dims dims, Visit&& visit) {
    const std::int64_t row = dims.x, frame = dims.y * dims.x;
    std::int64_t p = 0;
    for (std::int64_t z = 0; z < dims.z; ++z) {
        for (std::int64_t y = 0; y < dims.y; ++y) {
            for (std::int64_t x = 0; x < dims.x; ++x, ++p) {
                if (x > 0) visit(p, p - 1);
                if (y > 0) visit(p, p - row);
                if (z > 0) visit(p, p - frame);
            }
        }
    }
}

// Numbers the connected pieces in raster order of their first pixel; returns how many there are.
std::int32_t number_pieces(const std::int32_t* labels, Dims dims, std::vector<std::int32_t>& piece) {
    const std::int64_t pixels = dims.size();
    piece.resize(static_cast<std::size_t>(pixels));
    for (std::int64_t p = 0; p < pixels; ++p) piece[static_cast<std::size_t>(p)] = static_cast<std::int32_t>(p);
    std::int32_t* parent = piece.data();
    visit_faces(dims, [&](std::int64_t p, std::int64_t q) {
        if (labels[p] == labels[q]) core::unite(parent, static_cast<std::int32_t>(p), static_cast<std::int32_t>(q));
    });
    // A parent is never larger than its child, so it has its number when the child's turn comes.
    std::int32_t count = 0;
    for (std::int64_t p = 0; p < pixels; ++p) parent[p] = parent[p] == p ? count++ : parent[parent[p]];
    return count;
}

// Sorts borders and adds up those of the same pair.
void combine(std::vector<Border>& borders) {
    std::sort(borders.begin(), borders.end(),
              [](const Border& a, const Border& b) { return a.low != b.low ? a.low < b.low : a.high < b.high; });
    std::size_t kept = 0;
    for (const Border& border : borders) {
        if (kept > 0 && borders[kept - 1].low == border.low && borders[kept - 1].high == border.high) {
            borders[kept - 1].count += border.count;
        } else {
            borders[kept++] = border;
        }
    }
    borders.resize(kept);
}

// Borders of which at least one side is below min_size.
std::vector<Border> small_borders(const std::vector<std::int32_t>& piece, Dims dims,
                                  const std::vector<std::int64_t>& size, std::int64_t min_size) {
    std::vector<Border> borders;
    visit_faces(dims, [&](std::int64_t p, std::int64_t q) {
        const std::int32_t a = piece[static_cast<std::size_t>(p)], b = piece[static_cast<std::size_t>(q)];
        if (a == b) return;
        if (size[static_cast<std::size_t>(a)] >= min_size && size[static_cast<std::size_t>(b)] >= min_size) return;
        borders.push_back({std::min(a, b), std::max(a, b), 1});
    });
    combine(borders);
    return borders;
}

// Unites small pieces with their choices, round by round; parent is a forest over pieces.
void merge_small(std::vector<Border> borders, std::vector<std::int64_t>& size, std::int64_t min_size,
                 std::vector<std::int32_t>& parent) {
    const std::size_t count = size.size();
    std::vector<std::int64_t> best_border(count);
    std::vector<std::int32_t> best_target(count);
    const auto is_small = [&](std::int32_t i) { return size[static_cast<std::size_t>(i)] < min_size; };
    while (!borders.empty()) {
        std::fill(best_border.begin(), best_border.end(), 0);
        const auto offer = [&](std::int32_t to, std::int32_t neighbour, std::int64_t border) {
            const auto i = static_cast<std::size_t>(to);
            if (is_small(to) && core::is_better_target(border, neighbour, best_border[i], best_target[i])) {
                best_border[i] = border;
                best_target[i] = neighbour;
            }
        };
        for (const Border& border : borders) {
            offer(border.low, border.high, border.count);
            offer(border.high, border.low, border.count);
        }
        for (std::size_t i = 0; i < count; ++i) {
            if (best_border[i] > 0) core::unite(parent.data(), static_cast<std::int32_t>(i), best_target[i]);
        }
        for (std::size_t i = 0; i < count; ++i) {
            const auto root = static_cast<std::size_t>(core::find_root(parent.data(), static_cast<std::int32_t>(i)));
            if (root == i) continue;
            size[root] += size[i];
            size[i] = 0;
        }
        for (Border& border : borders) {
            const std::int32_t a = core::find_root(parent.data(), border.low);
            const std::int32_t b = core::find_root(parent.data(), border.high);
            border.low = std::min(a, b);
            border.high = std::max(a, b);
        }
        std::erase_if(borders, [&](const Border& border) {
            return border.low == border.high || (!is_small(border.low) && !is_small(border.high));
        });
        combine(borders);
    }
}

std::int32_t connect_item(const std::int32_t* labels_in, Dims dims, std::int64_t min_size, std::int32_t* labels_out) {
    std::vector<std::int32_t> piece;
    const std::int32_t pieces = number_pieces(labels_in, dims, piece);
    std::vector<std::int64_t> size(static_cast<std::size_t>(pieces), 0);
    for (const std::int32_t id : piece) ++size[static_cast<std::size_t>(id)];

    std::vector<std::int32_t> parent(static_cast<std::size_t>(pieces));
    for (std::int32_t i = 0; i < pieces; ++i) parent[static_cast<std::size_t>(i)] = i;
    if (std::any_of(size.begin(), size.end(), [&](std::int64_t n) { return n < min_size; })) {
        merge_small(small_borders(piece, dims, size, min_size), size, min_size, parent);
    }
    std::int32_t count = 0;
    for (std::int32_t i = 0; i < pieces; ++i) {
        const auto at = static_cast<std::size_t>(i);
        parent[at] = parent[at] == i ? count++ : parent[static_cast<std::size_t>(parent[at])];
    }
    for (std::size_t p = 0; p < piece.size(); ++p) labels_out[p] = parent[static_cast<std::size_t>(piece[p])];
    return count;
}

}  // namespace

void enforce_connectivity(const std::int32_t* labels_in, std::int64_t items, Dims dims, std::int64_t min_size,
                          int threads, std::int32_t* labels_out, std::int32_t* counts) {
    const std::int64_t pixels = dims.size();
    const auto most = static_cast<int>(std::min<std::int64_t>(threads, items));
    std::mutex guard;
    std::exception_ptr failure;
    run_team(useful_workers(most, items * pixels, kPixelsPerWorker), [&](Team& team, int index) {
        const Share mine = team.share(items, index);
        try {
            for (std::int64_t item = mine.first; item < mine.last; ++item) {
                counts[item] = connect_item(labels_in + item * pixels, dims, min_size, labels_out + item * pixels);
            }
        } catch (...) {  // out of memory
            const std::lock_guard lock(guard);
            failure = std::current_exception();
        }
    });
    if (failure) std::rethrow_exception(failure);
}

}  // namespace midgrain::cpu

#include <algorithm>
#include <map>
#include <numeric>

#include "checks.hpp"

namespace midgrain::fuzz {
namespace {

using Labels = std::vector<std::int32_t>;

// Calls visit(p, q) for every two pixels that share a face.
template <class Visit>
void for_each_face(const core::Dims& dims, Visit&& visit) {
    for (std::int64_t z = 0, p = 0; z < dims.z; ++z) {
        for (std::int64_t y = 0; y < dims.y; ++y) {
            for (std::int64_t x = 0; x < dims.x; ++x, ++p) {
                if (x + 1 < dims.x) visit(p, p + 1);
                if (y + 1 < dims.y) visit(p, p + dims.x);
                if (z + 1 < dims.z) visit(p, p + dims.y * dims.x);
            }
        }
    }
}

// Every pixel's piece, named by its smallest index: names are lowered until none changes.
std::vector<std::int64_t> pieces_of(const Labels& labels, const core::Dims& dims) {
    std::vector<std::int64_t> piece(labels.size());
    std::iota(piece.begin(), piece.end(), 0);
    for (bool changed = true; changed;) {
        changed = false;
        for_each_face(dims, [&](std::int64_t p, std::int64_t q) {
            auto &a = piece[static_cast<std::size_t>(p)], &b = piece[static_cast<std::size_t>(q)];
            if (labels[static_cast<std::size_t>(p)] != labels[static_cast<std::size_t>(q)] || a == b) return;
            a = b = std::min(a, b);
            changed = true;
        });
    }
    return piece;
}

}  // namespace

std::int32_t connect_plainly(Labels& labels, const core::Dims& dims, std::int64_t min_size) {
    std::vector<std::int64_t> piece = pieces_of(labels, dims);
    for (;;) {
        std::map<std::int64_t, std::int64_t> size;
        for (const std::int64_t id : piece) ++size[id];
        std::map<std::int64_t, std::map<std::int64_t, std::int64_t>> faces;  // of two pieces
        for_each_face(dims, [&](std::int64_t p, std::int64_t q) {
            const std::int64_t a = piece[static_cast<std::size_t>(p)], b = piece[static_cast<std::size_t>(q)];
            if (a == b) return;
            ++faces[a][b];
            ++faces[b][a];
        });
        std::map<std::int64_t, std::int64_t> joined;  // a piece to one that it is united with, lower or itself
        for (const auto& [id, pixels] : size) joined[id] = id;
        const auto root = [&](std::int64_t id) {
            while (joined[id] != id) id = joined[id];
            return id;
        };
        bool any = false;
        for (const auto& [id, pixels] : size) {
            if (pixels >= min_size || size.size() == 1) continue;
            std::int64_t best = -1;
            for (const auto& [other, shared] : faces[id]) {  // in ascending order of ids
                if (best < 0 || shared > faces[id][best]) best = other;
            }
            const std::int64_t a = root(id), b = root(best);
            joined[std::max(a, b)] = std::min(a, b);
            any = true;
        }
        if (!any) break;
        for (std::int64_t& id : piece) id = root(id);
    }
    std::map<std::int64_t, std::int32_t> number;
    for (const std::int64_t id : piece) number.emplace(id, 0);
    std::int32_t n = 0;
    for (auto& [id, own] : number) own = n++;
    for (std::size_t p = 0; p < labels.size(); ++p) labels[p] = number[piece[p]];
    return n;
}

void try_connectivity(Input& input) {
    const std::int64_t items = input.between(0, 3);
    const core::Dims dims = input.dims(4, 24, 40);
    Labels labels = input.labels(items * dims.size(), input.between(1, 12));
    const std::int32_t offset = input.flag() ? input.bits<std::int32_t>() : 0;
    for (std::int32_t& label : labels) label = static_cast<std::int32_t>(static_cast<std::uint32_t>(label) + offset);
    const std::int64_t min_size = input.between(0, 2000) >> input.between(0, 11);
    const Labels counts(static_cast<std::size_t>(items), -7);
    const auto found = run_both_ways(
        input, "connectivity",
        [&](int threads, Labels& out, Labels& n) {
            cpu::enforce_connectivity(labels.data(), items, dims, min_size, threads, out.data(), n.data());
        },
        Labels(labels.size(), -7), counts);
    expect(!found.refused(), "connectivity takes any labels");
    const auto in_place = run(
        [&](int threads, Labels& out, Labels& n) {
            cpu::enforce_connectivity(out.data(), items, dims, min_size, threads, out.data(), n.data());
        },
        1, labels, counts);
    expect(in_place.arrays == found.arrays, "connectivity in place");
    Labels wanted, wanted_counts;
    for (std::int64_t item = 0; item < items; ++item) {
        const auto first = labels.begin() + item * dims.size();
        Labels own(first, first + dims.size());
        wanted_counts.push_back(connect_plainly(own, dims, min_size));
        wanted.insert(wanted.end(), own.begin(), own.end());
    }
    expect_same(std::get<0>(found.arrays), wanted, "connectivity's labels");
    expect_same(std::get<1>(found.arrays), wanted_counts, "connectivity's counts");
}

}  // namespace midgrain::fuzz

// Connected superpixels without scan order: the definition every backend implements.
//
//   pieces   maximal sets of pixels of one label joined over faces (4 neighbours; 6 in a volume); a piece's id is
//            its smallest linear index.
//   round    every piece smaller than min_size chooses, at the same moment, the neighbouring piece with which it
//            shares the most pixel faces (ties: the lowest id). All choices are united; ids and sizes follow.
//   end      when no piece is smaller than min_size or one piece is left. Labels are 0 .. n-1 in the order of ids,
//            that is in raster order of each piece's first pixel.
//
// Every round at least halves the number of small pieces that have a neighbour, so it ends. n <= pixels / min_size,
// or 1.
#pragma once

#include <cstdint>

#include "core/hd.hpp"

namespace midgrain::core {

// Root of i in a forest whose parents are never larger than their children; halves paths on the way.
template <class Index>
MIDGRAIN_HD Index find_root(Index* parent, Index i) {
    while (parent[i] != i) {
        parent[i] = parent[parent[i]];
        i = parent[i];
    }
    return i;
}

// Unites two trees; the smaller root stays, so a root is always its set's smallest member.
template <class Index>
MIDGRAIN_HD void unite(Index* parent, Index a, Index b) {
    a = find_root(parent, a);
    b = find_root(parent, b);
    if (a < b) {
        parent[b] = a;
    } else {
        parent[a] = b;
    }
}

// Does the neighbour (border, id) beat the best so far? best_border == 0: there is none yet.
template <class Index>
MIDGRAIN_HD bool is_better_target(std::int64_t border, Index id, std::int64_t best_border, Index best_id) {
    return border > best_border || (border == best_border && id < best_id);
}

}  // namespace midgrain::core

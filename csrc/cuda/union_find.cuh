// Union-find by many threads at a time, on the forest of core/connectivity.hpp: parents are never larger than their
// children, so a root is its set's smallest member, whatever the order of the unions.
//
// Source: J. Jaiganesh, M. Burtscher, A high-performance connected components implementation for GPUs (2018).
#pragma once

#include "cuda/launch.cuh"

namespace midgrain::cuda {

// Root of i, without writing: for kernels in which nothing is united.
__device__ inline unsigned root_of(const unsigned* parent, unsigned i) {
    while (parent[i] != i) i = parent[i];
    return i;
}

// Root of i while others unite: it may have ceased to be one when the caller looks. A parent only ever changes to
// another of the same set that is smaller, so halving paths is safe beside unions, and so are values of before.
// Volatile: read and written anew each time, past the cache that multiprocessors do not share.
__device__ inline unsigned find(volatile unsigned* parent, unsigned i) {
    unsigned above = parent[i];
    while (above != i) {
        const unsigned next = parent[above];
        if (next != above) parent[i] = next;
        i = above;
        above = next;
    }
    return i;
}

// Unites two sets. The root that ceases to be one is returned to exactly one caller, the others get kNoRoot.
constexpr unsigned kNoRoot = 0xFFFFFFFFu;

__device__ inline unsigned unite(unsigned* parent, unsigned a, unsigned b) {
    for (;;) {
        a = find(parent, a);
        b = find(parent, b);
        if (a == b) return kNoRoot;
        const unsigned low = a < b ? a : b, high = a < b ? b : a;
        const unsigned before = atomicCAS(&parent[high], high, low);
        if (before == high) return high;
        a = low;
        b = before;
    }
}

}  // namespace midgrain::cuda

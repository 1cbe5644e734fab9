// Superpixel pooling on the device (core/pool.hpp): what its kernels share.
//
// A thread walks along kRun neighbouring pixels of one channel and adds to memory only where the label changes. Where
// channels are side by side in memory, neighbouring threads take neighbouring channels, else neighbouring pixels.
#pragma once

#include <cstring>
#include <limits>

#include "core/pool.hpp"
#include "cuda/kernels.hpp"
#include "cuda/launch.cuh"

namespace midgrain::cuda {

constexpr unsigned kPoolThreads = 256;
constexpr std::int64_t kRun = 8;
// Of infinity as a double; those of magnitudes below are finite.
constexpr Wide kInfinityBits = Wide{0x7FF} << 52;
template <class T>
constexpr T kNaN = std::numeric_limits<T>::quiet_NaN();

template <class T>
struct PoolJob {
    core::PoolShape shape;
    core::Reduce reduce;
    const T* values;
    const std::int32_t* labels;  // [groups, pixels]
    T* out;
    std::int32_t* status;  // [groups]
    // A plane is one channel of one item.
    unsigned* sizes;    // [groups, regions]
    Wide* largest;      // [planes] bits of the largest magnitude as a double
    Wide* widest;       // [planes] the same of the deviations
    Wide* sums;         // [planes, regions]
    Wide* squares;      // [planes, regions] of the deviations
    Wide* extremes;     // [planes, regions] 0: no pixel yet
    unsigned* zeros;    // [planes, regions] complement of the first pixel that is zero; 0: none
    unsigned* starts;   // [groups, regions + 1] for the median
    unsigned* cursors;  // [groups, regions]
    unsigned* order;    // [groups, pixels]

    __host__ __device__ std::int64_t planes() const { return shape.items * shape.channels; }
    __host__ __device__ std::int64_t runs() const { return blocks_of(shape.pixels, kRun); }
    __device__ std::int64_t group_of(std::int64_t plane) const {
        return plane / shape.channels / (shape.items / shape.groups);
    }
    // Where pixel p of a plane lies among the values, and region r among the results.
    __device__ std::int64_t at_pixel(std::int64_t plane, std::int64_t p) const { return at(plane, p, shape.pixels); }
    __device__ std::int64_t at_region(std::int64_t plane, std::int64_t r) const { return at(plane, r, shape.regions); }
    __device__ std::int64_t at(std::int64_t plane, std::int64_t i, std::int64_t n) const {
        if (!shape.channels_last) return plane * n + i;
        return (plane / shape.channels * n + i) * shape.channels + plane % shape.channels;
    }
    __device__ bool is_inside(std::int32_t label) const { return label >= 0 && label < shape.regions; }
};

// What one thread walks along.
struct Stretch {
    std::int64_t plane, first, last;
    bool exists;

    template <class T>
    __device__ explicit Stretch(const PoolJob<T>& job) {
        const std::int64_t i = global_index(), runs = job.runs(), channels = job.shape.channels;
        exists = i < job.planes() * runs;
        const std::int64_t item = i / (channels * runs), rest = i % (channels * runs);
        const std::int64_t channel = job.shape.channels_last ? rest % channels : rest / runs;
        const std::int64_t run = job.shape.channels_last ? rest / channels : rest % runs;
        plane = item * channels + channel;
        first = run * kRun;
        last = first + kRun < job.shape.pixels ? first + kRun : job.shape.pixels;
    }
};

// Calls take(pixel, label) for the pixels of a stretch whose label is inside, and flush(label) behind every run.
template <class T, class Take, class Flush>
__device__ void walk(const PoolJob<T>& job, const Stretch& stretch, Take&& take, Flush&& flush) {
    const std::int32_t* labels = job.labels + job.group_of(stretch.plane) * job.shape.pixels;
    std::int32_t label = -1;
    for (std::int64_t p = stretch.first; p < stretch.last; ++p) {
        const std::int32_t next = labels[p];
        if (next != label && job.is_inside(label)) flush(label);
        label = next;
        if (job.is_inside(label)) take(p, label);
    }
    if (job.is_inside(label)) flush(label);
}

__device__ inline Wide double_bits(double value) {
    Wide bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

__device__ inline double bits_double(Wide bits) {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// Raises *target to value; most threads find it there already.
__device__ inline void raise(Wide* target, Wide value) {
    if (value > *target) atomicMax(target, value);
}

// Are all values of the plane finite?
template <class T>
__device__ bool is_sound(const PoolJob<T>& job, std::int64_t plane) {
    return job.largest[plane] < kInfinityBits;
}

// Parts of launch_pool, of pool_sums.cu, pool_extremes.cu and pool_median.cu.
template <class T>
void launch_pool_sums(const PoolJob<T>& job, Stream stream);
template <class T>
void launch_pool_extremes(const PoolJob<T>& job, Stream stream);
template <class T>
void launch_pool_median(const PoolJob<T>& job, Stream stream);

}  // namespace midgrain::cuda

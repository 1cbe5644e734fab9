// The largest and smallest value of every region (core/pool.hpp). Of 0 and -0 the first pixel's counts, so where the
// extreme is zero, a second pass looks for its first pixel.
#include "cuda/pool_job.cuh"

namespace midgrain::cuda {
namespace {

// Grows with the value for the maximum and falls for the minimum; never 0 for a number, the same for 0 and -0.
template <class T>
__device__ Wide rank_of(T value, bool maximum) {
    const Wide bits = double_bits(value == T{0} ? 0.0 : static_cast<double>(value));
    const Wide ordered = bits >> 63 != 0 ? ~bits : bits | Wide{1} << 63;
    return maximum ? ordered : ~ordered;
}

__device__ inline double value_of(Wide rank, bool maximum) {
    const Wide ordered = maximum ? rank : ~rank;
    return bits_double(ordered >> 63 != 0 ? ordered & ~(Wide{1} << 63) : ~ordered);
}

template <class T>
__global__ void extreme_kernel(PoolJob<T> job) {
    const Stretch stretch(job);
    if (!stretch.exists) return;
    const bool maximum = job.reduce == core::Reduce::kMax;
    Wide best = 0;
    const auto take = [&](std::int64_t p, std::int32_t) {
        const Wide rank = rank_of(job.values[job.at_pixel(stretch.plane, p)], maximum);
        if (rank > best) best = rank;
    };
    walk(job, stretch, take, [&](std::int32_t label) {
        raise(&job.extremes[stretch.plane * job.shape.regions + label], best);
        best = 0;
    });
}

template <class T>
__global__ void first_zero_kernel(PoolJob<T> job) {
    const Stretch stretch(job);
    if (!stretch.exists) return;
    const Wide zero = rank_of(T{0}, job.reduce == core::Reduce::kMax);
    const auto take = [&](std::int64_t p, std::int32_t label) {
        const std::int64_t at = stretch.plane * job.shape.regions + label;
        if (job.values[job.at_pixel(stretch.plane, p)] == T{0} && job.extremes[at] == zero) {
            atomicMax(&job.zeros[at], 0xFFFFFFFFu - static_cast<unsigned>(p));
        }
    };
    walk(job, stretch, take, [](std::int32_t) {});
}

template <class T>
__global__ void write_extremes_kernel(PoolJob<T> job) {
    const std::int64_t i = global_index();
    if (i >= job.planes() * job.shape.regions) return;
    const std::int64_t plane = i / job.shape.regions, region = i % job.shape.regions;
    T& out = job.out[job.at_region(plane, region)];
    if (job.extremes[i] == 0 || !is_sound(job, plane)) {
        out = kNaN<T>;
    } else if (job.zeros[i] != 0) {
        out = job.values[job.at_pixel(plane, 0xFFFFFFFFu - job.zeros[i])];
    } else {
        out = static_cast<T>(value_of(job.extremes[i], job.reduce == core::Reduce::kMax));
    }
}

}  // namespace

template <class T>
void launch_pool_extremes(const PoolJob<T>& job, Stream stream) {
    const std::int64_t blocks = blocks_of(job.planes() * job.runs(), kPoolThreads);
    launch(extreme_kernel<T>, blocks, kPoolThreads, stream, job);
    launch(first_zero_kernel<T>, blocks, kPoolThreads, stream, job);
    const std::int64_t results = job.planes() * job.shape.regions;
    launch(write_extremes_kernel<T>, blocks_of(results, kPoolThreads), kPoolThreads, stream, job);
}

template void launch_pool_extremes(const PoolJob<float>&, Stream);
template void launch_pool_extremes(const PoolJob<double>&, Stream);

}  // namespace midgrain::cuda

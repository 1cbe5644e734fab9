// The median of every region (core/pool.hpp): pixels are listed by region once per label map, and a block per result
// finds the value in the middle bit by bit, without sorting.
#include "cuda/pool_job.cuh"

namespace midgrain::cuda {
namespace {

constexpr unsigned kMedianThreads = 64;

// One block per label map: where each region's pixels begin in the list.
template <class T>
__global__ void start_kernel(PoolJob<T> job) {
    MIDGRAIN_SHARED(unsigned, of_threads, kPoolThreads);
    const std::int64_t n = job.shape.regions, each = blocks_of(n, kPoolThreads);
    const unsigned* sizes = job.sizes + blockIdx.x * n;
    unsigned* starts = job.starts + blockIdx.x * (n + 1);
    const std::int64_t first = threadIdx.x * each, last = first + each < n ? first + each : n;
    unsigned sum = 0;
    for (std::int64_t r = first; r < last; ++r) sum += sizes[r];
    of_threads[threadIdx.x] = sum;
    __syncthreads();
    unsigned running = 0;
    for (unsigned t = 0; t < threadIdx.x; ++t) running += of_threads[t];
    for (std::int64_t r = first; r < last; ++r) {
        starts[r] = running;
        job.cursors[blockIdx.x * n + r] = running;
        running += sizes[r];
    }
    if (first < n && last == n) starts[n] = running;
}

template <class T>
__global__ void list_pixels_kernel(PoolJob<T> job) {
    const std::int64_t i = global_index();
    if (i >= job.shape.groups * job.shape.pixels || !job.is_inside(job.labels[i])) return;
    const std::int64_t group = i / job.shape.pixels;
    const unsigned at = atomicAdd(&job.cursors[group * job.shape.regions + job.labels[i]], 1u);
    job.order[group * job.shape.pixels + at] = static_cast<unsigned>(i % job.shape.pixels);
}

// Unsigned integers in the order of the doubles.
__device__ inline Wide key_of(double value) {
    const Wide bits = double_bits(value);
    return bits >> 63 != 0 ? ~bits : bits | Wide{1} << 63;
}

__device__ inline double key_value(Wide key) { return bits_double(key >> 63 != 0 ? key & ~(Wide{1} << 63) : ~key); }

template <class T>
__global__ void median_kernel(PoolJob<T> job) {
    MIDGRAIN_SHARED(unsigned, count, 2);
    MIDGRAIN_SHARED(Wide, below, 1);
    const std::int64_t plane = blockIdx.x / job.shape.regions, region = blockIdx.x % job.shape.regions;
    const std::int64_t group = job.group_of(plane);
    const unsigned* starts = job.starts + group * (job.shape.regions + 1) + region;
    const unsigned* pixels = job.order + group * job.shape.pixels + starts[0];
    const unsigned n = starts[1] - starts[0];
    T& out = job.out[job.at_region(plane, region)];
    if (n == 0 || !is_sound(job, plane)) {
        if (threadIdx.x == 0) out = kNaN<T>;
        return;
    }
    const auto key = [&](unsigned i) {
        return key_of(static_cast<double>(job.values[job.at_pixel(plane, pixels[i])]));
    };
    // The upper middle: its bits from the highest on; `rank` is its place among the values with the bits so far.
    // A float is a double whose last 29 bits are zeros, or in the key of a negative one, ones.
    Wide found = 0;
    unsigned rank = n / 2;
    if (threadIdx.x == 0) count[0] = count[1] = 0;
    __syncthreads();
    for (int bit = 63; bit >= 0; --bit) {
        unsigned* zeros = count + bit % 2;
        for (unsigned i = threadIdx.x; i < n; i += kMedianThreads) {
            if (key(i) >> bit == found >> bit) atomicAdd(zeros, 1u);
        }
        __syncthreads();
        if (rank >= *zeros) {
            rank -= *zeros;
            found |= Wide{1} << bit;
        }
        if (threadIdx.x == 0) count[1 - bit % 2] = 0;
        __syncthreads();
    }
    const T upper = static_cast<T>(key_value(found));
    if (n % 2 == 1) {
        if (threadIdx.x == 0) out = upper;
        return;
    }
    // rank == 0: the lower middle is another value, the largest below; otherwise it is the same.
    if (threadIdx.x == 0) below[0] = 0;
    __syncthreads();
    for (unsigned i = threadIdx.x; i < n; i += kMedianThreads) {
        const Wide own = key(i);
        if (own < found) atomicMax(&below[0], own);
    }
    __syncthreads();
    if (threadIdx.x > 0) return;
    const T lower = rank == 0 ? static_cast<T>(key_value(below[0])) : upper;
    // Halves before adding: the sum of two large values must not overflow.
    out = upper / 2 + lower / 2;
}

}  // namespace

template <class T>
void launch_pool_median(const PoolJob<T>& job, Stream stream) {
    const std::int64_t pixels = job.shape.groups * job.shape.pixels;
    launch(start_kernel<T>, job.shape.groups, kPoolThreads, stream, job);
    launch(list_pixels_kernel<T>, blocks_of(pixels, kPoolThreads), kPoolThreads, stream, job);
    launch(median_kernel<T>, job.planes() * job.shape.regions, kMedianThreads, stream, job);
}

template void launch_pool_median(const PoolJob<float>&, Stream);
template void launch_pool_median(const PoolJob<double>&, Stream);

}  // namespace midgrain::cuda

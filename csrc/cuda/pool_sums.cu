// Sums and what is made of them: mean, sum, absolute sum, l2, variance, standard deviation (core/pool.hpp).
#include <cmath>

#include "cuda/pool_job.cuh"

namespace midgrain::cuda {
namespace {

using core::Reduce;

// llrint(x), |x| <= 2^62.
__device__ inline std::int64_t round_to_even(double x) {
#if defined(__CUDA_ARCH__)
    return __double2ll_rn(x);
#else
    return static_cast<std::int64_t>(std::nearbyint(x));
#endif
}

__device__ inline double magnitude(double x) { return x < 0.0 ? -x : x; }

template <class T>
struct Scaling {
    int exponent;  // values are below 2^exponent
    double scale, unit;

    __device__ Scaling(const PoolJob<T>& job, std::int64_t plane)
        : exponent(core::magnitude_exponent(bits_double(job.largest[plane]))),
          scale(core::power_of_two(-exponent)),
          unit(core::power_of_two(core::fixed_exponent(job.shape.pixels))) {}
};

// The mean of a region's scaled values.
template <class T>
__device__ double mean_of(const PoolJob<T>& job, const Scaling<T>& scaling, std::int64_t plane, std::int64_t region) {
    const auto size = static_cast<double>(job.sizes[job.group_of(plane) * job.shape.regions + region]);
    const auto sum = static_cast<std::int64_t>(job.sums[plane * job.shape.regions + region]);
    return size > 0.0 ? static_cast<double>(sum) / scaling.unit / size : 0.0;
}

template <class T>
__global__ void add_kernel(PoolJob<T> job) {
    const Stretch stretch(job);
    if (!stretch.exists || !is_sound(job, stretch.plane)) return;
    const Scaling<T> scaling(job, stretch.plane);
    Wide* sums = job.sums + stretch.plane * job.shape.regions;
    Wide sum = 0;
    const auto take = [&](std::int64_t p, std::int32_t) {
        const auto value = static_cast<double>(job.values[job.at_pixel(stretch.plane, p)]);
        double term;
        if (job.reduce == Reduce::kL2) {
            const double scaled = value * scaling.scale;
            term = scaled * scaled * scaling.unit;
        } else {
            // Floats take both factors at once, which matters where a product is subnormal.
            term = sizeof(T) == 4 ? value * (scaling.scale * scaling.unit) : value * scaling.scale * scaling.unit;
            if (job.reduce == Reduce::kAbsSum) term = magnitude(term);
        }
        sum += static_cast<Wide>(round_to_even(term));
    };
    walk(job, stretch, take, [&](std::int32_t label) {
        atomicAdd(&sums[label], sum);
        sum = 0;
    });
}

// The largest deviation from a region's mean.
template <class T>
__global__ void deviate_kernel(PoolJob<T> job) {
    const Stretch stretch(job);
    if (!stretch.exists || !is_sound(job, stretch.plane)) return;
    const Scaling<T> scaling(job, stretch.plane);
    double widest = 0.0, mean = 0.0;
    std::int32_t of_label = -1;
    const auto take = [&](std::int64_t p, std::int32_t label) {
        if (label != of_label) mean = mean_of(job, scaling, stretch.plane, label);
        of_label = label;
        const auto value = static_cast<double>(job.values[job.at_pixel(stretch.plane, p)]);
        const double deviation = magnitude(value * scaling.scale - mean);
        if (deviation > widest) widest = deviation;
    };
    walk(job, stretch, take, [](std::int32_t) {});
    raise(&job.widest[stretch.plane], double_bits(widest));
}

template <class T>
__global__ void add_squares_kernel(PoolJob<T> job) {
    const Stretch stretch(job);
    if (!stretch.exists || !is_sound(job, stretch.plane)) return;
    const Scaling<T> scaling(job, stretch.plane);
    const double widen = core::power_of_two(-core::magnitude_exponent(bits_double(job.widest[stretch.plane])));
    Wide* squares = job.squares + stretch.plane * job.shape.regions;
    Wide sum = 0;
    double mean = 0.0;
    std::int32_t of_label = -1;
    const auto take = [&](std::int64_t p, std::int32_t label) {
        if (label != of_label) mean = mean_of(job, scaling, stretch.plane, label);
        of_label = label;
        const auto value = static_cast<double>(job.values[job.at_pixel(stretch.plane, p)]);
        const double deviation = (value * scaling.scale - mean) * widen;
        sum += static_cast<Wide>(round_to_even(deviation * deviation * scaling.unit));
    };
    walk(job, stretch, take, [&](std::int32_t label) {
        atomicAdd(&squares[label], sum);
        sum = 0;
    });
}

// One thread per result.
template <class T>
__global__ void finish_kernel(PoolJob<T> job) {
    const std::int64_t i = global_index();
    if (i >= job.planes() * job.shape.regions) return;
    const std::int64_t plane = i / job.shape.regions, region = i % job.shape.regions;
    T& out = job.out[job.at_region(plane, region)];
    out = kNaN<T>;
    if (!is_sound(job, plane)) return;
    const Scaling<T> scaling(job, plane);
    const bool deviates = job.reduce == Reduce::kVar || job.reduce == Reduce::kStd;
    int exponent = scaling.exponent;
    if (deviates) exponent += core::magnitude_exponent(bits_double(job.widest[plane]));
    if (job.reduce == Reduce::kVar) exponent *= 2;
    const auto whole = static_cast<std::int64_t>((deviates ? job.squares : job.sums)[i]);
    double value = static_cast<double>(whole) * (1.0 / scaling.unit);
    if (deviates || job.reduce == Reduce::kMean) {
        const auto size = static_cast<double>(job.sizes[job.group_of(plane) * job.shape.regions + region]);
        if (!(size > 0.0)) return;
        value = value / size;
    }
    if (job.reduce == Reduce::kStd || job.reduce == Reduce::kL2) value = std::sqrt(value);
    out = static_cast<T>(std::ldexp(value, exponent));
}

}  // namespace

template <class T>
void launch_pool_sums(const PoolJob<T>& job, Stream stream) {
    const std::int64_t blocks = blocks_of(job.planes() * job.runs(), kPoolThreads);
    launch(add_kernel<T>, blocks, kPoolThreads, stream, job);
    if (job.reduce == Reduce::kVar || job.reduce == Reduce::kStd) {
        launch(deviate_kernel<T>, blocks, kPoolThreads, stream, job);
        launch(add_squares_kernel<T>, blocks, kPoolThreads, stream, job);
    }
    const std::int64_t results = job.planes() * job.shape.regions;
    launch(finish_kernel<T>, blocks_of(results, kPoolThreads), kPoolThreads, stream, job);
}

template void launch_pool_sums(const PoolJob<float>&, Stream);
template void launch_pool_sums(const PoolJob<double>&, Stream);

}  // namespace midgrain::cuda

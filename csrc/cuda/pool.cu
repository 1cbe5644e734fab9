// Superpixel pooling and painting on the device (core/pool.hpp).
#include "core/pool.hpp"
#include "cuda/pool_job.cuh"

namespace midgrain::cuda {
namespace {

using core::Reduce;

// One thread per stretch of a label map.
template <class T>
__global__ void count_labels_kernel(PoolJob<T> job) {
    const std::int64_t i = global_index(), runs = job.runs();
    if (i >= job.shape.groups * runs) return;
    const std::int64_t group = i / runs, first = i % runs * kRun;
    const std::int64_t last = first + kRun < job.shape.pixels ? first + kRun : job.shape.pixels;
    const std::int32_t* labels = job.labels + group * job.shape.pixels;
    bool outside = false;
    std::int64_t start = first;
    for (std::int64_t p = first; p < last; ++p) {
        if (p + 1 < last && labels[p + 1] == labels[p]) continue;
        if (!job.is_inside(labels[p])) {
            outside = true;
        } else if (job.sizes != nullptr) {
            atomicAdd(&job.sizes[group * job.shape.regions + labels[p]], static_cast<unsigned>(p + 1 - start));
        }
        start = p + 1;
    }
    if (outside) atomicOr(&job.status[group], static_cast<int>(kLabelOutside));
}

template <class T>
__global__ void find_largest_kernel(PoolJob<T> job) {
    const Stretch stretch(job);
    if (!stretch.exists) return;
    constexpr Wide kSign = Wide{1} << 63;
    Wide largest = 0;
    for (std::int64_t p = stretch.first; p < stretch.last; ++p) {
        // Without the sign, bits order as magnitudes do, NaN and infinity above every finite number.
        const auto value = static_cast<double>(job.values[job.at_pixel(stretch.plane, p)]);
        const Wide bits = double_bits(value) & ~kSign;
        if (bits > largest) largest = bits;
    }
    raise(&job.largest[stretch.plane], largest);
    if (largest >= kInfinityBits) {
        atomicOr(&job.status[job.group_of(stretch.plane)], static_cast<int>(kNotFinite));
    }
}

template <class T>
__global__ void paint_kernel(PoolJob<T> job, const T* scores) {
    const std::int64_t i = global_index(), pixels = job.shape.pixels, channels = job.shape.channels;
    if (i >= job.planes() * pixels) return;
    const std::int64_t rest = i % (channels * pixels);
    const std::int64_t channel = job.shape.channels_last ? rest % channels : rest / pixels;
    const std::int64_t plane = i / (channels * pixels) * channels + channel;
    const std::int64_t pixel = job.shape.channels_last ? rest / channels : rest % pixels;
    const std::int32_t label = job.labels[job.group_of(plane) * pixels + pixel];
    job.out[i] = job.is_inside(label) ? scores[job.at_region(plane, label)] : kNaN<T>;
}

bool needs_sizes(Reduce reduce) {
    return reduce == Reduce::kMean || reduce == Reduce::kMedian || reduce == Reduce::kVar || reduce == Reduce::kStd;
}

// Where everything lies; `cleared` bytes at the beginning start as zeros.
template <class T>
PoolJob<T> plan(const core::PoolShape& shape, Reduce reduce, Workspace& workspace, std::int64_t& cleared) {
    PoolJob<T> job{};
    job.shape = shape;
    job.reduce = reduce;
    const std::int64_t results = job.planes() * shape.regions, of_groups = shape.groups * shape.regions;
    job.largest = workspace.take<Wide>(job.planes());
    if (needs_sizes(reduce)) job.sizes = workspace.take<unsigned>(of_groups);
    if (reduce == Reduce::kMax || reduce == Reduce::kMin) {
        job.extremes = workspace.take<Wide>(results);
        job.zeros = workspace.take<unsigned>(results);
    } else if (reduce != Reduce::kMedian) {
        job.sums = workspace.take<Wide>(results);
    }
    if (reduce == Reduce::kVar || reduce == Reduce::kStd) {
        job.squares = workspace.take<Wide>(results);
        job.widest = workspace.take<Wide>(job.planes());
    }
    cleared = workspace.bytes();
    if (reduce == Reduce::kMedian) {
        job.starts = workspace.take<unsigned>(of_groups + shape.groups);
        job.cursors = workspace.take<unsigned>(of_groups);
        job.order = workspace.take<unsigned>(shape.groups * shape.pixels);
    }
    return job;
}

template <class T>
void launch_count_labels(const PoolJob<T>& job, Stream stream) {
    fill_zero(job.status, static_cast<std::size_t>(job.shape.groups) * sizeof *job.status, stream);
    launch(count_labels_kernel<T>, blocks_of(job.shape.groups * job.runs(), kPoolThreads), kPoolThreads, stream, job);
}

}  // namespace

template <class T>
std::int64_t pool_workspace_bytes(const core::PoolShape& shape, Reduce reduce) {
    Workspace counter(nullptr);
    std::int64_t cleared = 0;
    plan<T>(shape, reduce, counter, cleared);
    return counter.bytes();
}

template <class T>
void launch_pool(const T* values, const std::int32_t* labels, const core::PoolShape& shape, Reduce reduce, T* out,
                 std::int32_t* status, void* workspace, Stream stream) {
    Workspace memory(workspace);
    std::int64_t cleared = 0;
    PoolJob<T> job = plan<T>(shape, reduce, memory, cleared);
    job.values = values;
    job.labels = labels;
    job.out = out;
    job.status = status;
    fill_zero(workspace, static_cast<std::size_t>(cleared), stream);
    launch_count_labels(job, stream);
    launch(find_largest_kernel<T>, blocks_of(job.planes() * job.runs(), kPoolThreads), kPoolThreads, stream, job);
    switch (reduce) {
        case Reduce::kMax:
        case Reduce::kMin: return launch_pool_extremes(job, stream);
        case Reduce::kMedian: return launch_pool_median(job, stream);
        default: return launch_pool_sums(job, stream);
    }
}

template <class T>
void launch_paint(const T* scores, const std::int32_t* labels, const core::PoolShape& shape, T* out,
                  std::int32_t* status, Stream stream) {
    PoolJob<T> job{};
    job.shape = shape;
    job.labels = labels;
    job.out = out;
    job.status = status;
    launch_count_labels(job, stream);
    launch(paint_kernel<T>, blocks_of(job.planes() * shape.pixels, kPoolThreads), kPoolThreads, stream, job, scores);
}

template std::int64_t pool_workspace_bytes<float>(const core::PoolShape&, Reduce);
template std::int64_t pool_workspace_bytes<double>(const core::PoolShape&, Reduce);
template void launch_pool(const float*, const std::int32_t*, const core::PoolShape&, Reduce, float*, std::int32_t*,
                          void*, Stream);
template void launch_pool(const double*, const std::int32_t*, const core::PoolShape&, Reduce, double*, std::int32_t*,
                          void*, Stream);
template void launch_paint(const float*, const std::int32_t*, const core::PoolShape&, float*, std::int32_t*, Stream);
template void launch_paint(const double*, const std::int32_t*, const core::PoolShape&, double*, std::int32_t*, Stream);

}  // namespace midgrain::cuda

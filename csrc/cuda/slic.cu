// SLIC on the device (core/slic.hpp); slic_job.cuh says how the work is laid out.
#include "core/color.hpp"
#include "core/gradient.hpp"
#include "core/slic.hpp"
#include "cuda/pictures.cuh"
#include "cuda/slic_job.cuh"

namespace midgrain::cuda {
namespace {

constexpr unsigned kThreads = 256;

// Where a channel's range comes from: a constant, the extremes of its values, or a gradient map's.
enum class RangeSource { kGiven, kFound, kGradient };

// What the caller said about every channel; copied to the kernel.
struct ChannelSettings {
    double weight[core::kMaxChannels];
    core::Range range[core::kMaxChannels];
    double spacing[3];
    RangeSource source;     // of all channels but that of a gradient
    int gradient;           // the channel that is a gradient map, -1: none
    const Extremes* found;  // [items, channels] for kFound, [items] for a gradient
};

__device__ core::Range range_of(const SlicJob& job, const ChannelSettings& settings, std::int64_t item, int channel) {
    if (channel == settings.gradient) {
        const Extremes& found = settings.found[item];
        const bool flat = core::make_gradient_scale(lowest_of(found), highest_of(found)).is_flat();
        // A flat gradient says nothing; as a channel it would still change the rounding of the colours.
        return {0.0f, flat && job.channels > 1 ? 0.0f : 100.0f};
    }
    if (settings.source == RangeSource::kGiven) return settings.range[channel];
    const Extremes& found = settings.found[item * job.channels + channel];
    return {lowest_of(found), highest_of(found)};
}

// One block per item: its units, the scales of its channels, positions of pixels and homes of centres.
__global__ void prepare_kernel(SlicJob job, core::SlicGeometry grid, ChannelSettings settings, std::int32_t* counts) {
    MIDGRAIN_SHARED(core::SlicGeometry, shared_geometry, 1);
    const std::int64_t i = blockIdx.x;
    SlicItem& item = job.item[i];
    if (threadIdx.x == 0) {
        core::SlicGeometry geometry = grid;
        double spreads[core::kMaxChannels];
        for (int c = 0; c < job.channels; ++c) {
            const core::Range range = range_of(job, settings, i, c);
            spreads[c] = (static_cast<double>(range.high) - static_cast<double>(range.low)) / settings.weight[c];
        }
        core::set_slic_units(geometry, job.dims, settings.spacing, spreads, job.channels);
        item.usable = geometry.units >= 1;
        if (!item.usable) {
            job.status[i] |= kWeightsTooSmall;
            geometry.units = 0;
        }
        item.window = static_cast<std::int32_t>(geometry.window());
        item.narrow = geometry.narrow;
        for (int a = 0; a < 3; ++a) item.per_pixel[a] = item.usable ? geometry.per_pixel[a] : 0.0;
        for (int c = 0; c < job.channels; ++c) {
            const core::Range range = range_of(job, settings, i, c);
            job.channel[i * job.channels + c] = {range.low, range.high,
                                                 core::feature_scale(geometry.units, settings.weight[c])};
        }
        counts[i] = static_cast<std::int32_t>(job.count);
        shared_geometry[0] = geometry;
    }
    __syncthreads();
    const core::SlicGeometry geometry = shared_geometry[0];
    if (geometry.units < 1) return;
    std::int32_t* position = job.position + i * job.positions();
    std::int32_t* home = job.home + i * job.homes();
    for (int a = 0; a < 3; ++a) {
        const std::int64_t n = job.dims[a], cells = job.cells[a];
        for (std::int64_t k = threadIdx.x; k < n; k += blockDim.x) {
            position[k] = core::pixel_position(k, geometry.per_pixel[a]);
        }
        for (std::int64_t cell = threadIdx.x; cell < cells; cell += blockDim.x) {
            const std::int64_t begin = core::cell_begin(cell, n, cells), end = core::cell_begin(cell + 1, n, cells);
            std::int64_t sum = 0;
            for (std::int64_t k = begin; k < end; ++k) sum += core::pixel_position(k, geometry.per_pixel[a]);
            home[cell] = static_cast<std::int32_t>(core::divide_half_up(sum, end - begin));
        }
        position += n;
        home += cells;
    }
}

// Centres of one item become the means of their members; sums are cleared for the next iteration.
__global__ void update_kernel(SlicJob job, std::int64_t blocks, int iteration) {
    MIDGRAIN_SHARED(unsigned, drift, 3);
    const std::int64_t i = blockIdx.x / blocks, k = blockIdx.x % blocks * kThreads + threadIdx.x;
    SlicItem& item = job.item[i];
    const bool done = !item.usable || is_settled(item, iteration);
    if (k == 0) item.changed[iteration % 2] = 0;
    if (done) return;
    if (threadIdx.x < 3) drift[threadIdx.x] = 0;
    __syncthreads();
    if (k < job.count) {
        Wide* sums = job.sums_of(i) + k;
        std::int32_t* centre = job.centres_of(i) + k;
        const auto n = static_cast<std::int64_t>(sums[0]);
        if (n > 0) {
            for (int v = 0; v < 3 + job.channels; ++v) {
                const auto total = static_cast<std::int64_t>(sums[(v + 1) * job.count]);
                centre[v * job.count] = static_cast<std::int32_t>(core::divide_half_up(total, n));
            }
            for (int v = 0; v < kSumHeader + job.channels; ++v) sums[v * job.count] = 0;
        }
        const std::int64_t cell[3] = {k / (job.cells.y * job.cells.x), k / job.cells.x % job.cells.y, k % job.cells.x};
        for (int a = 0; a < 3; ++a) {
            const std::int32_t away = centre[a * job.count] - job.homes_of(i, a)[cell[a]];
            atomicMax(&drift[a], static_cast<unsigned>(away < 0 ? -away : away));
        }
    }
    __syncthreads();
    if (threadIdx.x < 3) atomicMax(&item.drift[iteration % 2][threadIdx.x], drift[threadIdx.x]);
}

// The memory of one call.
struct SlicPlan {
    SlicPlan(std::int64_t items, int channels, int extremes_per_item, bool with_table, core::Dims dims,
             const core::SlicParameters& parameters, void* memory)
        : grid(core::make_slic_grid(dims, parameters.n_segments, parameters.spacing)), workspace(memory) {
        job.dims = dims;
        job.cells = grid.cells;
        job.items = items;
        job.pixels = dims.size();
        job.count = grid.count();
        job.channels = channels;
        job.tiles_x = blocks_of(dims.x, kTileX);
        job.tiles_y = blocks_of(dims.y, kTileY);
        job.item = workspace.take<SlicItem>(items);
        extremes = workspace.take<Extremes>(items * extremes_per_item);
        job.sums = workspace.take<Wide>(items * (kSumHeader + channels) * job.count);
        cleared = workspace.bytes();
        job.channel = workspace.take<SlicChannel>(items * channels);
        job.position = workspace.take<std::int32_t>(items * job.positions());
        job.home = workspace.take<std::int32_t>(items * job.homes());
        job.centres = workspace.take<std::int32_t>(items * (3 + channels) * job.count);
        job.features = workspace.take<std::int32_t>(items * channels * job.pixels);
        if (with_table) table = workspace.take<float>(kSrgbEntries);
        connectivity = static_cast<std::byte*>(memory) + (memory == nullptr ? 0 : workspace.bytes());
        bytes = workspace.bytes() + (parameters.min_size > 0 ? connectivity_workspace_bytes(items, dims) : 0);
    }

    core::SlicGeometry grid;
    Workspace workspace;
    SlicJob job{};
    Extremes* extremes;
    float* table = nullptr;
    std::int64_t cleared;  // bytes at the beginning that start as zeros
    std::byte* connectivity;
    std::int64_t bytes;
};

void begin(SlicPlan& plan, std::int32_t* labels, std::int32_t* status, void* workspace, Stream stream) {
    plan.job.labels = labels;
    plan.job.status = status;
    fill_zero(workspace, static_cast<std::size_t>(plan.cleared), stream);
    fill_zero(status, static_cast<std::size_t>(plan.job.items) * sizeof *status, stream);
}

// From packed features to labels.
void iterate(const SlicPlan& plan, const core::SlicParameters& parameters, std::int32_t* counts, Stream stream) {
    const SlicJob& job = plan.job;
    const std::int64_t blocks = blocks_of(job.count, kThreads);
    for (int iteration = 0; iteration < parameters.max_num_iter; ++iteration) {
        launch(update_kernel, job.items * blocks, kThreads, stream, job, blocks, iteration);
        launch_assign(job, iteration, iteration + 1 == parameters.max_num_iter, stream);
    }
    if (parameters.min_size > 0) {
        launch_connectivity(job.labels, job.items, job.dims, parameters.min_size, job.labels, counts, plan.connectivity,
                            stream);
    }
}

SlicPlan plan_features(std::int64_t items, int channels, core::Dims dims, const core::SlicParameters& parameters,
                       void* memory) {
    return {items, channels, parameters.ranges.empty() ? channels : 0, false, dims, parameters, memory};
}

SlicPlan plan_pictures(const core::Pictures& pictures, const core::SlicParameters& parameters, void* memory) {
    const bool has_gradient = pictures.gradient != nullptr;
    const int channels = (pictures.has_colour() ? 3 : 0) + (has_gradient ? 1 : 0);
    return {pictures.items, channels, has_gradient ? 1 : 0, pictures.has_colour(), pictures.dims, parameters, memory};
}

}  // namespace

std::int64_t slic_workspace_bytes(std::int64_t items, int channels, core::Dims dims,
                                  const core::SlicParameters& parameters) {
    return plan_features(items, channels, dims, parameters, nullptr).bytes;
}

void launch_slic(const core::FeatureRef<float>& features, const core::SlicParameters& parameters, std::int32_t* labels,
                 std::int32_t* counts, std::int32_t* status, void* workspace, Stream stream) {
    if (features.items == 0) return;
    SlicPlan plan = plan_features(features.items, features.channels, features.dims, parameters, workspace);
    begin(plan, labels, status, workspace, stream);
    ChannelSettings settings{};
    settings.source = parameters.ranges.empty() ? RangeSource::kFound : RangeSource::kGiven;
    settings.gradient = -1;
    settings.found = plan.extremes;
    for (int a = 0; a < 3; ++a) settings.spacing[a] = parameters.spacing[a];
    for (int c = 0; c < features.channels; ++c) {
        const auto at = static_cast<std::size_t>(c);
        settings.weight[c] = parameters.weights[at];
        if (!parameters.ranges.empty()) settings.range[c] = parameters.ranges[at];
    }
    if (parameters.ranges.empty()) {
        launch_find_extremes(features.data, features.items, features.channels, features.dims.size(), plan.extremes,
                             status, stream);
    }
    launch(prepare_kernel, features.items, kThreads, stream, plan.job, plan.grid, settings, counts);
    launch_pack_features(plan.job, features.data, stream);
    iterate(plan, parameters, counts, stream);
}

std::int64_t slic_pictures_workspace_bytes(const core::Pictures& pictures, const core::SlicParameters& parameters) {
    return plan_pictures(pictures, parameters, nullptr).bytes;
}

void launch_slic_pictures(const core::Pictures& pictures, const core::SlicParameters& parameters, std::int32_t* labels,
                          std::int32_t* counts, std::int32_t* status, void* workspace, Stream stream) {
    if (pictures.items == 0) return;
    SlicPlan plan = plan_pictures(pictures, parameters, workspace);
    begin(plan, labels, status, workspace, stream);
    ChannelSettings settings{};
    settings.source = RangeSource::kGiven;
    settings.gradient = pictures.gradient == nullptr ? -1 : plan.job.channels - 1;
    settings.found = plan.extremes;
    for (int a = 0; a < 3; ++a) settings.spacing[a] = parameters.spacing[a];
    if (pictures.has_colour()) {
        for (int c = 0; c < 3; ++c) {
            settings.weight[c] = parameters.weights[0];
            settings.range[c] = {static_cast<float>(core::kLabLow[c]), static_cast<float>(core::kLabHigh[c])};
        }
        launch_fill_srgb_table(plan.table, stream);
    }
    if (pictures.gradient != nullptr) {
        settings.weight[settings.gradient] = parameters.weights[1];
        launch_find_extremes(pictures.gradient, pictures.items, 1, pictures.dims.size(), plan.extremes, status, stream);
    }
    launch(prepare_kernel, pictures.items, kThreads, stream, plan.job, plan.grid, settings, counts);
    launch_pack_pictures(plan.job, pictures, plan.extremes, plan.table, stream);
    iterate(plan, parameters, counts, stream);
}

}  // namespace midgrain::cuda

// SLIC's features on the device: read, converted, quantised, stored and summed over the cells in one pass.
#include "core/gradient.hpp"
#include "cuda/pictures.cuh"
#include "cuda/slic_job.cuh"

namespace midgrain::cuda {
namespace {

// Sources call emit(channel, value) for every channel of a pixel; true: one of them was NaN or infinite.

struct PlaneSource {
    const float* values;  // [items, channels, pixels]

    template <class Emit>
    __device__ bool visit(const SlicJob& job, std::int64_t item, std::int64_t pixel, Emit&& emit) const {
        bool poison = false;
        for (int c = 0; c < job.channels; ++c) {
            const float value = values[(item * job.channels + c) * job.pixels + pixel];
            const bool finite = is_finite(value);
            poison |= !finite;
            emit(c, finite ? value : 0.0f);
        }
        return poison;
    }
};

struct PictureSource {
    core::Pictures pictures;
    const Extremes* gradients;
    const float* table;

    template <class Emit>
    __device__ bool visit(const SlicJob& job, std::int64_t item, std::int64_t pixel, Emit&& emit) const {
        bool poison = false;
        int channel = 0;
        if (pictures.has_colour()) {
            const core::Lab lab = lab_at(pictures, table, item, pixel, poison);
            emit(0, lab.l);
            emit(1, lab.a);
            emit(2, lab.b);
            channel = 3;
        }
        if (pictures.gradient != nullptr) {
            const Extremes& found = gradients[item];
            const core::GradientScale scale = core::make_gradient_scale(lowest_of(found), highest_of(found));
            const float value = pictures.gradient[item * job.pixels + pixel];
            emit(channel, scale.is_flat() || !is_finite(value) ? 0.0f : core::scale_gradient(value, scale));
        }
        return poison;
    }
};

template <class Feature, class Source>
__device__ void pack_tile(const SlicJob& job, const Source& source, const Tile& tile, std::int32_t* labels) {
    const SlicChannel* channels = job.channel + tile.item * job.channels;
    Feature* features = job.features_of<Feature>(tile.item);
    if (tile.inside) {
        const bool poison = source.visit(job, tile.item, tile.pixel, [&](int c, float value) {
            const SlicChannel& channel = channels[c];
            const std::int32_t q = core::quantise(value, channel.low, channel.high, channel.scale);
            features[c * job.pixels + tile.pixel] = static_cast<Feature>(q);
        });
        if (poison) atomicOr(&job.status[tile.item], static_cast<int>(kNotFinite));
    }
    __syncthreads();
    add_to_sums<Feature>(job, tile, labels);
}

template <class Source>
__global__ void __launch_bounds__(kTileThreads) pack_kernel(SlicJob job, Source source) {
    MIDGRAIN_SHARED(std::int32_t, labels, kTileLabels);
    const Tile tile(job);
    std::int32_t label = -1;
    if (tile.inside) {
        const std::int64_t cell_z = core::initial_cell(tile.z, job.dims.z, job.cells.z);
        const std::int64_t cell_y = core::initial_cell(tile.y, job.dims.y, job.cells.y);
        const std::int64_t cell_x = core::initial_cell(tile.x, job.dims.x, job.cells.x);
        label = static_cast<std::int32_t>((cell_z * job.cells.y + cell_y) * job.cells.x + cell_x);
        job.labels[tile.item * job.pixels + tile.pixel] = label;
    }
    labels[threadIdx.x / kTileX * kTileStride + threadIdx.x % kTileX] = label;
    const SlicItem& item = job.item[tile.item];
    if (!item.usable) return;
    if (item.narrow) {
        pack_tile<std::int16_t>(job, source, tile, labels);
    } else {
        pack_tile<std::int32_t>(job, source, tile, labels);
    }
}

}  // namespace

void launch_pack_features(const SlicJob& job, const float* features, Stream stream) {
    launch(pack_kernel<PlaneSource>, job.items * job.tiles(), kTileThreads, stream, job, PlaneSource{features});
}

void launch_pack_pictures(const SlicJob& job, const core::Pictures& pictures, const Extremes* gradients,
                          const float* table, Stream stream) {
    launch(pack_kernel<PictureSource>, job.items * job.tiles(), kTileThreads, stream, job,
           PictureSource{pictures, gradients, table});
}

}  // namespace midgrain::cuda

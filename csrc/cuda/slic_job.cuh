// SLIC on the device (core/slic.hpp): what its kernels share.
//
// A block of 256 threads handles a tile of 32 x 8 pixels of one frame. Every iteration is two launches:
//
//   update   one thread per centre: rounded means of the sums, which it clears; how far centres have drifted.
//   assign   one block per tile: the cells whose centres may reach the tile (those that started near enough, given the
//            drift) are tested one per thread, and the centres found are brought into shared memory 32 at a time. In
//            place of a sort, equal distances are decided by comparing indices. Then the tile's sums: one thread per
//            row and quantity walks along its 32 pixels and adds to global memory only where the label changes,
//            about 3 atomics per row, so that neither shared atomics nor shuffles are needed.
//
// Integer sums do not depend on their order, so atomics leave nothing to chance. Whether an item has settled is known
// on the device only: later blocks of a settled item return at once.
//
// A 224 x 224 picture is 196 tiles, one and a half for each of 132 multiprocessors; everything it needs stays in the
// second-level cache. Narrow features are int16 in memory and int32 in registers, planes of each channel, so that
// the 32 pixels of a row are read together.
#pragma once

#include "core/slic.hpp"
#include "cuda/kernels.hpp"
#include "cuda/launch.cuh"
#include "cuda/ranges.cuh"

namespace midgrain::cuda {

constexpr int kTileX = 32, kTileY = 8;
constexpr unsigned kTileThreads = kTileX * kTileY;
// Entries before the features in a centre's sums: members, then positions z, y, x.
constexpr int kSumHeader = 4;

// What one item's geometry comes to, found on the device because it may depend on the values.
struct SlicItem {
    double per_pixel[3];
    std::int32_t window;      // 2 F
    std::int32_t narrow;      // int16 features and int32 distances
    std::int32_t usable;      // 0: the weights are too small
    unsigned drift[2][3];     // of even and odd iterations: how far a centre is from where it started
    std::int32_t changed[2];  // of even and odd iterations: did a label change?
};

struct SlicChannel {
    float low, high, scale;
};

// Parameters of all kernels; copied to each.
struct SlicJob {
    core::Dims dims, cells;
    std::int64_t items, pixels, count;  // count: centres per item
    int channels;
    std::int64_t tiles_x, tiles_y;
    SlicItem* item;          // [items]
    SlicChannel* channel;    // [items, channels]
    std::int32_t* position;  // [items, z + y + x]: of every index along each axis
    std::int32_t* home;      // [items, cells z + y + x]: where centres start along each axis
    std::int32_t* features;  // [items, channels, pixels]; of int16 where the item is narrow
    Wide* sums;              // [items, kSumHeader + channels, count]
    std::int32_t* centres;   // [items, 3 + channels, count]
    std::int32_t* labels;    // [items, pixels]
    std::int32_t* status;    // [items]

    __host__ __device__ std::int64_t tiles() const { return dims.z * tiles_y * tiles_x; }
    __host__ __device__ std::int64_t positions() const { return dims.z + dims.y + dims.x; }
    __host__ __device__ std::int64_t homes() const { return cells.z + cells.y + cells.x; }
    // Positions and homes of one axis.
    __device__ const std::int32_t* positions_of(std::int64_t i, int axis) const {
        return position + i * positions() + (axis > 0 ? dims.z : 0) + (axis > 1 ? dims.y : 0);
    }
    __device__ const std::int32_t* homes_of(std::int64_t i, int axis) const {
        return home + i * homes() + (axis > 0 ? cells.z : 0) + (axis > 1 ? cells.y : 0);
    }
    template <class Feature>
    __device__ Feature* features_of(std::int64_t i) const {
        return reinterpret_cast<Feature*>(features + i * channels * pixels);
    }
    __device__ Wide* sums_of(std::int64_t i) const { return sums + i * (kSumHeader + channels) * count; }
    __device__ std::int32_t* centres_of(std::int64_t i) const { return centres + i * (3 + channels) * count; }
};

// The tile of this block, and the pixel of this thread.
struct Tile {
    std::int64_t item, z, y0, x0, y, x;
    bool inside;         // the pixel is in the picture
    std::int64_t pixel;  // its number, where inside

    __device__ explicit Tile(const SlicJob& job) {
        std::int64_t rest = blockIdx.x;
        x0 = rest % job.tiles_x * kTileX;
        rest /= job.tiles_x;
        y0 = rest % job.tiles_y * kTileY;
        rest /= job.tiles_y;
        z = rest % job.dims.z;
        item = rest / job.dims.z;
        y = y0 + threadIdx.x / kTileX;
        x = x0 + threadIdx.x % kTileX;
        inside = y < job.dims.y && x < job.dims.x;
        pixel = (z * job.dims.y + y) * job.dims.x + x;
    }
};

// Labels of a tile; a row's end is padded so that threads on different rows read from different banks.
constexpr int kTileStride = kTileX + 1, kTileLabels = kTileStride * kTileY;

// Adds the tile to the sums of its labels [kTileLabels], -1 for pixels outside. All threads of the block call it, after
// a barrier behind the writing of the labels and of this block's features.
template <class Feature>
__device__ void add_to_sums(const SlicJob& job, const Tile& tile, const std::int32_t* labels) {
    const int width = kSumHeader + job.channels;
    Wide* sums = job.sums_of(tile.item);
    for (int task = static_cast<int>(threadIdx.x); task < width * kTileY; task += kTileThreads) {
        const int quantity = task / kTileY, row = task % kTileY;
        const std::int64_t y = tile.y0 + row;
        if (y >= job.dims.y) continue;
        const std::int32_t* of_row = labels + row * kTileStride;
        const std::int32_t* along_x = job.positions_of(tile.item, 2) + tile.x0;
        const std::int64_t first = (tile.z * job.dims.y + y) * job.dims.x + tile.x0;
        const Feature* of_channel = job.features_of<Feature>(tile.item) + (quantity - kSumHeader) * job.pixels + first;
        std::int64_t constant = 1;
        if (quantity == 1) constant = job.positions_of(tile.item, 0)[tile.z];
        if (quantity == 2) constant = job.positions_of(tile.item, 1)[y];
        std::int64_t sum = 0;
        std::int32_t label = of_row[0];
        for (int x = 0; x < kTileX; ++x) {
            const std::int32_t next = of_row[x];
            if (next != label) {
                atomicAdd(&sums[quantity * job.count + label], static_cast<Wide>(sum));
                sum = 0;
                label = next;
            }
            if (next < 0) break;
            sum += quantity < 3 ? constant : quantity == 3 ? along_x[x] : of_channel[x];
        }
        if (label >= 0) atomicAdd(&sums[quantity * job.count + label], static_cast<Wide>(sum));
    }
}

// Did the iteration before this one change nothing? Then no later one will.
__device__ inline bool is_settled(const SlicItem& item, int iteration) {
    return iteration > 0 && item.changed[(iteration + 1) % 2] == 0;
}

// Labels of one iteration, and their sums unless it is the last (slic_assign.cu).
void launch_assign(const SlicJob& job, int iteration, bool last, Stream stream);

// Initial labels, quantised features and their sums (slic_pack.cu).
void launch_pack_features(const SlicJob& job, const float* features, Stream stream);
// gradients [items]: extremes of the gradient maps; table: of core::srgb_decode.
void launch_pack_pictures(const SlicJob& job, const core::Pictures& pictures, const Extremes* gradients,
                          const float* table, Stream stream);

}  // namespace midgrain::cuda

// Jitter-CAM patches on the device (core/patches.hpp), without the enlarged image: one launch each for extraction and
// aggregation, two for the adjoint of extraction.
//
// A thread keeps to one column: where it interpolates along x is found once, and those along y are shared by the
// block's rows. Neighbouring threads write neighbouring pixels. Sums of the adjoint are gathered, in the order that the
// definition says, not scattered.
#include "core/patches.hpp"
#include "cuda/kernels.hpp"
#include "cuda/launch.cuh"

namespace midgrain::cuda {
namespace {

using core::Dims;
using core::Tap;

constexpr unsigned kThreads = 256;
// Columns and rows that a block of threads handles at once, and how often it moves down.
constexpr int kColumns = 32, kRows = kThreads / kColumns, kMoves = 4;
constexpr int kBlockRows = kRows * kMoves;

// interpolate(row, tap) with row[i] replaced by at(i): `low` alone where the position falls on it.
template <class T, class At>
__device__ T interpolate_with(const Tap<T>& tap, At&& at) {
    const T low = at(tap.low);
    return tap.low == tap.high ? low : core::interpolate(low, at(tap.high), tap.weight);
}

// x first, then y, then z, each rounded. at(z, y, x) gives a pixel.
template <class T, class At>
__device__ T enlarge(const Tap<T>& z, const Tap<T>& y, const Tap<T>& x, At&& at) {
    return interpolate_with<T>(z, [&](std::int32_t iz) {
        return interpolate_with<T>(y, [&](std::int32_t iy) {
            return interpolate_with<T>(x, [&](std::int32_t ix) { return at(iz, iy, ix); });
        });
    });
}

// Blocks over planes of patches, in which they lie column by column of kColumns pixels and kBlockRows rows.
template <class T>
__global__ void extract_kernel(core::FeatureRef<T> images, core::PatchGrid grid, std::int64_t blocks_x,
                               std::int64_t blocks_y, T* patches) {
    MIDGRAIN_SHARED(Tap<T>, of_rows, kBlockRows);
    std::int64_t rest = blockIdx.x;
    const std::int64_t x = rest % blocks_x * kColumns + threadIdx.x % kColumns;
    rest /= blocks_x;
    const std::int64_t y0 = rest % blocks_y * kBlockRows;
    rest /= blocks_y;
    const std::int64_t plane = rest, z = plane % grid.patch.z;  // [items, count, channels, patch z]
    const std::int64_t channel = plane / grid.patch.z % images.channels;
    const std::int64_t number = grid.start + plane / grid.patch.z / images.channels % grid.count;
    const std::int64_t item = plane / grid.patch.z / images.channels / grid.count;
    const std::int64_t iz = number / grid.grid.x / grid.grid.y, iy = number / grid.grid.x % grid.grid.y;
    const std::int64_t ix = number % grid.grid.x;
    const std::int64_t first_z = core::patch_offset(iz, grid.patch.z, grid.cells.z);
    const std::int64_t first_y = core::patch_offset(iy, grid.patch.y, grid.cells.y);
    const std::int64_t first_x = core::patch_offset(ix, grid.patch.x, grid.cells.x);
    if (threadIdx.x < kBlockRows && y0 + threadIdx.x < grid.patch.y) {
        of_rows[threadIdx.x] = core::linear_tap<T>(first_y + y0 + threadIdx.x, images.dims.y, grid.size.y);
    }
    __syncthreads();
    if (x >= grid.patch.x) return;
    const Tap<T> along_x = core::linear_tap<T>(first_x + x, images.dims.x, grid.size.x);
    const Tap<T> along_z = core::linear_tap<T>(first_z + z, images.dims.z, grid.size.z);
    const T* source = images.plane(item, static_cast<int>(channel));
    for (int row = static_cast<int>(threadIdx.x) / kColumns; row < kBlockRows; row += kRows) {
        const std::int64_t y = y0 + row;
        if (y >= grid.patch.y) break;
        patches[(plane * grid.patch.y + y) * grid.patch.x + x] =
            enlarge<T>(along_z, of_rows[row], along_x, [&](std::int32_t sz, std::int32_t sy, std::int32_t sx) {
                return source[(sz * images.dims.y + sy) * images.dims.x + sx];
            });
    }
}

// Parameters of the adjoint.
struct Adjoint {
    std::int64_t items;
    int channels;
    Dims dims, extent;  // of the images, and how far the patches reach
    core::PatchGrid grid;
};

// Patches [first, last) of one axis that contain position e.
struct Cover {
    std::int64_t first, last;

    __device__ Cover(std::int64_t e, std::int64_t grid, std::int64_t patch, std::int64_t cells) {
        // Patch i begins at about i patch / cells; from there it is a step or two to the exact ends.
        first = (e - patch) * cells / patch;
        first = first < 0 ? 0 : first >= grid ? grid - 1 : first;
        while (first > 0 && core::patch_offset(first - 1, patch, cells) + patch > e) --first;
        while (first < grid && core::patch_offset(first, patch, cells) + patch <= e) ++first;
        last = e * cells / patch;
        last = last < first ? first : last > grid ? grid : last;
        while (last > first && core::patch_offset(last - 1, patch, cells) > e) --last;
        while (last < grid && core::patch_offset(last, patch, cells) <= e) ++last;
    }
};

// The positions [first, last) of the enlarged axis that are interpolated from pixel s.
template <class T>
struct Positions {
    std::int64_t first, last;

    __device__ Positions(std::int64_t s, std::int64_t extent, std::int64_t source, std::int64_t size) {
        first = search(extent, [&](std::int64_t e) { return core::linear_tap<T>(e, source, size).high >= s; });
        last = search(extent, [&](std::int64_t e) { return core::linear_tap<T>(e, source, size).low > s; });
    }

    // The first position where `is_beyond` holds; it does from there on.
    template <class IsBeyond>
    __device__ static std::int64_t search(std::int64_t n, IsBeyond&& is_beyond) {
        std::int64_t low = 0;
        while (n > 0) {
            const std::int64_t half = n / 2;
            if (is_beyond(low + half)) {
                n = half;
            } else {
                low += half + 1;
                n -= half + 1;
            }
        }
        return low;
    }
};

// The patches' sum at one enlarged position, in their order.
template <class T>
__device__ T sum_patches(const Adjoint& job, const T* patches, std::int64_t item, std::int64_t channel,
                         const Cover& along_z, const Cover& along_y, std::int64_t ez, std::int64_t ey,
                         std::int64_t ex) {
    const core::PatchGrid& grid = job.grid;
    const Cover along_x(ex, grid.grid.x, grid.patch.x, grid.cells.x);
    T sum{0};
    for (std::int64_t iz = along_z.first; iz < along_z.last; ++iz) {
        for (std::int64_t iy = along_y.first; iy < along_y.last; ++iy) {
            for (std::int64_t ix = along_x.first; ix < along_x.last; ++ix) {
                const std::int64_t number = (iz * grid.grid.y + iy) * grid.grid.x + ix - grid.start;
                if (number < 0 || number >= grid.count) continue;
                const std::int64_t plane = (item * grid.count + number) * job.channels + channel;
                const std::int64_t pz = ez - core::patch_offset(iz, grid.patch.z, grid.cells.z);
                const std::int64_t py = ey - core::patch_offset(iy, grid.patch.y, grid.cells.y);
                const std::int64_t px = ex - core::patch_offset(ix, grid.patch.x, grid.cells.x);
                sum += patches[((plane * grid.patch.z + pz) * grid.patch.y + py) * grid.patch.x + px];
            }
        }
    }
    return sum;
}

// narrowed [items, channels, extent z, extent y, x]: only x is back at its own size.
template <class T>
__global__ void narrow_kernel(Adjoint job, const T* patches, T* narrowed) {
    const std::int64_t i = global_index(), rows = job.extent.z * job.extent.y;
    if (i >= job.items * job.channels * rows * job.dims.x) return;
    const std::int64_t x = i % job.dims.x, row = i / job.dims.x % rows, volume = i / job.dims.x / rows;
    const std::int64_t ez = row / job.extent.y, ey = row % job.extent.y;
    const core::PatchGrid& grid = job.grid;
    const Cover along_z(ez, grid.grid.z, grid.patch.z, grid.cells.z);
    const Cover along_y(ey, grid.grid.y, grid.patch.y, grid.cells.y);
    const Positions<T> positions(x, job.extent.x, job.dims.x, grid.size.x);
    T sum{0};
    for (std::int64_t ex = positions.first; ex < positions.last; ++ex) {
        const T here =
            sum_patches(job, patches, volume / job.channels, volume % job.channels, along_z, along_y, ez, ey, ex);
        sum += core::weight_of(core::linear_tap<T>(ex, job.dims.x, grid.size.x), x) * here;
    }
    narrowed[i] = sum;
}

template <class T>
__global__ void gather_kernel(Adjoint job, const T* narrowed, T* images) {
    const std::int64_t i = global_index(), pixels = job.dims.size();
    if (i >= job.items * job.channels * pixels) return;
    const std::int64_t x = i % job.dims.x, y = i / job.dims.x % job.dims.y,
                       z = i / job.dims.x / job.dims.y % job.dims.z;
    const std::int64_t volume = i / pixels;
    const Positions<T> planes(z, job.extent.z, job.dims.z, job.grid.size.z);
    const Positions<T> lines(y, job.extent.y, job.dims.y, job.grid.size.y);
    T sum{0};
    for (std::int64_t ez = planes.first; ez < planes.last; ++ez) {
        const T of_z = core::weight_of(core::linear_tap<T>(ez, job.dims.z, job.grid.size.z), z);
        for (std::int64_t ey = lines.first; ey < lines.last; ++ey) {
            const T weight = of_z * core::weight_of(core::linear_tap<T>(ey, job.dims.y, job.grid.size.y), y);
            sum += weight * narrowed[((volume * job.extent.z + ez) * job.extent.y + ey) * job.dims.x + x];
        }
    }
    images[i] = sum;
}

struct Aggregation {
    std::int64_t items;
    Dims cells, grid, whole, size;
};

// The mean of the maps that cover one cell, rounded once.
template <class T>
__device__ T mean_of_maps(const Aggregation& job, const T* maps, std::int64_t item, std::int64_t z, std::int64_t y,
                          std::int64_t x) {
    const Dims &cells = job.cells, &grid = job.grid;
    const std::int64_t first_z = core::first_map(z, cells.z), last_z = core::last_map(z, grid.z);
    const std::int64_t first_y = core::first_map(y, cells.y), last_y = core::last_map(y, grid.y);
    const std::int64_t first_x = core::first_map(x, cells.x), last_x = core::last_map(x, grid.x);
    double sum = 0.0;
    for (std::int64_t iz = first_z; iz <= last_z; ++iz) {
        for (std::int64_t iy = first_y; iy <= last_y; ++iy) {
            for (std::int64_t ix = first_x; ix <= last_x; ++ix) {
                const std::int64_t map = ((item * grid.z + iz) * grid.y + iy) * grid.x + ix;
                sum += static_cast<double>(maps[((map * cells.z + z - iz) * cells.y + y - iy) * cells.x + x - ix]);
            }
        }
    }
    const std::int64_t count = (last_z - first_z + 1) * (last_y - first_y + 1) * (last_x - first_x + 1);
    return static_cast<T>(sum / static_cast<double>(count));
}

// Where the result is larger than the cells, means are made again for every pixel between them: they are few.
template <class T>
__global__ void aggregate_kernel(Aggregation job, const T* maps, T* out) {
    const std::int64_t i = global_index(), pixels = job.size.size();
    if (i >= job.items * pixels) return;
    const std::int64_t item = i / pixels, x = i % job.size.x, y = i / job.size.x % job.size.y;
    const std::int64_t z = i / job.size.x / job.size.y % job.size.z;
    const Tap<T> along_z = core::linear_tap<T>(z, job.whole.z, job.size.z);
    const Tap<T> along_y = core::linear_tap<T>(y, job.whole.y, job.size.y);
    const Tap<T> along_x = core::linear_tap<T>(x, job.whole.x, job.size.x);
    out[i] = enlarge<T>(along_z, along_y, along_x, [&](std::int32_t cz, std::int32_t cy, std::int32_t cx) {
        return mean_of_maps(job, maps, item, cz, cy, cx);
    });
}

Dims extent_of(const core::PatchGrid& grid) {
    return {core::patches_extent(grid.grid.z, grid.patch.z, grid.cells.z),
            core::patches_extent(grid.grid.y, grid.patch.y, grid.cells.y),
            core::patches_extent(grid.grid.x, grid.patch.x, grid.cells.x)};
}

}  // namespace

template <class T>
void launch_extract_patches(const core::FeatureRef<T>& images, const core::PatchGrid& grid, T* patches, Stream stream) {
    const std::int64_t blocks_x = blocks_of(grid.patch.x, kColumns), blocks_y = blocks_of(grid.patch.y, kBlockRows);
    const std::int64_t planes = images.items * grid.count * images.channels * grid.patch.z;
    launch(extract_kernel<T>, planes * blocks_y * blocks_x, kThreads, stream, images, grid, blocks_x, blocks_y,
           patches);
}

template <class T>
std::int64_t extract_patches_backward_workspace_bytes(std::int64_t items, int channels, Dims dims,
                                                      const core::PatchGrid& grid) {
    const Dims extent = extent_of(grid);
    Workspace counter(nullptr);
    counter.take<T>(items * channels * extent.z * extent.y * dims.x);
    return counter.bytes();
}

template <class T>
void launch_extract_patches_backward(const T* patches, std::int64_t items, int channels, Dims dims,
                                     const core::PatchGrid& grid, T* images, void* workspace, Stream stream) {
    const Adjoint job{items, channels, dims, extent_of(grid), grid};
    auto* narrowed = static_cast<T*>(workspace);
    const std::int64_t volumes = items * channels, rows = job.extent.z * job.extent.y;
    launch(narrow_kernel<T>, blocks_of(volumes * rows * dims.x, kThreads), kThreads, stream, job, patches, narrowed);
    launch(gather_kernel<T>, blocks_of(volumes * dims.size(), kThreads), kThreads, stream, job, narrowed, images);
}

template <class T>
void launch_aggregate_patches(const T* maps, std::int64_t items, Dims cells, Dims grid, Dims size, T* out,
                              Stream stream) {
    const Dims whole{cells.z + grid.z - 1, cells.y + grid.y - 1, cells.x + grid.x - 1};
    const Aggregation job{items, cells, grid, whole, size};
    launch(aggregate_kernel<T>, blocks_of(items * size.size(), kThreads), kThreads, stream, job, maps, out);
}

template void launch_extract_patches(const core::FeatureRef<float>&, const core::PatchGrid&, float*, Stream);
template void launch_extract_patches(const core::FeatureRef<double>&, const core::PatchGrid&, double*, Stream);
template std::int64_t extract_patches_backward_workspace_bytes<float>(std::int64_t, int, Dims, const core::PatchGrid&);
template std::int64_t extract_patches_backward_workspace_bytes<double>(std::int64_t, int, Dims, const core::PatchGrid&);
template void launch_extract_patches_backward(const float*, std::int64_t, int, Dims, const core::PatchGrid&, float*,
                                              void*, Stream);
template void launch_extract_patches_backward(const double*, std::int64_t, int, Dims, const core::PatchGrid&, double*,
                                              void*, Stream);
template void launch_aggregate_patches(const float*, std::int64_t, Dims, Dims, Dims, float*, Stream);
template void launch_aggregate_patches(const double*, std::int64_t, Dims, Dims, Dims, double*, Stream);

}  // namespace midgrain::cuda

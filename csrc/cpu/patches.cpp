// Jitter-CAM patches on the CPU (core/patches.hpp). The enlarged image is never stored: each of its rows is made
// once, in cache, and copied to all the patches that it runs through.
#include "core/patches.hpp"

#include <algorithm>
#include <atomic>
#include <vector>

#include "cpu/kernels.hpp"
#include "cpu/parallel.hpp"

namespace midgrain::cpu {
namespace {

constexpr std::int64_t kElementsPerWorker = 65536;
// Rows of the enlarged volume that a worker takes at a time: rows in the middle run through more patches.
constexpr std::int64_t kRowsPerTurn = 16;

// One axis of a grid of patches, tabulated.
template <class T>
struct Axis {
    Axis(std::int64_t source, std::int64_t size, std::int64_t patch, std::int64_t cells, std::int64_t grid)
        : extent(core::patches_extent(grid, patch, cells)), keeps_size(source == size) {
        for (std::int64_t i = 0; i < grid; ++i) offsets.push_back(core::patch_offset(i, patch, cells));
        for (std::int64_t e = 0; e < extent; ++e) taps.push_back(core::linear_tap<T>(e, source, size));
        Share patches{0, 0};
        for (std::int64_t e = 0; e < extent; ++e) {
            while (patches.last < grid && offsets[static_cast<std::size_t>(patches.last)] <= e) ++patches.last;
            while (patches.first < patches.last && offsets[static_cast<std::size_t>(patches.first)] + patch <= e) {
                ++patches.first;
            }
            cover.push_back(patches);
        }
    }

    std::int64_t extent;                // positions 0 .. extent - 1 are in reach of the patches
    bool keeps_size;                    // nothing is interpolated
    std::vector<std::int64_t> offsets;  // [grid]
    std::vector<core::Tap<T>> taps;     // [extent]
    std::vector<Share> cover;           // [extent] patches that contain the position
};

template <class T>
struct Plan {
    Plan(core::Dims source, const core::PatchGrid& g)
        : grid(g),
          z(source.z, g.size.z, g.patch.z, g.cells.z, g.grid.z),
          y(source.y, g.size.y, g.patch.y, g.cells.y, g.grid.y),
          x(source.x, g.size.x, g.patch.x, g.cells.x, g.grid.x) {}

    // Calls visit(row, offset) for every patch with a row on row (ez, ey) of the enlarged volume, in order: `row` is
    // its place among the patches' rows of this item and channel, `offset` where it begins along x.
    template <class Visit>
    void for_each_patch(std::int64_t item, std::int64_t channel, std::int64_t channels, std::int64_t ez,
                        std::int64_t ey, Visit&& visit) const {
        const Share planes = z.cover[static_cast<std::size_t>(ez)], rows = y.cover[static_cast<std::size_t>(ey)];
        for (std::int64_t iz = planes.first; iz < planes.last; ++iz) {
            for (std::int64_t iy = rows.first; iy < rows.last; ++iy) {
                const std::int64_t first = (iz * grid.grid.y + iy) * grid.grid.x - grid.start;
                const std::int64_t ez_in = ez - z.offsets[static_cast<std::size_t>(iz)];
                const std::int64_t ey_in = ey - y.offsets[static_cast<std::size_t>(iy)];
                const std::int64_t end = std::min(grid.grid.x, grid.count - first);
                for (std::int64_t ix = std::max<std::int64_t>(0, -first); ix < end; ++ix) {
                    const std::int64_t plane = (item * grid.count + first + ix) * channels + channel;
                    visit((plane * grid.patch.z + ez_in) * grid.patch.y + ey_in,
                          x.offsets[static_cast<std::size_t>(ix)]);
                }
            }
        }
    }

    core::PatchGrid grid;
    Axis<T> z, y, x;
};

// Makes rows of enlarged volumes. A source row is enlarged along x once for all the rows that are made from it.
template <class T>
class RowMaker {
public:
    static constexpr std::int64_t kBuffers = 6;

    RowMaker(const Plan<T>& plan, core::Dims source, T* buffers) : plan_(plan), source_(source), buffers_(buffers) {}

    const T* make(const T* volume, std::int64_t ez, std::int64_t ey) {
        const core::Tap<T> tap = plan_.z.taps[static_cast<std::size_t>(ez)];
        const T* low = along_y(volume, tap.low, ey, buffer(4));
        if (tap.low == tap.high) return low;
        return mix(low, along_y(volume, tap.high, ey, buffer(5)), tap.weight, buffer(4));
    }

private:
    T* buffer(int i) { return buffers_ + i * plan_.x.extent; }

    const T* along_y(const T* volume, std::int64_t z, std::int64_t ey, T* out) {
        const core::Tap<T> tap = plan_.y.taps[static_cast<std::size_t>(ey)];
        const T* low = along_x(volume, z, tap.low);
        return tap.low == tap.high ? low : mix(low, along_x(volume, z, tap.high), tap.weight, out);
    }

    // The rows that one output row needs differ in the parity of z or y, so none takes the place of another.
    const T* along_x(const T* volume, std::int64_t z, std::int64_t y) {
        const T* row = volume + (z * source_.y + y) * source_.x;
        if (plan_.x.keeps_size) return row;
        const int slot = static_cast<int>(2 * (z & 1) + (y & 1));
        if (enlarged_[slot] != row) {
            enlarged_[slot] = row;
            T* out = buffer(slot);
            const core::Tap<T>* taps = plan_.x.taps.data();
            for (std::int64_t x = 0; x < plan_.x.extent; ++x) {
                out[x] = core::interpolate(row, taps[x]);
            }
        }
        return buffer(slot);
    }

    // `out` may be `low`.
    const T* mix(const T* low, const T* high, T weight, T* out) const {
        for (std::int64_t x = 0; x < plan_.x.extent; ++x) out[x] = core::interpolate(low[x], high[x], weight);
        return out;
    }

    const Plan<T>& plan_;
    core::Dims source_;
    T* buffers_;
    const T* enlarged_[4] = {};
};

// The positions [first, last) of the enlarged axis that are interpolated from each source pixel.
template <class T>
std::vector<Share> positions_of_pixels(const std::vector<core::Tap<T>>& taps, std::int64_t source) {
    const auto extent = static_cast<std::int64_t>(taps.size());
    std::vector<Share> result;
    Share positions{0, 0};
    for (std::int64_t s = 0; s < source; ++s) {
        while (positions.first < extent && taps[static_cast<std::size_t>(positions.first)].high < s) ++positions.first;
        while (positions.last < extent && taps[static_cast<std::size_t>(positions.last)].low <= s) ++positions.last;
        result.push_back(positions);
    }
    return result;
}

}  // namespace

template <class T>
void extract_patches(const core::FeatureRef<T>& images, const core::PatchGrid& grid, int threads, T* patches) {
    const Plan<T> plan(images.dims, grid);
    const std::int64_t rows_each = plan.z.extent * plan.y.extent, rows = images.items * images.channels * rows_each;
    const std::int64_t elements = images.items * images.channels * grid.count * grid.patch.size();
    const int workers = useful_workers(threads, elements, kElementsPerWorker);
    const std::int64_t share = RowMaker<T>::kBuffers * plan.x.extent;
    std::vector<T> buffers(static_cast<std::size_t>(workers * share));
    std::atomic<std::int64_t> next{0};
    run_team(workers, [&](Team&, int index) {
        RowMaker<T> maker(plan, images.dims, buffers.data() + index * share);
        for (std::int64_t first = next.fetch_add(kRowsPerTurn); first < rows; first = next.fetch_add(kRowsPerTurn)) {
            for (std::int64_t r = first; r < std::min(first + kRowsPerTurn, rows); ++r) {
                const std::int64_t volume = r / rows_each, ez = r % rows_each / plan.y.extent, ey = r % plan.y.extent;
                const std::int64_t item = volume / images.channels, channel = volume % images.channels;
                const T* made = nullptr;
                plan.for_each_patch(item, channel, images.channels, ez, ey, [&](std::int64_t row, std::int64_t offset) {
                    if (made == nullptr) made = maker.make(images.plane(item, static_cast<int>(channel)), ez, ey);
                    std::copy_n(made + offset, grid.patch.x, patches + row * grid.patch.x);
                });
            }
        }
    });
}

template <class T>
void extract_patches_backward(const T* patches, std::int64_t items, int channels, core::Dims dims,
                              const core::PatchGrid& grid, int threads, T* images) {
    const Plan<T> plan(dims, grid);
    const std::vector<Share> of_z = positions_of_pixels(plan.z.taps, dims.z);
    const std::vector<Share> of_y = positions_of_pixels(plan.y.taps, dims.y);
    const std::int64_t rows = plan.z.extent * plan.y.extent;
    const int workers = useful_workers(threads, items * channels * grid.count * grid.patch.size(), kElementsPerWorker);
    std::vector<T> buffers(static_cast<std::size_t>(workers * plan.x.extent));
    std::vector<T> narrowed(static_cast<std::size_t>(rows * dims.x));  // one volume, only x back at its own size
    run_team(workers, [&](Team& team, int index) {
        T* sums = buffers.data() + index * plan.x.extent;
        for (std::int64_t volume = 0; volume < items * channels; ++volume) {
            const Share enlarged = team.share(rows, index);
            for (std::int64_t r = enlarged.first; r < enlarged.last; ++r) {
                bool is_reached = false;
                std::fill_n(sums, plan.x.extent, T{0});
                plan.for_each_patch(volume / channels, volume % channels, channels, r / plan.y.extent,
                                    r % plan.y.extent, [&](std::int64_t row, std::int64_t offset) {
                                        const T* from = patches + row * grid.patch.x;
                                        for (std::int64_t x = 0; x < grid.patch.x; ++x) sums[offset + x] += from[x];
                                        is_reached = true;
                                    });
                T* out = narrowed.data() + r * dims.x;
                std::fill_n(out, dims.x, T{0});
                if (!is_reached) continue;
                for (std::int64_t x = 0; x < plan.x.extent; ++x) {
                    const core::Tap<T>& tap = plan.x.taps[static_cast<std::size_t>(x)];
                    out[tap.low] += core::weight_of(tap, tap.low) * sums[x];
                    if (tap.high != tap.low) out[tap.high] += core::weight_of(tap, tap.high) * sums[x];
                }
            }
            team.meet();
            const Share own = team.share(dims.z * dims.y, index);
            for (std::int64_t r = own.first; r < own.last; ++r) {
                const std::int64_t z = r / dims.y, y = r % dims.y;
                const Share planes = of_z[static_cast<std::size_t>(z)], lines = of_y[static_cast<std::size_t>(y)];
                T* out = images + (volume * dims.z * dims.y + r) * dims.x;
                std::fill_n(out, dims.x, T{0});
                for (std::int64_t ez = planes.first; ez < planes.last; ++ez) {
                    for (std::int64_t ey = lines.first; ey < lines.last; ++ey) {
                        const T weight = core::weight_of(plan.z.taps[static_cast<std::size_t>(ez)], z) *
                                         core::weight_of(plan.y.taps[static_cast<std::size_t>(ey)], y);
                        const T* from = narrowed.data() + (ez * plan.y.extent + ey) * dims.x;
                        for (std::int64_t x = 0; x < dims.x; ++x) out[x] += weight * from[x];
                    }
                }
            }
            team.meet();  // `narrowed` is about to be overwritten
        }
    });
}

template <class T>
void aggregate_patches(const T* maps, std::int64_t items, core::Dims cells, core::Dims grid, core::Dims size,
                       int threads, T* out) {
    const core::Dims whole{cells.z + grid.z - 1, cells.y + grid.y - 1, cells.x + grid.x - 1};
    const bool keeps_size = size.z == whole.z && size.y == whole.y && size.x == whole.x;
    std::vector<T> unsized(static_cast<std::size_t>(keeps_size ? 0 : items * whole.size()));
    T* means = keeps_size ? out : unsized.data();
    const int workers = useful_workers(threads, items * grid.size() * cells.size(), kElementsPerWorker);
    std::vector<double> buffers(static_cast<std::size_t>(workers * whole.x));
    run_team(workers, [&](Team& team, int index) {
        double* sums = buffers.data() + index * whole.x;
        const Share mine = team.share(items * whole.z * whole.y, index);
        for (std::int64_t r = mine.first; r < mine.last; ++r) {
            const std::int64_t item = r / (whole.z * whole.y), z = r / whole.y % whole.z, y = r % whole.y;
            const std::int64_t first_z = core::first_map(z, cells.z), last_z = core::last_map(z, grid.z);
            const std::int64_t first_y = core::first_map(y, cells.y), last_y = core::last_map(y, grid.y);
            std::fill_n(sums, whole.x, 0.0);
            for (std::int64_t iz = first_z; iz <= last_z; ++iz) {
                for (std::int64_t iy = first_y; iy <= last_y; ++iy) {
                    for (std::int64_t ix = 0; ix < grid.x; ++ix) {
                        const std::int64_t map = ((item * grid.z + iz) * grid.y + iy) * grid.x + ix;
                        const T* from = maps + ((map * cells.z + z - iz) * cells.y + y - iy) * cells.x;
                        for (std::int64_t x = 0; x < cells.x; ++x) sums[ix + x] += static_cast<double>(from[x]);
                    }
                }
            }
            const std::int64_t lines = (last_z - first_z + 1) * (last_y - first_y + 1);
            for (std::int64_t x = 0; x < whole.x; ++x) {
                const std::int64_t count = lines * (core::last_map(x, grid.x) - core::first_map(x, cells.x) + 1);
                means[r * whole.x + x] = static_cast<T>(sums[x] / static_cast<double>(count));
            }
        }
    });
    // Enlarging alone is the extraction of a single patch.
    const core::Dims one{1, 1, 1};
    if (!keeps_size) extract_patches<T>({means, items, 1, whole}, {size, one, one, size, 0, 1}, threads, out);
}

template void extract_patches(const core::FeatureRef<float>&, const core::PatchGrid&, int, float*);
template void extract_patches(const core::FeatureRef<double>&, const core::PatchGrid&, int, double*);
template void extract_patches_backward(const float*, std::int64_t, int, core::Dims, const core::PatchGrid&, int,
                                       float*);
template void extract_patches_backward(const double*, std::int64_t, int, core::Dims, const core::PatchGrid&, int,
                                       double*);
template void aggregate_patches(const float*, std::int64_t, core::Dims, core::Dims, core::Dims, int, float*);
template void aggregate_patches(const double*, std::int64_t, core::Dims, core::Dims, core::Dims, int, double*);

}  // namespace midgrain::cpu

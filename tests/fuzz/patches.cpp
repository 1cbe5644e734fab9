#include "core/patches.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "checks.hpp"

namespace midgrain::fuzz {
namespace {

using core::Dims;
using core::PatchGrid;

template <class T>
T value_at(const T* volume, const Dims& dims, const core::Tap<T> (&taps)[3]) {
    const auto along_x = [&](std::int64_t z, std::int64_t y) {
        return core::interpolate(volume + (z * dims.y + y) * dims.x, taps[2]);
    };
    const auto along_y = [&](std::int64_t z) {
        const core::Tap<T>& tap = taps[1];
        if (tap.low == tap.high) return along_x(z, tap.low);
        return core::interpolate(along_x(z, tap.low), along_x(z, tap.high), tap.weight);
    };
    const core::Tap<T>& tap = taps[0];
    if (tap.low == tap.high) return along_y(tap.low);
    return core::interpolate(along_y(tap.low), along_y(tap.high), tap.weight);
}

std::int64_t draw_axis(Input& input, std::int64_t most) { return input.flag() ? 1 : input.between(1, most); }

PatchGrid draw_grid(Input& input) {
    std::int64_t patch[3], cells[3], grid[3], size[3];
    const std::int64_t most[3] = {3, 9, 20};
    for (int a = 0; a < 3; ++a) {
        patch[a] = draw_axis(input, most[a]);
        cells[a] = input.between(1, patch[a]);
        grid[a] = draw_axis(input, 4);
        size[a] = core::patches_extent(grid[a], patch[a], cells[a]) + (input.flag() ? 0 : input.between(0, 5));
    }
    PatchGrid result{{patch[0], patch[1], patch[2]},
                     {cells[0], cells[1], cells[2]},
                     {grid[0], grid[1], grid[2]},
                     {size[0], size[1], size[2]},
                     0,
                     0};
    result.start = input.between(0, result.grid.size() - 1);
    result.count = input.between(1, result.grid.size() - result.start);
    return result;
}

// Patch `number` of the grid of one volume, appended.
template <class T>
void cut_plainly(const T* volume, const Dims& dims, const PatchGrid& grid, std::int64_t number, std::vector<T>& out) {
    const Dims& n = grid.grid;
    const std::int64_t of[3] = {number / (n.y * n.x), number / n.x % n.y, number % n.x};
    for (std::int64_t p = 0; p < grid.patch.size(); ++p) {
        const std::int64_t in[3] = {p / (grid.patch.y * grid.patch.x), p / grid.patch.x % grid.patch.y,
                                    p % grid.patch.x};
        core::Tap<T> taps[3];
        for (int a = 0; a < 3; ++a) {
            const std::int64_t offset = core::patch_offset(of[a], grid.patch[a], grid.cells[a]);
            taps[a] = core::linear_tap<T>(offset + in[a], dims[a], grid.size[a]);
        }
        out.push_back(value_at(volume, dims, taps));
    }
}

// Half of the largest number and more may overflow where two are subtracted, by the definition.
template <class T>
void keep_small(std::vector<T>& values) {
    for (T& value : values) {
        if (std::fabs(value) > std::numeric_limits<T>::max() / 4) value = T{1};
    }
}

template <class T>
void patches_of(Input& input) {
    const Dims dims = input.dims(3, 10, 20);
    const PatchGrid grid = draw_grid(input);
    const std::int64_t items = input.between(0, 2), channels = input.between(1, 3);
    std::vector<T> images = input.floats<T>(items * channels * dims.size());
    keep_small(images);
    const auto elements = static_cast<std::size_t>(items * grid.count * channels * grid.patch.size());
    const auto cut = run_both_ways(
        input, "patches",
        [&](int threads, std::vector<T>& out) {
            cpu::extract_patches<T>({images.data(), items, static_cast<int>(channels), dims}, grid, threads,
                                    out.data());
        },
        std::vector<T>(elements, T{-7}));
    std::vector<T> wanted;
    for (std::int64_t item = 0; item < items; ++item) {
        for (std::int64_t i = 0; i < grid.count; ++i) {
            for (std::int64_t c = 0; c < channels; ++c) {
                cut_plainly(images.data() + (item * channels + c) * dims.size(), dims, grid, grid.start + i, wanted);
            }
        }
    }
    expect(!cut.refused(), "patches of any values");
    expect_same(std::get<0>(cut.arrays), wanted, "patches");

    const std::vector<T> back = input.floats<T>(static_cast<std::int64_t>(elements));
    const auto added = run_both_ways(
        input, "patches added up",
        [&](int threads, std::vector<T>& out) {
            cpu::extract_patches_backward<T>(back.data(), items, static_cast<int>(channels), dims, grid, threads,
                                             out.data());
        },
        std::vector<T>(images.size(), T{-7}));
    // The adjoint: <patches of images, back> = <images, back added up>, up to the roundings of either.
    long double left = 0, right = 0, size = 0;
    for (std::size_t i = 0; i < elements; ++i) {
        left += static_cast<long double>(wanted[i]) * back[i];
        size += std::fabs(static_cast<long double>(wanted[i]) * back[i]);
    }
    long double largest = 0, largest_back = 0;
    for (const T value : back) largest_back = std::max(largest_back, std::fabs(static_cast<long double>(value)));
    for (std::size_t i = 0; i < images.size(); ++i) {
        right += static_cast<long double>(images[i]) * std::get<0>(added.arrays)[i];
        largest = std::max(largest, std::fabs(static_cast<long double>(images[i])));
    }
    const auto terms = static_cast<long double>(elements);
    // Not where a sum may overflow, and not with NaN in a pixel that no patch reaches.
    const auto is_finite = [](T value) { return std::isfinite(value); };
    if (!std::all_of(images.begin(), images.end(), is_finite) || !std::all_of(back.begin(), back.end(), is_finite)) {
        return;
    }
    const long double most = std::max(largest, 1.0L) * std::max(largest_back, 1.0L) * terms * 8;
    if (!(most < std::numeric_limits<T>::max())) return;
    // Products below the smallest number are lost, too.
    const long double within = terms * largest * largest_back * std::numeric_limits<T>::epsilon() * 64 +
                               (largest + largest_back) * terms * 64 * std::numeric_limits<T>::denorm_min();
    expect(std::fabs(left - right) <= within, "the adjoint of patches: " + std::to_string(left) + " and " +
                                                  std::to_string(right) + " within " + std::to_string(within));
}

template <class T>
void aggregate_of(Input& input) {
    const std::int64_t items = input.between(0, 2);
    const Dims cells = input.dims(3, 5, 9), grid = input.dims(3, 4, 6);
    const Dims whole{cells.z + grid.z - 1, cells.y + grid.y - 1, cells.x + grid.x - 1};
    const Dims size = input.flag() ? whole : input.dims(4, 12, 20);
    std::vector<T> maps = input.floats<T>(items * grid.size() * cells.size());
    keep_small(maps);
    const auto found = run_both_ways(
        input, "aggregation",
        [&](int threads, std::vector<T>& out) {
            cpu::aggregate_patches<T>(maps.data(), items, cells, grid, size, threads, out.data());
        },
        std::vector<T>(static_cast<std::size_t>(items * size.size()), T{-7}));
    std::vector<T> wanted;
    const PatchGrid once{size, {1, 1, 1}, {1, 1, 1}, size, 0, 1};
    for (std::int64_t item = 0; item < items; ++item) {
        std::vector<T> means;
        for (std::int64_t p = 0; p < whole.size(); ++p) {
            const std::int64_t at[3] = {p / (whole.y * whole.x), p / whole.x % whole.y, p % whole.x};
            double sum = 0;
            std::int64_t count = 0;
            for (std::int64_t i = 0; i < grid.size(); ++i) {
                const std::int64_t z = at[0] - i / (grid.y * grid.x), y = at[1] - i / grid.x % grid.y;
                const std::int64_t x = at[2] - i % grid.x;
                if (z < 0 || y < 0 || x < 0 || z >= cells.z || y >= cells.y || x >= cells.x) continue;
                const std::int64_t map = item * grid.size() + i;
                sum += static_cast<double>(
                    maps[static_cast<std::size_t>(((map * cells.z + z) * cells.y + y) * cells.x + x)]);
                ++count;
            }
            means.push_back(static_cast<T>(sum / static_cast<double>(count)));
        }
        if (size.z == whole.z && size.y == whole.y && size.x == whole.x) {
            wanted.insert(wanted.end(), means.begin(), means.end());
        } else {
            cut_plainly(means.data(), whole, once, 0, wanted);
        }
    }
    expect(!found.refused(), "aggregation of any values");
    expect_same(std::get<0>(found.arrays), wanted, "aggregation");
}

}  // namespace

void try_patches(Input& input) { input.flag() ? patches_of<float>(input) : patches_of<double>(input); }

void try_aggregation(Input& input) { input.flag() ? aggregate_of<float>(input) : aggregate_of<double>(input); }

}  // namespace midgrain::fuzz

#include "core/pool.hpp"

#include <algorithm>
#include <limits>

#include "checks.hpp"

namespace midgrain::fuzz {
namespace {

using core::Reduce;

// Pixel p of a plane, or its number r of a region, in either layout.
std::size_t at(const core::PoolShape& shape, std::int64_t along, std::int64_t item, std::int64_t channel,
               std::int64_t i) {
    return static_cast<std::size_t>(shape.channels_last ? (item * along + i) * shape.channels + channel
                                                        : (item * shape.channels + channel) * along + i);
}

core::PoolShape draw_shape(Input& input, std::int64_t pixels) {
    core::PoolShape shape{};
    shape.groups = input.between(1, 2);
    shape.channels_last = input.flag();
    // Channels first: a label map for every item.
    shape.items = shape.channels_last ? shape.groups * input.between(0, 2) : shape.groups;
    shape.channels = input.flag() ? input.between(0, 3) : input.between(0, 40);
    shape.pixels = input.between(1, pixels);
    shape.regions = input.between(1, 40);
    return shape;
}

std::vector<std::int32_t> draw_labels(Input& input, const core::PoolShape& shape, bool& inside) {
    std::vector<std::int32_t> labels = input.labels(shape.groups * shape.pixels, shape.regions);
    if (input.between(0, 9) == 0) {
        const std::int32_t any = input.bits<std::int32_t>();
        labels[static_cast<std::size_t>(input.between(0, 65535)) % labels.size()] = any;
        inside = any >= 0 && any < shape.regions;
    }
    return labels;
}

// One region's number in long double, and how far a sum of such terms may be from it.
struct Wanted {
    long double value, within;
};

template <class T>
Wanted reduce(std::vector<T> values, Reduce how, const std::vector<T>& plane) {
    const long double nan = std::numeric_limits<long double>::quiet_NaN();
    const auto n = static_cast<long double>(values.size());
    const bool empty = values.empty();
    long double sum = 0, absolute = 0, squares = 0, spread = 0, largest = 0, farthest = 0;
    for (const T v : values) {
        sum += v;
        absolute += std::fabs(static_cast<long double>(v));
        squares += static_cast<long double>(v) * v;
    }
    for (const T v : plane) largest = std::max(largest, std::fabs(static_cast<long double>(v)));
    // Planes of smaller magnitude are scaled as one of this is (core::magnitude_exponent).
    if (largest > 0) largest = std::max(largest, std::ldexp(1.0L, -1001));
    for (const T v : values) spread += (v - sum / n) * (v - sum / n);
    // |v - mean| of any region of the plane is at most twice its largest magnitude.
    farthest = 2 * largest;
    // core/pool.hpp: each term is off by half a unit of 2^-(62 - ceil(log2 n)) of a power of two above the largest.
    const long double unit = std::ldexp(2.0L, core::ceil_log2(static_cast<std::int64_t>(plane.size())) - 62);
    const long double term = unit * largest, square = unit * largest * largest * 2,
                      square_off = unit * farthest * farthest * 2;
    const long double eps = std::numeric_limits<T>::epsilon();
    const auto with = [&](long double value, long double within) {
        return Wanted{value, within + std::fabs(value) * eps * 4 + std::numeric_limits<T>::denorm_min()};
    };
    std::sort(values.begin(), values.end());
    switch (how) {
        case Reduce::kMean: return empty ? Wanted{nan, 0} : with(sum / n, 2 * term);
        case Reduce::kSum: return with(sum, 2 * term * n);
        case Reduce::kAbsSum: return with(absolute, 2 * term * n);
        case Reduce::kL2: return with(std::sqrt(squares), std::sqrt(2 * square * n));
        case Reduce::kVar:
            return empty ? Wanted{nan, 0} : with(spread / n, 4 * square_off + farthest * farthest * 1e-15L);
        case Reduce::kStd:
            return empty ? Wanted{nan, 0}
                         : with(std::sqrt(spread / n), std::sqrt(4 * square_off + farthest * farthest * 1e-15L));
        case Reduce::kMax: return {empty ? nan : values.back(), 0};
        case Reduce::kMin: return {empty ? nan : values.front(), 0};
        default: {
            if (empty) return {nan, 0};
            const std::size_t half = values.size() / 2;
            if (values.size() % 2 == 1) return {values[half], 0};
            return with((static_cast<long double>(values[half - 1]) + values[half]) / 2, 0);
        }
    }
}

template <class T>
void pool_of(Input& input) {
    const core::PoolShape shape = draw_shape(input, 300);
    bool inside = true;
    const std::vector<std::int32_t> labels = draw_labels(input, shape, inside);
    const std::vector<T> values = input.floats<T>(shape.items * shape.channels * shape.pixels);
    const bool finite = std::all_of(values.begin(), values.end(), [](T v) { return std::isfinite(v); });
    const auto how = static_cast<Reduce>(input.between(0, 8));
    const std::vector<T> fresh(static_cast<std::size_t>(shape.items * shape.channels * shape.regions), T{-7});
    const auto found = run_both_ways(
        input, "pool",
        [&](int threads, std::vector<T>& out) {
            cpu::pool<T>(values.data(), labels.data(), shape, how, threads, out.data());
        },
        fresh);
    expect((inside && finite) != found.refused(), "pool refuses what it must, and nothing else: " + found.refusal);
    if (found.refused()) return;
    const std::vector<T>& out = std::get<0>(found.arrays);
    for (std::int64_t item = 0; item < shape.items; ++item) {
        const std::int64_t group = item / (shape.items / shape.groups);
        for (std::int64_t c = 0; c < shape.channels; ++c) {
            std::vector<T> plane;
            std::vector<std::vector<T>> of_region(static_cast<std::size_t>(shape.regions));
            for (std::int64_t p = 0; p < shape.pixels; ++p) {
                plane.push_back(values[at(shape, shape.pixels, item, c, p)]);
                of_region[static_cast<std::size_t>(labels[static_cast<std::size_t>(group * shape.pixels + p)])]
                    .push_back(plane.back());
            }
            for (std::int64_t r = 0; r < shape.regions; ++r) {
                const Wanted wanted = reduce(of_region[static_cast<std::size_t>(r)], how, plane);
                const T got = out[at(shape, shape.regions, item, c, r)];
                if (std::isnan(wanted.value)) {
                    expect(std::isnan(got), "an empty region is NaN");
                } else if (std::fabs(wanted.value) + wanted.within < std::numeric_limits<T>::max() / 4) {
                    if (std::fabs(got - wanted.value) <= wanted.within) continue;
                    expect(false, "pool, reduction " + std::to_string(static_cast<int>(how)) + ": " +
                                      std::to_string(got) + " is not " + std::to_string(wanted.value) + " within " +
                                      std::to_string(wanted.within));
                }
            }
        }
    }
    if (how == Reduce::kMax || how == Reduce::kMin || how == Reduce::kMedian) return;
    // Sums do not depend on the order of the pixels: the same from the last to the first.
    std::vector<T> turned(values.size());
    std::vector<std::int32_t> turned_labels(labels.size());
    for (std::int64_t p = 0; p < shape.pixels; ++p) {
        const std::int64_t q = shape.pixels - 1 - p;
        for (std::int64_t g = 0; g < shape.groups; ++g) {
            turned_labels[static_cast<std::size_t>(g * shape.pixels + q)] =
                labels[static_cast<std::size_t>(g * shape.pixels + p)];
        }
        for (std::int64_t i = 0; i < shape.items * shape.channels; ++i) {
            const std::int64_t item = i / shape.channels, c = i % shape.channels;
            turned[at(shape, shape.pixels, item, c, q)] = values[at(shape, shape.pixels, item, c, p)];
        }
    }
    const auto other = run(
        [&](int threads, std::vector<T>& result) {
            cpu::pool<T>(turned.data(), turned_labels.data(), shape, how, threads, result.data());
        },
        1, fresh);
    expect_same(std::get<0>(other.arrays), out, "pool of pixels in another order");
}

template <class T>
void paint_of(Input& input) {
    const core::PoolShape shape = draw_shape(input, 3000);
    bool inside = true;
    const std::vector<std::int32_t> labels = draw_labels(input, shape, inside);
    const std::vector<T> scores = input.floats<T>(shape.items * shape.channels * shape.regions);
    const auto found = run_both_ways(
        input, "paint",
        [&](int threads, std::vector<T>& out) {
            cpu::paint<T>(scores.data(), labels.data(), shape, threads, out.data());
        },
        std::vector<T>(static_cast<std::size_t>(shape.items * shape.channels * shape.pixels), T{-7}));
    expect(inside != found.refused(), "paint refuses labels outside, and nothing else: " + found.refusal);
    if (!inside) return;
    std::vector<T> wanted(std::get<0>(found.arrays).size());
    for (std::int64_t i = 0; i < shape.items * shape.channels * shape.pixels; ++i) {
        const std::int64_t p = i % shape.pixels, c = i / shape.pixels % shape.channels;
        const std::int64_t item = i / shape.pixels / shape.channels, group = item / (shape.items / shape.groups);
        const std::int32_t region = labels[static_cast<std::size_t>(group * shape.pixels + p)];
        wanted[at(shape, shape.pixels, item, c, p)] = scores[at(shape, shape.regions, item, c, region)];
    }
    expect_same(std::get<0>(found.arrays), wanted, "paint");
}

}  // namespace

void try_pool(Input& input) { input.flag() ? pool_of<float>(input) : pool_of<double>(input); }

void try_paint(Input& input) { input.flag() ? paint_of<float>(input) : paint_of<double>(input); }

}  // namespace midgrain::fuzz

#include "core/slic.hpp"

#include <algorithm>
#include <array>
#include <limits>

#include "checks.hpp"
#include "core/color.hpp"
#include "core/gradient.hpp"

namespace midgrain::fuzz {
namespace {

using Labels = std::vector<std::int32_t>;
using core::Range;

double positive(Input& input, double low, double high) {
    switch (input.between(0, 3)) {
        case 0: return 1.0;
        case 1: return static_cast<double>(input.between(1, 200)) / 10.0;
        case 2: return std::ldexp(1.0, static_cast<int>(input.between(0, 120)) - 60);
        default: {
            const double any = std::fabs(input.bits<double>());
            return any >= low && any <= high ? any : 1.0;
        }
    }
}

struct Drawn {
    std::vector<double> weights;
    std::vector<Range> ranges;
    core::SlicParameters parameters;
};

void draw(Input& input, const core::Dims& dims, std::int64_t channels, bool with_ranges, Drawn& drawn) {
    for (std::int64_t c = 0; c < channels; ++c) {
        drawn.weights.push_back(positive(input, core::kMinWeight, std::numeric_limits<double>::max()));
        if (!with_ranges) continue;
        float low = input.bits<float>(), high = input.flag() ? 100.0f : input.bits<float>();
        if (!std::isfinite(low)) low = 0.0f;
        if (!std::isfinite(high) || high < low) high = low;
        drawn.ranges.push_back({low, high});
    }
    const std::int64_t n = input.between(1, std::min<std::int64_t>(dims.size(), 120));
    const int iterations = static_cast<int>(input.between(1, 6));
    double spacing[3] = {1.0, 1.0, 1.0};
    if (input.flag()) {
        for (double& each : spacing) each = positive(input, core::kMinSpacing, core::kMaxSpacing);
    }
    const std::int64_t min_size = input.flag() ? 0 : input.between(1, 60);
    drawn.parameters = {drawn.weights, drawn.ranges, n, iterations, {spacing[0], spacing[1], spacing[2]}, min_size};
}

// Pixels with what they are compared by: q of every channel and of z, y, x.
using Units = std::vector<std::vector<std::int64_t>>;

Units units_of(const float* features, const core::Dims& dims, const core::SlicGeometry& geometry,
               const std::vector<Range>& ranges, const std::vector<double>& weights) {
    Units units;
    const std::int64_t pixels = dims.size();
    for (std::int64_t p = 0; p < pixels; ++p) {
        std::vector<std::int64_t> own;
        for (std::size_t c = 0; c < ranges.size(); ++c) {
            own.push_back(core::quantise(features[static_cast<std::int64_t>(c) * pixels + p], ranges[c].low,
                                         ranges[c].high, core::feature_scale(geometry.units, weights[c])));
        }
        const std::int64_t at[3] = {p / (dims.y * dims.x), p / dims.x % dims.y, p % dims.x};
        for (int a = 0; a < 3; ++a) own.push_back(core::pixel_position(at[a], geometry.per_pixel[a]));
        units.push_back(own);
    }
    return units;
}

void update(const Units& units, const Labels& labels, Units& centres) {
    const std::size_t values = units[0].size();
    for (std::size_t k = 0; k < centres.size(); ++k) {
        std::vector<std::int64_t> total(values, 0);
        std::int64_t members = 0;
        for (std::size_t p = 0; p < units.size(); ++p) {
            if (labels[p] != static_cast<std::int32_t>(k)) continue;
            ++members;
            for (std::size_t v = 0; v < values; ++v) total[v] += units[p][v];
        }
        if (members == 0) continue;
        for (std::size_t v = 0; v < values; ++v) centres[k][v] = core::divide_half_up(total[v], members);
    }
}

// core/slic.hpp, one pixel and one centre after the other.
Labels cluster_plainly(const Units& units, const core::Dims& dims, const core::SlicGeometry& geometry, int iterations) {
    const core::Dims& cells = geometry.cells;
    Labels labels;
    for (std::int64_t z = 0; z < dims.z; ++z) {
        for (std::int64_t y = 0; y < dims.y; ++y) {
            for (std::int64_t x = 0; x < dims.x; ++x) {
                labels.push_back(static_cast<std::int32_t>(
                    (core::initial_cell(z, dims.z, cells.z) * cells.y + core::initial_cell(y, dims.y, cells.y)) *
                        cells.x +
                    core::initial_cell(x, dims.x, cells.x)));
            }
        }
    }
    const std::size_t values = units[0].size();
    Units centres(static_cast<std::size_t>(geometry.count()), std::vector<std::int64_t>(values, 0));
    update(units, labels, centres);
    for (int iteration = 0; iteration < iterations; ++iteration) {
        for (std::size_t p = 0; p < units.size(); ++p) {
            std::int64_t least = std::numeric_limits<std::int64_t>::max();
            for (std::size_t k = 0; k < centres.size(); ++k) {
                std::int64_t distance = 0;
                bool reached = true;
                for (std::size_t v = 0; v < values; ++v) {
                    const std::int64_t by = units[p][v] - centres[k][v];
                    if (v + 3 >= values) reached = reached && by <= geometry.window() && by >= -geometry.window();
                    if (!reached) break;
                    distance += by * by;
                }
                if (!reached || distance >= least) continue;
                least = distance;
                labels[p] = static_cast<std::int32_t>(k);
            }
        }
        update(units, labels, centres);
    }
    return labels;
}

core::SlicGeometry geometry_of(const core::Dims& dims, const std::vector<Range>& ranges, const Drawn& drawn) {
    std::vector<double> spreads;
    for (std::size_t c = 0; c < ranges.size(); ++c) {
        spreads.push_back((static_cast<double>(ranges[c].high) - static_cast<double>(ranges[c].low)) /
                          drawn.weights[c]);
    }
    return core::make_slic_geometry(dims, drawn.parameters.n_segments, drawn.parameters.spacing, spreads.data(),
                                    static_cast<int>(spreads.size()));
}

std::vector<Range> own_ranges(const float* features, std::int64_t channels, std::int64_t pixels) {
    std::vector<Range> ranges;
    for (std::int64_t c = 0; c < channels; ++c) {
        const auto [low, high] = std::minmax_element(features + c * pixels, features + (c + 1) * pixels);
        ranges.push_back({*low, *high});
    }
    return ranges;
}

}  // namespace

void try_slic(Input& input) {
    const std::int64_t items = input.between(0, 2),
                       channels = input.flag() ? input.between(1, 5) : input.between(1, 64);
    const core::Dims dims = input.dims(4, 16, channels > 5 ? 20 : 40);
    const std::int64_t pixels = dims.size();
    Drawn drawn;
    draw(input, dims, channels, input.flag(), drawn);
    const std::vector<float> features = input.floats<float>(items * channels * pixels);
    const auto found = run_both_ways(
        input, "slic",
        [&](int threads, Labels& labels, Labels& counts) {
            cpu::slic({features.data(), items, static_cast<int>(channels), dims}, drawn.parameters, threads,
                      labels.data(), counts.data());
        },
        Labels(static_cast<std::size_t>(items * pixels), -7), Labels(static_cast<std::size_t>(items), -7));
    bool acceptable = true;
    Labels wanted, wanted_counts;
    for (std::int64_t item = 0; item < items && acceptable; ++item) {
        const float* own = features.data() + item * channels * pixels;
        for (std::int64_t i = 0; i < channels * pixels; ++i) acceptable = acceptable && std::isfinite(own[i]);
        if (!acceptable) break;
        const std::vector<Range> ranges = drawn.ranges.empty() ? own_ranges(own, channels, pixels) : drawn.ranges;
        const core::SlicGeometry geometry = geometry_of(dims, ranges, drawn);
        acceptable = geometry.units >= 1;
        if (!acceptable) break;
        Labels labels = cluster_plainly(units_of(own, dims, geometry, ranges, drawn.weights), dims, geometry,
                                        drawn.parameters.max_num_iter);
        const std::int64_t min_size = drawn.parameters.min_size;
        wanted_counts.push_back(min_size > 0 ? connect_plainly(labels, dims, min_size)
                                             : static_cast<std::int32_t>(geometry.count()));
        wanted.insert(wanted.end(), labels.begin(), labels.end());
    }
    expect(acceptable != found.refused(), "slic refuses what it must, and nothing else: " + found.refusal);
    if (!acceptable) return;
    expect_same(std::get<0>(found.arrays), wanted, "slic's labels");
    expect_same(std::get<1>(found.arrays), wanted_counts, "slic's counts");
}

void try_slic_pictures(Input& input) {
    const bool colour = input.flag(), bytes = input.flag();
    const bool gradient = !colour || input.flag();
    const core::Dims dims = input.dims(3, 16, 40);
    const std::int64_t pixels = dims.size();
    Drawn drawn;
    draw(input, dims, 2, false, drawn);
    std::vector<std::uint8_t> stored(static_cast<std::size_t>(3 * pixels));
    for (std::uint8_t& each : stored) each = input.byte();
    const std::vector<float> floats = input.floats<float>(3 * pixels), map = input.floats<float>(pixels);
    core::Pictures pictures{};
    if (colour && bytes) pictures.bytes = stored.data();
    if (colour && !bytes) pictures.floats = floats.data();
    if (gradient) pictures.gradient = map.data();
    pictures.channels_last = input.flag();
    std::fill_n(pictures.scale, 3, 1.0f);
    pictures.items = 1;
    pictures.dims = dims;
    const Labels fresh(static_cast<std::size_t>(pixels), -7), count(1, -7);
    const auto found = run_both_ways(
        input, "slic of pictures",
        [&](int threads, Labels& labels, Labels& n) {
            cpu::slic_pictures(pictures, drawn.parameters, threads, labels.data(), n.data());
        },
        fresh, count);
    // The same in two steps: the colours and the rescaled map as features of slic(), which is compared above.
    std::vector<float> features;
    std::vector<double> weights;
    std::vector<Range> ranges;
    const auto in_steps = run(
        [&](int threads, Labels& labels, Labels& n) {
            if (colour) {
                features.resize(static_cast<std::size_t>(3 * pixels));
                cpu::rgb_to_lab(pictures, threads, features.data());
                for (int c = 0; c < 3; ++c) {
                    ranges.push_back({static_cast<float>(core::kLabLow[c]), static_cast<float>(core::kLabHigh[c])});
                    weights.push_back(drawn.weights[0]);
                }
            }
            if (gradient) {
                for (const float value : map) {
                    if (!std::isfinite(value)) throw cpu::InvalidValue("gradient");
                }
                const auto [low, high] = std::minmax_element(map.begin(), map.end());
                const core::GradientScale scale = core::make_gradient_scale(*low, *high);
                if (!scale.is_flat() || !colour) {
                    ranges.push_back({0.0f, 100.0f});
                    weights.push_back(drawn.weights[1]);
                    for (const float value : map) {
                        features.push_back(scale.is_flat() ? 0.0f : core::scale_gradient(value, scale));
                    }
                }
            }
            core::SlicParameters parameters = drawn.parameters;
            parameters.weights = weights;
            parameters.ranges = ranges;
            cpu::slic({features.data(), 1, static_cast<int>(weights.size()), dims}, parameters, threads, labels.data(),
                      n.data());
        },
        1, fresh, count);
    expect(found.refused() == in_steps.refused(),
           "slic of pictures refuses what its parts refuse: '" + found.refusal + "' and '" + in_steps.refusal + "'");
    if (found.refused()) return;
    expect_same(std::get<0>(found.arrays), std::get<0>(in_steps.arrays), "labels of pictures");
    expect_same(std::get<1>(found.arrays), std::get<1>(in_steps.arrays), "counts of pictures");
}

void try_colour(Input& input) {
    const std::int64_t items = input.between(0, 2), pixels = input.between(1, 1200);
    const bool bytes = input.flag();
    std::vector<std::uint8_t> stored(static_cast<std::size_t>(bytes ? items * 3 * pixels : 0));
    for (std::uint8_t& each : stored) each = input.byte();
    const std::vector<float> floats = input.floats<float>(bytes ? 0 : items * 3 * pixels);
    core::Pictures pictures{};
    pictures.bytes = bytes ? stored.data() : nullptr;
    pictures.floats = bytes ? nullptr : floats.data();
    pictures.channels_last = input.flag();
    for (int c = 0; c < 3; ++c) {
        pictures.scale[c] = bytes ? 1.0f : static_cast<float>(input.between(1, 400)) / 100.0f;
        pictures.offset[c] = bytes ? 0.0f : static_cast<float>(input.between(-100, 100)) / 100.0f;
    }
    pictures.items = items;
    pictures.dims = {1, 1, pixels};
    const auto found = run_both_ways(
        input, "colours", [&](int threads, std::vector<float>& lab) { cpu::rgb_to_lab(pictures, threads, lab.data()); },
        std::vector<float>(static_cast<std::size_t>(items * 3 * pixels), -7.0f));
    std::array<float, core::kSrgbCells + 2> table;
    core::fill_srgb_table(table.data());
    std::vector<float> wanted(static_cast<std::size_t>(items * 3 * pixels));
    bool finite = true;
    for (std::int64_t i = 0; i < items * pixels; ++i) {
        const std::int64_t item = i / pixels, p = i % pixels;
        float rgb[3];
        for (int c = 0; c < 3; ++c) {
            const std::int64_t at = pictures.channels_last ? (item * pixels + p) * 3 + c : (item * 3 + c) * pixels + p;
            const auto k = static_cast<std::size_t>(at);
            if (!bytes) finite = finite && std::isfinite(floats[k]);
            rgb[c] =
                bytes ? static_cast<float>(stored[k]) / 255.0f : floats[k] * pictures.scale[c] + pictures.offset[c];
            // What is finite times its scale may not be; it is clamped, as all is.
            if (std::isnan(rgb[c])) rgb[c] = 0.0f;
        }
        const core::Lab lab = core::srgb_to_lab(rgb[0], rgb[1], rgb[2], table.data());
        const float values[3] = {lab.l, lab.a, lab.b};
        for (int c = 0; c < 3; ++c) wanted[static_cast<std::size_t>((item * 3 + c) * pixels + p)] = values[c];
    }
    expect(finite != found.refused(), "colours: refused are NaN and infinity: " + found.refusal);
    if (finite) expect_same(std::get<0>(found.arrays), wanted, "colours");
}

}  // namespace midgrain::fuzz

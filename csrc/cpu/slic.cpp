// SLIC on the CPU (core/slic.hpp): checks and geometry per item, items and threads.
#include <algorithm>
#include <exception>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/color.hpp"
#include "cpu/connectivity.hpp"
#include "cpu/kernels.hpp"
#include "cpu/parallel.hpp"
#include "cpu/picture_rows.hpp"
#include "cpu/slic_narrow.hpp"
#include "cpu/slic_wide.hpp"
#include "cpu/workspace.hpp"

namespace midgrain::cpu {
namespace {

using core::FeatureRef;
using core::SlicGeometry;

// Pixels below which a second thread costs more than it brings.
constexpr std::int64_t kPixelsPerWorker = 8192;

// Throws for the first channel with NaN or infinity; returns every channel's range.
std::vector<Range> finite_ranges(const FeatureRef<float>& features, std::int64_t item) {
    std::vector<Range> ranges;
    for (int c = 0; c < features.channels; ++c) {
        Range range{};
        if (!find_range(features.plane(item, c), features.dims.size(), range)) {
            throw InvalidValue("features: expected finite float32 values, got NaN or infinity in item " +
                               std::to_string(item) + ", channel " + std::to_string(c));
        }
        ranges.push_back(range);
    }
    return ranges;
}

SlicGeometry make_geometry(const core::Dims& dims, std::span<const Range> ranges, std::span<const double> weights,
                           const SlicParameters& parameters) {
    std::vector<double> spreads;
    for (std::size_t c = 0; c < ranges.size(); ++c) {
        spreads.push_back((static_cast<double>(ranges[c].high) - static_cast<double>(ranges[c].low)) / weights[c]);
    }
    const SlicGeometry geometry = core::make_slic_geometry(dims, parameters.n_segments, parameters.spacing,
                                                           spreads.data(), static_cast<int>(spreads.size()));
    if (geometry.units < 1) {
        throw InvalidValue("weights: a channel's range divided by its weight is above 2^25, got " +
                           std::to_string(*std::max_element(spreads.begin(), spreads.end())) +
                           "; raise the weight or scale the features down");
    }
    return geometry;
}

// Where an item's result goes.
struct ItemOutput {
    std::int32_t* labels;  // [z, y, x]
    std::int32_t* count;
};

// One narrow item from features to labels with one team; false: a feature was NaN or infinite.
bool cluster_narrow(const FeatureRows& rows, const core::Dims& dims, const SlicGeometry& geometry,
                    const std::vector<Range>& ranges, std::span<const double> weights, const SlicParameters& parameters,
                    int threads, const ItemOutput& out) {
    Workspace workspace;
    const int workers = useful_workers(threads, dims.size(), kPixelsPerWorker);
    NarrowClustering clustering(rows, dims, geometry, ranges, weights, parameters.max_num_iter, workers, workspace);
    std::optional<Connectivity> connectivity;
    if (parameters.min_size > 0) connectivity.emplace(dims, parameters.min_size, workers, workspace);
    run_team(workers, [&](Team& team, int index) {
        clustering.run(team, index);
        team.meet();
        if (!clustering.finite()) return;
        clustering.write_labels(team.share(dims.z * dims.y, index), out.labels);
        if (!connectivity) return;
        team.meet();
        connectivity->run(team, index, out.labels, dims.x, out.labels);
    });
    *out.count = connectivity ? connectivity->count() : static_cast<std::int32_t>(geometry.count());
    return clustering.finite();
}

// One wide item; its features are finite.
void cluster_wide(const FeatureRef<float>& features, std::int64_t item, const SlicGeometry& geometry,
                  const std::vector<Range>& ranges, const SlicParameters& parameters, int threads,
                  const ItemOutput& out) {
    cpu::cluster_wide(features, item, geometry, ranges, parameters, threads, out.labels);
    *out.count = static_cast<std::int32_t>(geometry.count());
    if (parameters.min_size > 0) {
        enforce_connectivity(out.labels, 1, features.dims, parameters.min_size, threads, out.labels, out.count);
    }
}

void cluster_features(const FeatureRef<float>& features, std::int64_t item, const SlicParameters& parameters,
                      int threads, const ItemOutput& out) {
    std::vector<Range> ranges(parameters.ranges.begin(), parameters.ranges.end());
    if (ranges.empty()) ranges = finite_ranges(features, item);
    const SlicGeometry geometry = make_geometry(features.dims, ranges, parameters.weights, parameters);
    if (!geometry.narrow) {
        finite_ranges(features, item);
        cluster_wide(features, item, geometry, ranges, parameters, threads, out);
    } else if (!cluster_narrow(PlaneRows(features, item), features.dims, geometry, ranges, parameters.weights,
                               parameters, threads, out)) {
        finite_ranges(features, item);
    }
}

void cluster_pictures(const Pictures& pictures, std::int64_t item, const SlicParameters& parameters, int threads,
                      const ItemOutput& out) {
    const core::Dims& dims = pictures.dims;
    std::vector<Range> ranges;
    std::vector<double> weights;
    if (pictures.has_colour()) {
        for (int c = 0; c < 3; ++c) {
            ranges.push_back({static_cast<float>(core::kLabLow[c]), static_cast<float>(core::kLabHigh[c])});
            weights.push_back(parameters.weights[0]);
        }
    }
    std::optional<core::GradientScale> gradient;
    if (pictures.gradient != nullptr) {
        gradient = find_gradient_scale(pictures.gradient + item * dims.size(), dims.size(), item, threads);
        // A flat gradient says nothing; as a channel it would still change the rounding of the colours.
        if (pictures.has_colour() && gradient->is_flat()) gradient.reset();
    }
    if (gradient) {
        ranges.push_back({0.0f, 100.0f});
        weights.push_back(parameters.weights[1]);
    }
    const SlicGeometry geometry = make_geometry(dims, ranges, weights, parameters);
    const PictureRows rows(pictures, item, gradient ? &*gradient : nullptr);
    bool finite = true;
    if (geometry.narrow) {
        finite = cluster_narrow(rows, dims, geometry, ranges, weights, parameters, threads, out);
    } else {
        // Weights far below what pictures are made for: the features are laid out in full for the general way.
        const auto channels = static_cast<int>(ranges.size());
        std::vector<float> features(static_cast<std::size_t>(channels * dims.size()));
        std::vector<float> scratch(static_cast<std::size_t>(channels * dims.x));
        const float* values[4];
        for (std::int64_t row = 0; row < dims.z * dims.y && finite; ++row) {
            finite = rows.row(row / dims.y, row % dims.y, scratch.data(), dims.x, values);
            for (int c = 0; c < channels; ++c) {
                std::copy_n(values[c], dims.x, features.data() + c * dims.size() + row * dims.x);
            }
        }
        if (finite) {
            SlicParameters general = parameters;
            general.weights = weights;
            cluster_wide({features.data(), 1, channels, dims}, 0, geometry, ranges, general, threads, out);
        }
    }
    if (!finite) {
        throw InvalidValue("images: expected finite values, got NaN or infinity in item " + std::to_string(item));
    }
}

// Calls cluster(item, threads, output) for every item.
template <class Cluster>
void slic_items(std::int64_t items, const core::Dims& dims, int threads, std::int32_t* labels, std::int32_t* counts,
                Cluster&& cluster) {
    const std::int64_t pixels = dims.size();
    // Whole items per worker when there are enough of them, otherwise all workers on one item after the other.
    const bool by_item = items >= threads;
    const int workers = by_item ? useful_workers(threads, items * pixels, kPixelsPerWorker) : 1;
    const int inner = by_item ? 1 : threads;
    std::mutex guard;
    std::optional<std::pair<std::int64_t, std::exception_ptr>> failure;
    run_team(workers, [&](Team& team, int index) {
        const Share mine = team.share(items, index);
        for (std::int64_t item = mine.first; item < mine.last; ++item) {
            try {
                cluster(item, inner, ItemOutput{labels + item * pixels, counts + item});
            } catch (...) {
                // The first item's failure is reported, whichever thread met its own first.
                const std::lock_guard lock(guard);
                if (!failure || item < failure->first) failure.emplace(item, std::current_exception());
                return;
            }
        }
    });
    if (failure) std::rethrow_exception(failure->second);
}

}  // namespace

void slic(FeatureRef<float> features, const SlicParameters& parameters, int threads, std::int32_t* labels,
          std::int32_t* counts) {
    slic_items(features.items, features.dims, threads, labels, counts,
               [&](std::int64_t item, int inner, const ItemOutput& out) {
                   cluster_features(features, item, parameters, inner, out);
               });
}

void slic_pictures(const Pictures& pictures, const SlicParameters& parameters, int threads, std::int32_t* labels,
                   std::int32_t* counts) {
    slic_items(pictures.items, pictures.dims, threads, labels, counts,
               [&](std::int64_t item, int inner, const ItemOutput& out) {
                   cluster_pictures(pictures, item, parameters, inner, out);
               });
}

bool find_range(const float* values, std::int64_t n, Range& range) {
    range = {values[0], values[0]};
    return pixel_kernels().find_range(values, n, range.low, range.high);
}

}  // namespace midgrain::cpu

// What callers pass, read and checked the same way for every backend.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/array_view.hpp"
#include "core/array_ref.hpp"
#include "core/parameters.hpp"
#include "core/patches.hpp"
#include "core/pool.hpp"

namespace midgrain::bindings {

using Triple = std::array<std::int64_t, 3>;

// The z, y, x axes of an array from `first_axis` on. Throws ValueError unless there are 1 .. 2^31 - 1 pixels.
core::Dims item_dims(const ArrayView& array, int first_axis);
// The same of a shape that is no array's.
core::Dims to_item_dims(const Triple& shape, const std::string& name);

// Throws ValueError unless low <= value <= high.
void check_between(double value, double low, double high, const std::string& name);

// Throws ValueError unless there are 1 .. core::kMaxChannels channels, and a weight for each.
void check_channels(std::int64_t channels, std::size_t weights);

// One (low, high) per channel, or none at all.
using RangePairs = std::optional<std::vector<std::pair<double, double>>>;
std::vector<core::Range> channel_ranges(const RangePairs& ranges, std::int64_t channels);

// Checked parameters; they refer to the memory of `weights` and `ranges`.
core::SlicParameters slic_parameters(std::span<const double> weights, std::span<const core::Range> ranges,
                                     std::int64_t n_segments, std::int64_t max_num_iter,
                                     const std::array<double, 3>& spacing, std::int64_t min_size,
                                     const core::Dims& dims);

void check_min_size(std::int64_t min_size);

// Where labels and counts go.
class SlicOutputs {
public:
    SlicOutputs(pybind11::handle labels, pybind11::handle counts, std::int64_t items, const core::Dims& dims,
                Place place);

    std::int32_t* labels() const { return labels_.data<std::int32_t>(); }
    std::int32_t* counts() const { return counts_.data<std::int32_t>(); }
    const ArrayView& labels_array() const { return labels_; }
    const ArrayView& counts_array() const { return counts_; }

private:
    ArrayView labels_, counts_;
};

// RGB pictures [items, 3, z, y, x] (or channels last), gradient maps [items, z, y, x], or both.
struct PictureArguments {
    PictureArguments(const std::optional<pybind11::object>& rgb_in, bool channels_last,
                     const std::array<double, 3>& scale, const std::array<double, 3>& offset,
                     const std::optional<pybind11::object>& gradient_in, Place place);

    std::optional<ArrayView> rgb, gradient;
    core::Pictures pictures{};
};

// rgb [items, 3, pixels] (or channels last) and lab [items, 3, pixels].
struct LabArguments {
    LabArguments(pybind11::handle rgb_in, pybind11::handle lab_in, bool channels_last, Place place);

    ArrayView rgb, lab;
    core::Pictures pictures{};
};

// labels and out [items, z, y, x], counts [items].
struct ConnectivityArguments {
    ConnectivityArguments(pybind11::handle labels_in, std::int64_t min_size, pybind11::handle labels_out,
                          pybind11::handle counts_out, Place place);

    ArrayView labels, out, counts;
    core::Dims dims;
};

// Throws ValueError for an unknown name.
core::Reduce find_reduction(const std::string& name);

// Pooling and painting, `in` being what is read: over pixels for pooling, over regions for painting.
// Channels first: [groups, channels, a], labels [groups, pixels], out [groups, channels, b].
// Channels last: [items, a, channels], labels [groups, pixels], out [items, b, channels], groups dividing items.
struct PoolArguments {
    PoolArguments(pybind11::handle in_in, const std::string& name, pybind11::handle labels_in, pybind11::handle out_in,
                  bool pooling, bool channels_last, Place place);

    ArrayView in, labels, out;
    core::PoolShape shape{};
};

// images [items, channels, z, y, x] and patches [items, count, channels, patch z, y, x], one of which is written.
struct PatchArguments {
    PatchArguments(pybind11::handle images_in, pybind11::handle patches_in, const Triple& cells, const Triple& grid_in,
                   const Triple& size, std::int64_t start, bool extracts, Place place);

    ArrayView images, patches;
    core::Dims dims{};
    std::int64_t items;
    int channels;
    core::PatchGrid grid{};
};

// maps [items, patches of the grid, cells] and out [items, size].
struct AggregateArguments {
    AggregateArguments(pybind11::handle maps_in, const Triple& grid_in, pybind11::handle out_in, Place place);

    ArrayView maps, out;
    std::int64_t items;
    core::Dims cells{}, grid{}, size{};
};

}  // namespace midgrain::bindings

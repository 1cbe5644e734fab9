#include "bindings/arguments.hpp"

#include <pybind11/pybind11.h>

#include <algorithm>
#include <limits>
#include <map>

#include "core/slic.hpp"

namespace midgrain::bindings {
namespace py = pybind11;
namespace {

using Element = ElementType;

std::string to_text(double value) { return py::cast<std::string>(py::repr(py::float_(value))); }

// Three numbers that turn stored values into 0 .. 1.
void copy_numbers(const std::array<double, 3>& from, const std::string& name, float* to) {
    for (std::size_t c = 0; c < 3; ++c) {
        constexpr double kLargest = std::numeric_limits<float>::max();
        check_between(from[c], -kLargest, kLargest, name);
        to[c] = static_cast<float>(from[c]);
    }
}

// Colours of a batch: uint8 or float32, [items, 3, z, y, x] or, with channels_last, [items, z, y, x, 3].
void set_colours(const ArrayView& rgb, bool channels_last, core::Pictures& pictures) {
    if (rgb.element() == Element::kUInt8) {
        pictures.bytes = rgb.data<std::uint8_t>();
    } else {
        pictures.floats = rgb.data<float>();
    }
    pictures.channels_last = channels_last;
    std::fill_n(pictures.scale, 3, 1.0f);
}

const std::map<std::string, core::Reduce>& reductions() {
    using core::Reduce;
    static const std::map<std::string, Reduce> names = {
        {"mean", Reduce::kMean}, {"sum", Reduce::kSum},      {"abs-sum", Reduce::kAbsSum}, {"l1", Reduce::kAbsSum},
        {"l2", Reduce::kL2},     {"var", Reduce::kVar},      {"std", Reduce::kStd},        {"max", Reduce::kMax},
        {"min", Reduce::kMin},   {"median", Reduce::kMedian}};
    return names;
}

// Products of two such numbers, doubled, fit into int64.
constexpr std::int64_t kLargest = std::int64_t{1} << 30;

core::Dims to_dims(const Triple& values, const std::string& name) {
    for (const std::int64_t value : values) {
        if (value < 1 || value > kLargest) {
            throw py::value_error(name + ": expected 1 .. 2^30 along each axis, got " + std::to_string(value));
        }
    }
    return {values[0], values[1], values[2]};
}

core::PatchGrid to_grid(const ArrayView& patches, const Triple& cells_in, const Triple& grid_in, const Triple& size_in,
                        std::int64_t start) {
    const core::Dims patch = item_dims(patches, 3), cells = to_dims(cells_in, "cells");
    const core::Dims grid = to_dims(grid_in, "grid"), size = to_dims(size_in, "size");
    if (size.z * size.y > core::kMaxPixels || size.z * size.y * size.x > core::kMaxPixels) {
        throw py::value_error("size: expected fewer than 2^31 pixels, got " +
                              bindings::to_text({size.z, size.y, size.x}));
    }
    for (int axis = 0; axis < 3; ++axis) {
        if (cells[axis] > patch[axis]) {
            throw py::value_error("cells: expected at most the patch's pixels, " + std::to_string(patch[axis]) +
                                  ", got " + std::to_string(cells[axis]));
        }
        const std::int64_t extent = core::patches_extent(grid[axis], patch[axis], cells[axis]);
        if (size[axis] < extent) {
            throw py::value_error("size: expected " + std::to_string(extent) +
                                  " or more, where the last patch ends, got " + std::to_string(size[axis]));
        }
    }
    // Patches are at least a pixel apart, so there are no more of them than pixels.
    if (start < 0 || start >= grid.size()) {
        throw py::value_error("start: expected 0 .. " + std::to_string(grid.size() - 1) + ", got " +
                              std::to_string(start));
    }
    const std::int64_t count = patches.shape(1);
    if (count < 1 || count > grid.size() - start) {
        throw py::value_error(patches.name() + ": expected 1 .. " + std::to_string(grid.size() - start) +
                              " patches, got " + std::to_string(count));
    }
    return {patch, cells, grid, size, start, count};
}

void require_same_element(const ArrayView& in, const ArrayView& out) {
    if (in.element() != out.element()) throw py::type_error(out.name() + ": expected the dtype of " + in.name());
}

int image_channels(const ArrayView& images) {
    if (images.shape(1) < 1 || images.shape(1) > kLargest) {
        throw py::value_error(images.name() + ": expected 1 .. 2^30 channels, got shape " +
                              bindings::to_text(images.shape()));
    }
    return static_cast<int>(images.shape(1));
}

}  // namespace

core::Dims item_dims(const ArrayView& array, int first_axis) {
    return to_item_dims({array.shape(first_axis), array.shape(first_axis + 1), array.shape(first_axis + 2)},
                        array.name());
}

core::Dims to_item_dims(const Triple& shape, const std::string& name) {
    const core::Dims dims{shape[0], shape[1], shape[2]};
    const std::string got = ", got shape " + bindings::to_text({shape[0], shape[1], shape[2]});
    if (dims.z < 1 || dims.y < 1 || dims.x < 1) {
        throw py::value_error(name + ": expected at least one pixel" + got);
    }
    // Checked axis by axis, because the product itself could overflow.
    if (dims.z > core::kMaxPixels || dims.y > core::kMaxPixels / dims.z ||
        dims.x > core::kMaxPixels / (dims.z * dims.y)) {
        throw py::value_error(name + ": expected fewer than 2^31 pixels per item" + got);
    }
    return dims;
}

void check_between(double value, double low, double high, const std::string& name) {
    if (!(value >= low && value <= high)) {
        throw py::value_error(name + ": expected a number from " + to_text(low) + " to " + to_text(high) + ", got " +
                              to_text(value));
    }
}

void check_channels(std::int64_t channels, std::size_t weights) {
    if (channels < 1 || channels > core::kMaxChannels) {
        throw py::value_error("features: expected 1 .. " + std::to_string(core::kMaxChannels) + " channels, got " +
                              std::to_string(channels));
    }
    if (weights != static_cast<std::size_t>(channels)) {
        throw py::value_error("weights: expected one per channel (" + std::to_string(channels) + "), got " +
                              std::to_string(weights));
    }
}

std::vector<core::Range> channel_ranges(const RangePairs& ranges, std::int64_t channels) {
    std::vector<core::Range> limits;
    if (!ranges) return limits;
    if (ranges->size() != static_cast<std::size_t>(channels)) {
        throw py::value_error("ranges: expected one (low, high) per channel (" + std::to_string(channels) + "), got " +
                              std::to_string(ranges->size()));
    }
    for (const auto& [low, high] : *ranges) {
        constexpr double kLargestFloat = std::numeric_limits<float>::max();
        if (!(-kLargestFloat <= low && low <= high && high <= kLargestFloat)) {
            throw py::value_error("ranges: expected finite low <= high, got (" + to_text(low) + ", " + to_text(high) +
                                  ")");
        }
        limits.push_back({static_cast<float>(low), static_cast<float>(high)});
    }
    return limits;
}

void check_min_size(std::int64_t min_size) {
    if (min_size < 0) throw py::value_error("min_size: expected 0 or more, got " + std::to_string(min_size));
}

core::SlicParameters slic_parameters(std::span<const double> weights, std::span<const core::Range> ranges,
                                     std::int64_t n_segments, std::int64_t max_num_iter,
                                     const std::array<double, 3>& spacing, std::int64_t min_size,
                                     const core::Dims& dims) {
    for (const double weight : weights) {
        check_between(weight, core::kMinWeight, std::numeric_limits<double>::max(), "weights");
    }
    for (const double value : spacing) check_between(value, core::kMinSpacing, core::kMaxSpacing, "spacing");
    if (n_segments < 1 || n_segments > dims.size()) {
        throw py::value_error("n_segments: expected 1 .. " + std::to_string(dims.size()) + " (the pixels), got " +
                              std::to_string(n_segments));
    }
    if (max_num_iter < 1 || max_num_iter > 1'000'000) {
        throw py::value_error("max_num_iter: expected 1 .. 1000000, got " + std::to_string(max_num_iter));
    }
    check_min_size(min_size);
    return {weights, ranges, n_segments, static_cast<int>(max_num_iter), {spacing[0], spacing[1], spacing[2]},
            min_size};
}

SlicOutputs::SlicOutputs(py::handle labels, py::handle counts, std::int64_t items, const core::Dims& dims, Place place)
    : labels_(labels, "labels", 4, {Element::kInt32}, true, place),
      counts_(counts, "counts", 1, {Element::kInt32}, true, place) {
    labels_.require_shape({items, dims.z, dims.y, dims.x});
    counts_.require_shape({items});
}

PictureArguments::PictureArguments(const std::optional<py::object>& rgb_in, bool channels_last,
                                   const std::array<double, 3>& scale, const std::array<double, 3>& offset,
                                   const std::optional<py::object>& gradient_in, Place place) {
    if (!rgb_in && !gradient_in) throw py::value_error("images: expected images, a gradient or both, got neither");
    using Elements = std::vector<Element>;
    if (rgb_in) {
        rgb.emplace(*rgb_in, "images", 5, Elements{Element::kUInt8, Element::kFloat32}, false, place);
        pictures.dims = item_dims(*rgb, channels_last ? 1 : 2);
        pictures.items = rgb->shape(0);
        if (rgb->shape(channels_last ? 4 : 1) != 3) throw py::value_error("images: expected 3 channels");
        set_colours(*rgb, channels_last, pictures);
        copy_numbers(scale, "scale", pictures.scale);
        copy_numbers(offset, "offset", pictures.offset);
    }
    if (gradient_in) {
        gradient.emplace(*gradient_in, "gradient", 4, Elements{Element::kFloat32}, false, place);
        if (rgb_in) {
            const core::Dims& dims = pictures.dims;
            gradient->require_shape({pictures.items, dims.z, dims.y, dims.x});
        } else {
            pictures.dims = item_dims(*gradient, 1);
            pictures.items = gradient->shape(0);
        }
        pictures.gradient = gradient->data<float>();
    }
}

LabArguments::LabArguments(py::handle rgb_in, py::handle lab_in, bool channels_last, Place place)
    : rgb(rgb_in, "rgb", 3, {Element::kUInt8, Element::kFloat32}, false, place),
      lab(lab_in, "lab", 3, {Element::kFloat32}, true, place) {
    const std::int64_t items = rgb.shape(0), pixels = rgb.shape(channels_last ? 1 : 2);
    if (channels_last) {
        rgb.require_shape({items, pixels, 3});
    } else {
        rgb.require_shape({items, 3, pixels});
    }
    lab.require_shape({items, 3, pixels});
    pictures.items = items;
    pictures.dims = {1, 1, pixels};
    set_colours(rgb, channels_last, pictures);
}

ConnectivityArguments::ConnectivityArguments(py::handle labels_in, std::int64_t min_size, py::handle labels_out,
                                             py::handle counts_out, Place place)
    : labels(labels_in, "labels", 4, {Element::kInt32}, false, place),
      out(labels_out, "out", 4, {Element::kInt32}, true, place),
      counts(counts_out, "counts", 1, {Element::kInt32}, true, place),
      dims(item_dims(labels, 1)) {
    out.require_shape(labels.shape());
    counts.require_shape({labels.shape(0)});
    check_min_size(min_size);
}

core::Reduce find_reduction(const std::string& name) {
    const auto found = reductions().find(name);
    if (found == reductions().end()) throw py::value_error("reduce: unknown reduction '" + name + "'");
    return found->second;
}

PoolArguments::PoolArguments(py::handle in_in, const std::string& name, py::handle labels_in, py::handle out_in,
                             bool pooling, bool channels_last, Place place)
    : in(in_in, name, 3, {Element::kFloat32, Element::kFloat64}, false, place),
      labels(labels_in, "labels", 2, {Element::kInt32}, false, place),
      out(out_in, "out", 3, {Element::kFloat32, Element::kFloat64}, true, place) {
    const int axis = channels_last ? 1 : 2;
    const std::int64_t items = in.shape(0), channels = in.shape(3 - axis);
    const std::int64_t pixels = (pooling ? in : out).shape(axis), n = (pooling ? out : in).shape(axis);
    require_same_element(in, out);
    if (n < 1) throw py::value_error("n: expected at least one region, got " + std::to_string(n));
    if (labels.shape(1) < 1) throw py::value_error("labels: expected at least one pixel, got none");
    const std::int64_t groups = channels_last ? labels.shape(0) : items;
    labels.require_shape({groups, pixels});
    if (channels_last && (groups < 1 || items % groups != 0)) {
        throw py::value_error("labels: expected a number of label maps that divides " + std::to_string(items) +
                              ", got " + std::to_string(groups));
    }
    const std::int64_t other = pooling ? n : pixels;
    if (channels_last) {
        out.require_shape({items, other, channels});
    } else {
        out.require_shape({items, channels, other});
    }
    shape = {groups, items, channels, pixels, n, channels_last};
}

PatchArguments::PatchArguments(py::handle images_in, py::handle patches_in, const Triple& cells, const Triple& grid_in,
                               const Triple& size, std::int64_t start, bool extracts, Place place)
    : images(images_in, extracts ? "images" : "out", 5, {Element::kFloat32, Element::kFloat64}, !extracts, place),
      patches(patches_in, extracts ? "out" : "patches", 6, {Element::kFloat32, Element::kFloat64}, extracts, place) {
    const ArrayView &in = extracts ? images : patches, &out = extracts ? patches : images;
    require_same_element(in, out);
    dims = item_dims(images, 2);
    channels = image_channels(images);
    grid = to_grid(patches, cells, grid_in, size, start);
    items = in.shape(0);
    if (extracts) {
        out.require_shape({items, grid.count, channels, grid.patch.z, grid.patch.y, grid.patch.x});
    } else {
        out.require_shape({items, patches.shape(2), dims.z, dims.y, dims.x});
    }
}

AggregateArguments::AggregateArguments(py::handle maps_in, const Triple& grid_in, py::handle out_in, Place place)
    : maps(maps_in, "maps", 5, {Element::kFloat32, Element::kFloat64}, false, place),
      out(out_in, "out", 4, {Element::kFloat32, Element::kFloat64}, true, place),
      items(maps.shape(0)) {
    require_same_element(maps, out);
    cells = item_dims(maps, 2);
    grid = to_dims(grid_in, "grid");
    size = item_dims(out, 1);
    if (maps.shape(1) / grid.x != grid.z * grid.y || maps.shape(1) % grid.x != 0) {
        throw py::value_error("maps: expected one per patch of the grid " +
                              bindings::to_text({grid.z, grid.y, grid.x}) + ", got shape " +
                              bindings::to_text(maps.shape()));
    }
    out.require_shape({items, size.z, size.y, size.x});
}

}  // namespace midgrain::bindings

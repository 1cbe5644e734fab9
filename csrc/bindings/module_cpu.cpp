// midgrain._kernels._cpu: checks what the kernels rely on, releases the GIL, calls. Allocates no array.
#include "bindings/module_cpu.hpp"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string>

#include "core/color.hpp"
#include "cpu/kernels.hpp"

namespace midgrain::bindings {
namespace py = pybind11;

core::Dims item_dims(const ArrayView& array, int first_axis) {
    const core::Dims dims{array.shape(first_axis), array.shape(first_axis + 1), array.shape(first_axis + 2)};
    if (dims.z < 1 || dims.y < 1 || dims.x < 1) {
        throw py::value_error(array.name() + ": expected at least one pixel, got shape " + to_text(array.shape()));
    }
    // Checked axis by axis, because the product itself could overflow.
    if (dims.z > core::kMaxPixels || dims.y > core::kMaxPixels / dims.z ||
        dims.x > core::kMaxPixels / (dims.z * dims.y)) {
        throw py::value_error(array.name() + ": expected fewer than 2^31 pixels per item, got shape " +
                              to_text(array.shape()));
    }
    return dims;
}

int check_threads(std::int64_t threads) {
    if (threads < 1 || threads > 1024) {
        throw py::value_error("num_threads: expected 1 .. 1024, got " + std::to_string(threads));
    }
    return static_cast<int>(threads);
}

namespace {

using Element = ElementType;

std::string to_text(double value) { return py::cast<std::string>(py::repr(py::float_(value))); }

void check_between(double value, double low, double high, const std::string& name) {
    if (!(value >= low && value <= high)) {
        throw py::value_error(name + ": expected a number from " + to_text(low) + " to " + to_text(high) + ", got " +
                              to_text(value));
    }
}

cpu::SlicParameters slic_parameters(std::span<const double> weights, std::span<const cpu::Range> ranges,
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
    if (min_size < 0) throw py::value_error("min_size: expected 0 or more, got " + std::to_string(min_size));
    return {weights, ranges, n_segments, static_cast<int>(max_num_iter), {spacing[0], spacing[1], spacing[2]},
            min_size};
}

// Where labels and counts go.
class SlicOutputs {
public:
    SlicOutputs(py::handle labels, py::handle counts, std::int64_t items, const core::Dims& dims)
        : labels_(labels, "labels", 4, {Element::kInt32}, true), counts_(counts, "counts", 1, {Element::kInt32}, true) {
        labels_.require_shape({items, dims.z, dims.y, dims.x});
        counts_.require_shape({items});
    }

    std::int32_t* labels() const { return labels_.data<std::int32_t>(); }
    std::int32_t* counts() const { return counts_.data<std::int32_t>(); }

private:
    ArrayView labels_, counts_;
};

void slic(py::handle features_in, const std::vector<double>& weights,
          const std::optional<std::vector<std::pair<double, double>>>& ranges, std::int64_t n_segments,
          std::int64_t max_num_iter, const std::array<double, 3>& spacing, std::int64_t min_size, py::handle labels_out,
          py::handle counts_out, std::int64_t num_threads) {
    const ArrayView features(features_in, "features", 5, {Element::kFloat32}, false);
    const std::int64_t items = features.shape(0), channels = features.shape(1);
    const core::Dims dims = item_dims(features, 2);
    if (channels < 1 || channels > core::kMaxChannels) {
        throw py::value_error("features: expected 1 .. " + std::to_string(core::kMaxChannels) + " channels, got " +
                              std::to_string(channels));
    }
    if (weights.size() != static_cast<std::size_t>(channels)) {
        throw py::value_error("weights: expected one per channel (" + std::to_string(channels) + "), got " +
                              std::to_string(weights.size()));
    }
    std::vector<cpu::Range> limits;
    if (ranges) {
        if (ranges->size() != static_cast<std::size_t>(channels)) {
            throw py::value_error("ranges: expected one (low, high) per channel (" + std::to_string(channels) +
                                  "), got " + std::to_string(ranges->size()));
        }
        for (const auto& [low, high] : *ranges) {
            constexpr double kLargest = std::numeric_limits<float>::max();
            if (!(-kLargest <= low && low <= high && high <= kLargest)) {
                throw py::value_error("ranges: expected finite low <= high, got (" + to_text(low) + ", " +
                                      to_text(high) + ")");
            }
            limits.push_back({static_cast<float>(low), static_cast<float>(high)});
        }
    }
    const cpu::SlicParameters parameters =
        slic_parameters(weights, limits, n_segments, max_num_iter, spacing, min_size, dims);
    const SlicOutputs out(labels_out, counts_out, items, dims);
    const int threads = check_threads(num_threads);
    const py::gil_scoped_release release;
    cpu::slic({features.data<float>(), items, static_cast<int>(channels), dims}, parameters, threads, out.labels(),
              out.counts());
}

// Three numbers that turn stored values into 0 .. 1.
void copy_numbers(const std::array<double, 3>& from, const std::string& name, float* to) {
    for (std::size_t c = 0; c < 3; ++c) {
        constexpr double kLargest = std::numeric_limits<float>::max();
        check_between(from[c], -kLargest, kLargest, name);
        to[c] = static_cast<float>(from[c]);
    }
}

// Colours of a batch: uint8 or float32, [items, 3, z, y, x] or, with channels_last, [items, z, y, x, 3].
void set_colours(const ArrayView& rgb, bool channels_last, cpu::Pictures& pictures) {
    if (rgb.element() == Element::kUInt8) {
        pictures.bytes = rgb.data<std::uint8_t>();
    } else {
        pictures.floats = rgb.data<float>();
    }
    pictures.channels_last = channels_last;
    std::fill_n(pictures.scale, 3, 1.0f);
}

void slic_pictures(const std::optional<py::object>& rgb_in, bool channels_last, const std::array<double, 3>& scale,
                   const std::array<double, 3>& offset, const std::optional<py::object>& gradient_in,
                   const std::array<double, 2>& weights, std::int64_t n_segments, std::int64_t max_num_iter,
                   const std::array<double, 3>& spacing, std::int64_t min_size, py::handle labels_out,
                   py::handle counts_out, std::int64_t num_threads) {
    if (!rgb_in && !gradient_in) throw py::value_error("images: expected images, a gradient or both, got neither");
    cpu::Pictures pictures{};
    std::optional<ArrayView> rgb, gradient;
    if (rgb_in) {
        rgb.emplace(*rgb_in, "images", 5, std::initializer_list<Element>{Element::kUInt8, Element::kFloat32}, false);
        pictures.dims = item_dims(*rgb, channels_last ? 1 : 2);
        pictures.items = rgb->shape(0);
        if (rgb->shape(channels_last ? 4 : 1) != 3) throw py::value_error("images: expected 3 channels");
        set_colours(*rgb, channels_last, pictures);
        copy_numbers(scale, "scale", pictures.scale);
        copy_numbers(offset, "offset", pictures.offset);
    }
    if (gradient_in) {
        gradient.emplace(*gradient_in, "gradient", 4, std::initializer_list<Element>{Element::kFloat32}, false);
        if (rgb_in) {
            const core::Dims& dims = pictures.dims;
            gradient->require_shape({pictures.items, dims.z, dims.y, dims.x});
        } else {
            pictures.dims = item_dims(*gradient, 1);
            pictures.items = gradient->shape(0);
        }
        pictures.gradient = gradient->data<float>();
    }
    const cpu::SlicParameters parameters =
        slic_parameters(weights, {}, n_segments, max_num_iter, spacing, min_size, pictures.dims);
    const SlicOutputs out(labels_out, counts_out, pictures.items, pictures.dims);
    const int threads = check_threads(num_threads);
    const py::gil_scoped_release release;
    cpu::slic_pictures(pictures, parameters, threads, out.labels(), out.counts());
}

// (low, high), or None where a value is NaN or infinite.
std::optional<std::pair<float, float>> find_range(py::handle values_in) {
    const ArrayView values(values_in, "values", 1, {Element::kFloat32}, false);
    if (values.shape(0) < 1) throw py::value_error("values: expected at least one value, got none");
    cpu::Range range{};
    const py::gil_scoped_release release;
    if (!cpu::find_range(values.data<float>(), values.shape(0), range)) return std::nullopt;
    return std::pair{range.low, range.high};
}

py::dict slic_geometry(const std::array<std::int64_t, 3>& dims, std::int64_t n_segments,
                       const std::array<double, 3>& spacing, const std::vector<double>& spreads) {
    const auto geometry = core::make_slic_geometry({dims[0], dims[1], dims[2]}, n_segments, spacing.data(),
                                                   spreads.data(), static_cast<int>(spreads.size()));
    py::dict result;
    result["cells"] = py::make_tuple(geometry.cells.z, geometry.cells.y, geometry.cells.x);
    result["step"] = geometry.step;
    result["units"] = geometry.units;
    result["narrow"] = geometry.narrow;
    return result;
}

void enforce_connectivity(py::handle labels_in, std::int64_t min_size, py::handle labels_out, py::handle counts_out,
                          std::int64_t num_threads) {
    const ArrayView labels(labels_in, "labels", 4, {Element::kInt32}, false);
    const ArrayView out(labels_out, "out", 4, {Element::kInt32}, true);
    const ArrayView counts(counts_out, "counts", 1, {Element::kInt32}, true);
    const core::Dims dims = item_dims(labels, 1);
    out.require_shape(labels.shape());
    counts.require_shape({labels.shape(0)});
    if (min_size < 0) throw py::value_error("min_size: expected 0 or more, got " + std::to_string(min_size));
    const int threads = check_threads(num_threads);
    const py::gil_scoped_release release;
    cpu::enforce_connectivity(labels.data<std::int32_t>(), labels.shape(0), dims, min_size, threads,
                              out.data<std::int32_t>(), counts.data<std::int32_t>());
}

void rgb_to_lab(py::handle rgb_in, py::handle lab_out, bool channels_last, std::int64_t num_threads) {
    const ArrayView rgb(rgb_in, "rgb", 3, {Element::kUInt8, Element::kFloat32}, false);
    const ArrayView lab(lab_out, "lab", 3, {Element::kFloat32}, true);
    const std::int64_t items = rgb.shape(0), pixels = rgb.shape(channels_last ? 1 : 2);
    if (channels_last) {
        rgb.require_shape({items, pixels, 3});
    } else {
        rgb.require_shape({items, 3, pixels});
    }
    lab.require_shape({items, 3, pixels});
    const int threads = check_threads(num_threads);
    cpu::Pictures pictures{};
    pictures.items = items;
    pictures.dims = {1, 1, pixels};
    set_colours(rgb, channels_last, pictures);
    const py::gil_scoped_release release;
    cpu::rgb_to_lab(pictures, threads, lab.data<float>());
}

const std::map<std::string, core::Reduce>& reductions() {
    using core::Reduce;
    static const std::map<std::string, Reduce> names = {
        {"mean", Reduce::kMean}, {"sum", Reduce::kSum},      {"abs-sum", Reduce::kAbsSum}, {"l1", Reduce::kAbsSum},
        {"l2", Reduce::kL2},     {"var", Reduce::kVar},      {"std", Reduce::kStd},        {"max", Reduce::kMax},
        {"min", Reduce::kMin},   {"median", Reduce::kMedian}};
    return names;
}

// The shape of pooling and painting, `in` being what is read: over pixels for pooling, over regions for painting.
// Channels first: [groups, channels, a], labels [groups, pixels], out [groups, channels, b].
// Channels last: [items, a, channels], labels [groups, pixels], out [items, b, channels], groups dividing items.
cpu::PoolShape pool_shape(const ArrayView& in, const ArrayView& labels, const ArrayView& out, bool pooling,
                          bool channels_last) {
    const int axis = channels_last ? 1 : 2;
    const std::int64_t items = in.shape(0), channels = in.shape(3 - axis);
    const std::int64_t pixels = (pooling ? in : out).shape(axis), n = (pooling ? out : in).shape(axis);
    if (in.element() != out.element()) throw py::type_error(out.name() + ": expected the dtype of " + in.name());
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
    return {groups, items, channels, pixels, n, channels_last};
}

void pool(py::handle values_in, py::handle labels_in, const std::string& reduce, py::handle out_in,
          std::int64_t num_threads, bool channels_last) {
    const ArrayView values(values_in, "values", 3, {Element::kFloat32, Element::kFloat64}, false);
    const ArrayView labels(labels_in, "labels", 2, {Element::kInt32}, false);
    const ArrayView out(out_in, "out", 3, {Element::kFloat32, Element::kFloat64}, true);
    const cpu::PoolShape shape = pool_shape(values, labels, out, true, channels_last);
    const auto found = reductions().find(reduce);
    if (found == reductions().end()) throw py::value_error("reduce: unknown reduction '" + reduce + "'");
    const int threads = check_threads(num_threads);
    const py::gil_scoped_release release;
    if (values.element() == Element::kFloat32) {
        cpu::pool(values.data<float>(), labels.data<std::int32_t>(), shape, found->second, threads, out.data<float>());
    } else {
        cpu::pool(values.data<double>(), labels.data<std::int32_t>(), shape, found->second, threads,
                  out.data<double>());
    }
}

void paint(py::handle scores_in, py::handle labels_in, py::handle out_in, std::int64_t num_threads,
           bool channels_last) {
    const ArrayView scores(scores_in, "scores", 3, {Element::kFloat32, Element::kFloat64}, false);
    const ArrayView labels(labels_in, "labels", 2, {Element::kInt32}, false);
    const ArrayView out(out_in, "out", 3, {Element::kFloat32, Element::kFloat64}, true);
    const cpu::PoolShape shape = pool_shape(scores, labels, out, false, channels_last);
    const int threads = check_threads(num_threads);
    const py::gil_scoped_release release;
    if (scores.element() == Element::kFloat32) {
        cpu::paint(scores.data<float>(), labels.data<std::int32_t>(), shape, threads, out.data<float>());
    } else {
        cpu::paint(scores.data<double>(), labels.data<std::int32_t>(), shape, threads, out.data<double>());
    }
}

double multiply_adds_per_second(double seconds, std::int64_t num_threads) {
    check_between(seconds, 0.0, 60.0, "seconds");
    const int threads = check_threads(num_threads);
    const py::gil_scoped_release release;
    return cpu::multiply_adds_per_second(seconds, threads);
}

}  // namespace

PYBIND11_MODULE(_cpu, module) {
    module.doc() = "CPU kernels. Call them through midgrain.ops, which validates and allocates.";
    py::register_exception_translator([](std::exception_ptr pointer) {
        try {
            if (pointer) std::rethrow_exception(pointer);
        } catch (const cpu::InvalidValue& error) {
            PyErr_SetString(PyExc_ValueError, error.what());
        }
    });
    module.def("slic", &slic, py::arg("features"), py::arg("weights"), py::arg("ranges"), py::arg("n_segments"),
               py::arg("max_num_iter"), py::arg("spacing"), py::arg("min_size"), py::arg("labels"), py::arg("counts"),
               py::arg("num_threads"));
    module.def("slic_pictures", &slic_pictures, py::arg("images"), py::arg("channels_last"), py::arg("scale"),
               py::arg("offset"), py::arg("gradient"), py::arg("weights"), py::arg("n_segments"),
               py::arg("max_num_iter"), py::arg("spacing"), py::arg("min_size"), py::arg("labels"), py::arg("counts"),
               py::arg("num_threads"));
    module.def("find_range", &find_range, py::arg("values"));
    module.def("slic_geometry", &slic_geometry, py::arg("dims"), py::arg("n_segments"), py::arg("spacing"),
               py::arg("spreads"));
    module.def("enforce_connectivity", &enforce_connectivity, py::arg("labels"), py::arg("min_size"), py::arg("out"),
               py::arg("counts"), py::arg("num_threads"));
    module.def("rgb_to_lab", &rgb_to_lab, py::arg("rgb"), py::arg("lab"), py::arg("channels_last"),
               py::arg("num_threads"));
    module.def("pool", &pool, py::arg("values"), py::arg("labels"), py::arg("reduce"), py::arg("out"),
               py::arg("num_threads"), py::arg("channels_last") = false);
    module.def("paint", &paint, py::arg("scores"), py::arg("labels"), py::arg("out"), py::arg("num_threads"),
               py::arg("channels_last") = false);
    bind_patches(module);
    module.def("multiply_adds_per_second", &multiply_adds_per_second, py::arg("seconds"), py::arg("num_threads"));
    module.def("available_instruction_sets", [] {
        const auto names = cpu::available_instruction_sets();
        return std::vector<std::string>(names.begin(), names.end());
    });
    module.def("instruction_set", &cpu::instruction_set);
    module.def("select_instruction_set", &cpu::select_instruction_set, py::arg("name"));
    py::list ranges;
    for (int c = 0; c < 3; ++c) ranges.append(py::make_tuple(core::kLabLow[c], core::kLabHigh[c]));
    module.attr("LAB_RANGES") = py::tuple(ranges);
    module.attr("MAX_CHANNELS") = core::kMaxChannels;
}

}  // namespace midgrain::bindings

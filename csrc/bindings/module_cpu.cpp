// midgrain._kernels._cpu: checks what the kernels rely on, releases the GIL, calls. Allocates no array.
#include "bindings/module_cpu.hpp"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <optional>
#include <string>
#include <type_traits>

#include "core/color.hpp"
#include "core/slic.hpp"
#include "cpu/kernels.hpp"

namespace midgrain::bindings {
namespace py = pybind11;

int check_threads(std::int64_t threads) {
    if (threads < 1 || threads > 1024) {
        throw py::value_error("num_threads: expected 1 .. 1024, got " + std::to_string(threads));
    }
    return static_cast<int>(threads);
}

namespace {

using Element = ElementType;

void slic(py::handle features_in, const std::vector<double>& weights, const RangePairs& ranges, std::int64_t n_segments,
          std::int64_t max_num_iter, const std::array<double, 3>& spacing, std::int64_t min_size, py::handle labels_out,
          py::handle counts_out, std::int64_t num_threads) {
    const ArrayView features(features_in, "features", 5, {Element::kFloat32}, false, Place::kHost);
    const std::int64_t items = features.shape(0), channels = features.shape(1);
    const core::Dims dims = item_dims(features, 2);
    check_channels(channels, weights.size());
    const std::vector<core::Range> limits = channel_ranges(ranges, channels);
    const core::SlicParameters parameters =
        slic_parameters(weights, limits, n_segments, max_num_iter, spacing, min_size, dims);
    const SlicOutputs out(labels_out, counts_out, items, dims, Place::kHost);
    const int threads = check_threads(num_threads);
    const py::gil_scoped_release release;
    cpu::slic({features.data<float>(), items, static_cast<int>(channels), dims}, parameters, threads, out.labels(),
              out.counts());
}

void slic_pictures(const std::optional<py::object>& rgb, bool channels_last, const std::array<double, 3>& scale,
                   const std::array<double, 3>& offset, const std::optional<py::object>& gradient,
                   const std::array<double, 2>& weights, std::int64_t n_segments, std::int64_t max_num_iter,
                   const std::array<double, 3>& spacing, std::int64_t min_size, py::handle labels_out,
                   py::handle counts_out, std::int64_t num_threads) {
    const PictureArguments in(rgb, channels_last, scale, offset, gradient, Place::kHost);
    const core::SlicParameters parameters =
        slic_parameters(weights, {}, n_segments, max_num_iter, spacing, min_size, in.pictures.dims);
    const SlicOutputs out(labels_out, counts_out, in.pictures.items, in.pictures.dims, Place::kHost);
    const int threads = check_threads(num_threads);
    const py::gil_scoped_release release;
    cpu::slic_pictures(in.pictures, parameters, threads, out.labels(), out.counts());
}

// (low, high), or None where a value is NaN or infinite.
std::optional<std::pair<float, float>> find_range(py::handle values_in) {
    const ArrayView values(values_in, "values", 1, {Element::kFloat32}, false, Place::kHost);
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

void enforce_connectivity(py::handle labels, std::int64_t min_size, py::handle labels_out, py::handle counts_out,
                          std::int64_t num_threads) {
    const ConnectivityArguments in(labels, min_size, labels_out, counts_out, Place::kHost);
    const int threads = check_threads(num_threads);
    const py::gil_scoped_release release;
    cpu::enforce_connectivity(in.labels.data<std::int32_t>(), in.labels.shape(0), in.dims, min_size, threads,
                              in.out.data<std::int32_t>(), in.counts.data<std::int32_t>());
}

void rgb_to_lab(py::handle rgb, py::handle lab, bool channels_last, std::int64_t num_threads) {
    const LabArguments in(rgb, lab, channels_last, Place::kHost);
    const int threads = check_threads(num_threads);
    const py::gil_scoped_release release;
    cpu::rgb_to_lab(in.pictures, threads, in.lab.data<float>());
}

void pool(py::handle values, py::handle labels, const std::string& reduce, py::handle out, std::int64_t num_threads,
          bool channels_last) {
    const PoolArguments in(values, "values", labels, out, true, channels_last, Place::kHost);
    const core::Reduce reduction = find_reduction(reduce);
    const int threads = check_threads(num_threads);
    const py::gil_scoped_release release;
    in.in.visit_floats([&](auto* data) {
        using T = std::remove_pointer_t<decltype(data)>;
        cpu::pool<T>(data, in.labels.data<std::int32_t>(), in.shape, reduction, threads, in.out.data<T>());
    });
}

void paint(py::handle scores, py::handle labels, py::handle out, std::int64_t num_threads, bool channels_last) {
    const PoolArguments in(scores, "scores", labels, out, false, channels_last, Place::kHost);
    const int threads = check_threads(num_threads);
    const py::gil_scoped_release release;
    in.in.visit_floats([&](auto* data) {
        using T = std::remove_pointer_t<decltype(data)>;
        cpu::paint<T>(data, in.labels.data<std::int32_t>(), in.shape, threads, in.out.data<T>());
    });
}

double multiply_adds_per_second(double seconds, std::int64_t num_threads) {
    check_between(seconds, 0.0, 60.0, "seconds");
    const int threads = check_threads(num_threads);
    const py::gil_scoped_release release;
    return cpu::multiply_adds_per_second(seconds, threads);
}

}  // namespace

PYBIND11_MODULE(_cpu, module, py::mod_gil_not_used()) {
    module.doc() = "CPU kernels. Call them through midgrain.ops and midgrain.drawing, which validate and allocate.";
    cpu::prepare();
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
    bind_overlay(module);
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

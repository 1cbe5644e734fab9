// The part of midgrain._kernels._cpu for Jitter-CAM patches.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <type_traits>

#include "bindings/module_cpu.hpp"
#include "cpu/kernels.hpp"

namespace midgrain::bindings {
namespace py = pybind11;
namespace {

void extract_patches(py::handle images, const Triple& cells, const Triple& grid, const Triple& size, std::int64_t start,
                     py::handle out, std::int64_t num_threads) {
    const PatchArguments in(images, out, cells, grid, size, start, true, Place::kHost);
    const int threads = check_threads(num_threads);
    const py::gil_scoped_release release;
    in.images.visit_floats([&](auto* data) {
        using T = std::remove_pointer_t<decltype(data)>;
        cpu::extract_patches<T>({data, in.items, in.channels, in.dims}, in.grid, threads, in.patches.data<T>());
    });
}

void extract_patches_backward(py::handle patches, const Triple& cells, const Triple& grid, const Triple& size,
                              std::int64_t start, py::handle out, std::int64_t num_threads) {
    const PatchArguments in(out, patches, cells, grid, size, start, false, Place::kHost);
    const int threads = check_threads(num_threads);
    const py::gil_scoped_release release;
    in.patches.visit_floats([&](auto* data) {
        using T = std::remove_pointer_t<decltype(data)>;
        cpu::extract_patches_backward<T>(data, in.items, in.channels, in.dims, in.grid, threads, in.images.data<T>());
    });
}

void aggregate_patches(py::handle maps, const Triple& grid, py::handle out, std::int64_t num_threads) {
    const AggregateArguments in(maps, grid, out, Place::kHost);
    const int threads = check_threads(num_threads);
    const py::gil_scoped_release release;
    in.maps.visit_floats([&](auto* data) {
        using T = std::remove_pointer_t<decltype(data)>;
        cpu::aggregate_patches<T>(data, in.items, in.cells, in.grid, in.size, threads, in.out.data<T>());
    });
}

}  // namespace

void bind_patches(py::module_& module) {
    module.def("extract_patches", &extract_patches, py::arg("images"), py::arg("cells"), py::arg("grid"),
               py::arg("size"), py::arg("start"), py::arg("out"), py::arg("num_threads"));
    module.def("extract_patches_backward", &extract_patches_backward, py::arg("patches"), py::arg("cells"),
               py::arg("grid"), py::arg("size"), py::arg("start"), py::arg("out"), py::arg("num_threads"));
    module.def("aggregate_patches", &aggregate_patches, py::arg("maps"), py::arg("grid"), py::arg("out"),
               py::arg("num_threads"));
}

}  // namespace midgrain::bindings

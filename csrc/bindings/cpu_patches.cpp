// The part of midgrain._kernels._cpu for Jitter-CAM patches.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <string>

#include "bindings/module_cpu.hpp"
#include "cpu/kernels.hpp"

namespace midgrain::bindings {
namespace py = pybind11;
namespace {

using Element = ElementType;
using Triple = std::array<std::int64_t, 3>;

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
        throw py::value_error("size: expected fewer than 2^31 pixels, got " + to_text({size.z, size.y, size.x}));
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

int check_channels(const ArrayView& images) {
    if (images.shape(1) < 1 || images.shape(1) > kLargest) {
        throw py::value_error(images.name() + ": expected 1 .. 2^30 channels, got shape " + to_text(images.shape()));
    }
    return static_cast<int>(images.shape(1));
}

void extract_patches(py::handle images_in, const Triple& cells, const Triple& grid_in, const Triple& size,
                     std::int64_t start, py::handle out_in, std::int64_t num_threads) {
    const ArrayView images(images_in, "images", 5, {Element::kFloat32, Element::kFloat64}, false);
    const ArrayView out(out_in, "out", 6, {Element::kFloat32, Element::kFloat64}, true);
    require_same_element(images, out);
    const core::Dims dims = item_dims(images, 2);
    const int channels = check_channels(images);
    const core::PatchGrid grid = to_grid(out, cells, grid_in, size, start);
    out.require_shape({images.shape(0), grid.count, channels, grid.patch.z, grid.patch.y, grid.patch.x});
    const int threads = check_threads(num_threads);
    const py::gil_scoped_release release;
    if (images.element() == Element::kFloat32) {
        cpu::extract_patches<float>({images.data<float>(), images.shape(0), channels, dims}, grid, threads,
                                    out.data<float>());
    } else {
        cpu::extract_patches<double>({images.data<double>(), images.shape(0), channels, dims}, grid, threads,
                                     out.data<double>());
    }
}

void extract_patches_backward(py::handle patches_in, const Triple& cells, const Triple& grid_in, const Triple& size,
                              std::int64_t start, py::handle out_in, std::int64_t num_threads) {
    const ArrayView patches(patches_in, "patches", 6, {Element::kFloat32, Element::kFloat64}, false);
    const ArrayView out(out_in, "out", 5, {Element::kFloat32, Element::kFloat64}, true);
    require_same_element(patches, out);
    const core::Dims dims = item_dims(out, 2);
    const int channels = check_channels(out);
    const core::PatchGrid grid = to_grid(patches, cells, grid_in, size, start);
    const std::int64_t items = patches.shape(0);
    out.require_shape({items, patches.shape(2), dims.z, dims.y, dims.x});
    const int threads = check_threads(num_threads);
    const py::gil_scoped_release release;
    if (patches.element() == Element::kFloat32) {
        cpu::extract_patches_backward(patches.data<float>(), items, channels, dims, grid, threads, out.data<float>());
    } else {
        cpu::extract_patches_backward(patches.data<double>(), items, channels, dims, grid, threads, out.data<double>());
    }
}

void aggregate_patches(py::handle maps_in, const Triple& grid_in, py::handle out_in, std::int64_t num_threads) {
    const ArrayView maps(maps_in, "maps", 5, {Element::kFloat32, Element::kFloat64}, false);
    const ArrayView out(out_in, "out", 4, {Element::kFloat32, Element::kFloat64}, true);
    require_same_element(maps, out);
    const core::Dims cells = item_dims(maps, 2), grid = to_dims(grid_in, "grid"), size = item_dims(out, 1);
    const std::int64_t items = maps.shape(0);
    if (maps.shape(1) / grid.x != grid.z * grid.y || maps.shape(1) % grid.x != 0) {
        throw py::value_error("maps: expected one per patch of the grid " + to_text({grid.z, grid.y, grid.x}) +
                              ", got shape " + to_text(maps.shape()));
    }
    out.require_shape({items, size.z, size.y, size.x});
    const int threads = check_threads(num_threads);
    const py::gil_scoped_release release;
    if (maps.element() == Element::kFloat32) {
        cpu::aggregate_patches(maps.data<float>(), items, cells, grid, size, threads, out.data<float>());
    } else {
        cpu::aggregate_patches(maps.data<double>(), items, cells, grid, size, threads, out.data<double>());
    }
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

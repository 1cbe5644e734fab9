// The part of midgrain._kernels._cpu that draws heat maps over pictures.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <optional>
#include <string>
#include <type_traits>

#include "bindings/module_cpu.hpp"
#include "cpu/kernels.hpp"

namespace midgrain::bindings {
namespace py = pybind11;
namespace {

constexpr std::int64_t kMostSteps = 1 << 20;

void check_side(std::int64_t side, const std::string& name) {
    if (side < 1 || side > INT32_MAX) {
        throw py::value_error(name + ": expected sides of 1 .. 2^31 - 1, got " + std::to_string(side));
    }
}

// The half-open range [first, last) within 0 .. size.
void check_part(std::int64_t first, std::int64_t last, std::int64_t size) {
    if (first < 0 || first >= last || last > size) {
        throw py::value_error("region: expected a part of 0 .. " + std::to_string(size) + ", got " +
                              std::to_string(first) + " .. " + std::to_string(last));
    }
}

// region: top, left, bottom, right, the last two excluded. colours: float32 [steps, 3].
void draw_overlay(py::handle picture_in, const std::array<std::int64_t, 4>& region, py::handle heat_in,
                  const std::optional<py::object>& labels_in, py::handle colours_in, double keep) {
    const ArrayView picture(picture_in, "picture", 3, {ElementType::kUInt8}, true, Place::kHost);
    const ArrayView heat(heat_in, "heat", 2, {ElementType::kFloat32, ElementType::kFloat64}, false, Place::kHost);
    const ArrayView colours(colours_in, "colours", 2, {ElementType::kFloat32}, false, Place::kHost);
    std::optional<ArrayView> labels;
    if (labels_in) labels.emplace(*labels_in, "labels", 2, std::vector{ElementType::kInt32}, false, Place::kHost);
    for (int axis = 0; axis < 2; ++axis) {
        check_side(picture.shape(axis), "picture");
        check_side(heat.shape(axis), "heat");
        if (labels) check_side(labels->shape(axis), "labels");
    }
    picture.require_shape({picture.shape(0), picture.shape(1), 3});
    check_between(static_cast<double>(colours.shape(0)), 1.0, static_cast<double>(kMostSteps), "colours");
    colours.require_shape({colours.shape(0), 3});
    check_part(region[0], region[2], picture.shape(0));
    check_part(region[1], region[3], picture.shape(1));
    check_between(keep, 0.0, 1.0, "keep");
    const core::Overlay overlay{
        .picture_width = picture.shape(1),
        .top = region[0],
        .left = region[1],
        .height = region[2] - region[0],
        .width = region[3] - region[1],
        .heat_height = heat.shape(0),
        .heat_width = heat.shape(1),
        .label_height = labels ? labels->shape(0) : 0,
        .label_width = labels ? labels->shape(1) : 0,
        .steps = static_cast<int>(colours.shape(0)),
        .keep = static_cast<float>(keep),
    };
    const std::int32_t* label_data = labels ? labels->data<std::int32_t>() : nullptr;
    const py::gil_scoped_release release;
    heat.visit_floats([&](auto* data) {
        using T = std::remove_pointer_t<decltype(data)>;
        cpu::draw_overlay<T>(overlay, data, label_data, colours.data<float>(), picture.data<std::uint8_t>());
    });
}

}  // namespace

void bind_overlay(py::module_& module) {
    module.def("draw_overlay", &draw_overlay, py::arg("picture"), py::arg("region"), py::arg("heat"), py::arg("labels"),
               py::arg("colours"), py::arg("keep"));
}

}  // namespace midgrain::bindings

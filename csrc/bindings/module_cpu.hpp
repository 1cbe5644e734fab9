// What the files of module _cpu share: checks, and the functions that add each file's part to the module.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

#include "bindings/array_view.hpp"
#include "core/array_ref.hpp"

namespace midgrain::bindings {

// The z, y, x axes of an array from `first_axis` on. Throws ValueError unless there are 1 .. 2^31 - 1 pixels.
core::Dims item_dims(const ArrayView& array, int first_axis);

// Throws ValueError unless 1 .. 1024.
int check_threads(std::int64_t threads);

// Jitter-CAM patches (core/patches.hpp).
void bind_patches(pybind11::module_& module);

}  // namespace midgrain::bindings

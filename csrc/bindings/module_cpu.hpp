// What the files of module _cpu share.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

#include "bindings/arguments.hpp"

namespace midgrain::bindings {

// Throws ValueError unless 1 .. 1024.
int check_threads(std::int64_t threads);

// Heat maps over pictures (core/overlay.hpp).
void bind_overlay(pybind11::module_& module);

// Jitter-CAM patches (core/patches.hpp).
void bind_patches(pybind11::module_& module);

}  // namespace midgrain::bindings

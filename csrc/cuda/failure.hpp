// What is thrown when a call of the CUDA runtime fails.
#pragma once

#include <stdexcept>

namespace midgrain::cuda {

// The bindings turn it into midgrain.CudaError.
struct Failure : std::runtime_error {
    using std::runtime_error::runtime_error;
};

}  // namespace midgrain::cuda

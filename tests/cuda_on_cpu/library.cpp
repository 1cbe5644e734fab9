// The CUDA kernels, executed on the CPU, as a library for the tests. tests/cuda_library.py builds and calls it.
#include "call.hpp"
#include "cuda/launch.cuh"

namespace midgrain::cuda {
void run_self_test(const char* name, const int* in, std::int64_t n, int* out);
}

using midgrain::cuda::call;

extern "C" {

void reseed(std::uint64_t seed) { cuda_on_cpu::Machine::instance().reseed(seed); }
std::int64_t launches() { return cuda_on_cpu::Machine::instance().launches(); }

int self_test(char* message, const char* name, const int* in, std::int64_t n, int* out) {
    return call(message, [&] { midgrain::cuda::run_self_test(name, in, n, out); });
}
}

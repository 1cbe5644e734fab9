// What every CUDA source starts from: the runtime, shared memory, launches and their errors.
//
// The same sources compile with nvcc and, for tests on machines without a GPU, as plain C++ on top of
// tests/cuda_on_cpu/cuda_on_cpu.hpp (docs/cuda.md). For that, three things are written through this header:
//
//   launch(kernel, grid, block, stream, arguments...)   in place of kernel<<<grid, block, 0, stream>>>(arguments...)
//   MIDGRAIN_SHARED(T, name, count)                     in place of __shared__ T name[count]
//   Wide                                                the 64-bit integer that atomics take
//
// No kernel allocates, none waits for the device, and every launch goes to the caller's stream.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "cuda/failure.hpp"

#if defined(MIDGRAIN_CUDA_ON_CPU)
#include "cuda_on_cpu.hpp"
#define MIDGRAIN_SHARED(T, name, count)    \
    static const char name##_of_block = 0; \
    T* const name = static_cast<T*>(cuda_on_cpu::shared_array(&name##_of_block, sizeof(T) * (count)))
#else
#include <cuda_runtime.h>
#define MIDGRAIN_SHARED(T, name, count) __shared__ T name[count]
#endif

namespace midgrain::cuda {

using Wide = unsigned long long;
static_assert(sizeof(Wide) == 8);

constexpr int kWarp = 32;
constexpr unsigned kFullWarp = 0xFFFFFFFFu;
// Blocks along a grid's first axis at most.
constexpr std::int64_t kMaxBlocks = (std::int64_t{1} << 31) - 1;

// What its user can do about an error; nothing where that does not depend on the error.
inline const char* advice_on(cudaError_t status) {
    switch (status) {
        case cudaErrorMemoryAllocation: return "; fewer items at once need less memory";
        case cudaErrorNoKernelImageForDevice:
        case cudaErrorUnsupportedPtxVersion:
            return "; this build of midgrain has no code that the device or its driver can run: move the array to the "
                   "CPU, or build for the device (MIDGRAIN_CUDA_ARCHITECTURES)";
        default: return "";
    }
}

inline void check(cudaError_t status, const char* what) {
    if (status == cudaSuccess) return;
    throw Failure(std::string(what) + ": " + cudaGetErrorString(status) + advice_on(status));
}

// Blocks of `size` that hold n elements.
__host__ __device__ inline std::int64_t blocks_of(std::int64_t n, std::int64_t size) { return (n + size - 1) / size; }

// Blocks are numbered along one axis only: the others end at 65,535.
inline dim3 grid_of(std::int64_t blocks) {
    if (blocks > kMaxBlocks) throw Failure("the arrays need more blocks of threads than a grid can have");
    return dim3(static_cast<unsigned>(blocks));
}

// Starts kernel(arguments...) unless there is nothing to do. The arguments are converted to the kernel's parameters.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), std::int64_t blocks, unsigned threads, cudaStream_t stream,
            Arguments... arguments) {
    if (blocks == 0) return;
#if defined(MIDGRAIN_CUDA_ON_CPU)
    cuda_on_cpu::run(kernel, grid_of(blocks), dim3(threads), arguments...);
    cuda_on_cpu::devices.of_last_launch = cuda_on_cpu::devices.current;
    cuda_on_cpu::devices.stream_of_last_launch = stream;
#else
    // clang-format off
    kernel<<<grid_of(blocks), threads, 0, stream>>>(arguments...);
    // clang-format on
#endif
    check(cudaGetLastError(), "starting a kernel");
}

inline void fill_zero(void* data, std::size_t bytes, cudaStream_t stream) {
    check(cudaMemsetAsync(data, 0, bytes, stream), "clearing memory");
}

// This thread among all of a launch.
__device__ inline std::int64_t global_index() {
    return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

// Hands out the parts of a workspace; without memory it only counts. Parts begin at multiples of 256 bytes.
class Workspace {
public:
    explicit Workspace(void* memory) : memory_(static_cast<std::byte*>(memory)) {}

    template <class T>
    T* take(std::int64_t count) {
        T* part = memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + bytes_);
        bytes_ += (count * static_cast<std::int64_t>(sizeof(T)) + 255) / 256 * 256;
        return part;
    }

    std::int64_t bytes() const { return bytes_; }

private:
    std::byte* memory_;
    std::int64_t bytes_ = 0;
};

}  // namespace midgrain::cuda

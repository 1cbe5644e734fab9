// Kernels, most of them wrong on purpose, that show what the execution on the CPU finds (tests/test_cuda_on_cpu.py).
#include <cstring>
#include <string>

#include "cuda/launch.cuh"

namespace midgrain::cuda {
namespace {

constexpr int kThreads = 96;

// out[0] += the sum of `in`: shuffles within warps, shared memory between them, an atomic between blocks.
__global__ void sum_kernel(const int* in, std::int64_t n, int* out) {
    MIDGRAIN_SHARED(int, of_warps, kThreads / kWarp);
    const std::int64_t i = global_index();
    int value = i < n ? in[i] : 0;
    for (unsigned by = kWarp / 2; by > 0; by /= 2) value += __shfl_down_sync(kFullWarp, value, by);
    if (threadIdx.x % kWarp == 0) of_warps[threadIdx.x / kWarp] = value;
    __syncthreads();
    if (threadIdx.x > 0) return;
    int total = 0;
    for (int w = 0; w < kThreads / kWarp; ++w) total += of_warps[w];
    atomicAdd(out, total);
}

// out[i]: lanes of i's warp that have an odd number in `in`, as a ballot; then the odd threads of its block.
__global__ void vote_kernel(const int* in, std::int64_t n, int* out) {
    const std::int64_t i = global_index();
    const bool is_odd = i < n && in[i] % 2 != 0;
    const unsigned ballot = __ballot_sync(kFullWarp, is_odd);
    const int count = __syncthreads_count(is_odd);
    if (i < n) out[i] = __popc(ballot) * 1000 + count;
}

// Reads what another thread writes, without a barrier.
__global__ void race_kernel(const int* in, std::int64_t n, int* out) {
    MIDGRAIN_SHARED(int, values, kThreads);
    const std::int64_t i = global_index();
    values[threadIdx.x] = i < n ? in[i] : 0;
    const int before = values[(threadIdx.x + kThreads - 1) % kThreads];
    if (i < n) out[i] = before;
}

// Adds one without an atomic.
__global__ void lost_update_kernel(const int*, std::int64_t, int* out) {
    const int before = *out;
    __threadfence();
    *out = before + 1;
}

__global__ void unset_shared_kernel(const int*, std::int64_t, int* out) {
    MIDGRAIN_SHARED(int, values, kThreads);
    out[threadIdx.x] = values[threadIdx.x];
}

__global__ void missed_barrier_kernel(const int*, std::int64_t, int*) {
    if (threadIdx.x < 10) __syncthreads();
}

__global__ void two_barriers_kernel(const int*, std::int64_t, int*) {
    if (threadIdx.x < 10) {
        __syncthreads();
    } else {
        __syncthreads();
    }
}

__global__ void missed_warp_kernel(const int*, std::int64_t, int*) {
    if (threadIdx.x % kWarp != 5) __syncwarp();
}

__global__ void foreign_lane_kernel(const int*, std::int64_t, int* out) {
    if (threadIdx.x < 8) out[threadIdx.x] = __shfl_sync(0xFFu, threadIdx.x, 9);
}

__global__ void much_shared_kernel(const int*, std::int64_t, int* out) {
    MIDGRAIN_SHARED(int, values, 12 * 1024 + 1);
    values[threadIdx.x] = 0;
    out[threadIdx.x] = values[threadIdx.x];
}

// One beyond an array in shared memory, where another one may lie on a device.
__global__ void shared_overflow_kernel(const int*, std::int64_t n, int* out) {
    MIDGRAIN_SHARED(int, values, kThreads);
    MIDGRAIN_SHARED(int, others, kThreads);
    values[threadIdx.x + n] = 1;
    others[threadIdx.x] = 2;
    out[threadIdx.x] = values[threadIdx.x] + others[threadIdx.x];
}

struct Case {
    const char* name;
    void (*kernel)(const int*, std::int64_t, int*);
    unsigned threads;
};

constexpr Case kCases[] = {
    {"sum", sum_kernel, kThreads},
    {"vote", vote_kernel, kThreads},
    {"race", race_kernel, kThreads},
    {"lost update", lost_update_kernel, kThreads},
    {"unset shared", unset_shared_kernel, kThreads},
    {"missed barrier", missed_barrier_kernel, kThreads},
    {"two barriers", two_barriers_kernel, kThreads},
    {"missed warp", missed_warp_kernel, kThreads},
    {"foreign lane", foreign_lane_kernel, kThreads},
    {"much shared", much_shared_kernel, kThreads},
    {"shared overflow", shared_overflow_kernel, kThreads},
    {"impossible block", race_kernel, 1025},
};

}  // namespace

void run_self_test(const char* name, const int* in, std::int64_t n, int* out) {
    for (const Case& one : kCases) {
        if (std::strcmp(one.name, name) == 0) {
            return launch(one.kernel, blocks_of(n > 0 ? n : 1, kThreads), one.threads, nullptr, in, n, out);
        }
    }
    throw std::invalid_argument("no self-test is called " + std::string(name));
}

}  // namespace midgrain::cuda

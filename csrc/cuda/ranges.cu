#include "cuda/ranges.cuh"

namespace midgrain::cuda {
namespace {

constexpr unsigned kThreads = 256;
// Pixels of a plane that a block reads.
constexpr std::int64_t kPixels = 16 * kThreads;

__global__ void find_extremes_kernel(const float* values, int channels, std::int64_t pixels, std::int64_t blocks,
                                     Extremes* found, std::int32_t* status) {
    MIDGRAIN_SHARED(Extremes, whole, 1);
    const std::int64_t plane = blockIdx.x / blocks, first = blockIdx.x % blocks * kPixels;
    const std::int64_t end = first + kPixels < pixels ? first + kPixels : pixels;
    if (threadIdx.x == 0) whole[0] = {0, 0};
    __syncthreads();
    Extremes own{0, 0};
    bool poison = false;
    for (std::int64_t i = first + threadIdx.x; i < end; i += kThreads) {
        const float value = values[plane * pixels + i];
        if (!is_finite(value)) {
            poison = true;
            continue;
        }
        const unsigned bits = ordered_bits(value);
        if (~bits > own.lowest) own.lowest = ~bits;
        if (bits > own.highest) own.highest = bits;
    }
    atomicMax(&whole[0].lowest, own.lowest);
    atomicMax(&whole[0].highest, own.highest);
    if (__syncthreads_or(poison) && threadIdx.x == 0) atomicOr(&status[plane / channels], static_cast<int>(kNotFinite));
    if (threadIdx.x == 0) {
        atomicMax(&found[plane].lowest, whole[0].lowest);
        atomicMax(&found[plane].highest, whole[0].highest);
    }
}

}  // namespace

void launch_find_extremes(const float* values, std::int64_t items, int channels, std::int64_t pixels, Extremes* found,
                          std::int32_t* status, Stream stream) {
    const std::int64_t blocks = blocks_of(pixels, kPixels);
    launch(find_extremes_kernel, items * channels * blocks, kThreads, stream, values, channels, pixels, blocks, found,
           status);
}

}  // namespace midgrain::cuda

// sRGB to CIELAB on the CPU (core/color.hpp).
#include <algorithm>
#include <atomic>

#include "cpu/kernels.hpp"
#include "cpu/parallel.hpp"
#include "cpu/picture_rows.hpp"

namespace midgrain::cpu {
namespace {

constexpr std::int64_t kPixelsPerWorker = 16384;
// Pixels converted at once: three planes of them stay in the first-level cache.
constexpr std::int64_t kChunk = 1024;

}  // namespace

void rgb_to_lab(const Pictures& pictures, int threads, float* lab) {
    const std::int64_t pixels = pictures.dims.size();
    const std::int64_t chunks = (pixels + kChunk - 1) / kChunk;
    std::atomic<bool> finite{true};
    run_team(useful_workers(threads, pictures.items * pixels, kPixelsPerWorker), [&](Team& team, int index) {
        const Share mine = team.share(pictures.items * chunks, index);
        for (std::int64_t i = mine.first; i < mine.last; ++i) {
            const std::int64_t item = i / chunks, first = i % chunks * kChunk;
            const std::int64_t n = std::min(kChunk, pixels - first);
            float* out = lab + item * 3 * pixels + first;
            float* const planes[3] = {out, out + pixels, out + 2 * pixels};
            if (decode_pixels(pictures, item, first, n, planes)) {
                pixel_kernels().linear_to_lab(planes, n);
            } else {
                finite = false;
            }
        }
    });
    if (!finite) throw InvalidValue("rgb: expected finite values, got NaN or infinity");
}

}  // namespace midgrain::cpu

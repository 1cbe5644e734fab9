// sRGB to CIELAB on the CPU (core/color.hpp).
#include "core/color.hpp"

#include <array>
#include <atomic>
#include <type_traits>

#include "cpu/kernels.hpp"
#include "cpu/parallel.hpp"

namespace midgrain::cpu {
namespace {

constexpr std::int64_t kPixelsPerWorker = 16384;

const float* srgb_table() {
    static const auto table = [] {
        std::array<float, core::kSrgbCells + 2> values{};
        core::fill_srgb_table(values.data());
        return values;
    }();
    return table.data();
}

float to_unit(std::uint8_t value) { return static_cast<float>(value) / 255.0f; }
float to_unit(float value) { return value; }

}  // namespace

template <class T>
void rgb_to_lab(const T* rgb, std::int64_t items, std::int64_t pixels, bool channels_last, int threads, float* lab) {
    const float* table = srgb_table();
    const std::int64_t pixel_stride = channels_last ? 3 : 1;
    const std::int64_t channel_stride = channels_last ? 1 : pixels;
    std::atomic<bool> finite{true};
    run_team(useful_workers(threads, items * pixels, kPixelsPerWorker), [&](Team& team, int index) {
        const Share mine = team.share(items * pixels, index);
        float poison = 0.0f;
        for (std::int64_t i = mine.first; i < mine.last; ++i) {
            const std::int64_t item = i / pixels, pixel = i % pixels;
            const T* in = rgb + item * pixels * 3 + pixel * pixel_stride;
            const float r = to_unit(in[0]), g = to_unit(in[channel_stride]), b = to_unit(in[2 * channel_stride]);
            if constexpr (std::is_floating_point_v<T>) {
                // NaN as soon as one value is not finite; the conversion itself must not see NaN.
                const float sum = (r - r) + (g - g) + (b - b);
                if (!(sum == 0.0f)) {
                    poison = 1.0f;
                    continue;
                }
            }
            const core::Lab value = core::srgb_to_lab(r, g, b, table);
            float* out = lab + item * pixels * 3 + pixel;
            out[0] = value.l;
            out[pixels] = value.a;
            out[2 * pixels] = value.b;
        }
        if (poison != 0.0f) finite = false;
    });
    if (!finite) throw InvalidValue("rgb: expected finite values, got NaN or infinity");
}

template void rgb_to_lab(const std::uint8_t*, std::int64_t, std::int64_t, bool, int, float*);
template void rgb_to_lab(const float*, std::int64_t, std::int64_t, bool, int, float*);

}  // namespace midgrain::cpu

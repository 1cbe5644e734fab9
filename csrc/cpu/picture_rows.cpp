#include "cpu/picture_rows.hpp"

#include <algorithm>
#include <array>
#include <string>

#include "core/color.hpp"
#include "cpu/parallel.hpp"

namespace midgrain::cpu {
namespace {

// Values below which a second thread costs more than it brings: reading them is all there is to do.
constexpr std::int64_t kValuesPerWorker = std::int64_t{1} << 18;

}  // namespace

const float* srgb_table() {
    static const auto table = [] {
        std::array<float, core::kSrgbCells + 2> values{};
        core::fill_srgb_table(values.data());
        return values;
    }();
    return table.data();
}

const float* srgb_byte_table() {
    static const auto table = [] {
        std::array<float, 256> values{};
        for (std::size_t i = 0; i < values.size(); ++i) {
            values[i] = core::srgb_decode(static_cast<float>(i) / 255.0f, srgb_table());
        }
        return values;
    }();
    return table.data();
}

core::GradientScale find_gradient_scale(const float* values, std::int64_t n, std::int64_t item, int threads) {
    std::array<Range, 64> found;
    std::array<bool, 64> finite;
    found.fill({values[0], values[0]});
    finite.fill(true);
    const int workers = std::min(useful_workers(threads, n, kValuesPerWorker), 64);
    run_team(workers, [&](Team& team, int index) {
        const auto at = static_cast<std::size_t>(index);
        const Share mine = team.share(n, index);
        finite[at] =
            pixel_kernels().find_range(values + mine.first, mine.last - mine.first, found[at].low, found[at].high);
    });
    if (std::find(finite.begin(), finite.end(), false) != finite.end()) {
        throw InvalidValue("gradient: expected finite float32 values, got NaN or infinity in item " +
                           std::to_string(item));
    }
    float low = found[0].low, high = found[0].high;
    for (const Range& range : found) {
        low = std::min(low, range.low);
        high = std::max(high, range.high);
    }
    return core::make_gradient_scale(low, high);
}

bool decode_pixels(const Pictures& pictures, std::int64_t item, std::int64_t first, std::int64_t n, float* const* out) {
    const std::int64_t pixels = pictures.dims.size();
    const std::int64_t pixel_stride = pictures.channels_last ? 3 : 1;
    const std::int64_t channel_stride = pictures.channels_last ? 1 : pixels;
    const std::int64_t at = item * 3 * pixels + first * pixel_stride;
    const PixelKernels& kernels = pixel_kernels();
    if (pictures.bytes != nullptr) {
        kernels.decode_bytes(pictures.bytes + at, pixel_stride, channel_stride, n, srgb_byte_table(), out);
        return true;
    }
    return kernels.decode_floats(pictures.floats + at, pixel_stride, channel_stride, n, pictures.scale, pictures.offset,
                                 srgb_table(), out);
}

bool PictureRows::row(std::int64_t z, std::int64_t y, float* scratch, std::int64_t stride, const float** values) const {
    const core::Dims& dims = pictures_.dims;
    const std::int64_t first = (z * dims.y + y) * dims.x;
    bool finite = true;
    int channel = 0;
    if (pictures_.has_colour()) {
        float* const planes[3] = {scratch, scratch + stride, scratch + 2 * stride};
        finite = decode_pixels(pictures_, item_, first, dims.x, planes);
        // Not at NaN: the conversion's table and exponent tricks are for numbers.
        if (finite) pixel_kernels().linear_to_lab(planes, dims.x);
        for (; channel < 3; ++channel) values[channel] = planes[channel];
    }
    if (gradient_ != nullptr) {
        float* out = scratch + channel * stride;
        values[channel] = out;
        if (!gradient_->is_flat()) {
            pixel_kernels().scale_gradient(pictures_.gradient + item_ * dims.size() + first, dims.x, *gradient_, out);
        } else {
            std::fill_n(out, dims.x, 0.0f);
        }
    }
    return finite;
}

}  // namespace midgrain::cpu

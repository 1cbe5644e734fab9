// Compiled once per instruction set with MIDGRAIN_ISA naming the namespace; see vector.hpp. Where the compiler does
// not vectorise core/color.hpp by itself, its formulas stand here again on vectors; a test holds the bits equal.
#include "cpu/pixel_rows.hpp"

#include "core/color.hpp"
#include "cpu/vector.hpp"

namespace midgrain::cpu::MIDGRAIN_ISA {
namespace {

[[gnu::always_inline]] inline bool is_poison(float value) {
    std::uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    return (bits & 0x7F800000u) == 0x7F800000u;
}

void decode_bytes(const std::uint8_t* in, std::int64_t pixel_stride, std::int64_t channel_stride, std::int64_t n,
                  const float* table, float* const* out) {
    float* __restrict first = out[0];
    float* __restrict second = out[1];
    float* __restrict last = out[2];
    if (pixel_stride == 1) {
        for (std::int64_t i = 0; i < n; ++i) {
            first[i] = table[in[i]];
            second[i] = table[in[i + channel_stride]];
            last[i] = table[in[i + 2 * channel_stride]];
        }
    } else {
        for (std::int64_t i = 0; i < n; ++i) {
            first[i] = table[in[3 * i]];
            second[i] = table[in[3 * i + 1]];
            last[i] = table[in[3 * i + 2]];
        }
    }
}

// Calls visit(first, count) for the vectors of a row; the last one may hold fewer than kLanes values.
template <class Visit>
[[gnu::always_inline]] inline void visit_vectors(std::int64_t n, Visit&& visit) {
    std::int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) visit(i, kLanes);
    if (i < n) visit(i, static_cast<int>(n - i));
}

[[gnu::always_inline]] inline Float load_some(const float* from, int count) {
    if (count == kLanes) return load<Float>(from);
    Float result{};
    for (int i = 0; i < count; ++i) result[i] = from[i];
    return result;
}

[[gnu::always_inline]] inline void store_some(float* to, Float value, int count) {
    if (count == kLanes) return store(to, value);
    for (int i = 0; i < count; ++i) to[i] = value[i];
}

// core::srgb_decode.
[[gnu::always_inline]] inline Float srgb_decode(Float value, const float* table) {
    const Float raised = value < 0.0f ? Float{} : value;
    const Float clamped = raised > 1.0f ? Float{} + 1.0f : raised;
    const Float position = clamped * static_cast<float>(core::kSrgbCells);
    const Signed cell = __builtin_convertvector(position, Signed);
    const Float fraction = position - __builtin_convertvector(cell, Float);
    const Float low = gather(table, cell), high = gather(table + 1, cell);
    return low + fraction * (high - low);
}

// core::cube_root.
[[gnu::always_inline]] inline Float cube_root(Float x) {
    Float z = (Float)(1419967116u - third((Unsigned)x));
    for (int step = 0; step < 2; ++step) {
        const Float c = x * (z * z * z);
        z = z * (1.5555556f - c * (0.7777778f - 0.22222222f * c));
    }
    const Float y = x * (z * z);
    return y - (y * y * y - x) * (z * z * 0.33333334f);
}

// core::lab_curve.
[[gnu::always_inline]] inline Float lab_curve(Float t) {
    return t > 0.008856452f ? cube_root(t) : 7.787037f * t + 0.137931034f;
}

template <int kStride>
[[gnu::always_inline]] inline bool decode_plane(const float* values, std::int64_t n, float scale, float offset,
                                                const float* table, float* out) {
    std::uint32_t poison = 0;
    for (std::int64_t i = 0; i < n; ++i) {
        const float value = values[kStride * i];
        poison |= is_poison(value) ? 1u : 0u;
        out[i] = value * scale + offset;
    }
    // The table must not be read at NaN.
    if (poison != 0) return false;
    visit_vectors(n, [&](std::int64_t i, int count) {
        store_some(out + i, srgb_decode(load_some(out + i, count), table), count);
    });
    return true;
}

bool decode_floats(const float* in, std::int64_t pixel_stride, std::int64_t channel_stride, std::int64_t n,
                   const float* scale, const float* offset, const float* table, float* const* out) {
    bool finite = true;
    for (int c = 0; c < 3; ++c) {
        const float* values = in + c * channel_stride;
        finite &= pixel_stride == 1 ? decode_plane<1>(values, n, scale[c], offset[c], table, out[c])
                                    : decode_plane<3>(values, n, scale[c], offset[c], table, out[c]);
    }
    return finite;
}

// core::linear_to_lab.
void linear_to_lab(float* const* planes, std::int64_t n) {
    visit_vectors(n, [&](std::int64_t i, int count) {
        const Float r = load_some(planes[0] + i, count), g = load_some(planes[1] + i, count);
        const Float b = load_some(planes[2] + i, count);
        const Float fx = lab_curve(0.43394994f * r + 0.37620977f * g + 0.18984029f * b);
        const Float fy = lab_curve(0.21267288f * r + 0.71515213f * g + 0.07217499f * b);
        const Float fz = lab_curve(0.01775658f * r + 0.10946796f * g + 0.87277546f * b);
        store_some(planes[0] + i, 116.0f * fy - 16.0f, count);
        store_some(planes[1] + i, 500.0f * (fx - fy), count);
        store_some(planes[2] + i, 200.0f * (fy - fz), count);
    });
}

void scale_gradient(const float* in, std::int64_t n, const core::GradientScale& scale, float* out) {
    const core::GradientScale own = scale;
    for (std::int64_t i = 0; i < n; ++i) out[i] = core::scale_gradient(in[i], own);
}

bool find_range(const float* in, std::int64_t n, float& low, float& high) {
    Float least = Float{} + low, most = Float{} + high;
    Signed poison{};
    visit_vectors(n, [&](std::int64_t i, int count) {
        // A short last vector is filled up with its first value.
        Float value = Float{} + in[i];
        if (count == kLanes) {
            value = load<Float>(in + i);
        } else {
            for (int j = 1; j < count; ++j) value[j] = in[i + j];
        }
        poison |= ((Signed)value & 0x7F800000) == 0x7F800000;
        least = value < least ? value : least;
        most = value > most ? value : most;
    });
    for (int i = 0; i < kLanes; ++i) {
        low = least[i] < low ? least[i] : low;
        high = most[i] > high ? most[i] : high;
        if (poison[i] != 0) return false;
    }
    return true;
}

}  // namespace

const PixelKernels kPixelKernels = {decode_bytes, decode_floats, linear_to_lab, scale_gradient, find_range};

}  // namespace midgrain::cpu::MIDGRAIN_ISA

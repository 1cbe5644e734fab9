// The vector of 32-bit lanes that the per-instruction-set kernels are written in. Everything has internal linkage:
// each instruction set gets its own copy, and none can be taken for another's by the linker.
#pragma once

#include <cstdint>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace midgrain::cpu::MIDGRAIN_ISA {
namespace {

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
inline constexpr int kLanes = 16;
#elif defined(__AVX2__)
inline constexpr int kLanes = 8;
#else
inline constexpr int kLanes = 4;
#endif

using Signed = std::int32_t __attribute__((vector_size(4 * kLanes)));
using Unsigned = std::uint32_t __attribute__((vector_size(4 * kLanes)));
using Float = float __attribute__((vector_size(4 * kLanes)));
using Mask = std::uint32_t;  // one bit per lane

inline constexpr Mask kAllLanes = kLanes == 32 ? ~Mask{0} : (Mask{1} << kLanes) - 1;

template <class Vector, class T>
[[gnu::always_inline]] inline Vector load(const T* from) {
    Vector result;
    __builtin_memcpy(&result, from, sizeof result);
    return result;
}

template <class Vector, class T>
[[gnu::always_inline]] inline void store(T* to, Vector value) {
    __builtin_memcpy(to, &value, sizeof value);
}

[[gnu::always_inline]] inline Signed broadcast(std::int32_t value) { return Signed{} + value; }
[[gnu::always_inline]] inline Unsigned broadcast(std::uint32_t value) { return Unsigned{} + value; }

[[gnu::always_inline]] inline Signed lane_numbers() {
    Signed numbers;
    for (int i = 0; i < kLanes; ++i) numbers[i] = i;
    return numbers;
}

[[gnu::always_inline]] inline Unsigned minimum(Unsigned a, Unsigned b) { return a < b ? a : b; }
[[gnu::always_inline]] inline Signed minimum(Signed a, Signed b) { return a < b ? a : b; }
[[gnu::always_inline]] inline Signed maximum(Signed a, Signed b) { return a > b ? a : b; }
[[gnu::always_inline]] inline Unsigned maximum(Unsigned a, Unsigned b) { return a > b ? a : b; }

// The result of a comparison: a bit per lane where the hardware has mask registers, else all ones or zero in a lane.
#if defined(__AVX512F__)
using Condition = __mmask16;
[[gnu::always_inline]] inline Condition at_most(Signed a, Signed b) {
    return _mm512_cmple_epi32_mask((__m512i)a, (__m512i)b);
}
[[gnu::always_inline]] inline Condition below(Unsigned a, Unsigned b) {
    return _mm512_cmplt_epu32_mask((__m512i)a, (__m512i)b);
}
[[gnu::always_inline]] inline Condition equal(Unsigned a, Unsigned b) {
    return _mm512_cmpeq_epi32_mask((__m512i)a, (__m512i)b);
}
// Where `among` holds and a is not b.
[[gnu::always_inline]] inline Condition differ(Condition among, Signed a, Signed b) {
    return _mm512_mask_cmpneq_epi32_mask(among, (__m512i)a, (__m512i)b);
}
[[gnu::always_inline]] inline Unsigned choose(Condition condition, Unsigned then, Unsigned otherwise) {
    return (Unsigned)_mm512_mask_mov_epi32((__m512i)otherwise, condition, (__m512i)then);
}
[[gnu::always_inline]] inline Mask to_mask(Condition condition) { return condition; }
#else
using Condition = Signed;
[[gnu::always_inline]] inline Condition at_most(Signed a, Signed b) { return ~(a > b); }
[[gnu::always_inline]] inline Condition below(Unsigned a, Unsigned b) { return (Signed)(a < b); }
[[gnu::always_inline]] inline Condition equal(Unsigned a, Unsigned b) { return (Signed)(a == b); }
// Where `among` holds and a is not b.
[[gnu::always_inline]] inline Condition differ(Condition among, Signed a, Signed b) { return among & ~(a == b); }
[[gnu::always_inline]] inline Unsigned choose(Condition condition, Unsigned then, Unsigned otherwise) {
    return condition ? then : otherwise;
}
[[gnu::always_inline]] inline Mask to_mask(Condition condition) {
#if defined(__AVX2__)
    return static_cast<Mask>(_mm256_movemask_ps((__m256)condition));
#elif defined(__SSE2__)
    return static_cast<Mask>(_mm_movemask_ps((__m128)condition));
#else
    Mask mask = 0;
    for (int i = 0; i < kLanes; ++i) mask |= static_cast<Mask>(condition[i] & 1) << i;
    return mask;
#endif
}
#endif

// total + a.low * b.low + a.high * b.high for the two int16 halves of each lane.
[[gnu::always_inline]] inline Unsigned add_products(Unsigned total, Unsigned a, Unsigned b) {
#if defined(__AVX512VNNI__)
    return (Unsigned)_mm512_dpwssd_epi32((__m512i)total, (__m512i)a, (__m512i)b);
#elif defined(__AVX512BW__)
    return total + (Unsigned)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return total + (Unsigned)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
    return total + (Unsigned)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
    const Signed x = (Signed)a, y = (Signed)b;
    return total + (Unsigned)(((x << 16) >> 16) * ((y << 16) >> 16)) + (Unsigned)((x >> 16) * (y >> 16));
#endif
}

[[gnu::always_inline]] inline int count_bits(Mask mask) {
#if defined(__AVX2__)
    return __builtin_popcount(mask);
#else
    int count = 0;
    for (; mask != 0; mask &= mask - 1) ++count;
    return count;
#endif
}

#if defined(__AVX2__) && !defined(__AVX512F__)
// For every mask of eight lanes the numbers of the set bits, packed to the front, a byte each.
struct ChosenLanes {
    std::uint64_t lanes[256];
    constexpr ChosenLanes() : lanes{} {
        for (int mask = 0; mask < 256; ++mask) {
            int count = 0;
            for (int lane = 0; lane < 8; ++lane) {
                if (mask >> lane & 1) lanes[mask] |= static_cast<std::uint64_t>(lane) << 8 * count++;
            }
        }
    }
};
constexpr ChosenLanes kChosen;
#endif

// Writes the lanes chosen by `mask`, in order and without gaps; writes a whole vector, so `to` needs room for one.
[[gnu::always_inline]] inline void store_chosen(std::int32_t* to, Signed values, Mask mask) {
#if defined(__AVX512F__)
    _mm512_storeu_si512(to, _mm512_maskz_compress_epi32(static_cast<__mmask16>(mask), (__m512i)values));
#elif defined(__AVX2__)
    const __m256i lanes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)&kChosen.lanes[mask]));
    _mm256_storeu_si256((__m256i*)to, _mm256_permutevar8x32_epi32((__m256i)values, lanes));
#else
    for (int i = 0; i < kLanes; ++i) {
        if (mask >> i & 1) *to++ = values[i];
    }
#endif
}

// Writes first + i for every lane i chosen by `mask`, in order and without gaps; writes kLanes bytes, so `to` needs
// room for them. Bytes, as whole vectors of numbers would nearly all lie across two cache lines.
[[gnu::always_inline]] inline void store_chosen_numbers(std::uint8_t* to, std::uint32_t first, Condition condition) {
#if defined(__AVX512F__)
    const __m512i numbers = _mm512_maskz_compress_epi32(condition, (__m512i)(lane_numbers() + (std::int32_t)first));
    _mm_storeu_si128((__m128i*)to, _mm512_maskz_cvtepi32_epi8(0xFFFF, numbers));
#elif defined(__AVX2__)
    const std::uint64_t numbers = kChosen.lanes[to_mask(condition)] + first * 0x0101010101010101u;
    __builtin_memcpy(to, &numbers, sizeof numbers);
#else
    const Mask mask = to_mask(condition);
    for (std::uint32_t i = 0; i < kLanes; ++i) {
        *to = static_cast<std::uint8_t>(first + i);
        to += mask >> i & 1;
    }
#endif
}

// table[index] per lane; index is in 0 .. 31 and the table has 32 entries.
[[gnu::always_inline]] inline Signed look_up(const std::int32_t* table, Unsigned index) {
#if defined(__AVX512F__)
    return (Signed)_mm512_permutex2var_epi32(_mm512_loadu_si512(table), (__m512i)index, _mm512_loadu_si512(table + 16));
#elif defined(__AVX2__)
    return (Signed)_mm256_i32gather_epi32(table, (__m256i)index, 4);
#else
    Signed result;
    for (int i = 0; i < kLanes; ++i) result[i] = table[index[i]];
    return result;
#endif
}

// table[index] per lane.
[[gnu::always_inline]] inline Float gather(const float* table, Signed index) {
#if defined(__AVX512F__)
    return (Float)_mm512_mask_i32gather_ps(_mm512_setzero_ps(), 0xFFFF, (__m512i)index, table, 4);
#elif defined(__AVX2__)
    return (Float)_mm256_i32gather_ps(table, (__m256i)index, 4);
#else
    Float result;
    for (int i = 0; i < kLanes; ++i) result[i] = table[index[i]];
    return result;
#endif
}

// The product of the even lanes, 64 bits each.
using Wide = std::uint64_t __attribute__((vector_size(4 * kLanes)));
[[gnu::always_inline]] inline Wide multiply_even(Wide a, Wide b) {
#if defined(__AVX512F__)
    return (Wide)_mm512_maskz_mul_epu32(0xFF, (__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return (Wide)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
    return (Wide)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
    return (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu);
#endif
}

// value / 3 per lane.
[[gnu::always_inline]] inline Unsigned third(Unsigned value) {
    const Wide reciprocal = Wide{} + 0xAAAAAAABu;  // ceil(2^33 / 3)
    const Wide even = multiply_even((Wide)value, reciprocal) >> 33;
    const Wide odd = multiply_even((Wide)value >> 32, reciprocal) >> 33;
    return (Unsigned)(even | odd << 32);
}

// 1 << count per lane; count is in 0 .. 31.
[[gnu::always_inline]] inline Unsigned single_bit(Unsigned count) {
#if defined(__AVX512F__)
    return (Unsigned)_mm512_sllv_epi32(_mm512_set1_epi32(1), (__m512i)count);
#elif defined(__AVX2__)
    return (Unsigned)_mm256_sllv_epi32(_mm256_set1_epi32(1), (__m256i)count);
#else
    return broadcast(std::uint32_t{1}) << count;
#endif
}

[[gnu::always_inline]] inline std::uint32_t any_bit(Unsigned value) {
#if defined(__AVX512F__)
    return static_cast<std::uint32_t>(_mm512_reduce_or_epi32((__m512i)value));
#else
    std::uint32_t all = 0;
    for (int i = 0; i < kLanes; ++i) all |= value[i];
    return all;
#endif
}

[[gnu::always_inline]] inline std::uint32_t largest(Unsigned value) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_epu32((__m512i)value);
#else
    std::uint32_t most = 0;
    for (int i = 0; i < kLanes; ++i) most = value[i] > most ? value[i] : most;
    return most;
#endif
}

}  // namespace
}  // namespace midgrain::cpu::MIDGRAIN_ISA

// Terms of sums as integers, for pool_kernels.cpp alone: one copy per instruction set, in its namespace.
#pragma once

#include "cpu/pool_kernels.hpp"

#if defined(__AVX512DQ__)
#include <immintrin.h>
#endif

namespace midgrain::cpu::MIDGRAIN_ISA {
namespace {

using std::int32_t;
using std::int64_t;
using std::uint32_t;
using std::uint64_t;
using std::uint8_t;

// As many numbers as a register of this instruction set holds.
#if defined(__AVX512F__)
constexpr int64_t kBytes = 64;
#elif defined(__AVX2__)
constexpr int64_t kBytes = 32;
#else
constexpr int64_t kBytes = 16;
#endif
template <class T, std::size_t kSize = kBytes>
struct VectorOf {
    typedef T Type __attribute__((vector_size(kSize)));
};
template <class T, std::size_t kSize = kBytes>
using Vector = typename VectorOf<T, kSize>::Type;

constexpr int64_t kPerVector = kBytes / 8;

// As many values as become one vector of doubles.
template <class T>
using Block = Vector<T, kPerVector * sizeof(T)>;

template <class T>
Vector<double> as_doubles(Block<T> raw) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4)
        return _mm512_maskz_cvtps_pd(0xff, raw);  // Left alone, the compiler takes four steps.
#endif
    return __builtin_convertvector(raw, Vector<double>);
}

// Adding 1.5 * 2^52 leaves a double whose last mantissa bit is worth 1: the addition rounds to nearest even.
constexpr double kRound = 0x1.8p52;
constexpr uint64_t kRoundBits = __builtin_bit_cast(uint64_t, kRound);
constexpr int kHalf = 26;
constexpr double kHalfUnit = 1 << kHalf;

// What rounded() adds to every integer, modulo 2^64.
#if defined(__AVX512DQ__)
template <bool kWide, class Real>
constexpr uint64_t kBias = sizeof(Real) > sizeof(double) || kWide ? 0 : kRoundBits;
#else
template <bool kWide, class Real>
constexpr uint64_t kBias = kWide ? (kRoundBits << kHalf) + kRoundBits : kRoundBits;
#endif

// llrint(x) + kBias: the nearest integer, ties to even. |x| <= 2^51, or with kWide <= 2^62. A number or a vector.
template <bool kWide, class Whole, class Real>
Whole rounded(Real x) {
#if defined(__AVX512DQ__)
    if constexpr (sizeof(Real) == kBytes) {
        return __builtin_bit_cast(Whole, _mm512_cvt_roundpd_epi64(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    } else if constexpr (kWide) {
        return static_cast<Whole>(static_cast<int64_t>(__builtin_rint(x)));
    }
#endif
    if constexpr (kWide) {
        // The high part is an even number of ones, so that rounding what is left rounds the whole.
        const Real shifted = x * (1.0 / kHalfUnit) + kRound;
        const Real rest = x - (shifted - kRound) * kHalfUnit;
        return (__builtin_bit_cast(Whole, shifted) << kHalf) + rounded<false, Whole>(rest);
    } else {
        return __builtin_bit_cast(Whole, x + kRound);
    }
}

template <class Whole, class Real>
Real magnitude(Real x) {
    return __builtin_bit_cast(Real, __builtin_bit_cast(Whole, x) & static_cast<uint64_t>(INT64_MAX));
}

// For floats both factors of a value together are a double, and one multiplication does.
template <class T, Term kTerm>
constexpr bool kOneFactor = sizeof(T) == 4 && (kTerm == Term::kValue || kTerm == Term::kMagnitude);

// A term in units, with its bias. `scale` includes the unit where kOneFactor says so.
template <class T, Term kTerm, bool kWide, class Whole, class Real>
Whole fixed(Real value, Real scale, double unit, Real mean, Real widen) {
    const Real v = value * scale;
    if constexpr (kOneFactor<T, kTerm>) {
        return rounded<kWide, Whole>(kTerm == Term::kValue ? v : magnitude<Whole>(v));
    } else if constexpr (kTerm == Term::kValue) {
        return rounded<kWide, Whole>(v * unit);
    } else if constexpr (kTerm == Term::kMagnitude) {
        return rounded<kWide, Whole>(magnitude<Whole>(v) * unit);
    } else if constexpr (kTerm == Term::kSquare) {
        return rounded<kWide, Whole>(v * v * unit);
    } else {
        const Real d = (v - mean) * widen;
        return rounded<kWide, Whole>(d * d * unit);
    }
}

}  // namespace
}  // namespace midgrain::cpu::MIDGRAIN_ISA

// Compiled once per instruction set with MIDGRAIN_ISA naming the namespace. The compiler's own macros choose the
// instruction, so that another instruction set needs no change here. Calls no inline function from elsewhere but
// intrinsics, which leave no copy for the linker to share.
#include "cpu/multiply_add.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace midgrain::cpu::MIDGRAIN_ISA {
namespace {

#if defined(__AVX512BW__)
using Vector = __m512i;
inline Vector broadcast(short value) { return _mm512_set1_epi16(value); }
#if defined(__AVX512VNNI__)
inline Vector multiply_add(Vector sum, Vector a, Vector b) { return _mm512_dpwssd_epi32(sum, a, b); }
#else
inline Vector multiply_add(Vector sum, Vector a, Vector b) { return _mm512_add_epi32(sum, _mm512_madd_epi16(a, b)); }
#endif
#elif defined(__AVX2__)
using Vector = __m256i;
inline Vector broadcast(short value) { return _mm256_set1_epi16(value); }
inline Vector multiply_add(Vector sum, Vector a, Vector b) { return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)); }
#elif defined(__SSE2__)
using Vector = __m128i;
inline Vector broadcast(short value) { return _mm_set1_epi16(value); }
inline Vector multiply_add(Vector sum, Vector a, Vector b) { return _mm_add_epi32(sum, _mm_madd_epi16(a, b)); }
#else
// One product at a time: a lower bound of what such a processor can do.
using Vector = std::uint32_t;
inline Vector broadcast(short value) { return static_cast<Vector>(value); }
inline Vector multiply_add(Vector sum, Vector a, Vector b) { return sum + a * b; }
#endif

// The empty statement makes the compiler take both values for unknown and used, and keep them in registers; without
// it the sums, which nobody reads, would not be computed.
inline void step(Vector& sum, Vector& a, Vector b) {
    sum = multiply_add(sum, a, b);
#if defined(__x86_64__)
    asm volatile("" : "+v"(sum), "+v"(a));
#else
    asm volatile("" : "+r"(sum), "+r"(a));
#endif
}

// Enough sums under way to hide the latency of each; with the operands they still fit 16 registers.
constexpr int kSums = 12;

void run(std::int64_t rounds) {
    Vector a = broadcast(3);
    const Vector b = broadcast(-5);
    Vector s0 = a, s1 = a, s2 = a, s3 = a, s4 = a, s5 = a, s6 = a, s7 = a, s8 = a, s9 = a, s10 = a, s11 = a;
    for (std::int64_t round = 0; round < rounds; ++round) {
        step(s0, a, b), step(s1, a, b), step(s2, a, b), step(s3, a, b), step(s4, a, b), step(s5, a, b);
        step(s6, a, b), step(s7, a, b), step(s8, a, b), step(s9, a, b), step(s10, a, b), step(s11, a, b);
    }
}

}  // namespace

const MultiplyAddVariant kMultiplyAdd = {
    run, kSums * (sizeof(Vector) > sizeof(std::uint32_t) ? static_cast<std::int64_t>(sizeof(Vector) / 2) : 1)};

}  // namespace midgrain::cpu::MIDGRAIN_ISA

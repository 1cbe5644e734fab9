// The inner loops of pooling and painting (core/pool.hpp), compiled once per instruction set. Everything here is exact
// or rounded once per term in the same way, so all variants give the same bits.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cpu/variants.hpp"

namespace midgrain::cpu {

// Pixels handled at a time: values, running sums and labels of a chunk fit the first-level cache.
inline constexpr std::int64_t kChunk = 2048;

// Consecutive pixels of one label, from the end of the run before to `end`, counted from the chunk's first pixel.
struct Run {
    std::int32_t label, end;
};

// Runs that scan_labels may write beyond those it reports.
inline constexpr std::int64_t kRunSlack = 8;

// A chunk of at most kChunk pixels and `width` channels: values[p * step + c]. step == 1 means a plane, one channel.
template <class T>
struct Chunk {
    const T* values;
    std::int64_t step, width;
    const std::int32_t* labels;
    std::int64_t pixels;
    const Run* runs;
    std::int64_t run_count;
};

// What is summed of a scaled value v: v, |v|, v^2, or ((v - mean) * widen)^2.
enum class Term { kValue, kMagnitude, kSquare, kDeviation };

struct Scaling {
    const double* scale;   // [width] powers of two that bring values below 1
    const double* factor;  // [width] scale * unit, for floats
    const double* widen;   // [width], kDeviation only
    const double* means;   // [n, width] of the scaled values, kDeviation only
    double unit;           // terms are rounded to integer multiples of 1 / unit
    bool wide;             // unit > 2^51
};

// The bits of |v| as an integer: they order as the magnitudes do, NaN and infinity above every finite number.
template <class T>
using MagnitudeBits = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;

template <class T>
struct PoolKernels {
    // Raises largest [width] to the magnitudes of values[p * step + c].
    void (*measure)(const T* values, std::int64_t pixels, std::int64_t step, std::int64_t width,
                    MagnitudeBits<T>* largest);
    // Adds the rounded terms to table [n, width], modulo 2^64.
    void (*add)(const Chunk<T>& chunk, Term term, const Scaling& scaling, std::uint64_t* table);
    // Raises widest [width] to the largest |scaled value - mean|.
    void (*deviate)(const Chunk<T>& chunk, const Scaling& scaling, double* widest);
    // Raises (lowers) table [n, width] to the values; of equal ones the table's own stays.
    void (*extreme)(const Chunk<T>& chunk, bool maximum, T* table);
    // out[p * step + c] = scores[label * step + c]; chunk.values is not read.
    void (*paint)(const Chunk<T>& chunk, const T* scores, T* out);
};

struct PoolVariant {
    // Finds the runs of at most kChunk labels; are all of them in 0 .. n-1?
    bool (*scan_labels)(const std::int32_t* labels, std::int64_t pixels, std::int64_t n, Run* runs,
                        std::int64_t* run_count);
    PoolKernels<float> of_float;
    PoolKernels<double> of_double;
};

MIDGRAIN_DECLARE_VARIANTS(PoolVariant, kPool)

// The variant in use (see instruction_set()).
const PoolVariant& pool_variant();

}  // namespace midgrain::cpu

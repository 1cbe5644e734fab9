// Compiled once per instruction set with MIDGRAIN_ISA naming the namespace. It calls no inline function from
// elsewhere: the linker could otherwise keep a wide-vector copy of one for the baseline code too.
#include "cpu/pool_kernels.hpp"

#include "cpu/pool_fixed.hpp"

namespace midgrain::cpu::MIDGRAIN_ISA {
namespace {

template <class T>
bool many_runs(const Chunk<T>& chunk) {
    return chunk.run_count * 3 > chunk.pixels;
}

// Bit j says that pixel j of the 64 ends a run.
uint64_t run_ends(const int32_t* labels) {
    uint64_t bits = 0;
#if defined(__AVX2__)
    for (int half = 0; half < 64; half += 32) {
        uint32_t word = 0;
        for (int j = 0; j < 32; ++j) word |= labels[half + j] != labels[half + j + 1] ? uint32_t{1} << j : 0;
        bits |= static_cast<uint64_t>(word) << half;
    }
#else
    uint8_t ends[64];
    for (int j = 0; j < 64; ++j) ends[j] = labels[j] != labels[j + 1];
    for (int j = 0; j < 64; j += 8) {
        uint64_t eight;
        __builtin_memcpy(&eight, ends + j, 8);
        // The product gathers the lowest bits of the eight bytes in its highest byte.
        bits |= (eight * 0x0102040810204080u) >> 56 << j;
    }
#endif
    return bits;
}

bool scan_labels(const int32_t* labels, int64_t pixels, int64_t n, Run* runs, int64_t* run_count) {
    // Apart from what follows, which waits for guesses that went wrong.
    uint64_t ends[kChunk / 64];
    for (int64_t i = 0; i + 64 < pixels; i += 64) ends[i / 64] = run_ends(labels + i);
    int64_t count = 0, i = 0;
    for (; i + 64 < pixels; i += 64) {
        uint64_t bits = ends[i / 64];
        while (bits != 0) {
            // Always several in a row, for want of a loop end that could be foreseen.
            for (int64_t k = 0; k < kRunSlack; ++k) {
                const int64_t last = i + __builtin_ctzll(bits | uint64_t{1} << 63);
                runs[count] = {labels[last], static_cast<int32_t>(last + 1)};
                count += bits != 0;
                bits &= bits - 1;
            }
        }
    }
    for (; i < pixels; ++i) {
        runs[count] = {labels[i], static_cast<int32_t>(i + 1)};
        count += i + 1 == pixels || labels[i] != labels[i + 1];
    }
    *run_count = count;
    const uint32_t most = static_cast<uint32_t>(n - 1);
    uint32_t outside = 0;  // The sign bit counts.
    for (int64_t k = 0; k < count; ++k) {
        const uint32_t label = static_cast<uint32_t>(runs[k].label);
        outside |= label | (most - label);
    }
    return outside >> 31 == 0;
}

template <class T>
MagnitudeBits<T> magnitude_bits(T value) {
    using Bits = MagnitudeBits<T>;
    constexpr Bits kMask = sizeof(T) == 4 ? static_cast<Bits>(INT32_MAX) : static_cast<Bits>(INT64_MAX);
    return __builtin_bit_cast(Bits, value) & kMask;
}

template <class T>
void measure_plane(const T* values, int64_t pixels, MagnitudeBits<T>* largest) {
    using Bits = MagnitudeBits<T>;
    constexpr int64_t kCount = 2 * kBytes / sizeof(T);
    Bits most[kCount] = {};
    int64_t p = 0;
    for (; p + kCount <= pixels; p += kCount) {
        for (int64_t l = 0; l < kCount; ++l) {
            const Bits bits = magnitude_bits(values[p + l]);
            most[l] = bits > most[l] ? bits : most[l];
        }
    }
    for (int64_t l = 0; p + l < pixels; ++l) {
        const Bits bits = magnitude_bits(values[p + l]);
        most[l] = bits > most[l] ? bits : most[l];
    }
    for (int64_t l = 0; l < kCount; ++l) largest[0] = most[l] > largest[0] ? most[l] : largest[0];
}

template <class T>
void measure(const T* values, int64_t pixels, int64_t step, int64_t width, MagnitudeBits<T>* largest) {
    if (step == 1) return measure_plane(values, pixels, largest);
    constexpr int64_t kLine = 64 / sizeof(T), kAhead = 16;
    for (int64_t p = 0; p < pixels; ++p) {
        const T* row = values + p * step;
        // Rows lie apart from each other, and the processor sees no order in that.
        for (int64_t c = 0; c < width; c += kLine) __builtin_prefetch(row + kAhead * step + c);
        for (int64_t c = 0; c < width; ++c) {
            const MagnitudeBits<T> bits = magnitude_bits(row[c]);
            largest[c] = bits > largest[c] ? bits : largest[c];
        }
    }
}

// One channel. kLanes interleaved running sums: the total of all pixels before p is that of the kLanes entries before
// p, so that a run costs the same whatever its length.
constexpr int64_t kLanes = 8;

// running[kLanes + i] = running[i] + term i.
template <Term kTerm, bool kWide, class T>
void run_along(const Chunk<T>& chunk, const Scaling& scaling, uint64_t* running) {
    using Real = Vector<double>;
    using Whole = Vector<uint64_t>;
    const Real scale = Real{} + (kOneFactor<T, kTerm> ? scaling.factor[0] : scaling.scale[0]);
    const Real widen = Real{} + (kTerm == Term::kDeviation ? scaling.widen[0] : 1.0);
    Whole lanes[kLanes / kPerVector] = {};
    const auto take = [&](const T* values, const int32_t* labels, uint64_t* out) {
        for (int64_t k = 0; k < kLanes / kPerVector; ++k) {
            Block<T> raw;
            __builtin_memcpy(&raw, values + k * kPerVector, sizeof raw);
            Real mean = {};
            if constexpr (kTerm == Term::kDeviation) {
                for (int64_t l = 0; l < kPerVector; ++l) mean[l] = scaling.means[labels[k * kPerVector + l]];
            }
            const Real value = as_doubles<T>(raw);
            lanes[k] += fixed<T, kTerm, kWide, Whole>(value, scale, scaling.unit, mean, widen);
            __builtin_memcpy(out + k * kPerVector, &lanes[k], kBytes);
        }
    };
    for (int64_t l = 0; l < kLanes; ++l) running[l] = 0;
    const int64_t whole = chunk.pixels / kLanes * kLanes;
    for (int64_t i = 0; i < whole; i += kLanes) take(chunk.values + i, chunk.labels + i, running + kLanes + i);
    if (whole < chunk.pixels) {
        T values[kLanes] = {};
        int32_t labels[kLanes] = {};
        for (int64_t i = whole; i < chunk.pixels; ++i) {
            values[i - whole] = chunk.values[i];
            labels[i - whole] = chunk.labels[i];
        }
        take(values, labels, running + kLanes + whole);
    }
}

template <Term kTerm, bool kWide, class T>
void add_plane(const Chunk<T>& chunk, const Scaling& scaling, uint64_t* table) {
    alignas(64) uint64_t running[kChunk + kLanes];
    run_along<kTerm, kWide>(chunk, scaling, running);
    if (many_runs(chunk)) {
        for (int64_t p = 0; p < chunk.pixels; ++p) {
            table[chunk.labels[p]] += running[p + kLanes] - running[p] - kBias<kWide, Vector<double>>;
        }
        return;
    }
    const Run* run = chunk.runs;
    const Run* const last = run + chunk.run_count;
    for (uint64_t before = 0; run != last; ++run) {
        const uint64_t* eight = running + run->end;
        const uint64_t sum =
            ((eight[0] + eight[1]) + (eight[2] + eight[3])) + ((eight[4] + eight[5]) + (eight[6] + eight[7]));
        const uint64_t total = sum - kBias<kWide, Vector<double>> * static_cast<uint64_t>(run->end);
        table[run->label] += total - before;
        before = total;
    }
}

template <Term kTerm, bool kWide, class T>
void add_tile(const Chunk<T>& chunk, const Scaling& scaling, uint64_t* table) {
    const double* __restrict scale = kOneFactor<T, kTerm> ? scaling.factor : scaling.scale;
    const double* __restrict widen = scaling.widen;
    const double unit = scaling.unit;
    const int64_t width = chunk.width;
    int64_t p = 0;
    for (int64_t k = 0; k < chunk.run_count; ++k) {
        uint64_t* __restrict sums = table + chunk.runs[k].label * width;
        const double* __restrict means = nullptr;  // as in Scaling, where they are not needed
        if constexpr (kTerm == Term::kDeviation) means = scaling.means + chunk.runs[k].label * width;
        for (; p < chunk.runs[k].end; ++p) {
            const T* __restrict row = chunk.values + p * chunk.step;
            int64_t c = 0;
            for (; c + kPerVector <= width; c += kPerVector) {
                using Real = Vector<double>;
                Block<T> raw;
                Vector<uint64_t> total;
                Real factor, mean = {}, wider = {};
                __builtin_memcpy(&raw, row + c, sizeof raw);
                __builtin_memcpy(&total, sums + c, kBytes);
                __builtin_memcpy(&factor, scale + c, kBytes);
                if constexpr (kTerm == Term::kDeviation) {
                    __builtin_memcpy(&mean, means + c, kBytes);
                    __builtin_memcpy(&wider, widen + c, kBytes);
                }
                total += fixed<T, kTerm, kWide, Vector<uint64_t>>(as_doubles<T>(raw), factor, unit, mean, wider) -
                         kBias<kWide, Real>;
                __builtin_memcpy(sums + c, &total, kBytes);
            }
            for (; c < width; ++c) {
                const double mean = kTerm == Term::kDeviation ? means[c] : 0.0;
                const double wider = kTerm == Term::kDeviation ? widen[c] : 1.0;
                const double value = static_cast<double>(row[c]);
                sums[c] += fixed<T, kTerm, kWide, uint64_t>(value, scale[c], unit, mean, wider) - kBias<kWide, double>;
            }
        }
    }
}

template <Term kTerm, class T>
void add_term(const Chunk<T>& chunk, const Scaling& scaling, uint64_t* table) {
    if (chunk.step == 1) {
        scaling.wide ? add_plane<kTerm, true>(chunk, scaling, table) : add_plane<kTerm, false>(chunk, scaling, table);
    } else {
        scaling.wide ? add_tile<kTerm, true>(chunk, scaling, table) : add_tile<kTerm, false>(chunk, scaling, table);
    }
}

template <class T>
void add(const Chunk<T>& chunk, Term term, const Scaling& scaling, uint64_t* table) {
    switch (term) {
        case Term::kValue: return add_term<Term::kValue>(chunk, scaling, table);
        case Term::kMagnitude: return add_term<Term::kMagnitude>(chunk, scaling, table);
        case Term::kSquare: return add_term<Term::kSquare>(chunk, scaling, table);
        case Term::kDeviation: return add_term<Term::kDeviation>(chunk, scaling, table);
    }
}

template <class T>
void deviate(const Chunk<T>& chunk, const Scaling& scaling, double* widest) {
    const double* __restrict scale = scaling.scale;
    if (chunk.step == 1) {
        alignas(64) double deviation[kChunk];
        for (int64_t p = 0; p < chunk.pixels; ++p) {
            deviation[p] = static_cast<double>(chunk.values[p]) * scale[0] - scaling.means[chunk.labels[p]];
        }
        int64_t most = __builtin_bit_cast(int64_t, widest[0]);
        measure_plane(deviation, chunk.pixels, &most);
        widest[0] = __builtin_bit_cast(double, most);
        return;
    }
    int64_t p = 0;
    for (int64_t k = 0; k < chunk.run_count; ++k) {
        const double* __restrict means = scaling.means + chunk.runs[k].label * chunk.width;
        for (; p < chunk.runs[k].end; ++p) {
            const T* __restrict row = chunk.values + p * chunk.step;
            for (int64_t c = 0; c < chunk.width; ++c) {
                const double deviation = __builtin_fabs(static_cast<double>(row[c]) * scale[c] - means[c]);
                widest[c] = deviation > widest[c] ? deviation : widest[c];
            }
        }
    }
}

// The better of two values, the first of equal ones.
template <bool kMaximum, class T>
T better(T first, T second) {
    return (kMaximum ? second > first : second < first) ? second : first;
}

// One channel. Windows of 2, 4 and 8 pixels are compared for all places at once; a run is then covered by
// overlapping windows.
template <bool kMaximum, class T>
void extreme_plane(const Chunk<T>& chunk, T* table) {
    const T* __restrict one = chunk.values;
    const int64_t pixels = chunk.pixels;
    if (many_runs(chunk)) {
        for (int64_t p = 0; p < pixels; ++p) {
            T& best = table[chunk.labels[p]];
            best = better<kMaximum>(best, one[p]);
        }
        return;
    }
    alignas(64) T two[kChunk], four[kChunk], eight[kChunk];
    for (int64_t p = 0; p + 2 <= pixels; ++p) two[p] = better<kMaximum>(one[p], one[p + 1]);
    for (int64_t p = 0; p + 4 <= pixels; ++p) four[p] = better<kMaximum>(two[p], two[p + 2]);
    for (int64_t p = 0; p + 8 <= pixels; ++p) eight[p] = better<kMaximum>(four[p], four[p + 4]);
    int64_t first = 0;
    for (int64_t k = 0; k < chunk.run_count; ++k) {
        const int64_t end = chunk.runs[k].end, length = end - first;
        T best;
        if (length >= 8) {
            best = eight[first];
            for (int64_t p = first + 8; p < end - 8; p += 8) best = better<kMaximum>(best, eight[p]);
            best = better<kMaximum>(best, eight[end - 8]);
        } else if (length >= 4) {
            best = better<kMaximum>(four[first], four[end - 4]);
        } else if (length >= 2) {
            best = better<kMaximum>(two[first], two[end - 2]);
        } else {
            best = one[first];
        }
        T& place = table[chunk.runs[k].label];
        place = better<kMaximum>(place, best);
        first = end;
    }
}

template <bool kMaximum, class T>
void extreme_tile(const Chunk<T>& chunk, T* table) {
    int64_t p = 0;
    for (int64_t k = 0; k < chunk.run_count; ++k) {
        T* __restrict best = table + chunk.runs[k].label * chunk.width;
        for (; p < chunk.runs[k].end; ++p) {
            const T* __restrict row = chunk.values + p * chunk.step;
            for (int64_t c = 0; c < chunk.width; ++c) best[c] = better<kMaximum>(best[c], row[c]);
        }
    }
}

template <class T>
void extreme(const Chunk<T>& chunk, bool maximum, T* table) {
    if (chunk.step == 1) {
        maximum ? extreme_plane<true>(chunk, table) : extreme_plane<false>(chunk, table);
    } else {
        maximum ? extreme_tile<true>(chunk, table) : extreme_tile<false>(chunk, table);
    }
}

template <class T>
void paint_plane(const Chunk<T>& chunk, const T* scores, T* out) {
    if (many_runs(chunk)) {
        for (int64_t p = 0; p < chunk.pixels; ++p) out[p] = scores[chunk.labels[p]];
        return;
    }
    // Whole vectors, the last of which writes beyond the run: the runs after it put that right.
    constexpr int64_t kVector = 64 / sizeof(T);
    int64_t p = 0;
    for (int64_t k = 0; k < chunk.run_count; ++k) {
        const T score = scores[chunk.runs[k].label];
        const int64_t end = chunk.runs[k].end;
        for (; p < end && p + kVector <= chunk.pixels; p += kVector) {
            for (int64_t i = 0; i < kVector; ++i) out[p + i] = score;
        }
        for (; p < end; ++p) out[p] = score;
        p = end;
    }
}

template <class T>
void paint(const Chunk<T>& chunk, const T* scores, T* out) {
    if (chunk.step == 1) return paint_plane(chunk, scores, out);
    for (int64_t p = 0; p < chunk.pixels; ++p) {
        const T* __restrict row = scores + chunk.labels[p] * chunk.step;
        T* __restrict target = out + p * chunk.step;
        for (int64_t c = 0; c < chunk.width; ++c) target[c] = row[c];
    }
}

}  // namespace

const PoolVariant kPool = {scan_labels,
                           {measure<float>, add<float>, deviate<float>, extreme<float>, paint<float>},
                           {measure<double>, add<double>, deviate<double>, extreme<double>, paint<double>}};

}  // namespace midgrain::cpu::MIDGRAIN_ISA

// Compiled once per instruction set with MIDGRAIN_ISA naming the namespace. Like slic_tiles.cpp it calls no inline
// function from elsewhere, so it has its own union-find.
#include "cpu/connectivity_rows.hpp"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace midgrain::cpu::MIDGRAIN_ISA {
namespace {

using Word = std::uint64_t;
constexpr std::int64_t kBits = 64;

constexpr std::int64_t kGroup = 16;

// Bit i is set where a[i] != b[i], i < 16.
Word group_differences(const std::int32_t* a, const std::int32_t* b) {
#if defined(__SSE2__)
    const auto equal = [a, b](int i) {
        return _mm_cmpeq_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(a + i)),
                               _mm_loadu_si128(reinterpret_cast<const __m128i*>(b + i)));
    };
    const __m128i bytes = _mm_packs_epi16(_mm_packs_epi32(equal(0), equal(4)), _mm_packs_epi32(equal(8), equal(12)));
    return static_cast<Word>(_mm_movemask_epi8(bytes)) ^ 0xffff;
#else
    Word bits = 0;
    for (int i = 0; i < kGroup; ++i) bits |= static_cast<Word>(a[i] != b[i]) << i;
    return bits;
#endif
}

// Bit i is set where a[i] != b[i], i < n; at most 64 of them.
Word differences(const std::int32_t* a, const std::int32_t* b, std::int64_t n) {
    n = n < kBits ? n : kBits;
    Word bits = 0;
    std::int64_t i = 0;
    for (; i + kGroup <= n; i += kGroup) bits |= group_differences(a + i, b + i) << i;
    for (; i < n; ++i) bits |= static_cast<Word>(a[i] != b[i]) << i;
    return bits;
}

std::uint32_t root_of(std::uint32_t* parent, std::uint32_t run) {
    while (parent[run] != run) {
        parent[run] = parent[parent[run]];
        run = parent[run];
    }
    return run;
}

// Without a branch on whether the two are one piece already: it would be mispredicted half of the time.
void unite(std::uint32_t* parent, std::uint32_t a, std::uint32_t b) {
    const std::uint32_t root_a = root_of(parent, parent[a]), root_b = root_of(parent, parent[b]);
    const std::uint32_t low = root_a < root_b ? root_a : root_b;
    parent[root_a] = low;
    parent[root_b] = low;
    parent[a] = low;
    parent[b] = low;
}

void unite_rows(const RunTable& table, std::int64_t before, std::int64_t row) {
    const std::int32_t* labels = table.labels + row * table.row_stride;
    const std::int32_t* labels_before = table.labels + before * table.row_stride;
    const Word* begins = table.begins + row * table.words;
    const Word* begins_before = table.begins + before * table.words;
    const std::uint32_t* rank = table.rank + row * table.words;
    const std::uint32_t* rank_before = table.rank + before * table.words;
    for (std::int64_t w = 0; w < table.words; ++w) {
        // One bit for every pair of runs that touch: the first pixel of the stretch that they share.
        const Word same = ~differences(labels + w * kBits, labels_before + w * kBits, table.x - w * kBits);
        for (Word pairs = same & (begins[w] | begins_before[w]); pairs != 0; pairs &= pairs - 1) {
            const Word up_to = pairs ^ (pairs - 1);
            const auto a =
                rank_before[w] - 1 + static_cast<std::uint32_t>(__builtin_popcountll(begins_before[w] & up_to));
            const auto b = rank[w] - 1 + static_cast<std::uint32_t>(__builtin_popcountll(begins[w] & up_to));
            unite(table.parent, a, b);
        }
    }
}

// The runs of one row, each a tree of its own.
std::uint32_t split_row(const RunTable& table, std::int64_t row, std::uint32_t run) {
    const std::int32_t* labels = table.labels + row * table.row_stride;
    for (std::int64_t w = 0; w < table.words; ++w) {
        const std::int64_t x = w * kBits, n = table.x - x;
        // A row's first pixel has no pixel before it.
        Word begins = w > 0 ? differences(labels + x, labels + x - 1, n)
                            : differences(labels + 1, labels, n < kBits ? n - 1 : kBits - 1) << 1 | 1;
        table.begins[row * table.words + w] = begins;
        table.rank[row * table.words + w] = run;
        const auto count = static_cast<std::uint32_t>(__builtin_popcountll(begins));
        const auto pixel = static_cast<std::uint32_t>(row * table.x + x);
        // Eight at a time, the last ones to no purpose: cheaper than a loop whose end cannot be predicted.
        for (std::uint32_t done = 0; done < count; done += 8) {
            for (std::uint32_t i = run + done; i < run + done + 8; ++i) {
                table.first[i] = pixel + static_cast<std::uint32_t>(__builtin_ctzll(begins | Word{1} << 63));
                table.parent[i] = i;
                begins &= begins - 1;
            }
        }
        run += count;
    }
    return run;
}

std::uint32_t find_runs(const RunTable& table, std::int64_t first_row, std::int64_t last_row, std::uint32_t run) {
    for (std::int64_t row = first_row; row < last_row; ++row) {
        run = split_row(table, row, run);
        if (row > first_row && row % table.y != 0) unite_rows(table, row - 1, row);
        if (row - table.y >= first_row) unite_rows(table, row - table.y, row);
    }
    table.first[run] = static_cast<std::uint32_t>(last_row * table.x);
    return run;
}

// The neighbours of one piece. There is no branch on what they are: it could not be predicted.
struct Search {
    const RunTable& table;
    Word* tallies;
    std::uint32_t piece;
    Word none;  // a tally of this piece without a face; those of earlier pieces are lower
    Word best;  // faces, then the complement of the neighbour: the greatest is the choice

    void offer(std::uint32_t run, std::uint32_t faces) {
        std::uint32_t neighbour = table.parent[run];
        while (table.parent[neighbour] != neighbour) neighbour = table.parent[neighbour];
        // Faces inside the piece do not count. Two pieces share less than 2^32: an item has at most 3 faces per pixel,
        // of which one per pixel is needed to keep either piece together.
        const std::uint32_t counted = faces & -static_cast<std::uint32_t>(neighbour != piece);
        const Word tally = (tallies[neighbour] > none ? tallies[neighbour] : none) + counted;
        tallies[neighbour] = tally;
        const Word offered = tally << 32 | ~neighbour;
        best = offered > best ? offered : best;
    }

    // The runs of `row` beside pixels [x, x + length) of a neighbouring row.
    void offer_row(std::uint32_t row, std::uint32_t x, std::uint32_t length) {
        std::uint32_t run = run_at(row, x);
        if (length == 1) return offer(run, 1);
        std::uint32_t pixel = row * static_cast<std::uint32_t>(table.x) + x;
        const std::uint32_t last = pixel + length;
        for (; pixel < last; ++run) {
            const std::uint32_t end = table.first[run + 1] < last ? table.first[run + 1] : last;
            offer(run, end - pixel);
            pixel = end;
        }
    }

    std::uint32_t run_at(std::uint32_t row, std::uint32_t x) const {
        const std::int64_t at = row * table.words + x / kBits;
        const Word up_to = (Word{2} << x % kBits) - 1;
        return table.rank[at] - 1 + static_cast<std::uint32_t>(__builtin_popcountll(table.begins[at] & up_to));
    }
};

template <bool kVolume>
void choose_in(const RunTable& table, const std::uint32_t* next, const std::uint32_t* pieces, std::uint32_t count,
               Word* tallies, std::uint32_t mark, std::uint32_t* choices) {
    const auto rows = static_cast<std::uint32_t>(table.rows), frame = static_cast<std::uint32_t>(table.y);
    const auto width = static_cast<std::uint32_t>(table.x);
    for (std::uint32_t i = 0; i < count; ++i) {
        Search search{table, tallies, pieces[i], static_cast<Word>(mark + 1 + i) << 32, 0};
        std::uint32_t run = pieces[i];
        do {
            const std::uint32_t first = table.first[run], length = table.first[run + 1] - first;
            const std::uint32_t row = first / width, x = first % width, y = kVolume ? row % frame : row;
            if (x > 0) search.offer(run - 1, 1);
            if (x + length < width) search.offer(run + 1, 1);
            if (y > 0) search.offer_row(row - 1, x, length);
            if (y + 1 < frame) search.offer_row(row + 1, x, length);
            if (kVolume && row >= frame) search.offer_row(row - frame, x, length);
            if (kVolume && rows - row > frame) search.offer_row(row + frame, x, length);
            run = next[run];
        } while (run != pieces[i]);
        choices[i] = search.best >> 32 == 0 ? pieces[i] : ~static_cast<std::uint32_t>(search.best);
    }
}

void choose(const RunTable& table, const std::uint32_t* next, const std::uint32_t* pieces, std::uint32_t count,
            Word* tallies, std::uint32_t mark, std::uint32_t* choices) {
    const auto variant = table.rows > table.y ? choose_in<true> : choose_in<false>;
    variant(table, next, pieces, count, tallies, mark, choices);
}

void fill(const RunTable& table, std::uint32_t begin, std::uint32_t end, const std::uint32_t* label,
          std::int32_t* out) {
    constexpr std::int64_t kStretch = 16;
    const std::int32_t* limit = out + table.first[end];
    for (std::uint32_t run = begin; run < end; ++run) {
        const auto value = static_cast<std::int32_t>(label[table.parent[run]]);
        const std::int32_t* last = out + table.first[run + 1];
        std::int32_t* pixel = out + table.first[run];
        // Whole stretches: what they write beyond the run belongs to the next ones, which follow.
        for (; pixel < last && limit - pixel >= kStretch; pixel += kStretch) {
            for (std::int64_t i = 0; i < kStretch; ++i) pixel[i] = value;
        }
        for (; pixel < last; ++pixel) *pixel = value;
    }
}

}  // namespace

const RowsVariant kRows = {find_runs, unite_rows, choose, fill};

}  // namespace midgrain::cpu::MIDGRAIN_ISA

// Compiled once per instruction set with MIDGRAIN_ISA naming the namespace; see vector.hpp.
#include "core/fixed_point.hpp"
#include "cpu/slic_tiles.hpp"
#include "cpu/vector.hpp"

namespace midgrain::cpu::MIDGRAIN_ISA {
namespace {

using Eight = std::int64_t __attribute__((vector_size(64)));
using EightDoubles = double __attribute__((vector_size(64)));

// Sums over all workers of one centre's columns [column, column + 8), those beyond `width` being 0.
[[gnu::always_inline]] inline Eight total_of(const UpdateCentresJob& job, std::int64_t k, std::int64_t column) {
    const std::int64_t left = job.width - column;
    Eight total{};
    for (int t = 0; t < job.workers; ++t) {
        const std::int64_t* from = job.sums[t] + k * job.width + column;
        if (left >= 8) {
            total += load<Eight>(from);
        } else {
            Eight some{};
            for (int i = 0; i < left; ++i) some[i] = from[i];
            total += some;
        }
    }
    return total;
}

// floor((2 total + n) / (2 n)) where shift is 0, else that of total / 2^shift, which is whole.
//
// In doubles as long as numerator and denominator are integers below 2^53: a quotient that is no integer is then
// farther from the next one than rounding can carry it.
[[gnu::always_inline]] inline Eight mean_of(Eight total, std::int64_t n, Eight shift, bool small) {
    if (small) {
        const Eight members = (Eight{} + n) << shift;
        const EightDoubles numerator = __builtin_convertvector(2 * total + members, EightDoubles);
        const EightDoubles quotient = numerator / __builtin_convertvector(2 * members, EightDoubles);
        const Eight whole = __builtin_convertvector(quotient, Eight);
        return whole + (Eight)(__builtin_convertvector(whole, EightDoubles) > quotient);
    }
    Eight result;
    for (int i = 0; i < 8; ++i) result[i] = core::divide_half_up(total[i] >> shift[i], n);
    return result;
}

void update_centres(UpdateCentresJob& job, std::int64_t first, std::int64_t last) {
    // Positions are below 2^30 and features below 2^15, so up to this many members keep 2 total + n below 2^53.
    constexpr std::int64_t kSmall = std::int64_t{1} << 21;
    const core::Dims& cells = job.cells;
    std::int64_t z = first / (cells.y * cells.x), y = first / cells.x % cells.y, x = first % cells.x;
    const int features = 2 * job.pairs;
    const Eight feature_shift = Eight{} + job.key.feature_shift;
    Eight header_shift = feature_shift;
    for (int i = 0; i < kSumHeader; ++i) header_shift[i] = 0;
    std::int32_t drift[3] = {0, 0, 0};
    for (std::int64_t k = first; k < last; ++k) {
        Eight total = total_of(job, k, 0);
        const std::int64_t n = total[0];
        float moved = 0.0f;
        if (n > 0) {
            Eight mean = mean_of(total, n, header_shift, n <= kSmall);
            std::int64_t distance = 0, square = 0;
            for (int a = 0; a < 3; ++a) {
                const auto value = static_cast<std::int32_t>(mean[1 + a]);
                const std::int64_t step = value - job.position[a][k];
                distance += step * step;
                job.position[a][k] = value;
            }
            std::int32_t* centre = job.features + k * features;
            for (int c = 0; c < features; ++c) {
                const int at = (kSumHeader + c) % 8;
                if (at == 0) mean = mean_of(total_of(job, k, kSumHeader + c), n, feature_shift, n <= kSmall);
                const auto value = static_cast<std::int32_t>(mean[at]);
                const std::int32_t step = value - centre[c];
                distance += step * step;
                square += value * value;
                centre[c] = value;
            }
            const int up = job.key.coefficient_shift + 1;
            for (int p = 0; p < job.pairs; ++p) {
                const auto even = static_cast<std::uint32_t>(-(centre[2 * p] << up));
                const auto odd = static_cast<std::uint32_t>(-(centre[2 * p + 1] << up));
                job.coefficients[k * job.pairs + p] = (even & 0xFFFFu) | odd << 16;
            }
            job.base[k] = (static_cast<std::uint32_t>(square) + job.key.offset) << job.key.bits();
            moved = __builtin_sqrtf(static_cast<float>(distance)) * 1.000001f;
        }
        job.moved[k] = moved;
        const std::int64_t cell[3] = {z, y, x};
        for (int a = 0; a < 3; ++a) {
            const std::int32_t away = job.position[a][k] - job.home[a][cell[a]];
            const std::int32_t distance = away < 0 ? -away : away;
            drift[a] = distance > drift[a] ? distance : drift[a];
        }
        if (++x == cells.x) {
            x = 0;
            if (++y == cells.y) {
                y = 0;
                ++z;
            }
        }
    }
    for (int a = 0; a < 3; ++a) job.drift[a] = drift[a];
}

}  // namespace

const UpdateCentres kUpdateCentres = update_centres;

}  // namespace midgrain::cpu::MIDGRAIN_ISA

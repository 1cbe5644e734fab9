// How many multiply-adds per second this processor does at most (cpu/multiply_add.hpp).
#include <chrono>
#include <vector>

#include "cpu/kernels.hpp"
#include "cpu/multiply_add.hpp"
#include "cpu/parallel.hpp"

namespace midgrain::cpu {

double multiply_adds_per_second(double seconds, int threads) {
    using Clock = std::chrono::steady_clock;
    constexpr std::int64_t kRoundsPerLook = 20'000;  // some tens of microseconds between looks at the clock
    const MultiplyAddVariant& variant = multiply_add_variant();
    std::vector<double> rates(static_cast<std::size_t>(threads), 0.0);
    run_team(threads, [&](Team& team, int index) {
        variant.run(kRoundsPerLook);  // wide units may have to wake up first
        team.meet();
        const Clock::time_point start = Clock::now();
        std::int64_t rounds = 0;
        double elapsed = 0.0;
        do {
            variant.run(kRoundsPerLook);
            rounds += kRoundsPerLook;
            elapsed = std::chrono::duration<double>(Clock::now() - start).count();
        } while (elapsed < seconds);
        rates[static_cast<std::size_t>(index)] = static_cast<double>(rounds * variant.per_round) / elapsed;
    });
    double total = 0.0;
    for (const double rate : rates) total += rate;
    return total;
}

}  // namespace midgrain::cpu

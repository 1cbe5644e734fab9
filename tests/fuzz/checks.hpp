// What every target has in common: results that are the same however they were computed, and failures that say what.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "cpu/kernels.hpp"
#include "input.hpp"

namespace midgrain::fuzz {

// Ends the process, so that the fuzzer keeps the input, unless it holds.
inline void expect(bool holds, const std::string& what) {
    if (holds) return;
    std::fprintf(stderr, "broken: %s\n", what.c_str());
    std::abort();
}

template <class T>
bool is_same(T a, T b) {
    if constexpr (std::is_floating_point_v<T>) {
        if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
        return a == b && std::signbit(a) == std::signbit(b);
    }
    return a == b;
}

template <class T>
void expect_same(const std::vector<T>& got, const std::vector<T>& wanted, const std::string& what) {
    expect(got.size() == wanted.size(), what + ": sizes");
    for (std::size_t i = 0; i < got.size(); ++i) {
        if (is_same(got[i], wanted[i])) continue;
        expect(false, what + ": element " + std::to_string(i) + " is " + std::to_string(got[i]) + ", expected " +
                          std::to_string(wanted[i]));
    }
}

// What a kernel said: its arrays, or the message that it refused its values with.
template <class... Arrays>
struct Outcome {
    std::tuple<Arrays...> arrays;
    std::string refusal;

    bool refused() const { return !refusal.empty(); }
};

// Runs kernel(threads, arrays...) on a copy of `fresh`.
template <class Kernel, class... Arrays>
Outcome<Arrays...> run(const Kernel& kernel, int threads, const Arrays&... fresh) {
    Outcome<Arrays...> outcome{{fresh...}, ""};
    try {
        std::apply([&](auto&... arrays) { kernel(threads, arrays...); }, outcome.arrays);
    } catch (const cpu::InvalidValue& refused) {
        outcome.refusal = refused.what();
        expect(!outcome.refusal.empty(), "a refusal has a message");
    }
    return outcome;
}

// The same with plain instructions and one thread, and with others, which must come to the same.
template <class Kernel, class... Arrays>
Outcome<Arrays...> run_both_ways(Input& input, const std::string& name, const Kernel& kernel, const Arrays&... fresh) {
    const auto sets = cpu::available_instruction_sets();
    cpu::select_instruction_set("baseline");
    const Outcome<Arrays...> plain = run(kernel, 1, fresh...);
    const std::string& other = sets[static_cast<std::size_t>(input.between(0, 255)) % sets.size()];
    cpu::select_instruction_set(other);
    const Outcome<Arrays...> quick = run(kernel, static_cast<int>(input.between(1, 5)), fresh...);
    expect(plain.refusal == quick.refusal,
           name + ": refused with '" + plain.refusal + "' by baseline and '" + quick.refusal + "' by " + other);
    if (!plain.refused()) {
        [&]<std::size_t... I>(std::index_sequence<I...>) {
            (expect_same(std::get<I>(quick.arrays), std::get<I>(plain.arrays), name + " with " + other), ...);
        }(std::index_sequence_for<Arrays...>{});
    }
    return plain;
}

// The targets; each draws its arguments from the input and compares with its definition, written as plainly as can be.
void try_colour(Input& input);
void try_slic(Input& input);
void try_slic_pictures(Input& input);
void try_connectivity(Input& input);
void try_pool(Input& input);
void try_paint(Input& input);
void try_patches(Input& input);
void try_aggregation(Input& input);

// Connected labels of one item by core/connectivity.hpp's definition; returns their number.
std::int32_t connect_plainly(std::vector<std::int32_t>& labels, const core::Dims& dims, std::int64_t min_size);

}  // namespace midgrain::fuzz

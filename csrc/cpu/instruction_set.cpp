// Chooses the instruction set once, at load: the best that the build and the processor share.
#include <algorithm>
#include <array>
#include <atomic>
#include <stdexcept>
#include <vector>

#include "cpu/kernels.hpp"
#include "cpu/multiply_add.hpp"
#include "cpu/slic_assign.hpp"

namespace midgrain::cpu {
namespace {

struct Choice {
    std::string name;
    const AssignVariant* assign;
    const MultiplyAddVariant* multiply_add;
};

const std::vector<Choice>& choices() {
    static const std::vector<Choice> all = [] {
        std::vector<Choice> found;
#if defined(MIDGRAIN_HAS_AVX2)
        if (__builtin_cpu_supports("avx2")) found.push_back({"avx2", &avx2::kAssign, &avx2::kMultiplyAdd});
#endif
        found.push_back({"baseline", &baseline::kAssign, &baseline::kMultiplyAdd});
        return found;
    }();
    return all;
}

std::atomic<const Choice*>& current() {
    static std::atomic<const Choice*> choice{&choices().front()};
    return choice;
}

}  // namespace

std::span<const std::string> available_instruction_sets() {
    static const std::vector<std::string> names = [] {
        std::vector<std::string> result;
        for (const Choice& choice : choices()) result.push_back(choice.name);
        return result;
    }();
    return names;
}

const std::string& instruction_set() { return current().load()->name; }

void select_instruction_set(const std::string& name) {
    const auto& all = choices();
    const auto found = std::find_if(all.begin(), all.end(), [&](const Choice& choice) { return choice.name == name; });
    if (found == all.end()) throw std::invalid_argument("instruction set '" + name + "' is not available here");
    current() = &*found;
}

const AssignVariant& assign_variant() { return *current().load()->assign; }

const MultiplyAddVariant& multiply_add_variant() { return *current().load()->multiply_add; }

}  // namespace midgrain::cpu

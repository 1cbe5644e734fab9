// Chooses the instruction set once, at load: the best that the build and the processor share.
#include <algorithm>
#include <array>
#include <atomic>
#include <stdexcept>
#include <vector>

#include "cpu/kernels.hpp"
#include "cpu/pixel_rows.hpp"
#include "cpu/slic_tiles.hpp"
#include "cpu/slic_wide_assign.hpp"

namespace midgrain::cpu {
namespace {

struct Choice {
    std::string name;
    const TileKernels* tiles;
    const PixelKernels* pixels;
    UpdateCentres update_centres;
    AssignWide assign_wide;
};

const std::vector<Choice>& choices() {
    static const std::vector<Choice> all = [] {
        std::vector<Choice> found;
#if defined(MIDGRAIN_HAS_X86_VARIANTS)
        const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
        if (avx512 && __builtin_cpu_supports("avx512vnni")) {
            found.push_back({"avx512vnni", &avx512vnni::kTileKernels, &avx512vnni::kPixelKernels,
                             avx512vnni::kUpdateCentres, avx512vnni::kAssignWide});
        }
        if (avx512)
            found.push_back(
                {"avx512", &avx512::kTileKernels, &avx512::kPixelKernels, avx512::kUpdateCentres, avx512::kAssignWide});
        if (__builtin_cpu_supports("avx2"))
            found.push_back(
                {"avx2", &avx2::kTileKernels, &avx2::kPixelKernels, avx2::kUpdateCentres, avx2::kAssignWide});
#endif
        found.push_back({"baseline", &baseline::kTileKernels, &baseline::kPixelKernels, baseline::kUpdateCentres,
                         baseline::kAssignWide});
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

const TileKernels& tile_kernels() { return *current().load()->tiles; }

UpdateCentres update_centres() { return current().load()->update_centres; }

const PixelKernels& pixel_kernels() { return *current().load()->pixels; }

AssignWide assign_wide() { return current().load()->assign_wide; }

}  // namespace midgrain::cpu

// Chooses the instruction set once, at load: the best that the build and the processor share. Makes what else calls
// share.
#include <algorithm>
#include <array>
#include <atomic>
#include <stdexcept>
#include <vector>

#include "cpu/connectivity_rows.hpp"
#include "cpu/kernels.hpp"
#include "cpu/multiply_add.hpp"
#include "cpu/overlay_rows.hpp"
#include "cpu/picture_rows.hpp"
#include "cpu/pixel_rows.hpp"
#include "cpu/pool_kernels.hpp"
#include "cpu/slic_tiles.hpp"
#include "cpu/slic_wide_assign.hpp"
#include "cpu/workspace.hpp"

namespace midgrain::cpu {
namespace {

struct Choice {
    std::string name;
    const TileKernels* tiles;
    const PixelKernels* pixels;
    const RowsVariant* rows;
    const PoolVariant* pool;
    UpdateCentres update_centres;
    PackRow pack_row;
    AssignWide assign_wide;
    const MultiplyAddVariant* multiply_add;
    const OverlayKernels* overlay;
};

// The variant compiled into namespace `isa`.
#define MIDGRAIN_CHOICE(isa)                                                                                         \
    {#isa,          &isa::kTileKernels, &isa::kPixelKernels, &isa::kRows,          &isa::kPool, isa::kUpdateCentres, \
     isa::kPackRow, isa::kAssignWide,   &isa::kMultiplyAdd,  &isa::kOverlayKernels}

const std::vector<Choice>& choices() {
    static const std::vector<Choice> all = [] {
        std::vector<Choice> found;
#if defined(MIDGRAIN_HAS_X86_VARIANTS)
        // Every processor with AVX2 also has the two of the second line; a hypervisor may hide them.
        const bool avx2 = __builtin_cpu_supports("avx2") &&  //
                          __builtin_cpu_supports("bmi") && __builtin_cpu_supports("popcnt");
        const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
        if (avx512 && __builtin_cpu_supports("avx512vnni")) found.push_back(MIDGRAIN_CHOICE(avx512vnni));
        if (avx512) found.push_back(MIDGRAIN_CHOICE(avx512));
        if (avx2) found.push_back(MIDGRAIN_CHOICE(avx2));
#endif
        found.push_back(MIDGRAIN_CHOICE(baseline));
        return found;
    }();
    return all;
}

#undef MIDGRAIN_CHOICE

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

void prepare() {
    available_instruction_sets();
    current();
    srgb_byte_table();
    Workspace().take<std::byte>(1);
}

NarrowVariant narrow_variant() {
    const Choice& choice = *current().load();
    return {choice.tiles, choice.update_centres, choice.pack_row};
}

const PixelKernels& pixel_kernels() { return *current().load()->pixels; }

AssignWide assign_wide() { return current().load()->assign_wide; }

const RowsVariant& rows_variant() { return *current().load()->rows; }

const PoolVariant& pool_variant() { return *current().load()->pool; }

const OverlayKernels& overlay_kernels() { return *current().load()->overlay; }

const MultiplyAddVariant& multiply_add_variant() { return *current().load()->multiply_add; }

}  // namespace midgrain::cpu

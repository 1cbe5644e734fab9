// libFuzzer's entry: the first byte chooses the target, the rest is what it is tried with. MIDGRAIN_FUZZ_TARGET (a
// number) leaves no choice.
#include <cstdlib>

#include "checks.hpp"

namespace {

using namespace midgrain::fuzz;
constexpr void (*kTargets[])(Input&) = {try_colour, try_slic,  try_slic_pictures, try_connectivity,
                                        try_pool,   try_paint, try_patches,       try_aggregation};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const char* const only = std::getenv("MIDGRAIN_FUZZ_TARGET");
    Input input(data, size);
    const std::size_t drawn = input.byte();
    kTargets[(only != nullptr ? static_cast<std::size_t>(std::atoi(only)) : drawn) % std::size(kTargets)](input);
    return 0;
}

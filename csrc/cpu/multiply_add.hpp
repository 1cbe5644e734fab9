// The highest rate of the multiply-add that the assignment step of SLIC is made of: int16 x int16 to int32, from
// registers to registers. It is the floor that benchmarks compare the kernel's time with.
#pragma once

#include <cstdint>

#include "cpu/variants.hpp"

namespace midgrain::cpu {

// Compiled once per instruction set, like the kernels' inner loops.
struct MultiplyAddVariant {
    void (*run)(std::int64_t rounds);
    std::int64_t per_round;  // multiply-adds in a round
};

MIDGRAIN_DECLARE_VARIANTS(MultiplyAddVariant, kMultiplyAdd)

// The variant in use (see instruction_set()).
const MultiplyAddVariant& multiply_add_variant();

}  // namespace midgrain::cpu

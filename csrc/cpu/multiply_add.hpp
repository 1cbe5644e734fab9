// The highest rate of the multiply-add that the assignment step of SLIC is made of: int16 x int16 to int32, from
// registers to registers. It is the floor that benchmarks compare the kernel's time with.
#pragma once

#include <cstdint>

namespace midgrain::cpu {

// Compiled once per instruction set, like the kernels' inner loops.
struct MultiplyAddVariant {
    void (*run)(std::int64_t rounds);
    std::int64_t per_round;  // multiply-adds in a round
};

namespace baseline {
extern const MultiplyAddVariant kMultiplyAdd;
}
#if defined(MIDGRAIN_HAS_X86_VARIANTS)
namespace avx2 {
extern const MultiplyAddVariant kMultiplyAdd;
}
namespace avx512 {
extern const MultiplyAddVariant kMultiplyAdd;
}
namespace avx512vnni {
extern const MultiplyAddVariant kMultiplyAdd;
}
#endif

// The variant in use (see instruction_set()).
const MultiplyAddVariant& multiply_add_variant();

}  // namespace midgrain::cpu

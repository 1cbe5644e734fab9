// The assignment step of SLIC for a band of rows, compiled once per instruction set. All variants do the same
// integer arithmetic and so give the same labels.
#pragma once

#include <cstdint>

namespace midgrain::cpu {

// Pixels that a centre can reach: index ranges [first, last) on each axis.
struct CentreBox {
    std::int64_t z0, z1, y0, y1, x0, x1;
};

template <class Feature>
struct AssignJob {
    const Feature* features;  // [channels, z, y, x], quantised
    int channels;
    std::int64_t y, x, plane;         // rows of a frame, pixels of a row, pixels of the item
    const std::int32_t* position[3];  // integer coordinate of every index, per axis
    const std::int32_t* centres;      // [count, 3 + channels]: z, y, x, features
    const CentreBox* boxes;           // [count]
    std::int64_t count;
    std::int64_t first_row, last_row;  // the band, in rows counted through all frames
};

using AssignNarrow = void (*)(const AssignJob<std::int16_t>&, std::int32_t* labels, std::int32_t* best);
using AssignWide = void (*)(const AssignJob<std::int32_t>&, std::int32_t* labels, std::int64_t* best);

struct AssignVariant {
    AssignNarrow narrow;
    AssignWide wide;
};

namespace baseline {
extern const AssignVariant kAssign;
}
#if defined(MIDGRAIN_HAS_AVX2)
namespace avx2 {
extern const AssignVariant kAssign;
}
#endif

// The variant in use (see instruction_set()).
const AssignVariant& assign_variant();

}  // namespace midgrain::cpu

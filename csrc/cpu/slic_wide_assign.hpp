// The assignment step of SLIC with wide features (core/slic.hpp) for a band of rows, compiled once per instruction
// set. All variants do the same integer arithmetic and so give the same labels.
#pragma once

#include <cstdint>

#include "cpu/variants.hpp"

namespace midgrain::cpu {

// Pixels that a centre can reach: index ranges [first, last) on each axis.
struct CentreBox {
    std::int64_t z0, z1, y0, y1, x0, x1;
};

struct AssignWideJob {
    const std::int32_t* features;  // [channels, z, y, x], quantised
    int channels;
    std::int64_t y, x, plane;         // rows of a frame, pixels of a row, pixels of the item
    const std::int32_t* position[3];  // integer coordinate of every index, per axis
    const std::int32_t* centres;      // [count, 3 + channels]: z, y, x, features
    const CentreBox* boxes;           // [count]
    std::int64_t count;
    std::int64_t first_row, last_row;  // the band, in rows counted through all frames
};

using AssignWide = void (*)(const AssignWideJob&, std::int32_t* labels, std::int64_t* best);

MIDGRAIN_DECLARE_VARIANTS(AssignWide, kAssignWide)

// The variant in use (see instruction_set()).
AssignWide assign_wide();

}  // namespace midgrain::cpu

// Compiled once per instruction set with MIDGRAIN_ISA naming the namespace. It calls no inline function from
// elsewhere: the linker could otherwise keep a wide-vector copy of one for the baseline code too.
#include "cpu/slic_wide_assign.hpp"

namespace midgrain::cpu::MIDGRAIN_ISA {
namespace {

// One centre against pixels [x0, x1) of one row; `base` holds the squared distance along z and y.
// kChannels == 0 takes the channel count from the job.
template <int kChannels>
void compare_row(const AssignWideJob& job, std::int64_t row, std::int64_t x0, std::int64_t x1, std::int64_t base,
                 const std::int32_t* centre, std::int32_t index, std::int32_t* __restrict labels,
                 std::int64_t* __restrict best) {
    const int channels = kChannels > 0 ? kChannels : job.channels;
    const std::int32_t* __restrict position = job.position[2];
    const std::int32_t* __restrict features = job.features + row * job.x;
    const std::int64_t centre_x = centre[2];
    for (std::int64_t x = x0; x < x1; ++x) {
        const std::int64_t dx = static_cast<std::int64_t>(position[x]) - centre_x;
        std::int64_t distance = base + dx * dx;
        for (int c = 0; c < channels; ++c) {
            const std::int64_t difference =
                static_cast<std::int64_t>(features[c * job.plane + x]) - static_cast<std::int64_t>(centre[3 + c]);
            distance += difference * difference;
        }
        // Strictly closer: of equally near centres the lowest index stays.
        const bool closer = distance < best[x];
        best[x] = closer ? distance : best[x];
        labels[x] = closer ? index : labels[x];
    }
}

template <int kChannels>
void assign_band(const AssignWideJob& job, std::int32_t* labels, std::int64_t* best) {
    for (std::int64_t i = job.first_row * job.x; i < job.last_row * job.x; ++i) best[i] = INT64_MAX;
    for (std::int64_t k = 0; k < job.count; ++k) {
        const CentreBox& box = job.boxes[k];
        const std::int32_t* centre = job.centres + k * (3 + job.channels);
        for (std::int64_t z = box.z0; z < box.z1; ++z) {
            const std::int64_t dz =
                static_cast<std::int64_t>(job.position[0][z]) - static_cast<std::int64_t>(centre[0]);
            const std::int64_t frame = z * job.y;
            std::int64_t y0 = job.first_row - frame;
            std::int64_t y1 = job.last_row - frame;
            y0 = y0 > box.y0 ? y0 : box.y0;
            y1 = y1 < box.y1 ? y1 : box.y1;
            for (std::int64_t y = y0; y < y1; ++y) {
                const std::int64_t dy =
                    static_cast<std::int64_t>(job.position[1][y]) - static_cast<std::int64_t>(centre[1]);
                const std::int64_t row = frame + y;
                compare_row<kChannels>(job, row, box.x0, box.x1, dz * dz + dy * dy, centre,
                                       static_cast<std::int32_t>(k), labels + row * job.x, best + row * job.x);
            }
        }
    }
}

void assign(const AssignWideJob& job, std::int32_t* labels, std::int64_t* best) {
    switch (job.channels) {
        case 1: return assign_band<1>(job, labels, best);
        case 2: return assign_band<2>(job, labels, best);
        case 3: return assign_band<3>(job, labels, best);
        case 4: return assign_band<4>(job, labels, best);
        default: return assign_band<0>(job, labels, best);
    }
}

}  // namespace

const AssignWide kAssignWide = assign;

}  // namespace midgrain::cpu::MIDGRAIN_ISA

// Compiled once per instruction set with MIDGRAIN_ISA naming the namespace. It calls no inline function from
// elsewhere: the linker could otherwise keep a wide-vector copy of one for the baseline code too.
#include "cpu/slic_assign.hpp"

namespace midgrain::cpu::MIDGRAIN_ISA {
namespace {

template <class Distance>
struct Limit;
template <>
struct Limit<std::int32_t> {
    static constexpr std::int32_t kHighest = INT32_MAX;
};
template <>
struct Limit<std::int64_t> {
    static constexpr std::int64_t kHighest = INT64_MAX;
};

// One centre against pixels [x0, x1) of one row; `base` holds the squared distance along z and y.
// kChannels == 0 takes the channel count from the job.
template <int kChannels, class Feature, class Distance>
void compare_row(const AssignJob<Feature>& job, std::int64_t row, std::int64_t x0, std::int64_t x1, Distance base,
                 const std::int32_t* centre, std::int32_t index, std::int32_t* __restrict labels,
                 Distance* __restrict best) {
    const int channels = kChannels > 0 ? kChannels : job.channels;
    const std::int32_t* __restrict position = job.position[2];
    const Feature* __restrict features = job.features + row * job.x;
    const Distance centre_x = centre[2];
    for (std::int64_t x = x0; x < x1; ++x) {
        const Distance dx = static_cast<Distance>(position[x]) - centre_x;
        Distance distance = base + dx * dx;
        for (int c = 0; c < channels; ++c) {
            const Distance difference =
                static_cast<Distance>(features[c * job.plane + x]) - static_cast<Distance>(centre[3 + c]);
            distance += difference * difference;
        }
        // Strictly closer: of equally near centres the lowest index stays.
        const bool closer = distance < best[x];
        best[x] = closer ? distance : best[x];
        labels[x] = closer ? index : labels[x];
    }
}

template <int kChannels, class Feature, class Distance>
void assign_band(const AssignJob<Feature>& job, std::int32_t* labels, Distance* best) {
    for (std::int64_t i = job.first_row * job.x; i < job.last_row * job.x; ++i) best[i] = Limit<Distance>::kHighest;
    for (std::int64_t k = 0; k < job.count; ++k) {
        const CentreBox& box = job.boxes[k];
        const std::int32_t* centre = job.centres + k * (3 + job.channels);
        for (std::int64_t z = box.z0; z < box.z1; ++z) {
            const Distance dz = static_cast<Distance>(job.position[0][z]) - static_cast<Distance>(centre[0]);
            const std::int64_t frame = z * job.y;
            std::int64_t y0 = job.first_row - frame;
            std::int64_t y1 = job.last_row - frame;
            y0 = y0 > box.y0 ? y0 : box.y0;
            y1 = y1 < box.y1 ? y1 : box.y1;
            for (std::int64_t y = y0; y < y1; ++y) {
                const Distance dy = static_cast<Distance>(job.position[1][y]) - static_cast<Distance>(centre[1]);
                const std::int64_t row = frame + y;
                compare_row<kChannels, Feature, Distance>(job, row, box.x0, box.x1, dz * dz + dy * dy, centre,
                                                          static_cast<std::int32_t>(k), labels + row * job.x,
                                                          best + row * job.x);
            }
        }
    }
}

template <class Feature, class Distance>
void assign(const AssignJob<Feature>& job, std::int32_t* labels, Distance* best) {
    switch (job.channels) {
        case 1: return assign_band<1>(job, labels, best);
        case 2: return assign_band<2>(job, labels, best);
        case 3: return assign_band<3>(job, labels, best);
        case 4: return assign_band<4>(job, labels, best);
        default: return assign_band<0>(job, labels, best);
    }
}

}  // namespace

const AssignVariant kAssign = {assign<std::int16_t, std::int32_t>, assign<std::int32_t, std::int64_t>};

}  // namespace midgrain::cpu::MIDGRAIN_ISA

// SLIC of one item whose features need more than int16 (core/slic.hpp: wide).
#pragma once

#include <cstdint>
#include <vector>

#include "core/slic.hpp"
#include "cpu/kernels.hpp"

namespace midgrain::cpu {

// Fills labels [z, y, x] with the indices of the centres. Features are finite.
void cluster_wide(const core::FeatureRef<float>& features, std::int64_t item, const core::SlicGeometry& geometry,
                  const std::vector<Range>& ranges, const SlicParameters& parameters, int threads,
                  std::int32_t* labels);

}  // namespace midgrain::cpu

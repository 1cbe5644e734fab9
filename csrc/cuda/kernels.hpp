// Entry points of the CUDA backend, for sources that the host's compiler compiles.
//
// Arrays are contiguous and lie on the device that is current; parameters lie on the host. Everything is put on the
// caller's stream: nothing is allocated and nothing waited for, so calls can be captured in CUDA graphs. Temporary
// memory comes from the caller: a `workspace` of the size that the function of the same name says, aligned to 256
// bytes, its contents of no importance. Sizes are checked by the bindings; a launch that fails throws cuda::Failure.
//
// Values that no kernel can take are found on the device. They are reported in `status`, int32, one per item (or
// group), 0 or a sum of ValueStatus; every kernel stays within its arrays whatever the values are.
#pragma once

#include <cstdint>

#include "core/array_ref.hpp"
#include "core/parameters.hpp"
#include "core/patches.hpp"
#include "core/pool.hpp"

struct CUstream_st;

namespace midgrain::cuda {

using Stream = CUstream_st*;

enum ValueStatus : std::int32_t {
    kNotFinite = 1,        // NaN or infinity
    kWeightsTooSmall = 2,  // a channel's range divided by its weight is above 2^25
    kLabelOutside = 4,     // a label is not in 0 .. regions - 1
};

// SLIC of every item (core/slic.hpp), then connectivity (core/connectivity.hpp). labels [items, z, y, x];
// counts [items]: superpixels, or centres when min_size == 0; status [items]. Labels of an item with a status are of no
// meaning.
std::int64_t slic_workspace_bytes(std::int64_t items, int channels, core::Dims dims,
                                  const core::SlicParameters& parameters);
void launch_slic(const core::FeatureRef<float>& features, const core::SlicParameters& parameters, std::int32_t* labels,
                 std::int32_t* counts, std::int32_t* status, void* workspace, Stream stream);

// SLIC of pictures (core::Pictures): CIELAB where there is colour, and the gradient rescaled to 0 .. 100 over its item.
// parameters.weights: colour, gradient; its ranges are not used. A flat gradient beside colour is left out.
std::int64_t slic_pictures_workspace_bytes(const core::Pictures& pictures, const core::SlicParameters& parameters);
void launch_slic_pictures(const core::Pictures& pictures, const core::SlicParameters& parameters, std::int32_t* labels,
                          std::int32_t* counts, std::int32_t* status, void* workspace, Stream stream);

// lab [items, 3, pixels] of the pictures' colours (core/color.hpp); status [items].
std::int64_t rgb_to_lab_workspace_bytes();
void launch_rgb_to_lab(const core::Pictures& pictures, float* lab, std::int32_t* status, void* workspace,
                       Stream stream);

// labels_in, labels_out [items, z, y, x] (may be the same memory); counts [items] (core/connectivity.hpp).
std::int64_t connectivity_workspace_bytes(std::int64_t items, core::Dims dims);
void launch_connectivity(const std::int32_t* labels_in, std::int64_t items, core::Dims dims, std::int64_t min_size,
                         std::int32_t* labels_out, std::int32_t* counts, void* workspace, Stream stream);

// values over pixels, out over regions (core/pool.hpp, core::PoolShape); status [groups] for labels, NaN and infinity.
template <class T>
std::int64_t pool_workspace_bytes(const core::PoolShape& shape, core::Reduce reduce);
template <class T>
void launch_pool(const T* values, const std::int32_t* labels, const core::PoolShape& shape, core::Reduce reduce, T* out,
                 std::int32_t* status, void* workspace, Stream stream);

// scores over regions, out over pixels; status [groups]. Pixels of a label outside get NaN.
template <class T>
void launch_paint(const T* scores, const std::int32_t* labels, const core::PoolShape& shape, T* out,
                  std::int32_t* status, Stream stream);

// images [items, channels, z, y, x]; patches [items, count, channels, patch z, y, x] (core/patches.hpp).
template <class T>
void launch_extract_patches(const core::FeatureRef<T>& images, const core::PatchGrid& grid, T* patches, Stream stream);

// The adjoint; images [items, channels, dims] are overwritten.
template <class T>
std::int64_t extract_patches_backward_workspace_bytes(std::int64_t items, int channels, core::Dims dims,
                                                      const core::PatchGrid& grid);
template <class T>
void launch_extract_patches_backward(const T* patches, std::int64_t items, int channels, core::Dims dims,
                                     const core::PatchGrid& grid, T* images, void* workspace, Stream stream);

// maps [items, patches of the grid, cells]; out [items, size]. A size other than cells + grid - 1 is interpolated to.
template <class T>
void launch_aggregate_patches(const T* maps, std::int64_t items, core::Dims cells, core::Dims grid, core::Dims size,
                              T* out, Stream stream);

}  // namespace midgrain::cuda

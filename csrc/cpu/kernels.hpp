// Entry points of the CPU backend. Arrays are contiguous; sizes and values are checked by the bindings and by the
// functions that say so. None of them needs the GIL.
#pragma once

#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>

#include "core/array_ref.hpp"
#include "core/overlay.hpp"
#include "core/parameters.hpp"
#include "core/patches.hpp"
#include "core/pool.hpp"
#include "core/slic.hpp"

namespace midgrain::cpu {

// A value that no kernel can take (NaN, infinity, a label out of range). The bindings turn it into ValueError.
struct InvalidValue : std::runtime_error {
    using std::runtime_error::runtime_error;
};

using core::Pictures;
using core::PoolShape;
using core::Range;
using core::SlicParameters;

// Makes what all calls share (tables, the choice of instructions, the store of memory), which they would otherwise make
// when they first need it: a process forked meanwhile would wait for ever for the thread that was about to.
void prepare();

// SLIC of every item (core/slic.hpp), then connectivity (core/connectivity.hpp).
// labels [items, z, y, x]; counts [items]: superpixels, or centres when min_size == 0.
// Throws InvalidValue for NaN or infinity and for weights too small for the ranges.
void slic(core::FeatureRef<float> features, const SlicParameters& parameters, int threads, std::int32_t* labels,
          std::int32_t* counts);

// SLIC of pictures: CIELAB where there is colour, and the gradient rescaled to 0 .. 100 over its item (Thesis 3.4).
// parameters.weights: colour, gradient; its ranges are not used. A flat gradient beside colour is left out. The rest is
// as for slic().
void slic_pictures(const Pictures& pictures, const SlicParameters& parameters, int threads, std::int32_t* labels,
                   std::int32_t* counts);

// Smallest and largest of n > 0 values; false: NaN or infinity among them.
bool find_range(const float* values, std::int64_t n, Range& range);

// labels_in, labels_out [items, z, y, x] (may be the same memory); counts [items].
void enforce_connectivity(const std::int32_t* labels_in, std::int64_t items, core::Dims dims, std::int64_t min_size,
                          int threads, std::int32_t* labels_out, std::int32_t* counts);

// lab: [items, 3, pixels] of the pictures' colours. Throws InvalidValue for NaN or infinity.
void rgb_to_lab(const Pictures& pictures, int threads, float* lab);

// values over pixels, out over regions. Throws InvalidValue for labels out of range and for NaN or infinity in values.
template <class T>
void pool(const T* values, const std::int32_t* labels, const PoolShape& shape, core::Reduce reduce, int threads,
          T* out);

// scores over regions, out over pixels. Throws InvalidValue for labels out of range.
template <class T>
void paint(const T* scores, const std::int32_t* labels, const PoolShape& shape, int threads, T* out);

// picture [height, width, 3], drawn on in place; heat and labels [rows, columns], labels may be null; table [steps, 3].
// Definition: core/overlay.hpp.
template <class T>
void draw_overlay(const core::Overlay& overlay, const T* heat, const std::int32_t* labels, const float* table,
                  std::uint8_t* picture);

// images [items, channels, z, y, x]; patches [items, count, channels, patch z, y, x]. Definition: core/patches.hpp.
template <class T>
void extract_patches(const core::FeatureRef<T>& images, const core::PatchGrid& grid, int threads, T* patches);

// The adjoint: adds every patch, weighted as it was interpolated, to the pixels that it came from. patches as above;
// images [items, channels, dims], overwritten. Works in the memory of one channel, enlarged along z and y.
template <class T>
void extract_patches_backward(const T* patches, std::int64_t items, int channels, core::Dims dims,
                              const core::PatchGrid& grid, int threads, T* images);

// maps [items, patches of the grid, cells]; out [items, size]. A size other than cells + grid - 1 is interpolated to.
template <class T>
void aggregate_patches(const T* maps, std::int64_t items, core::Dims cells, core::Dims grid, core::Dims size,
                       int threads, T* out);

// Multiply-adds (int16 x int16 to int32, from registers) per second of all threads together, measured for `seconds`:
// what the arithmetic of SLIC's assignment step is bounded by.
double multiply_adds_per_second(double seconds, int threads);

// Instruction sets that this build and this processor share, best first: of "avx512vnni", "avx512", "avx2" and
// "baseline".
std::span<const std::string> available_instruction_sets();
const std::string& instruction_set();
// Throws std::invalid_argument for a name that is not available.
void select_instruction_set(const std::string& name);

}  // namespace midgrain::cpu

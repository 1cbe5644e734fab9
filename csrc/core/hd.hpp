// Marks a function as callable on host and device. Everything in core/ uses it and the standard library's
// types only, so that one definition serves g++, nvcc and the CPU execution of the CUDA sources.
#pragma once

#if defined(__CUDACC__)
#define MIDGRAIN_HD __host__ __device__ inline
#define MIDGRAIN_HD_MEMBER __host__ __device__ inline
#elif defined(MIDGRAIN_ISA)
// Code compiled for one of several instruction sets: no copy of a function may be left for the linker to choose as
// the one that all share.
#define MIDGRAIN_HD static inline
#define MIDGRAIN_HD_MEMBER [[gnu::always_inline]] inline
#else
#define MIDGRAIN_HD inline
#define MIDGRAIN_HD_MEMBER inline
#endif

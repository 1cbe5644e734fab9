// Marks a function as callable on host and device. Everything in core/ uses it and the standard library's
// types only, so that one definition serves g++, nvcc and the CPU execution of the CUDA sources.
#pragma once

#if defined(__CUDACC__)
#define MIDGRAIN_HD __host__ __device__ inline
#else
#define MIDGRAIN_HD inline
#endif

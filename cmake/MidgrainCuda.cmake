# Whether the CUDA kernels are built (MIDGRAIN_BUILD_CUDA), and what they are built with.

# From sources: what drivers compile for their device when it is used first, since compiling for all takes minutes.
# Releases: machine code for every architecture from Turing to Hopper (CMakePresets.json). Developers name one.
set(MIDGRAIN_CUDA_ARCHITECTURES "75-virtual" CACHE STRING "CUDA architectures, as CMAKE_CUDA_ARCHITECTURES has them")
set(CMAKE_CUDA_ARCHITECTURES "${MIDGRAIN_CUDA_ARCHITECTURES}")

set(MIDGRAIN_BUILD_CUDA OFF)
if(NOT MIDGRAIN_CUDA STREQUAL "OFF")
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    find_package(CUDAToolkit REQUIRED)
    if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.0)
      set(MIDGRAIN_BUILD_CUDA ON)
    else()
      set(MIDGRAIN_WHY_NO_CUDA "nvcc is older than 12.0 (${CMAKE_CUDA_COMPILER_VERSION})")
    endif()
  else()
    set(MIDGRAIN_WHY_NO_CUDA "no nvcc was found")
  endif()
  if(MIDGRAIN_CUDA STREQUAL "ON" AND NOT MIDGRAIN_BUILD_CUDA)
    message(FATAL_ERROR "MIDGRAIN_CUDA=ON: ${MIDGRAIN_WHY_NO_CUDA}")
  endif()
else()
  set(MIDGRAIN_WHY_NO_CUDA "MIDGRAIN_CUDA=OFF")
endif()

if(MIDGRAIN_BUILD_CUDA)
  message(STATUS "midgrain: CUDA kernels for ${MIDGRAIN_CUDA_ARCHITECTURES} with nvcc ${CMAKE_CUDA_COMPILER_VERSION}")
else()
  message(STATUS "midgrain: no CUDA kernels: ${MIDGRAIN_WHY_NO_CUDA}")
endif()

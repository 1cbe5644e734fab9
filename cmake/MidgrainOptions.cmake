# Build options, and the compiler settings that every target shares (midgrain_options).

set(MIDGRAIN_CUDA "AUTO" CACHE STRING "Build the CUDA kernels: AUTO (where nvcc is found), ON or OFF")
set_property(CACHE MIDGRAIN_CUDA PROPERTY STRINGS AUTO ON OFF)
option(MIDGRAIN_WERROR "Treat compiler warnings as errors" OFF)
set(MIDGRAIN_SANITIZE "" CACHE STRING "Sanitizers to build with: address,undefined or thread; empty for none")

option(MIDGRAIN_FUZZ "Add the target midgrain_fuzz, a fuzzer of the kernels; needs clang" OFF)

if(NOT MIDGRAIN_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "MIDGRAIN_CUDA: expected AUTO, ON or OFF, got '${MIDGRAIN_CUDA}'")
endif()

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release)
endif()
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)

add_library(midgrain_options INTERFACE)
target_compile_features(midgrain_options INTERFACE cxx_std_20)
target_include_directories(midgrain_options INTERFACE "${PROJECT_SOURCE_DIR}/csrc")
# No contraction to fused multiply-add: floats must come out the same on every machine and device.
target_compile_options(midgrain_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off;-Wall;-Wextra;-Wshadow>
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CONFIG:Release>>:-O3>
  $<$<COMPILE_LANGUAGE:CUDA>:-fmad=false;-Xcompiler=-ffp-contract=off,-Wall,-Wextra>)
if(MIDGRAIN_WERROR)
  target_compile_options(midgrain_options INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-Werror>
    $<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings;-Xcompiler=-Werror>)
endif()

# For tests/run_sanitized.py. The first error ends the process, so that no test can pass over it. float-cast-overflow is
# undefined behaviour that -fsanitize=undefined leaves out.
if(MIDGRAIN_SANITIZE)
  set(MIDGRAIN_SANITIZERS "${MIDGRAIN_SANITIZE}")
  if(MIDGRAIN_SANITIZE MATCHES "undefined")
    string(APPEND MIDGRAIN_SANITIZERS ",float-cast-overflow")
  endif()
  target_compile_options(midgrain_options INTERFACE -fsanitize=${MIDGRAIN_SANITIZERS} -fno-sanitize-recover=all
    -fno-omit-frame-pointer -g)
  target_link_options(midgrain_options INTERFACE -fsanitize=${MIDGRAIN_SANITIZERS})
endif()

# For tests/run_fuzzer.py.
if(MIDGRAIN_FUZZ)
  target_compile_options(midgrain_options INTERFACE -fsanitize=fuzzer-no-link)
endif()

# Instruction sets that the innermost loops are built for (csrc/cpu/instruction_set.cpp chooses at run time).
set(MIDGRAIN_VARIANTS baseline)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  list(APPEND MIDGRAIN_VARIANTS avx2 avx512 avx512vnni)
  set(MIDGRAIN_FLAGS_avx2 -mavx2 -mbmi -mpopcnt)
  set(MIDGRAIN_FLAGS_avx512 ${MIDGRAIN_FLAGS_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mprefer-vector-width=512)
  set(MIDGRAIN_FLAGS_avx512vnni ${MIDGRAIN_FLAGS_avx512} -mavx512vnni)
  target_compile_definitions(midgrain_options INTERFACE MIDGRAIN_HAS_X86_VARIANTS)
endif()

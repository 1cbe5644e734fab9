// Executes CUDA sources on the CPU, for tests alone: grids, blocks, shared memory, barriers, atomics and warp
// intrinsics, with one thread of the system.
//
// Every CUDA thread that has to wait is parked in a fibre of its own; those that never wait run one after the other in
// the same one. Which thread goes on is drawn from a seeded generator, several blocks are under way at a time, and an
// atomic operation is now and then a place where another thread takes over, so that results that depend on an order
// differ from seed to seed. Shared arrays begin with random bytes and are separate allocations of exactly their size,
// for the address sanitizer to see what lies beyond them.
//
// What a GPU would leave undefined is an error here (std::runtime_error from the launch): a barrier that some threads
// of a block reach and others do not, or at two places; a warp operation without all the lanes of its mask; reading a
// lane that takes no part; an empty or too large grid or block; too much shared memory.
//
// What it cannot show: two threads inside a sequence without atomics or barriers at the same moment, and the memory
// model of a device.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <type_traits>

#include "machine.hpp"
#include "runtime.hpp"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static_assert(false, "use MIDGRAIN_SHARED")

namespace cuda_on_cpu {

template <class T>
std::uint64_t to_bits(T value) {
    static_assert(sizeof(T) <= sizeof(std::uint64_t) && std::is_trivially_copyable_v<T>);
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    return bits;
}

template <class T>
T from_bits(std::uint64_t bits) {
    T value;
    std::memcpy(&value, &bits, sizeof(T));
    return value;
}

template <class T>
T shuffle(unsigned mask, T value, unsigned source, const std::source_location& where) {
    const std::uint64_t* received = Machine::instance().exchange(mask, to_bits(value), where);
    if (((mask >> source) & 1u) == 0) {
        Machine::instance().fail("a lane reads one that takes no part at " + text(where));
    }
    return from_bits<T>(received[source]);
}

inline unsigned lane() { return Machine::instance().current().number % kLanes; }

// An atomic operation: old -> of(old).
template <class T, class Of>
T update(T* address, Of&& of) {
    Machine::instance().maybe_yield();
    const T old = *address;
    *address = of(old);
    return old;
}

}  // namespace cuda_on_cpu

using Where = std::source_location;

inline void __syncthreads(Where where = Where::current()) { cuda_on_cpu::Machine::instance().barrier(0, where); }
inline int __syncthreads_count(int value, Where where = Where::current()) {
    return static_cast<int>(cuda_on_cpu::Machine::instance().barrier(value != 0, where));
}
inline int __syncthreads_or(int value, Where where = Where::current()) {
    return cuda_on_cpu::Machine::instance().barrier(value != 0, where) != 0;
}
inline void __threadfence() { cuda_on_cpu::Machine::instance().maybe_yield(); }

inline void __syncwarp(unsigned mask = 0xFFFFFFFFu, Where where = Where::current()) {
    cuda_on_cpu::Machine::instance().exchange(mask, 0, where);
}
inline unsigned __ballot_sync(unsigned mask, int value, Where where = Where::current()) {
    const std::uint64_t* received = cuda_on_cpu::Machine::instance().exchange(mask, value != 0, where);
    unsigned ballot = 0;
    for (unsigned i = 0; i < cuda_on_cpu::kLanes; ++i) {
        if (((mask >> i) & 1u) != 0 && received[i] != 0) ballot |= 1u << i;
    }
    return ballot;
}
inline int __any_sync(unsigned mask, int value, Where where = Where::current()) {
    return __ballot_sync(mask, value, where) != 0;
}
inline int __all_sync(unsigned mask, int value, Where where = Where::current()) {
    return __ballot_sync(mask, value, where) == mask;
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source, Where where = Where::current()) {
    return cuda_on_cpu::shuffle(mask, value, static_cast<unsigned>(source) % cuda_on_cpu::kLanes, where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, Where where = Where::current()) {
    const unsigned lane = cuda_on_cpu::lane();
    return cuda_on_cpu::shuffle(mask, value, lane >= by ? lane - by : lane, where);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, Where where = Where::current()) {
    const unsigned lane = cuda_on_cpu::lane();
    return cuda_on_cpu::shuffle(mask, value, lane + by < cuda_on_cpu::kLanes ? lane + by : lane, where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int with, Where where = Where::current()) {
    return cuda_on_cpu::shuffle(mask, value, cuda_on_cpu::lane() ^ static_cast<unsigned>(with), where);
}

// The types that the device has these for, and no others.
#define MIDGRAIN_ATOMIC(name, T, expression)                                        \
    inline T name(T* address, T value) {                                            \
        return cuda_on_cpu::update(address, [value](T old) { return expression; }); \
    }
MIDGRAIN_ATOMIC(atomicAdd, int, static_cast<int>(static_cast<unsigned>(old) + static_cast<unsigned>(value)))
MIDGRAIN_ATOMIC(atomicAdd, unsigned, old + value)
MIDGRAIN_ATOMIC(atomicAdd, unsigned long long, old + value)
MIDGRAIN_ATOMIC(atomicSub, int, static_cast<int>(static_cast<unsigned>(old) - static_cast<unsigned>(value)))
MIDGRAIN_ATOMIC(atomicSub, unsigned, old - value)
MIDGRAIN_ATOMIC(atomicMin, int, std::min(old, value))
MIDGRAIN_ATOMIC(atomicMin, unsigned, std::min(old, value))
MIDGRAIN_ATOMIC(atomicMin, long long, std::min(old, value))
MIDGRAIN_ATOMIC(atomicMin, unsigned long long, std::min(old, value))
MIDGRAIN_ATOMIC(atomicMax, int, std::max(old, value))
MIDGRAIN_ATOMIC(atomicMax, unsigned, std::max(old, value))
MIDGRAIN_ATOMIC(atomicMax, long long, std::max(old, value))
MIDGRAIN_ATOMIC(atomicMax, unsigned long long, std::max(old, value))
MIDGRAIN_ATOMIC(atomicOr, int, old | value)
MIDGRAIN_ATOMIC(atomicOr, unsigned, old | value)
MIDGRAIN_ATOMIC(atomicAnd, unsigned, old& value)
MIDGRAIN_ATOMIC(atomicExch, int, (static_cast<void>(old), value))
MIDGRAIN_ATOMIC(atomicExch, unsigned, (static_cast<void>(old), value))
MIDGRAIN_ATOMIC(atomicExch, unsigned long long, (static_cast<void>(old), value))
#undef MIDGRAIN_ATOMIC

#define MIDGRAIN_ATOMIC_CAS(T)                                                                     \
    inline T atomicCAS(T* address, T expected, T value) {                                          \
        return cuda_on_cpu::update(address, [=](T old) { return old == expected ? value : old; }); \
    }
MIDGRAIN_ATOMIC_CAS(int)
MIDGRAIN_ATOMIC_CAS(unsigned)
MIDGRAIN_ATOMIC_CAS(unsigned long long)
#undef MIDGRAIN_ATOMIC_CAS

inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __clz(int value) { return value == 0 ? 32 : __builtin_clz(static_cast<unsigned>(value)); }
inline int __ffs(int value) { return __builtin_ffs(value); }

// As much of the CUDA runtime as the sources use; everything happens at once. There are two devices, whose memory is
// the host's; `devices` says what the runtime answers, for tests to change.
#pragma once

#include <cstddef>
#include <cstring>

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100,
    cudaErrorNoKernelImageForDevice = 209,
    cudaErrorUnsupportedPtxVersion = 222,
    cudaErrorUnknown = 999
};
enum cudaMemoryType { cudaMemoryTypeUnregistered, cudaMemoryTypeHost, cudaMemoryTypeDevice, cudaMemoryTypeManaged };
using cudaStream_t = struct CUstream_st*;
struct cudaDeviceProp {
    char name[32];
    int major, minor;
};
struct cudaPointerAttributes {
    cudaMemoryType type;
    int device;
};

namespace cuda_on_cpu {

struct Devices {
    int count = 2, current = 0, driver = 13000, major = 9;
    cudaError_t status = cudaSuccess;    // of looking for devices
    int of_pointers = 0;                 // -1: they are the host's
    cudaError_t launches = cudaSuccess;  // what every launch ends with
    int of_last_launch = -1;
    cudaStream_t stream_of_last_launch = nullptr;
};
inline Devices devices;

}  // namespace cuda_on_cpu

inline const char* cudaGetErrorString(cudaError_t) { return "an error made for a test"; }
inline cudaError_t cudaGetLastError() { return cuda_on_cpu::devices.launches; }
inline cudaError_t cudaMemsetAsync(void* data, int value, std::size_t bytes, cudaStream_t) {
    if (bytes > 0) std::memset(data, value, bytes);
    return cudaSuccess;
}
inline cudaError_t cudaDriverGetVersion(int* version) {
    *version = cuda_on_cpu::devices.driver;
    return cudaSuccess;
}
inline cudaError_t cudaRuntimeGetVersion(int* version) {
    *version = 13000;
    return cudaSuccess;
}
inline cudaError_t cudaGetDeviceCount(int* count) {
    *count = cuda_on_cpu::devices.count;
    return cuda_on_cpu::devices.status;
}
inline cudaError_t cudaGetDevice(int* device) {
    *device = cuda_on_cpu::devices.current;
    return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int device) {
    if (device < 0 || device >= cuda_on_cpu::devices.count) return cudaErrorUnknown;
    cuda_on_cpu::devices.current = device;
    return cudaSuccess;
}
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
    *properties = {"made for a test", cuda_on_cpu::devices.major, 0};
    return cudaSuccess;
}
inline cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void*) {
    const int device = cuda_on_cpu::devices.of_pointers;
    *attributes = {device < 0 ? cudaMemoryTypeUnregistered : cudaMemoryTypeDevice, device};
    return cudaSuccess;
}

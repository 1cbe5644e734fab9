#include "cuda/device.hpp"
#include "cuda/launch.cuh"

namespace midgrain::cuda {
namespace {

// The oldest compute capability that the kernels are made for.
constexpr int kOldestMajor = 7, kOldestMinor = 5;

std::string version_text(int version) {
    return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

bool is_new_enough(int major, int minor) {
    return major > kOldestMajor || (major == kOldestMajor && minor >= kOldestMinor);
}

}  // namespace

int driver_version() {
    int version = 0;
    return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

int runtime_version() {
    int version = 0;
    check(cudaRuntimeGetVersion(&version), "reading the runtime's version");
    return version;
}

std::optional<std::string> find_problem() {
    if (driver_version() == 0) return "no NVIDIA driver is installed";
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess) cudaGetLastError();  // so that no later call reports it
    if (status == cudaErrorInsufficientDriver) {
        return "the NVIDIA driver is too old: it is made for CUDA " + version_text(driver_version()) +
               ", and this build for CUDA " + version_text(runtime_version());
    }
    if (status == cudaErrorNoDevice || (status == cudaSuccess && count == 0)) return "there is no CUDA device";
    if (status != cudaSuccess) return std::string("CUDA cannot be used: ") + cudaGetErrorString(status);
    for (const DeviceInfo& device : list_devices()) {
        if (is_new_enough(device.major, device.minor)) return std::nullopt;
    }
    return "no CUDA device has the compute capability 7.5 or more";
}

std::vector<DeviceInfo> list_devices() {
    int count = 0;
    std::vector<DeviceInfo> devices;
    if (cudaGetDeviceCount(&count) != cudaSuccess) {
        cudaGetLastError();
        return devices;
    }
    for (int i = 0; i < count; ++i) {
        cudaDeviceProp properties{};
        check(cudaGetDeviceProperties(&properties, i), "reading a device's properties");
        devices.push_back({properties.name, properties.major, properties.minor});
    }
    return devices;
}

int device_of_memory(const void* address) {
    cudaPointerAttributes attributes{};
    check(cudaPointerGetAttributes(&attributes, address), "finding an array's device");
    if (attributes.type != cudaMemoryTypeDevice && attributes.type != cudaMemoryTypeManaged) {
        throw Failure("an array said to be on a CUDA device lies in memory of the host");
    }
    return attributes.device;
}

DeviceGuard::DeviceGuard(int device) {
    check(cudaGetDevice(&before_), "finding the current device");
    if (device == before_) return;
    check(cudaSetDevice(device), "choosing a device");
    changed_ = true;
}

DeviceGuard::~DeviceGuard() {
    if (changed_) static_cast<void>(cudaSetDevice(before_));
}

}  // namespace midgrain::cuda

// CUDA devices as the bindings see them; no header of CUDA is needed to include this one.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace midgrain::cuda {

// Why no kernel can run here: no driver, one that is too old, no device. Nothing: at least one device is usable.
std::optional<std::string> find_problem();

struct DeviceInfo {
    std::string name;
    int major, minor;  // compute capability
};

// Devices in their order; none where there is a problem.
std::vector<DeviceInfo> list_devices();

// As 1000 * major + 10 * minor; 0 where there is no driver.
int driver_version();
int runtime_version();

// The device that memory lies on. Throws Failure if it is no memory of a device.
int device_of_memory(const void* address);

// Makes a device current and the one before again at its end.
class DeviceGuard {
public:
    explicit DeviceGuard(int device);
    ~DeviceGuard();
    DeviceGuard(const DeviceGuard&) = delete;
    DeviceGuard& operator=(const DeviceGuard&) = delete;

private:
    int before_ = 0;
    bool changed_ = false;
};

}  // namespace midgrain::cuda

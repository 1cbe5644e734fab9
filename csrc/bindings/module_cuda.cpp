// midgrain._kernels._cuda: checks what the kernels rely on, releases the GIL, launches on the caller's stream.
// Allocates nothing and waits for nothing. What the kernels find wrong with values they write into `status`.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <initializer_list>
#include <optional>
#include <string>
#include <type_traits>

#include "bindings/arguments.hpp"
#include "core/slic.hpp"
#include "cuda/device.hpp"
#include "cuda/failure.hpp"
#include "cuda/kernels.hpp"

namespace midgrain::bindings {
namespace py = pybind11;
namespace {

using Element = ElementType;
using cuda::Stream;
constexpr Place kCuda = Place::kCuda;
constexpr std::uintptr_t kWorkspaceAlignment = 256;

int device_of(const ArrayView& array) {
    return array.device() >= 0 ? array.device() : cuda::device_of_memory(array.address());
}

// The one device that all arrays lie on; throws BufferError where there are two.
int common_device(std::initializer_list<const ArrayView*> arrays) {
    int device = -1;
    const ArrayView* first = nullptr;
    for (const ArrayView* array : arrays) {
        if (array == nullptr || array->size() == 0) continue;  // no memory, so no device
        const int own = device_of(*array);
        if (first == nullptr) {
            first = array;
            device = own;
        } else if (own != device) {
            throw py::buffer_error(array->name() + ": expected an array on CUDA device " + std::to_string(device) +
                                   ", as " + first->name() + " is, got one on device " + std::to_string(own));
        }
    }
    return device < 0 ? 0 : device;
}

Stream stream_of(std::uintptr_t stream) { return reinterpret_cast<Stream>(stream); }

// Temporary memory of the caller, large enough and aligned.
class WorkspaceArray {
public:
    WorkspaceArray(py::handle workspace, std::int64_t needed)
        : array_(workspace, "workspace", 1, {Element::kUInt8}, true, kCuda) {
        if (array_.size() < needed) {
            throw py::value_error("workspace: expected " + std::to_string(needed) + " bytes or more, got " +
                                  std::to_string(array_.size()));
        }
        if (reinterpret_cast<std::uintptr_t>(array_.address()) % kWorkspaceAlignment != 0) {
            throw py::buffer_error("workspace: expected memory aligned to 256 bytes");
        }
    }

    void* get() const { return array_.data<std::uint8_t>(); }
    const ArrayView& array() const { return array_; }

private:
    ArrayView array_;
};

ArrayView status_of(py::handle status, std::int64_t n) {
    ArrayView array(status, "status", 1, {Element::kInt32}, true, kCuda);
    array.require_shape({n});
    return array;
}

void slic(py::handle features_in, const std::vector<double>& weights, const RangePairs& ranges, std::int64_t n_segments,
          std::int64_t max_num_iter, const std::array<double, 3>& spacing, std::int64_t min_size, py::handle labels,
          py::handle counts, py::handle status_in, py::handle workspace_in, std::uintptr_t stream) {
    const ArrayView features(features_in, "features", 5, {Element::kFloat32}, false, kCuda);
    const std::int64_t items = features.shape(0), channels = features.shape(1);
    const core::Dims dims = item_dims(features, 2);
    check_channels(channels, weights.size());
    const std::vector<core::Range> limits = channel_ranges(ranges, channels);
    const core::SlicParameters parameters =
        slic_parameters(weights, limits, n_segments, max_num_iter, spacing, min_size, dims);
    const SlicOutputs out(labels, counts, items, dims, kCuda);
    const ArrayView status = status_of(status_in, items);
    const auto c = static_cast<int>(channels);
    const WorkspaceArray workspace(workspace_in, cuda::slic_workspace_bytes(items, c, dims, parameters));
    const int device =
        common_device({&features, &out.labels_array(), &out.counts_array(), &status, &workspace.array()});
    const py::gil_scoped_release release;
    const cuda::DeviceGuard guard(device);
    cuda::launch_slic({features.data<float>(), items, c, dims}, parameters, out.labels(), out.counts(),
                      status.data<std::int32_t>(), workspace.get(), stream_of(stream));
}

std::int64_t slic_workspace_bytes(std::int64_t items, std::int64_t channels, const Triple& shape,
                                  std::int64_t n_segments, const std::array<double, 3>& spacing, std::int64_t min_size,
                                  bool has_ranges) {
    const core::Dims dims = to_item_dims(shape, "features");
    const std::vector<double> weights(static_cast<std::size_t>(channels > 0 ? channels : 0), 1.0);
    check_channels(channels, weights.size());
    const std::vector<core::Range> ranges(has_ranges ? weights.size() : 0);
    return cuda::slic_workspace_bytes(items, static_cast<int>(channels), dims,
                                      slic_parameters(weights, ranges, n_segments, 1, spacing, min_size, dims));
}

void slic_pictures(const std::optional<py::object>& images, bool channels_last, const std::array<double, 3>& scale,
                   const std::array<double, 3>& offset, const std::optional<py::object>& gradient,
                   const std::array<double, 2>& weights, std::int64_t n_segments, std::int64_t max_num_iter,
                   const std::array<double, 3>& spacing, std::int64_t min_size, py::handle labels, py::handle counts,
                   py::handle status_in, py::handle workspace_in, std::uintptr_t stream) {
    const PictureArguments in(images, channels_last, scale, offset, gradient, kCuda);
    const core::Pictures& pictures = in.pictures;
    const core::SlicParameters parameters =
        slic_parameters(weights, {}, n_segments, max_num_iter, spacing, min_size, pictures.dims);
    const SlicOutputs out(labels, counts, pictures.items, pictures.dims, kCuda);
    const ArrayView status = status_of(status_in, pictures.items);
    const WorkspaceArray workspace(workspace_in, cuda::slic_pictures_workspace_bytes(pictures, parameters));
    const int device = common_device({in.rgb ? &*in.rgb : nullptr, in.gradient ? &*in.gradient : nullptr,
                                      &out.labels_array(), &out.counts_array(), &status, &workspace.array()});
    const py::gil_scoped_release release;
    const cuda::DeviceGuard guard(device);
    cuda::launch_slic_pictures(pictures, parameters, out.labels(), out.counts(), status.data<std::int32_t>(),
                               workspace.get(), stream_of(stream));
}

std::int64_t slic_pictures_workspace_bytes(std::int64_t items, const Triple& shape, bool has_images, bool has_gradient,
                                           std::int64_t n_segments, const std::array<double, 3>& spacing,
                                           std::int64_t min_size) {
    // Only whether there is an address matters here.
    static constexpr std::uint8_t kByte = 0;
    static constexpr float kFloat = 0.0f;
    core::Pictures pictures{};
    pictures.bytes = has_images ? &kByte : nullptr;
    pictures.gradient = has_gradient ? &kFloat : nullptr;
    pictures.items = items;
    pictures.dims = to_item_dims(shape, "images");
    const std::array<double, 2> weights{1.0, 1.0};
    return cuda::slic_pictures_workspace_bytes(
        pictures, slic_parameters(weights, {}, n_segments, 1, spacing, min_size, pictures.dims));
}

void rgb_to_lab(py::handle rgb, py::handle lab, bool channels_last, py::handle status_in, py::handle workspace_in,
                std::uintptr_t stream) {
    const LabArguments in(rgb, lab, channels_last, kCuda);
    const ArrayView status = status_of(status_in, in.pictures.items);
    const WorkspaceArray workspace(workspace_in, cuda::rgb_to_lab_workspace_bytes());
    const int device = common_device({&in.rgb, &in.lab, &status, &workspace.array()});
    const py::gil_scoped_release release;
    const cuda::DeviceGuard guard(device);
    cuda::launch_rgb_to_lab(in.pictures, in.lab.data<float>(), status.data<std::int32_t>(), workspace.get(),
                            stream_of(stream));
}

void enforce_connectivity(py::handle labels, std::int64_t min_size, py::handle out, py::handle counts,
                          py::handle workspace_in, std::uintptr_t stream) {
    const ConnectivityArguments in(labels, min_size, out, counts, kCuda);
    const std::int64_t items = in.labels.shape(0);
    const WorkspaceArray workspace(workspace_in, cuda::connectivity_workspace_bytes(items, in.dims));
    const int device = common_device({&in.labels, &in.out, &in.counts, &workspace.array()});
    const py::gil_scoped_release release;
    const cuda::DeviceGuard guard(device);
    cuda::launch_connectivity(in.labels.data<std::int32_t>(), items, in.dims, min_size, in.out.data<std::int32_t>(),
                              in.counts.data<std::int32_t>(), workspace.get(), stream_of(stream));
}

std::int64_t enforce_connectivity_workspace_bytes(std::int64_t items, const Triple& shape) {
    return cuda::connectivity_workspace_bytes(items, to_item_dims(shape, "labels"));
}

void pool(py::handle values, py::handle labels, const std::string& reduce, py::handle out, bool channels_last,
          py::handle status_in, py::handle workspace_in, std::uintptr_t stream) {
    const PoolArguments in(values, "values", labels, out, true, channels_last, kCuda);
    const core::Reduce reduction = find_reduction(reduce);
    const ArrayView status = status_of(status_in, in.shape.groups);
    in.in.visit_floats([&](auto* data) {
        using T = std::remove_pointer_t<decltype(data)>;
        const WorkspaceArray workspace(workspace_in, cuda::pool_workspace_bytes<T>(in.shape, reduction));
        const int device = common_device({&in.in, &in.labels, &in.out, &status, &workspace.array()});
        const py::gil_scoped_release release;
        const cuda::DeviceGuard guard(device);
        cuda::launch_pool<T>(data, in.labels.data<std::int32_t>(), in.shape, reduction, in.out.data<T>(),
                             status.data<std::int32_t>(), workspace.get(), stream_of(stream));
    });
}

std::int64_t pool_workspace_bytes(std::int64_t groups, std::int64_t items, std::int64_t channels, std::int64_t pixels,
                                  std::int64_t n, const std::string& reduce) {
    // Sums are as wide for either kind of float.
    return cuda::pool_workspace_bytes<float>({groups, items, channels, pixels, n, false}, find_reduction(reduce));
}

void paint(py::handle scores, py::handle labels, py::handle out, bool channels_last, py::handle status_in,
           std::uintptr_t stream) {
    const PoolArguments in(scores, "scores", labels, out, false, channels_last, kCuda);
    const ArrayView status = status_of(status_in, in.shape.groups);
    const int device = common_device({&in.in, &in.labels, &in.out, &status});
    const py::gil_scoped_release release;
    const cuda::DeviceGuard guard(device);
    in.in.visit_floats([&](auto* data) {
        using T = std::remove_pointer_t<decltype(data)>;
        cuda::launch_paint<T>(data, in.labels.data<std::int32_t>(), in.shape, in.out.data<T>(),
                              status.data<std::int32_t>(), stream_of(stream));
    });
}

void extract_patches(py::handle images, const Triple& cells, const Triple& grid, const Triple& size, std::int64_t start,
                     py::handle out, std::uintptr_t stream) {
    const PatchArguments in(images, out, cells, grid, size, start, true, kCuda);
    const int device = common_device({&in.images, &in.patches});
    const py::gil_scoped_release release;
    const cuda::DeviceGuard guard(device);
    in.images.visit_floats([&](auto* data) {
        using T = std::remove_pointer_t<decltype(data)>;
        cuda::launch_extract_patches<T>({data, in.items, in.channels, in.dims}, in.grid, in.patches.data<T>(),
                                        stream_of(stream));
    });
}

void extract_patches_backward(py::handle patches, const Triple& cells, const Triple& grid, const Triple& size,
                              std::int64_t start, py::handle out, py::handle workspace_in, std::uintptr_t stream) {
    const PatchArguments in(out, patches, cells, grid, size, start, false, kCuda);
    in.patches.visit_floats([&](auto* data) {
        using T = std::remove_pointer_t<decltype(data)>;
        const WorkspaceArray workspace(
            workspace_in, cuda::extract_patches_backward_workspace_bytes<T>(in.items, in.channels, in.dims, in.grid));
        const int device = common_device({&in.patches, &in.images, &workspace.array()});
        const py::gil_scoped_release release;
        const cuda::DeviceGuard guard(device);
        cuda::launch_extract_patches_backward<T>(data, in.items, in.channels, in.dims, in.grid, in.images.data<T>(),
                                                 workspace.get(), stream_of(stream));
    });
}

// For patches of 8-byte floats; those of 4 bytes need half of it.
std::int64_t extract_patches_backward_workspace_bytes(std::int64_t items, std::int64_t channels, const Triple& images,
                                                      const Triple& patch, const Triple& cells, const Triple& grid) {
    const core::Dims dims = to_item_dims(images, "images");
    const core::PatchGrid all{
        {patch[0], patch[1], patch[2]}, {cells[0], cells[1], cells[2]}, {grid[0], grid[1], grid[2]}, {1, 1, 1}, 0, 1};
    return cuda::extract_patches_backward_workspace_bytes<double>(items, static_cast<int>(channels), dims, all);
}

void aggregate_patches(py::handle maps, const Triple& grid, py::handle out, std::uintptr_t stream) {
    const AggregateArguments in(maps, grid, out, kCuda);
    const int device = common_device({&in.maps, &in.out});
    const py::gil_scoped_release release;
    const cuda::DeviceGuard guard(device);
    in.maps.visit_floats([&](auto* data) {
        using T = std::remove_pointer_t<decltype(data)>;
        cuda::launch_aggregate_patches<T>(data, in.items, in.cells, in.grid, in.size, in.out.data<T>(),
                                          stream_of(stream));
    });
}

py::list devices() {
    py::list result;
    for (const cuda::DeviceInfo& device : cuda::list_devices()) {
        result.append(py::make_tuple(device.name, device.major, device.minor));
    }
    return result;
}

}  // namespace

PYBIND11_MODULE(_cuda, module, py::mod_gil_not_used()) {
    module.doc() = "CUDA kernels: arrays on a device in and out, on the caller's stream.";
    py::register_exception_translator([](std::exception_ptr pointer) {
        try {
            if (pointer) std::rethrow_exception(pointer);
        } catch (const cuda::Failure& error) {
            PyErr_SetString(py::module_::import("midgrain.errors").attr("CudaError").ptr(), error.what());
        }
    });
    module.def("slic", &slic, py::arg("features"), py::arg("weights"), py::arg("ranges"), py::arg("n_segments"),
               py::arg("max_num_iter"), py::arg("spacing"), py::arg("min_size"), py::arg("labels"), py::arg("counts"),
               py::arg("status"), py::arg("workspace"), py::arg("stream"));
    module.def("slic_workspace_bytes", &slic_workspace_bytes, py::arg("items"), py::arg("channels"), py::arg("shape"),
               py::arg("n_segments"), py::arg("spacing"), py::arg("min_size"), py::arg("has_ranges"));
    module.def("slic_pictures", &slic_pictures, py::arg("images"), py::arg("channels_last"), py::arg("scale"),
               py::arg("offset"), py::arg("gradient"), py::arg("weights"), py::arg("n_segments"),
               py::arg("max_num_iter"), py::arg("spacing"), py::arg("min_size"), py::arg("labels"), py::arg("counts"),
               py::arg("status"), py::arg("workspace"), py::arg("stream"));
    module.def("slic_pictures_workspace_bytes", &slic_pictures_workspace_bytes, py::arg("items"), py::arg("shape"),
               py::arg("has_images"), py::arg("has_gradient"), py::arg("n_segments"), py::arg("spacing"),
               py::arg("min_size"));
    module.def("rgb_to_lab", &rgb_to_lab, py::arg("rgb"), py::arg("lab"), py::arg("channels_last"), py::arg("status"),
               py::arg("workspace"), py::arg("stream"));
    module.def("rgb_to_lab_workspace_bytes", &cuda::rgb_to_lab_workspace_bytes);
    module.def("enforce_connectivity", &enforce_connectivity, py::arg("labels"), py::arg("min_size"), py::arg("out"),
               py::arg("counts"), py::arg("workspace"), py::arg("stream"));
    module.def("enforce_connectivity_workspace_bytes", &enforce_connectivity_workspace_bytes, py::arg("items"),
               py::arg("shape"));
    module.def("pool", &pool, py::arg("values"), py::arg("labels"), py::arg("reduce"), py::arg("out"),
               py::arg("channels_last"), py::arg("status"), py::arg("workspace"), py::arg("stream"));
    module.def("pool_workspace_bytes", &pool_workspace_bytes, py::arg("groups"), py::arg("items"), py::arg("channels"),
               py::arg("pixels"), py::arg("n"), py::arg("reduce"));
    module.def("paint", &paint, py::arg("scores"), py::arg("labels"), py::arg("out"), py::arg("channels_last"),
               py::arg("status"), py::arg("stream"));
    module.def("extract_patches", &extract_patches, py::arg("images"), py::arg("cells"), py::arg("grid"),
               py::arg("size"), py::arg("start"), py::arg("out"), py::arg("stream"));
    module.def("extract_patches_backward", &extract_patches_backward, py::arg("patches"), py::arg("cells"),
               py::arg("grid"), py::arg("size"), py::arg("start"), py::arg("out"), py::arg("workspace"),
               py::arg("stream"));
    module.def("extract_patches_backward_workspace_bytes", &extract_patches_backward_workspace_bytes, py::arg("items"),
               py::arg("channels"), py::arg("images"), py::arg("patch"), py::arg("cells"), py::arg("grid"));
    module.def("aggregate_patches", &aggregate_patches, py::arg("maps"), py::arg("grid"), py::arg("out"),
               py::arg("stream"));
    module.def("problem", &cuda::find_problem);
    module.def("devices", &devices);
    module.def("driver_version", &cuda::driver_version);
    module.def("runtime_version", &cuda::runtime_version);
    module.attr("NOT_FINITE") = static_cast<int>(cuda::kNotFinite);
    module.attr("WEIGHTS_TOO_SMALL") = static_cast<int>(cuda::kWeightsTooSmall);
    module.attr("LABEL_OUTSIDE") = static_cast<int>(cuda::kLabelOutside);
}

}  // namespace midgrain::bindings

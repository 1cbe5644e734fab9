#include "bindings/array_view.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <utility>

namespace midgrain::bindings {
namespace py = pybind11;
namespace {

std::string type_name(py::handle object) { return py::cast<std::string>(py::type::handle_of(object).attr("__name__")); }

std::string to_text(ElementType element) {
    switch (element) {
        case ElementType::kUInt8: return "uint8";
        case ElementType::kInt32: return "int32";
        case ElementType::kFloat32: return "float32";
        default: return "float64";
    }
}

std::string to_text(dlpack::DataType type) {
    static constexpr const char* kNames[] = {"int", "uint", "float", "opaque", "bfloat", "complex", "bool"};
    std::string text = type.code < std::size(kNames) ? kNames[type.code] : "code " + std::to_string(type.code) + " of ";
    if (type.code != dlpack::kBool) text += std::to_string(type.bits);
    if (type.lanes != 1) text += " x " + std::to_string(type.lanes);
    return text;
}

bool matches(dlpack::DataType type, ElementType element) {
    if (type.lanes != 1) return false;
    switch (element) {
        case ElementType::kUInt8: return type.code == dlpack::kUInt && type.bits == 8;
        case ElementType::kInt32: return type.code == dlpack::kInt && type.bits == 32;
        case ElementType::kFloat32: return type.code == dlpack::kFloat && type.bits == 32;
        default: return type.code == dlpack::kFloat && type.bits == 64;
    }
}

// Where Python has no GIL: keeps other threads' calls of ours from an object meanwhile. Elsewhere the GIL does.
class Exclusive {
public:
#if defined(Py_GIL_DISABLED)
    explicit Exclusive(py::handle object) { PyCriticalSection_Begin(&section_, object.ptr()); }
    ~Exclusive() { PyCriticalSection_End(&section_); }
#else
    explicit Exclusive(py::handle) {}
    ~Exclusive() {}
#endif
    Exclusive(const Exclusive&) = delete;
    Exclusive& operator=(const Exclusive&) = delete;

#if defined(Py_GIL_DISABLED)
private:
    PyCriticalSection section_;
#endif
};

// An array of more dimensions than any library makes; its shape is not looked at.
constexpr int kMostShown = 64;

// Must be called while `error` is handled: an interrupt is no refusal and goes on.
py::buffer_error refusal(const std::string& name, const py::error_already_set& error) {
    if (!error.matches(PyExc_Exception)) throw;
    return py::buffer_error(
        name + ": the array refused to be shared through DLPack: " + py::cast<std::string>(py::str(error.value())));
}

std::int64_t device_type(py::handle object, const std::string& name) {
    try {
        return py::cast<std::pair<std::int64_t, std::int64_t>>(object.attr("__dlpack_device__")()).first;
    } catch (const py::cast_error&) {
        throw py::buffer_error(name + ": __dlpack_device__ did not return two integers");
    } catch (const py::error_already_set& error) {
        throw refusal(name, error);
    }
}

// Throws BufferError unless memory of such a device can be read at `place`.
void check_device(std::int64_t type, Place place, const std::string& name) {
    const bool managed = type == dlpack::kCudaManaged;
    const bool fits = place == Place::kCuda ? type == dlpack::kCuda || managed
                                            : type == dlpack::kCpu || type == dlpack::kCudaHost || managed;
    if (fits) return;
    throw py::buffer_error(name + ": expected an array " +
                           (place == Place::kCuda ? "on a CUDA device" : "in host memory") +
                           ", got one on DLPack device type " + std::to_string(type));
}

// Asks for DLPack 1.x; producers from before it do not know the argument. On a device, work is put on the stream that
// the array is made on, so there is nothing to wait for: -1 says so.
py::object request_capsule(py::handle object, const std::string& name, Place place) {
    py::dict arguments;
    if (place == Place::kCuda) arguments["stream"] = -1;
    py::dict versioned = py::dict(**arguments);
    versioned["max_version"] = py::make_tuple(1, 1);
    try {
        try {
            return object.attr("__dlpack__")(**versioned);
        } catch (py::error_already_set& error) {
            if (!error.matches(PyExc_TypeError)) throw;
        }
        return object.attr("__dlpack__")(**arguments);
    } catch (const py::error_already_set& error) {
        throw refusal(name, error);
    }
}

}  // namespace

std::string to_text(const std::vector<std::int64_t>& shape) {
    std::string text = "[";
    for (std::size_t i = 0; i < shape.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
    return text + "]";
}

ArrayView::ArrayView(py::handle object, std::string name, int rank, const std::vector<ElementType>& allowed,
                     bool writable, Place place)
    : name_(std::move(name)) {
    try {
        take(object, place);
        read(*tensor_, rank, allowed, place);
        if (writable && read_only_) throw py::buffer_error(name_ + ": expected a writable array, got a read-only one");
    } catch (...) {
        if (release_) release_();
        throw;
    }
}

ArrayView::~ArrayView() {
    if (release_) release_();
}

ArrayView::ArrayView(ArrayView&& other) noexcept
    : name_(std::move(other.name_)),
      release_(std::exchange(other.release_, nullptr)),
      tensor_(std::exchange(other.tensor_, nullptr)),
      device_(other.device_),
      read_only_(other.read_only_),
      data_(std::exchange(other.data_, nullptr)),
      element_(other.element_),
      shape_(std::move(other.shape_)) {}

void ArrayView::take(py::handle object, Place place) {
    const bool has_dlpack = py::hasattr(object, "__dlpack__") && py::hasattr(object, "__dlpack_device__");
    if (!has_dlpack) {
        if (py::hasattr(object, "__cuda_array_interface__")) {
            if (place == Place::kCuda) return take_cuda_interface(object);
            throw py::buffer_error(name_ + ": expected an array in host memory, got one on a CUDA device");
        }
        throw py::type_error(name_ + ": expected an array that supports DLPack (numpy, torch, jax, ...), got " +
                             type_name(object));
    }
    check_device(device_type(object, name_), place, name_);
    take_capsule(request_capsule(object, name_, place));
}

void ArrayView::take_capsule(py::handle capsule) {
    // What a producer in C writes may be wrong in any field, so each is looked at before it is relied on. A capsule is
    // consumed by renaming it: from then on this view, not the capsule, calls the deleter. Two threads that were given
    // the same capsule must not both find it unconsumed.
    const Exclusive exclusive(capsule);
    if (PyCapsule_IsValid(capsule.ptr(), "dltensor_versioned")) {
        auto* managed =
            static_cast<dlpack::ManagedVersioned*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor_versioned"));
        if (managed->version.major != 1) {
            throw py::buffer_error(name_ + ": expected DLPack version 1, got " +
                                   std::to_string(managed->version.major));
        }
        PyCapsule_SetName(capsule.ptr(), "used_dltensor_versioned");
        release_ = [managed] {
            if (managed->deleter != nullptr) managed->deleter(managed);
        };
        read_only_ = (managed->flags & dlpack::kReadOnly) != 0;
        tensor_ = &managed->tensor;
    } else if (PyCapsule_IsValid(capsule.ptr(), "dltensor")) {
        auto* managed = static_cast<dlpack::Managed*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
        PyCapsule_SetName(capsule.ptr(), "used_dltensor");
        release_ = [managed] {
            if (managed->deleter != nullptr) managed->deleter(managed);
        };
        tensor_ = &managed->tensor;
    } else {
        throw py::buffer_error(name_ + ": __dlpack__ did not return an unconsumed DLPack capsule");
    }
}

// https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html, versions 2 and 3.
void ArrayView::take_cuda_interface(py::handle object) {
    struct Described {
        dlpack::Tensor tensor{};
        std::vector<std::int64_t> shape, strides;
    };
    const auto described = std::make_shared<Described>();
    try {
        const auto interface = py::cast<py::dict>(object.attr("__cuda_array_interface__"));
        const auto text = py::cast<std::string>(interface["typestr"]);
        const auto [address, read_only] = py::cast<std::pair<std::uintptr_t, bool>>(interface["data"]);
        if (interface.contains("mask") && !interface["mask"].is_none()) {
            throw py::type_error(name_ + ": expected an array without a mask");
        }
        const auto bytes = static_cast<std::uint8_t>(std::stoi(text.substr(2)));
        const char kind = text[1];
        const std::uint8_t code = kind == 'f'   ? dlpack::kFloat
                                  : kind == 'i' ? dlpack::kInt
                                  : kind == 'u' ? dlpack::kUInt
                                  : kind == 'b' ? dlpack::kBool
                                                : dlpack::kComplex;
        // The byte order is the device's own, little.
        if (text[0] == '>' && bytes > 1) throw py::type_error(name_ + ": expected little-endian numbers, got " + text);
        dlpack::Tensor& tensor = described->tensor;
        tensor.data = reinterpret_cast<void*>(address);
        // The protocol does not say which device; arrays that midgrain describes itself do, in an entry of their own.
        const bool is_said = interface.contains("device");
        tensor.device = {dlpack::kCuda, is_said ? py::cast<std::int32_t>(interface["device"]) : -1};
        tensor.dtype = {code, static_cast<std::uint8_t>(8 * bytes), 1};
        described->shape = py::cast<std::vector<std::int64_t>>(interface["shape"]);
        tensor.ndim = static_cast<std::int32_t>(described->shape.size());
        tensor.shape = described->shape.data();
        if (interface.contains("strides") && !interface["strides"].is_none()) {
            described->strides = py::cast<std::vector<std::int64_t>>(interface["strides"]);
            for (std::int64_t& stride : described->strides) {
                stride = stride % bytes == 0 ? stride / bytes : -1;  // no stride of a contiguous array
            }
            tensor.strides = described->strides.data();
        }
        read_only_ = read_only;
    } catch (const std::exception& error) {
        if (dynamic_cast<const py::builtin_exception*>(&error) != nullptr &&
            dynamic_cast<const py::cast_error*>(&error) == nullptr) {
            throw;
        }
        throw py::buffer_error(name_ + ": its __cuda_array_interface__ is not as the protocol says");
    }
    const py::object keep = py::reinterpret_borrow<py::object>(object);
    tensor_ = &described->tensor;
    release_ = [described, keep] {};
}

void ArrayView::read(const dlpack::Tensor& tensor, int rank, const std::vector<ElementType>& allowed, Place place) {
    const auto found =
        std::find_if(allowed.begin(), allowed.end(), [&](ElementType e) { return matches(tensor.dtype, e); });
    if (found == allowed.end()) {
        std::string text;
        for (const ElementType e : allowed) text += (text.empty() ? "" : " or ") + to_text(e);
        throw py::type_error(name_ + ": expected " + text + ", got " + to_text(tensor.dtype));
    }
    element_ = *found;
    check_device(tensor.device.type, place, name_);
    if (tensor.device.type == dlpack::kCuda && tensor.device.id >= 0) device_ = tensor.device.id;
    const bool shown = tensor.ndim == 0 || (tensor.ndim > 0 && tensor.ndim <= kMostShown && tensor.shape != nullptr);
    if (shown) shape_.assign(tensor.shape, tensor.shape + tensor.ndim);
    if (tensor.ndim != rank) {
        throw py::value_error(name_ + ": expected " + std::to_string(rank) + " dimensions, got " +
                              (shown ? "shape " + bindings::to_text(shape_) : std::to_string(tensor.ndim)));
    }
    if (!shown) throw py::buffer_error(name_ + ": the array has no shape");
    check_bytes(tensor.dtype.bits / 8);
    if (tensor.strides != nullptr && size() > 0) {
        std::int64_t expected = 1;
        for (int axis = tensor.ndim - 1; axis >= 0; --axis) {
            if (tensor.shape[axis] != 1 && tensor.strides[axis] != expected) {
                throw py::buffer_error(name_ + ": expected a C-contiguous array, got strides " +
                                       bindings::to_text({tensor.strides, tensor.strides + tensor.ndim}) +
                                       " (in elements) for shape " + bindings::to_text(shape_));
            }
            expected *= tensor.shape[axis];
        }
    }
    if (tensor.data == nullptr && size() > 0) throw py::buffer_error(name_ + ": the array has no data");
    if (tensor.data == nullptr) return;
    data_ = static_cast<char*>(tensor.data) + tensor.byte_offset;
    if (reinterpret_cast<std::uintptr_t>(data_) % (tensor.dtype.bits / 8) != 0) {
        throw py::buffer_error(name_ + ": the data pointer is not aligned to its element size");
    }
}

// Throws BufferError for a negative extent, or more bytes than there are addresses.
void ArrayView::check_bytes(std::int64_t each) const {
    std::int64_t most = std::numeric_limits<std::int64_t>::max() / each;
    for (const std::int64_t extent : shape_) {
        // Without the empty axes: NumPy's own arrays have that limit too, so that strides can be computed.
        if (extent < 0 || (extent > 0 && (most /= extent) < 1)) {
            throw py::buffer_error(name_ + ": expected extents of memory that exists, got shape " +
                                   bindings::to_text(shape_));
        }
    }
}

std::int64_t ArrayView::size() const {
    std::int64_t n = 1;
    for (const std::int64_t extent : shape_) n *= extent;
    return n;
}

void ArrayView::require_shape(const std::vector<std::int64_t>& expected) const {
    if (shape_ != expected) {
        throw py::value_error(name_ + ": expected shape " + bindings::to_text(expected) + ", got " +
                              bindings::to_text(shape_));
    }
}

}  // namespace midgrain::bindings

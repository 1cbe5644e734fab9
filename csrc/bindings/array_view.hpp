// An array of any library, taken in through DLPack without a copy and kept alive while the view lives.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "bindings/dlpack.hpp"

namespace midgrain::bindings {

// The memory that an array is expected in.
enum class Place { kHost, kCuda };

enum class ElementType { kUInt8, kInt32, kFloat32, kFloat64 };

template <class T>
inline constexpr ElementType kElementOf = [] {
    if constexpr (std::is_same_v<T, std::uint8_t>) {
        return ElementType::kUInt8;
    } else if constexpr (std::is_same_v<T, std::int32_t>) {
        return ElementType::kInt32;
    } else if constexpr (std::is_same_v<T, float>) {
        return ElementType::kFloat32;
    } else {
        static_assert(std::is_same_v<T, double>);
        return ElementType::kFloat64;
    }
}();

class ArrayView {
public:
    // `name` is the argument's name in messages. Throws TypeError (not an array, element type not among `allowed`),
    // ValueError (rank) and BufferError (device, protocol, not contiguous, read-only where it is to be written).
    ArrayView(pybind11::handle object, std::string name, int rank, const std::vector<ElementType>& allowed,
              bool writable, Place place);
    ~ArrayView();
    ArrayView(ArrayView&& other) noexcept;
    ArrayView(const ArrayView&) = delete;
    ArrayView& operator=(const ArrayView&) = delete;
    ArrayView& operator=(ArrayView&&) = delete;

    const std::string& name() const { return name_; }
    ElementType element() const { return element_; }
    std::int64_t size() const;
    // Of the CUDA device that the array lies on, as DLPack says; -1: the producer does not say, or host memory.
    std::int32_t device() const { return device_; }
    const void* address() const { return data_; }
    std::int64_t shape(int axis) const { return shape_[static_cast<std::size_t>(axis)]; }
    const std::vector<std::int64_t>& shape() const { return shape_; }

    // Throws ValueError unless the shape is `expected`.
    void require_shape(const std::vector<std::int64_t>& expected) const;

    template <class T>
    T* data() const {
        if (kElementOf<std::remove_const_t<T>> != element_) throw std::logic_error("element type of " + name_);
        return static_cast<T*>(data_);
    }

    // Calls visit with the data as float* or double*, one of which the elements are.
    template <class Visit>
    void visit_floats(Visit&& visit) const {
        if (element_ == ElementType::kFloat32) {
            visit(data<float>());
        } else {
            visit(data<double>());
        }
    }

private:
    void take(pybind11::handle object, Place place);
    void take_capsule(pybind11::handle capsule);
    void take_cuda_interface(pybind11::handle object);
    void read(const dlpack::Tensor& tensor, int rank, const std::vector<ElementType>& allowed, Place place);
    void check_bytes(std::int64_t each) const;

    std::string name_;
    std::function<void()> release_;
    const dlpack::Tensor* tensor_ = nullptr;
    std::int32_t device_ = -1;
    bool read_only_ = false;
    void* data_ = nullptr;
    ElementType element_ = ElementType::kUInt8;
    std::vector<std::int64_t> shape_;
};

// "[2, 3, 4]"
std::string to_text(const std::vector<std::int64_t>& shape);

}  // namespace midgrain::bindings

// The CUDA kernels, executed on the CPU, as a library for the tests. tests/cuda_library.py builds and calls it.
#include <cstddef>
#include <cstdint>
#include <new>
#include <span>

#include "call.hpp"
#include "cuda/kernels.hpp"
#include "cuda/launch.cuh"

namespace midgrain::cuda {
void run_self_test(const char* name, const int* in, std::int64_t n, int* out);
}

namespace {

using namespace midgrain;
using cuda::call;
using std::int32_t;
using std::int64_t;

// Exactly as many bytes as asked for, so that the address sanitizer sees what lies beyond, and random ones.
class Memory {
public:
    explicit Memory(int64_t bytes)
        : memory_(static_cast<std::byte*>(::operator new(static_cast<std::size_t>(bytes), kAlignment))) {
        cuda_on_cpu::Random random(static_cast<std::uint64_t>(bytes));
        for (int64_t i = 0; i < bytes; ++i) memory_[i] = static_cast<std::byte>(random());
    }
    ~Memory() { ::operator delete(memory_, kAlignment); }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    void* get() const { return memory_; }

private:
    static constexpr std::align_val_t kAlignment{256};
    std::byte* memory_;
};

core::SlicParameters slic_parameters(const double* weights, const float* ranges, int64_t channels, int64_t n_segments,
                                     int64_t max_num_iter, const double* spacing, int64_t min_size) {
    const auto n = static_cast<std::size_t>(channels);
    return {{weights, n},
            {reinterpret_cast<const core::Range*>(ranges), ranges == nullptr ? 0 : n},
            n_segments,
            static_cast<int>(max_num_iter),
            {spacing[0], spacing[1], spacing[2]},
            min_size};
}

core::Dims dims_of(const int64_t* dims) { return {dims[0], dims[1], dims[2]}; }

// numbers: groups, items, channels, pixels, regions, channels_last.
core::PoolShape shape_of(const int64_t* numbers) {
    return {numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5] != 0};
}

// numbers: patch, cells, grid, size (z, y, x each), start, count.
core::PatchGrid grid_of(const int64_t* numbers) {
    return {dims_of(numbers),     dims_of(numbers + 3), dims_of(numbers + 6),
            dims_of(numbers + 9), numbers[12],          numbers[13]};
}

template <class T>
void pool(const void* values, const int32_t* labels, const core::PoolShape& shape, int64_t reduce, void* out,
          int32_t* status) {
    const auto reduction = static_cast<core::Reduce>(reduce);
    const Memory workspace(cuda::pool_workspace_bytes<T>(shape, reduction));
    cuda::launch_pool(static_cast<const T*>(values), labels, shape, reduction, static_cast<T*>(out), status,
                      workspace.get(), nullptr);
}

template <class T>
void extract_backward(const void* patches, int64_t items, int channels, core::Dims dims, const core::PatchGrid& grid,
                      void* images) {
    const Memory workspace(cuda::extract_patches_backward_workspace_bytes<T>(items, channels, dims, grid));
    cuda::launch_extract_patches_backward(static_cast<const T*>(patches), items, channels, dims, grid,
                                          static_cast<T*>(images), workspace.get(), nullptr);
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

void set_devices(int count, int driver, int major, int status, int of_pointers, int launches) {
    cuda_on_cpu::devices = {
        count, 0,      driver, major, static_cast<cudaError_t>(status), of_pointers, static_cast<cudaError_t>(launches),
        -1,    nullptr};
}
void last_launch(int64_t* out) {
    out[0] = cuda_on_cpu::devices.of_last_launch;
    out[1] = reinterpret_cast<int64_t>(cuda_on_cpu::devices.stream_of_last_launch);
    out[2] = cuda_on_cpu::devices.current;
}

void reseed(std::uint64_t seed) { cuda_on_cpu::Machine::instance().reseed(seed); }
int64_t launches() { return cuda_on_cpu::Machine::instance().launches(); }

int self_test(char* message, const char* name, const int* in, int64_t n, int* out) {
    return call(message, [&] { cuda::run_self_test(name, in, n, out); });
}

int slic(char* message, const float* features, int64_t items, int64_t channels, const int64_t* dims,
         const double* weights, const float* ranges, int64_t n_segments, int64_t max_num_iter, const double* spacing,
         int64_t min_size, int32_t* labels, int32_t* counts, int32_t* status) {
    return call(message, [&] {
        const auto parameters = slic_parameters(weights, ranges, channels, n_segments, max_num_iter, spacing, min_size);
        const auto c = static_cast<int>(channels);
        const Memory workspace(cuda::slic_workspace_bytes(items, c, dims_of(dims), parameters));
        cuda::launch_slic({features, items, c, dims_of(dims)}, parameters, labels, counts, status, workspace.get(),
                          nullptr);
    });
}

int slic_pictures(char* message, const std::uint8_t* bytes, const float* floats, int64_t channels_last,
                  const float* scale, const float* offset, const float* gradient, int64_t items, const int64_t* dims,
                  const double* weights, int64_t n_segments, int64_t max_num_iter, const double* spacing,
                  int64_t min_size, int32_t* labels, int32_t* counts, int32_t* status) {
    return call(message, [&] {
        core::Pictures pictures{bytes, floats, channels_last != 0, {}, {}, gradient, items, dims_of(dims)};
        for (int c = 0; c < 3; ++c) {
            pictures.scale[c] = scale[c];
            pictures.offset[c] = offset[c];
        }
        const auto parameters = slic_parameters(weights, nullptr, 2, n_segments, max_num_iter, spacing, min_size);
        const Memory workspace(cuda::slic_pictures_workspace_bytes(pictures, parameters));
        cuda::launch_slic_pictures(pictures, parameters, labels, counts, status, workspace.get(), nullptr);
    });
}

int rgb_to_lab(char* message, const std::uint8_t* bytes, const float* floats, int64_t channels_last, int64_t items,
               int64_t pixels, float* lab, int32_t* status) {
    return call(message, [&] {
        const core::Pictures pictures{bytes,   floats, channels_last != 0, {1.0f, 1.0f, 1.0f}, {},
                                      nullptr, items,  {1, 1, pixels}};
        const Memory workspace(cuda::rgb_to_lab_workspace_bytes());
        cuda::launch_rgb_to_lab(pictures, lab, status, workspace.get(), nullptr);
    });
}

int connectivity(char* message, const int32_t* labels, int64_t items, const int64_t* dims, int64_t min_size,
                 int32_t* out, int32_t* counts) {
    return call(message, [&] {
        const Memory workspace(cuda::connectivity_workspace_bytes(items, dims_of(dims)));
        cuda::launch_connectivity(labels, items, dims_of(dims), min_size, out, counts, workspace.get(), nullptr);
    });
}

int pool_float(char* message, const float* values, const int32_t* labels, const int64_t* shape, int64_t reduce,
               float* out, int32_t* status) {
    return call(message, [&] { pool<float>(values, labels, shape_of(shape), reduce, out, status); });
}
int pool_double(char* message, const double* values, const int32_t* labels, const int64_t* shape, int64_t reduce,
                double* out, int32_t* status) {
    return call(message, [&] { pool<double>(values, labels, shape_of(shape), reduce, out, status); });
}

int paint_float(char* message, const float* scores, const int32_t* labels, const int64_t* shape, float* out,
                int32_t* status) {
    return call(message, [&] { cuda::launch_paint(scores, labels, shape_of(shape), out, status, nullptr); });
}
int paint_double(char* message, const double* scores, const int32_t* labels, const int64_t* shape, double* out,
                 int32_t* status) {
    return call(message, [&] { cuda::launch_paint(scores, labels, shape_of(shape), out, status, nullptr); });
}

int extract_float(char* message, const float* images, int64_t items, int64_t channels, const int64_t* dims,
                  const int64_t* grid, float* patches) {
    return call(message, [&] {
        cuda::launch_extract_patches<float>({images, items, static_cast<int>(channels), dims_of(dims)}, grid_of(grid),
                                            patches, nullptr);
    });
}
int extract_double(char* message, const double* images, int64_t items, int64_t channels, const int64_t* dims,
                   const int64_t* grid, double* patches) {
    return call(message, [&] {
        cuda::launch_extract_patches<double>({images, items, static_cast<int>(channels), dims_of(dims)}, grid_of(grid),
                                             patches, nullptr);
    });
}

int extract_backward_float(char* message, const float* patches, int64_t items, int64_t channels, const int64_t* dims,
                           const int64_t* grid, float* images) {
    return call(message, [&] {
        extract_backward<float>(patches, items, static_cast<int>(channels), dims_of(dims), grid_of(grid), images);
    });
}
int extract_backward_double(char* message, const double* patches, int64_t items, int64_t channels, const int64_t* dims,
                            const int64_t* grid, double* images) {
    return call(message, [&] {
        extract_backward<double>(patches, items, static_cast<int>(channels), dims_of(dims), grid_of(grid), images);
    });
}

int aggregate_float(char* message, const float* maps, int64_t items, const int64_t* cells, const int64_t* grid,
                    const int64_t* size, float* out) {
    return call(message, [&] {
        cuda::launch_aggregate_patches(maps, items, dims_of(cells), dims_of(grid), dims_of(size), out, nullptr);
    });
}
int aggregate_double(char* message, const double* maps, int64_t items, const int64_t* cells, const int64_t* grid,
                     const int64_t* size, double* out) {
    return call(message, [&] {
        cuda::launch_aggregate_patches(maps, items, dims_of(cells), dims_of(grid), dims_of(size), out, nullptr);
    });
}
}
#pragma GCC visibility pop

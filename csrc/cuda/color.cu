// sRGB to CIELAB on the device (core/color.hpp): a table by one thread per entry, then one thread per pixel.
#include "core/color.hpp"
#include "cuda/pictures.cuh"

namespace midgrain::cuda {
namespace {

constexpr unsigned kThreads = 256;

__global__ void fill_srgb_table_kernel(float* table) {
    const std::int64_t i = global_index();
    if (i < kSrgbEntries) table[i] = core::srgb_table_entry(static_cast<int>(i));
}

__global__ void rgb_to_lab_kernel(core::Pictures pictures, const float* table, float* lab, std::int32_t* status) {
    const std::int64_t i = global_index(), pixels = pictures.dims.size();
    if (i >= pictures.items * pixels) return;
    const std::int64_t item = i / pixels, pixel = i % pixels;
    bool poison = false;
    const core::Lab found = lab_at(pictures, table, item, pixel, poison);
    float* out = lab + item * 3 * pixels + pixel;
    out[0] = found.l;
    out[pixels] = found.a;
    out[2 * pixels] = found.b;
    if (poison) atomicOr(&status[item], static_cast<int>(kNotFinite));
}

}  // namespace

void launch_fill_srgb_table(float* table, Stream stream) {
    launch(fill_srgb_table_kernel, blocks_of(kSrgbEntries, kThreads), kThreads, stream, table);
}

std::int64_t rgb_to_lab_workspace_bytes() {
    Workspace counter(nullptr);
    counter.take<float>(kSrgbEntries);
    return counter.bytes();
}

void launch_rgb_to_lab(const core::Pictures& pictures, float* lab, std::int32_t* status, void* workspace,
                       Stream stream) {
    auto* table = static_cast<float*>(workspace);
    fill_zero(status, static_cast<std::size_t>(pictures.items) * sizeof *status, stream);
    launch_fill_srgb_table(table, stream);
    launch(rgb_to_lab_kernel, blocks_of(pictures.items * pictures.dims.size(), kThreads), kThreads, stream, pictures,
           table, lab, status);
}

}  // namespace midgrain::cuda

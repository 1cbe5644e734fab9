// SLIC on a GPU as one writes it in a day: Lab, one thread per pixel over the nine centres around its cell, sums by
// atomic additions of floats. What it is compared with in benchmarks/gpu_peers.py, which compiles it with CuPy.
//
// Not done: connectivity; clips; a gradient channel; the same result on every run (sums depend on the order of the
// atomics); refusing NaN. Batches are numbered along the grid.
//
// Centres [items, count, 5] are L, a, b, y, x; sums [items, count, 6] the same and the number of members.
// Source: Achanta et al., SLIC superpixels compared to state-of-the-art superpixel methods (2012).

__device__ float decode(float value) {
    return value <= 0.04045f ? value / 12.92f : powf((value + 0.055f) / 1.055f, 2.4f);
}

__device__ float lab_curve(float value) { return value > 0.008856f ? cbrtf(value) : 7.787f * value + 16.0f / 116.0f; }

// rgb [items, pixels, 3], lab [items, pixels, 3].
extern "C" __global__ void to_lab(const unsigned char* rgb, float* lab, int all) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= all) return;
    const float r = decode(rgb[3 * i] / 255.0f), g = decode(rgb[3 * i + 1] / 255.0f),
                b = decode(rgb[3 * i + 2] / 255.0f);
    const float x = lab_curve((0.412453f * r + 0.357580f * g + 0.180423f * b) / 0.95047f);
    const float y = lab_curve(0.212671f * r + 0.715160f * g + 0.072169f * b);
    const float z = lab_curve((0.019334f * r + 0.119193f * g + 0.950227f * b) / 1.08883f);
    lab[3 * i] = 116.0f * y - 16.0f;
    lab[3 * i + 1] = 500.0f * (x - y);
    lab[3 * i + 2] = 200.0f * (y - z);
}

// Centres begin in the middle of their cells, with the colour of the pixel there; sums begin at zero.
extern "C" __global__ void seed(const float* lab, float* centres, float* sums, int items, int height, int width,
                                int cells_y, int cells_x) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x, count = cells_y * cells_x;
    if (i >= items * count) return;
    const int item = i / count, k = i % count;
    const int y = (2 * (k / cells_x) + 1) * height / (2 * cells_y), x = (2 * (k % cells_x) + 1) * width / (2 * cells_x);
    const float* pixel = lab + 3 * ((item * height + y) * width + x);
    float* centre = centres + 5 * i;
    centre[0] = pixel[0];
    centre[1] = pixel[1];
    centre[2] = pixel[2];
    centre[3] = y;
    centre[4] = x;
    for (int v = 0; v < 6; ++v) sums[6 * i + v] = 0.0f;
}

extern "C" __global__ void assign(const float* lab, const float* centres, float* sums, int* labels, int items,
                                  int height, int width, int cells_y, int cells_x, float colour_weight,
                                  float place_weight) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x, pixels = height * width;
    if (i >= items * pixels) return;
    const int item = i / pixels, y = i % pixels / width, x = i % width;
    const int cell_y = y * cells_y / height, cell_x = x * cells_x / width;
    const float l = lab[3 * i], a = lab[3 * i + 1], b = lab[3 * i + 2];
    float best = 3.0e38f;
    int label = 0;
    for (int ky = max(cell_y - 1, 0); ky <= min(cell_y + 1, cells_y - 1); ++ky) {
        for (int kx = max(cell_x - 1, 0); kx <= min(cell_x + 1, cells_x - 1); ++kx) {
            const int k = ky * cells_x + kx;
            const float* centre = centres + 5 * (item * cells_y * cells_x + k);
            const float dl = l - centre[0], da = a - centre[1], db = b - centre[2];
            const float dy = y - centre[3], dx = x - centre[4];
            const float distance = colour_weight * (dl * dl + da * da + db * db) + place_weight * (dy * dy + dx * dx);
            if (distance < best) {
                best = distance;
                label = k;
            }
        }
    }
    labels[i] = label;
    float* sum = sums + 6 * (item * cells_y * cells_x + label);
    atomicAdd(&sum[0], l);
    atomicAdd(&sum[1], a);
    atomicAdd(&sum[2], b);
    atomicAdd(&sum[3], static_cast<float>(y));
    atomicAdd(&sum[4], static_cast<float>(x));
    atomicAdd(&sum[5], 1.0f);
}

extern "C" __global__ void update(float* centres, float* sums, int all) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= all) return;
    const float members = sums[6 * i + 5];
    for (int v = 0; v < 5 && members > 0.0f; ++v) centres[5 * i + v] = sums[6 * i + v] / members;
    for (int v = 0; v < 6; ++v) sums[6 * i + v] = 0.0f;
}

// How many 32-bit multiply-adds a GPU does per second: eight independent chains per thread, nothing else to wait for.
// Compiled with CuPy by benchmarks/gpu_floors.py; the factors come as arguments, so that nothing can be precomputed.
extern "C" __global__ void multiply_adds(unsigned* out, unsigned factor, unsigned term, int rounds) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    unsigned a = i, b = i + 1, c = i + 2, d = i + 3, e = i + 4, f = i + 5, g = i + 6, h = i + 7;
    for (int round = 0; round < rounds; ++round) {
        a = a * factor + term;
        b = b * factor + term;
        c = c * factor + term;
        d = d * factor + term;
        e = e * factor + term;
        f = f * factor + term;
        g = g * factor + term;
        h = h * factor + term;
    }
    out[i] = a ^ b ^ c ^ d ^ e ^ f ^ g ^ h;
}

// SLIC's assignment of pixels to centres on the device (slic_job.cuh says how the work is laid out).
#include "cuda/slic_job.cuh"

namespace midgrain::cuda {
namespace {

// Centres that are in shared memory at a time.
constexpr int kGroup = 32;

// First of n ascending values that is not below `bound`.
__device__ std::int64_t lower_bound(const std::int32_t* values, std::int64_t n, std::int64_t bound) {
    std::int64_t first = 0;
    while (n > 0) {
        const std::int64_t half = n / 2;
        if (values[first + half] < bound) {
            first += half + 1;
            n -= half + 1;
        } else {
            n = half;
        }
    }
    return first;
}

// The centres whose window may contain pixels of the tile.
struct Search {
    std::int32_t low[3], high[3];    // positions of the tile's first and last pixel
    std::int64_t first[3], last[3];  // cells whose centres may be near enough
};

struct AssignMemory {
    Search* search;         // [1]
    std::int32_t* found;    // [kTileThreads]
    unsigned* found_count;  // [1]
    std::int32_t* centres;  // [kGroup, 3 + channels]
    std::int32_t* labels;   // [kTileLabels]
};

__device__ void begin_search(const SlicJob& job, const Tile& tile, int iteration, Search& search) {
    const int a = static_cast<int>(threadIdx.x);
    const SlicItem& item = job.item[tile.item];
    const std::int64_t begin[3] = {tile.z, tile.y0, tile.x0}, size[3] = {1, kTileY, kTileX};
    const std::int64_t end = begin[a] + size[a] < job.dims[a] ? begin[a] + size[a] : job.dims[a];
    const std::int32_t* positions = job.positions_of(tile.item, a);
    search.low[a] = positions[begin[a]];
    search.high[a] = positions[end - 1];
    const std::int64_t margin = std::int64_t{item.window} + item.drift[iteration % 2][a];
    const std::int32_t* homes = job.homes_of(tile.item, a);
    search.first[a] = lower_bound(homes, job.cells[a], search.low[a] - margin);
    search.last[a] = lower_bound(homes, job.cells[a], search.high[a] + margin + 1);
}

// A pixel's nearest centre so far.
template <class Distance>
struct Nearest {
    Distance distance;
    std::int32_t label;
    bool reached;
};

template <class Feature, class Distance, int kChannels>
__device__ void compare(const SlicJob& job, const Tile& tile, const std::int32_t* position, std::int32_t window,
                        const std::int32_t* known, const std::int32_t* centres, const std::int32_t* found, int n,
                        Nearest<Distance>& nearest) {
    const int channels = kChannels > 0 ? kChannels : job.channels;
    const Feature* features = job.features_of<Feature>(tile.item) + tile.pixel;
    for (int j = 0; j < n; ++j) {
        const std::int32_t* centre = centres + j * (3 + channels);
        Distance distance = 0;
        bool reaches = true;
        for (int a = 0; a < 3; ++a) {
            const std::int32_t difference = position[a] - centre[a];
            const bool near = -window <= difference && difference <= window;
            reaches = reaches && near;
            // Farther differences might overflow when squared.
            distance += near ? static_cast<Distance>(difference) * difference : 0;
        }
        if (!reaches) continue;
        for (int c = 0; c < channels; ++c) {
            const std::int32_t q = kChannels > 0 ? known[c] : features[c * job.pixels];
            const Distance difference = static_cast<Distance>(q) - centre[3 + c];
            distance += difference * difference;
        }
        const bool closer = distance < nearest.distance || (distance == nearest.distance && found[j] < nearest.label);
        if (!nearest.reached || closer) nearest = {distance, found[j], true};
    }
}

template <class Feature, class Distance, int kChannels>
__device__ void assign_tile(const SlicJob& job, const Tile& tile, int iteration, bool last,
                            const AssignMemory& memory) {
    SlicItem& item = job.item[tile.item];
    const std::int32_t* centres = job.centres_of(tile.item);
    const int width = 3 + job.channels;
    const std::int32_t window = item.window;
    std::int32_t position[3] = {0, 0, 0}, known[kChannels > 0 ? kChannels : 1] = {};
    std::int32_t before = -1;
    if (tile.inside) {
        position[0] = job.positions_of(tile.item, 0)[tile.z];
        position[1] = job.positions_of(tile.item, 1)[tile.y];
        position[2] = job.positions_of(tile.item, 2)[tile.x];
        const Feature* features = job.features_of<Feature>(tile.item) + tile.pixel;
        for (int c = 0; c < kChannels; ++c) known[c] = features[c * job.pixels];
        before = job.labels[tile.item * job.pixels + tile.pixel];
    }
    if (threadIdx.x < 3) begin_search(job, tile, iteration, *memory.search);
    if (threadIdx.x == 0) *memory.found_count = 0;
    __syncthreads();
    const Search& search = *memory.search;
    const std::int64_t box_y = search.last[1] - search.first[1], box_x = search.last[2] - search.first[2];
    const std::int64_t box = (search.last[0] - search.first[0]) * box_y * box_x;
    Nearest<Distance> nearest{0, before, false};
    for (std::int64_t base = 0; base < box; base += kTileThreads) {
        const std::int64_t at = base + threadIdx.x;
        if (at < box) {
            const std::int64_t z = search.first[0] + at / box_x / box_y, y = search.first[1] + at / box_x % box_y;
            const std::int64_t k = (z * job.cells.y + y) * job.cells.x + search.first[2] + at % box_x;
            bool reaches = true;
            for (int a = 0; a < 3; ++a) {
                const std::int64_t centre = centres[a * job.count + k];
                reaches = reaches && search.low[a] - window <= centre && centre <= search.high[a] + window;
            }
            if (reaches) memory.found[atomicAdd(memory.found_count, 1u)] = static_cast<std::int32_t>(k);
        }
        __syncthreads();
        const int found = static_cast<int>(*memory.found_count);
        for (int first = 0; first < found; first += kGroup) {
            const int n = found - first < kGroup ? found - first : kGroup;
            for (int e = static_cast<int>(threadIdx.x); e < n * width; e += kTileThreads) {
                memory.centres[e] = centres[e % width * job.count + memory.found[first + e / width]];
            }
            __syncthreads();
            if (tile.inside) {
                compare<Feature, Distance, kChannels>(job, tile, position, window, known, memory.centres,
                                                      memory.found + first, n, nearest);
            }
            __syncthreads();
        }
        if (threadIdx.x == 0) *memory.found_count = 0;
        __syncthreads();
    }
    const bool changed = tile.inside && nearest.label != before;
    if (changed) job.labels[tile.item * job.pixels + tile.pixel] = nearest.label;
    memory.labels[threadIdx.x / kTileX * kTileStride + threadIdx.x % kTileX] = nearest.label;
    if (__syncthreads_or(changed) && threadIdx.x == 0) item.changed[iteration % 2] = 1;
    if (!last) add_to_sums<Feature>(job, tile, memory.labels);
}

// kChannels == 0 takes the channel count from the job and reads features again for every centre.
template <int kChannels>
__global__ void __launch_bounds__(kTileThreads) assign_kernel(SlicJob job, int iteration, bool last) {
    constexpr int kWidth = 3 + (kChannels > 0 ? kChannels : core::kMaxChannels);
    MIDGRAIN_SHARED(Search, search, 1);
    MIDGRAIN_SHARED(std::int32_t, found, kTileThreads);
    MIDGRAIN_SHARED(unsigned, found_count, 1);
    MIDGRAIN_SHARED(std::int32_t, centres, kGroup* kWidth);
    MIDGRAIN_SHARED(std::int32_t, labels, kTileLabels);
    const Tile tile(job);
    SlicItem& item = job.item[tile.item];
    if (!item.usable || is_settled(item, iteration)) return;
    // Cleared for the next iteration by the first block of every item; nobody reads it in this one.
    if (blockIdx.x % job.tiles() == 0 && threadIdx.x < 3) item.drift[(iteration + 1) % 2][threadIdx.x] = 0;
    const AssignMemory memory{search, found, found_count, centres, labels};
    if (item.narrow) {
        assign_tile<std::int16_t, std::int32_t, kChannels>(job, tile, iteration, last, memory);
    } else {
        assign_tile<std::int32_t, std::int64_t, kChannels>(job, tile, iteration, last, memory);
    }
}

}  // namespace

void launch_assign(const SlicJob& job, int iteration, bool last, Stream stream) {
    auto* kernel = assign_kernel<0>;
    switch (job.channels) {
        case 1: kernel = assign_kernel<1>; break;
        case 2: kernel = assign_kernel<2>; break;
        case 3: kernel = assign_kernel<3>; break;
        case 4: kernel = assign_kernel<4>; break;
        default: break;
    }
    launch(kernel, job.items * job.tiles(), kTileThreads, stream, job, iteration, last);
}

}  // namespace midgrain::cuda

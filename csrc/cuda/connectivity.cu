// Connectivity on the device (core/connectivity.hpp), in seven launches whatever the labels are.
//
//   begin    every pixel points at the first of its run of equal labels within a warp's 32.
//   unite    runs that touch are united; a face is left out where the one before it in the row says the same.
//   measure  every pixel points at its root; sizes of pieces; pieces per chunk of pixels.
//   list     pixels of small pieces that have a neighbour in another piece, and their first pixels.
//   merge    one block per item makes all rounds on that list: usually it holds a few per cent of the pixels. In a
//            round every small piece gets a part of the table with as many slots as it has faces, and counts its
//            neighbours there (open addressing). A count that grows raises the piece's choice: the largest count of
//            each neighbour comes last, so the maximum of (count, lowest id) over all of them is that of the ends.
//            Afterwards the same block numbers the chunks by a sum over those before them.
//   rank     every chunk numbers its first pixels in raster order.
//   write    labels, through the root.
//
// Rounds: a piece that is still small after r rounds has at least 2^r pixels, because what it took in had at least
// 2^(r - 1); so there are at most log2(min_size) of them, and the loop on the device ends without asking the host.
#include "core/connectivity.hpp"
#include "core/fixed_point.hpp"
#include "cuda/kernels.hpp"
#include "cuda/launch.cuh"
#include "cuda/union_find.cuh"

namespace midgrain::cuda {
namespace {

constexpr unsigned kThreads = 256;
constexpr unsigned kMergeThreads = 512;
// Pixels whose first pixels are counted together.
constexpr std::int64_t kChunk = 1024;

// One item's counters.
struct Counters {
    unsigned listed;    // pixels in the list
    unsigned slots;     // of the table in use in this round
    unsigned absorbed;  // roots that ceased to be one in this round
};

struct ConnectivityJob {
    core::Dims dims;
    std::int64_t items, pixels, chunks;
    unsigned min_size;
    const std::int32_t* labels_in;
    std::int32_t* labels_out;
    std::int32_t* counts;
    // All of [items, pixels] but where said otherwise.
    unsigned* parent;
    unsigned* size;   // of a root: pixels; in the end its label
    unsigned* faces;  // of a small root: faces to other pieces, zero between rounds
    unsigned* slot;   // of a small root: where its part of the table begins
    Wide* choice;     // of a small root: faces shared << 32 | ~neighbour
    unsigned* list;
    unsigned* absorbed;  // roots that ceased to be one
    Wide* table;         // [items, 6 pixels], of images 4: (neighbour + 1) << 32 | count; 0 is empty
    unsigned* in_chunk;  // [items, chunks]: roots, then roots before the chunk
    Counters* counters;  // [items]

    __host__ __device__ std::int64_t faces_of_pixel() const { return dims.z > 1 ? 6 : 4; }
};

// What belongs to one item.
struct Item {
    const ConnectivityJob& job;
    std::int64_t first;  // pixels before the item
    unsigned* parent;
    unsigned* size;
    Counters* counters;

    __device__ Item(const ConnectivityJob& job_in, std::int64_t item)
        : job(job_in),
          first(item * job_in.pixels),
          parent(job_in.parent + first),
          size(job_in.size + first),
          counters(job_in.counters + item) {}

    // Calls visit(neighbour) for the pixels that share a face with p.
    template <class Visit>
    __device__ void for_each_neighbour(unsigned p, Visit&& visit) const {
        const auto x = static_cast<unsigned>(job.dims.x), y = static_cast<unsigned>(job.dims.y);
        const auto frame = x * y;
        const unsigned column = p % x, row = p / x % y, depth = p / frame;
        if (column > 0) visit(p - 1);
        if (column + 1 < x) visit(p + 1);
        if (row > 0) visit(p - x);
        if (row + 1 < y) visit(p + x);
        if (depth > 0) visit(p - frame);
        if (depth + 1 < job.dims.z) visit(p + frame);
    }

    __device__ bool is_small(unsigned root) const { return size[root] < job.min_size; }
};

__global__ void begin_kernel(ConnectivityJob job) {
    const std::int64_t i = global_index();
    const bool inside = i < job.items * job.pixels;
    const std::int64_t pixel = inside ? i % job.pixels : 0;
    const std::int32_t label = inside ? job.labels_in[i] : 0;
    const unsigned lane = threadIdx.x % kWarp;
    // A run begins with the warp, with a row, and where the label changes.
    const bool begins = lane == 0 || !inside || pixel % job.dims.x == 0 || job.labels_in[i - 1] != label;
    const unsigned runs = __ballot_sync(kFullWarp, begins) & (kFullWarp >> (kWarp - 1 - lane));
    if (!inside) return;
    const int start = kWarp - 1 - __clz(static_cast<int>(runs));
    job.parent[i] = static_cast<unsigned>(pixel) - (lane - static_cast<unsigned>(start));
    job.size[i] = 0;
    job.faces[i] = 0;
    if (pixel < job.chunks) job.in_chunk[i / job.pixels * job.chunks + pixel] = 0;
    if (pixel == 0) job.counters[i / job.pixels] = {0, 0, 0};
}

__global__ void unite_kernel(ConnectivityJob job) {
    const std::int64_t i = global_index();
    if (i >= job.items * job.pixels) return;
    const auto p = static_cast<unsigned>(i % job.pixels);
    const Item item(job, i / job.pixels);
    const std::int32_t* labels = job.labels_in + item.first;
    const auto x = static_cast<unsigned>(job.dims.x), y = static_cast<unsigned>(job.dims.y), frame = x * y;
    const std::int32_t label = labels[p];
    const bool has_left = p % x > 0 && labels[p - 1] == label;
    // Runs are complete within a warp; they go on across its border.
    if (has_left && threadIdx.x % kWarp == 0) unite(item.parent, p, p - 1);
    if (p / x % y > 0 && labels[p - x] == label && !(has_left && labels[p - x - 1] == label)) {
        unite(item.parent, p, p - x);
    }
    if (p >= frame && labels[p - frame] == label && !(has_left && labels[p - frame - 1] == label)) {
        unite(item.parent, p, p - frame);
    }
}

__global__ void measure_kernel(ConnectivityJob job) {
    const std::int64_t i = global_index();
    const bool inside = i < job.items * job.pixels;
    const std::int64_t number = inside ? i / job.pixels : 0;
    const Item item(job, number);
    const auto p = static_cast<unsigned>(inside ? i % job.pixels : 0);
    // Nothing is united any more: shortening paths leaves every root where it is.
    const unsigned root = inside ? find(item.parent, p) : 0;
    if (inside) item.parent[p] = root;
    // Neighbouring lanes of one piece add up first.
    const unsigned lane = threadIdx.x % kWarp;
    const Wide key = static_cast<Wide>(number) << 32 | root;
    const Wide before = __shfl_up_sync(kFullWarp, key, 1);
    const unsigned begins = __ballot_sync(kFullWarp, lane == 0 || key != before);
    const unsigned valid = __ballot_sync(kFullWarp, inside);
    if (!inside) return;
    if (((begins >> lane) & 1u) != 0) {
        const unsigned later = lane == kWarp - 1 ? 0 : begins >> (lane + 1);
        const unsigned end = later == 0 ? kWarp : lane + static_cast<unsigned>(__ffs(static_cast<int>(later)));
        const unsigned run = (end == kWarp ? kFullWarp : (1u << end) - 1) & (kFullWarp << lane) & valid;
        atomicAdd(&item.size[root], static_cast<unsigned>(__popc(run)));
    }
    if (root == p) atomicAdd(&job.in_chunk[number * job.chunks + p / kChunk], 1u);
}

__global__ void list_kernel(ConnectivityJob job) {
    const std::int64_t i = global_index();
    if (i >= job.items * job.pixels) return;
    const Item item(job, i / job.pixels);
    const auto p = static_cast<unsigned>(i % job.pixels);
    const unsigned root = item.parent[p];
    if (!item.is_small(root)) return;
    bool is_listed = root == p;
    item.for_each_neighbour(p, [&](unsigned q) { is_listed |= item.parent[q] != root; });
    if (is_listed) job.list[item.first + atomicAdd(&item.counters->listed, 1u)] = p;
}

// Counts one face of the small piece `root` to the piece `other`.
__device__ void count_face(const ConnectivityJob& job, const Item& item, unsigned root, unsigned other) {
    const unsigned slots = job.faces[item.first + root];
    Wide* table = job.table + item.first * job.faces_of_pixel() + job.slot[item.first + root];
    const Wide name = (static_cast<Wide>(other) + 1) << 32;
    unsigned at = (other * 2654435761u) % slots;
    Wide count = 0;
    // There are as many slots as faces, so a free one is found.
    while (count == 0) {
        Wide found = table[at];
        if (found == 0) found = atomicCAS(&table[at], Wide{0}, name + 1);
        if (found == 0) {
            count = 1;
        } else if (found >> 32 == name >> 32) {
            count = (atomicAdd(&table[at], Wide{1}) & 0xFFFFFFFFu) + 1;
        } else {
            at = at + 1 == slots ? 0 : at + 1;
        }
    }
    atomicMax(&job.choice[item.first + root], count << 32 | (0xFFFFFFFFu - other));
}

// Calls visit(pixel) for the list's pixels, all threads of the block together.
template <class Visit>
__device__ void for_each_listed(const ConnectivityJob& job, const Item& item, unsigned listed, Visit&& visit) {
    for (unsigned i = threadIdx.x; i < listed; i += kMergeThreads) visit(job.list[item.first + i]);
}

// One round; false, for all threads alike, if there was nothing to merge.
__device__ bool merge_round(const ConnectivityJob& job, const Item& item, unsigned listed) {
    Counters& counters = *item.counters;
    bool found = false;
    for_each_listed(job, item, listed, [&](unsigned p) {
        const unsigned root = root_of(item.parent, p);
        if (!item.is_small(root)) return;
        unsigned faces = 0;
        item.for_each_neighbour(p, [&](unsigned q) { faces += root_of(item.parent, q) != root; });
        if (faces > 0) atomicAdd(&job.faces[item.first + root], faces);
        found |= faces > 0;
    });
    // A small piece without a neighbour is the only one.
    if (!__syncthreads_or(found)) return false;
    for_each_listed(job, item, listed, [&](unsigned p) {
        const unsigned faces = job.faces[item.first + p];
        if (faces == 0) return;
        job.slot[item.first + p] = atomicAdd(&counters.slots, faces);
        job.choice[item.first + p] = 0;
    });
    __syncthreads();
    Wide* table = job.table + item.first * job.faces_of_pixel();
    for (unsigned i = threadIdx.x; i < counters.slots; i += kMergeThreads) table[i] = 0;
    __syncthreads();
    for_each_listed(job, item, listed, [&](unsigned p) {
        const unsigned root = root_of(item.parent, p);
        if (!item.is_small(root)) return;
        item.for_each_neighbour(p, [&](unsigned q) {
            const unsigned other = root_of(item.parent, q);
            if (other != root) count_face(job, item, root, other);
        });
    });
    __syncthreads();
    for_each_listed(job, item, listed, [&](unsigned p) {
        if (job.faces[item.first + p] == 0) return;
        job.faces[item.first + p] = 0;
        const auto other = 0xFFFFFFFFu - static_cast<unsigned>(job.choice[item.first + p] & 0xFFFFFFFFu);
        const unsigned high = unite(item.parent, p, other);
        if (high == kNoRoot) return;
        job.absorbed[item.first + atomicAdd(&counters.absorbed, 1u)] = high;
        atomicSub(&job.in_chunk[item.first / job.pixels * job.chunks + high / kChunk], 1u);
    });
    __syncthreads();
    for (unsigned i = threadIdx.x; i < counters.absorbed; i += kMergeThreads) {
        const unsigned high = job.absorbed[item.first + i];
        atomicAdd(&item.size[root_of(item.parent, high)], item.size[high]);
    }
    __syncthreads();
    // Paths of pixels in the list end up short again: a search for neighbours does not shorten them.
    for_each_listed(job, item, listed, [&](unsigned p) { item.parent[p] = root_of(item.parent, p); });
    // The next round looks at neither before its first barrier.
    if (threadIdx.x == 0) counters.slots = counters.absorbed = 0;
    return true;
}

// Replaces counts [n] by the sum of those before each; returns the sum of all. All threads of the block call it.
__device__ unsigned sum_before(unsigned* counts, std::int64_t n, unsigned* of_threads) {
    const std::int64_t each = blocks_of(n, kMergeThreads);
    const std::int64_t first = threadIdx.x * each, end = first + each < n ? first + each : n;
    unsigned sum = 0;
    for (std::int64_t i = first; i < end; ++i) sum += counts[i];
    of_threads[threadIdx.x] = sum;
    __syncthreads();
    for (unsigned by = 1; by < kMergeThreads; by *= 2) {
        const unsigned before = threadIdx.x >= by ? of_threads[threadIdx.x - by] : 0;
        __syncthreads();
        of_threads[threadIdx.x] += before;
        __syncthreads();
    }
    unsigned running = of_threads[threadIdx.x] - sum;
    for (std::int64_t i = first; i < end; ++i) {
        const unsigned own = counts[i];
        counts[i] = running;
        running += own;
    }
    return of_threads[kMergeThreads - 1];
}

__global__ void __launch_bounds__(kMergeThreads) merge_kernel(ConnectivityJob job, int rounds) {
    MIDGRAIN_SHARED(unsigned, of_threads, kMergeThreads);
    const Item item(job, blockIdx.x);
    const unsigned listed = item.counters->listed;
    for (int round = 0; round < rounds; ++round) {
        if (!merge_round(job, item, listed)) break;
    }
    __syncthreads();
    const unsigned count = sum_before(job.in_chunk + blockIdx.x * job.chunks, job.chunks, of_threads);
    if (threadIdx.x == 0) job.counts[blockIdx.x] = static_cast<std::int32_t>(count);
}

// One block per chunk; one thread handles kChunk / kThreads neighbouring pixels.
__global__ void rank_kernel(ConnectivityJob job) {
    MIDGRAIN_SHARED(unsigned, of_warps, kThreads / kWarp);
    constexpr int kEach = static_cast<int>(kChunk / kThreads);
    const std::int64_t number = blockIdx.x / job.chunks, chunk = blockIdx.x % job.chunks;
    const Item item(job, number);
    unsigned running = job.in_chunk[number * job.chunks + chunk];
    const unsigned lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    for (int part = 0; part < kEach; ++part) {
        const std::int64_t pixel = chunk * kChunk + part * static_cast<std::int64_t>(kThreads) + threadIdx.x;
        const auto p = static_cast<unsigned>(pixel);
        const bool is_root = pixel < job.pixels && item.parent[p] == p;
        const unsigned roots = __ballot_sync(kFullWarp, is_root);
        if (lane == 0) of_warps[warp] = static_cast<unsigned>(__popc(roots));
        __syncthreads();
        unsigned before = 0, all = 0;
        for (unsigned w = 0; w < kThreads / kWarp; ++w) {
            before += w < warp ? of_warps[w] : 0;
            all += of_warps[w];
        }
        if (is_root) item.size[p] = running + before + static_cast<unsigned>(__popc(roots & ((1u << lane) - 1)));
        running += all;
        __syncthreads();
    }
}

__global__ void write_kernel(ConnectivityJob job) {
    const std::int64_t i = global_index();
    if (i >= job.items * job.pixels) return;
    const Item item(job, i / job.pixels);
    const unsigned root = root_of(item.parent, static_cast<unsigned>(i % job.pixels));
    job.labels_out[i] = static_cast<std::int32_t>(item.size[root]);
}

ConnectivityJob plan(std::int64_t items, core::Dims dims, Workspace& workspace) {
    ConnectivityJob job{};
    job.dims = dims;
    job.items = items;
    job.pixels = dims.size();
    job.chunks = blocks_of(job.pixels, kChunk);
    const std::int64_t all = items * job.pixels;
    for (unsigned** array : {&job.parent, &job.size, &job.faces, &job.slot, &job.list, &job.absorbed}) {
        *array = workspace.take<unsigned>(all);
    }
    job.choice = workspace.take<Wide>(all);
    job.table = workspace.take<Wide>(all * job.faces_of_pixel());
    job.in_chunk = workspace.take<unsigned>(items * job.chunks);
    job.counters = workspace.take<Counters>(items);
    return job;
}

}  // namespace

std::int64_t connectivity_workspace_bytes(std::int64_t items, core::Dims dims) {
    Workspace counter(nullptr);
    plan(items, dims, counter);
    return counter.bytes();
}

void launch_connectivity(const std::int32_t* labels_in, std::int64_t items, core::Dims dims, std::int64_t min_size,
                         std::int32_t* labels_out, std::int32_t* counts, void* workspace, Stream stream) {
    if (items == 0) return;
    Workspace memory(workspace);
    ConnectivityJob job = plan(items, dims, memory);
    // No piece is larger than the item; one of its size has no neighbour to merge with.
    min_size = min_size < job.pixels ? min_size : job.pixels;
    job.min_size = static_cast<unsigned>(min_size);
    job.labels_in = labels_in;
    job.labels_out = labels_out;
    job.counts = counts;
    const std::int64_t blocks = blocks_of(items * job.pixels, kThreads);
    launch(begin_kernel, blocks, kThreads, stream, job);
    launch(unite_kernel, blocks, kThreads, stream, job);
    launch(measure_kernel, blocks, kThreads, stream, job);
    if (min_size > 1) launch(list_kernel, blocks, kThreads, stream, job);
    const int rounds = min_size > 1 ? core::ceil_log2(min_size) : 0;
    launch(merge_kernel, items, kMergeThreads, stream, job, rounds);
    launch(rank_kernel, items * job.chunks, kThreads, stream, job);
    launch(write_kernel, blocks, kThreads, stream, job);
}

}  // namespace midgrain::cuda

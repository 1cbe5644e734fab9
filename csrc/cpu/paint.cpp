// Superpixel painting on the CPU (core/pool.hpp).
#include <algorithm>
#include <array>
#include <atomic>

#include "cpu/kernels.hpp"
#include "cpu/parallel.hpp"
#include "cpu/pool_tile.hpp"

namespace midgrain::cpu {
namespace {

constexpr std::int64_t kValuesPerWorker = 131072;

}  // namespace

template <class T>
void paint(const T* scores, const std::int32_t* labels, const PoolShape& shape, int threads, T* out) {
    if (shape.items * shape.channels == 0) return refuse_labels(labels, shape.groups * shape.pixels, shape.regions);
    const Tiles tiles(shape, shape.channels);
    const std::int64_t chunks = chunks_of(shape.pixels), tiles_per_group = tiles.count() / shape.groups;
    // One chunk of all tiles of a group after the other.
    const std::int64_t pieces = tiles.count() * chunks;
    const auto most = static_cast<int>(std::min<std::int64_t>(threads, pieces));
    std::atomic<bool> labels_outside{false};
    const std::int64_t values = shape.items * shape.channels * shape.pixels;
    run_team(useful_workers(most, values, kValuesPerWorker), [&](Team& team, int index) {
        std::array<Run, kChunk + kRunSlack> runs;
        const Share mine = team.share(pieces, index);
        for (std::int64_t i = mine.first; i < mine.last;) {
            const std::int64_t chunk = i / tiles_per_group % chunks, group = i / tiles_per_group / chunks;
            const std::int64_t first = chunk * kChunk, pixels = std::min(kChunk, shape.pixels - first);
            const std::int32_t* own = labels + group * shape.pixels + first;
            std::int64_t run_count = 0;
            const bool inside = pool_variant().scan_labels(own, pixels, shape.regions, runs.data(), &run_count);
            if (!inside) labels_outside = true;
            std::int64_t item = (group * tiles_per_group + i % tiles_per_group) / tiles.per_item();
            std::int64_t of_item = i % tiles.per_item();
            for (const std::int64_t end = std::min(mine.last, (i / tiles_per_group + 1) * tiles_per_group); i < end;
                 ++i) {
                if (inside) {
                    const Tile tile = tiles.at(item, of_item);
                    pool_kernels<T>().paint({nullptr, tile.step, tile.width, own, pixels, runs.data(), run_count},
                                            scores + tile.regions, out + tile.pixels + first * tile.step);
                }
                if (++of_item == tiles.per_item()) {
                    of_item = 0;
                    ++item;
                }
            }
        }
    });
    if (labels_outside) refuse_labels(labels, shape.groups * shape.pixels, shape.regions);
}

template void paint(const float*, const std::int32_t*, const PoolShape&, int, float*);
template void paint(const double*, const std::int32_t*, const PoolShape&, int, double*);

}  // namespace midgrain::cpu

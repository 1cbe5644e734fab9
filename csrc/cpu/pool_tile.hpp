// Where the channels of a batch lie in memory, and how they are taken a tile at a time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cpu/kernels.hpp"
#include "cpu/pool_kernels.hpp"

namespace midgrain::cpu {

template <class T>
const PoolKernels<T>& pool_kernels() {
    if constexpr (sizeof(T) == 4) {
        return pool_variant().of_float;
    } else {
        return pool_variant().of_double;
    }
}

// Channels of one item that are handled together: value p, c is at `pixels`[p * step + c], likewise for regions.
struct Tile {
    std::int64_t group;    // of the labels
    std::int64_t pixels;   // offset of its first value in the array over pixels
    std::int64_t regions;  // offset of its first value in the array over regions
    std::int64_t step, width;
};

// All tiles of a batch, item by item.
class Tiles {
public:
    Tiles(const PoolShape& shape, std::int64_t widest)
        : shape_(shape),
          planes_(!shape.channels_last || shape.channels == 1),
          width_(planes_ ? 1 : std::min(shape.channels, widest)),
          per_item_((shape.channels + width_ - 1) / width_),
          items_per_group_(shape.items / shape.groups) {}

    std::int64_t count() const { return shape_.items * per_item_; }
    std::int64_t per_item() const { return per_item_; }
    std::int64_t width() const { return width_; }

    Tile at(std::int64_t item, std::int64_t index) const {
        const std::int64_t group = item / items_per_group_, first = index * width_;
        const std::int64_t of_pixels = item * shape_.channels * shape_.pixels;
        const std::int64_t of_regions = item * shape_.channels * shape_.regions;
        if (planes_) return {group, of_pixels + first * shape_.pixels, of_regions + first * shape_.regions, 1, 1};
        return {group, of_pixels + first, of_regions + first, shape_.channels,
                std::min(width_, shape_.channels - first)};
    }

private:
    PoolShape shape_;
    bool planes_;
    std::int64_t width_, per_item_, items_per_group_;
};

inline std::int64_t chunks_of(std::int64_t pixels) { return (pixels + kChunk - 1) / kChunk; }

// The runs of a range of chunks of one label map.
class RunList {
public:
    explicit RunList(std::int64_t pixels)
        : runs_(std::make_unique_for_overwrite<Run[]>(static_cast<std::size_t>(pixels + kRunSlack))),
          first_(static_cast<std::size_t>(chunks_of(pixels)) + 1) {}

    // Takes in the chunks that start at `labels` and hold `pixels` in all. Are all labels in 0 .. n-1?
    bool scan(const std::int32_t* labels, std::int64_t pixels, std::int64_t n) {
        bool inside = true;
        labels_ = labels;
        pixels_ = pixels;
        for (std::int64_t c = 0; c < chunks_of(pixels); ++c) {
            std::int64_t found = 0;
            inside &= pool_variant().scan_labels(labels + c * kChunk, size(c), n, runs_.get() + first(c), &found);
            first_[static_cast<std::size_t>(c) + 1] = first(c) + found;
        }
        return inside;
    }

    std::int64_t pixels() const { return pixels_; }

    // Calls body with every chunk of a tile; `values` is the tile's value at the first of the pixels.
    template <class T, class Body>
    void for_each(const T* values, const Tile& tile, Body&& body) const {
        for (std::int64_t c = 0; c < chunks_of(pixels_); ++c) {
            body(Chunk<T>{values + c * kChunk * tile.step, tile.step, tile.width, labels_ + c * kChunk, size(c),
                          runs_.get() + first(c), first(c + 1) - first(c)});
        }
    }

    // Adds the pixels per region to members [n].
    void count(std::int64_t* members) const {
        for (std::int64_t c = 0; c < chunks_of(pixels_); ++c) {
            std::int32_t start = 0;
            for (std::int64_t k = first(c); k < first(c + 1); ++k) {
                members[runs_[static_cast<std::size_t>(k)].label] += runs_[static_cast<std::size_t>(k)].end - start;
                start = runs_[static_cast<std::size_t>(k)].end;
            }
        }
    }

private:
    std::int64_t first(std::int64_t chunk) const { return first_[static_cast<std::size_t>(chunk)]; }
    std::int64_t size(std::int64_t chunk) const { return std::min(kChunk, pixels_ - chunk * kChunk); }

    std::unique_ptr<Run[]> runs_;
    std::vector<std::int64_t> first_;
    const std::int32_t* labels_ = nullptr;
    std::int64_t pixels_ = 0;
};

// Throws InvalidValue for the first label that is outside 0 .. n-1, if there is one.
inline void refuse_labels(const std::int32_t* labels, std::int64_t count, std::int64_t n) {
    for (std::int64_t i = 0; i < count; ++i) {
        if (labels[i] < 0 || labels[i] >= n) {
            throw InvalidValue("labels: expected values in 0 .. " + std::to_string(n - 1) + ", got " +
                               std::to_string(labels[i]));
        }
    }
}

}  // namespace midgrain::cpu

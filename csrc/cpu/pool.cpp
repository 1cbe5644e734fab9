// Superpixel pooling on the CPU (core/pool.hpp).
#include "core/pool.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "cpu/kernels.hpp"
#include "cpu/parallel.hpp"
#include "cpu/pool_tile.hpp"

namespace midgrain::cpu {
namespace {

using core::Reduce;

constexpr std::int64_t kValuesPerWorker = 65536;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// Channels side by side that are taken together: as many as possible, because memory is read in its order then, but
// their sums should stay in the second-level cache, and there should be work for all.
std::int64_t widest_tile(const PoolShape& shape, int workers) {
    constexpr std::int64_t kLine = 16, kSums = 262144;
    std::int64_t width = std::max(kSums / shape.regions, kLine);
    if (chunks_of(shape.pixels) < workers) {
        const std::int64_t even = (shape.items * shape.channels + workers - 1) / workers;
        width = std::min(width, (even + kLine - 1) / kLine * kLine);
    }
    return width;
}

bool is_extreme(Reduce reduce) { return reduce == Reduce::kMax || reduce == Reduce::kMin; }
bool is_deviation(Reduce reduce) { return reduce == Reduce::kVar || reduce == Reduce::kStd; }
bool needs_sizes(Reduce reduce) { return reduce == Reduce::kMean || reduce == Reduce::kMedian || is_deviation(reduce); }

Term term_of(Reduce reduce) {
    if (reduce == Reduce::kAbsSum) return Term::kMagnitude;
    return reduce == Reduce::kL2 ? Term::kSquare : Term::kValue;
}

// Either every worker takes tiles of its own, or, where tiles are few and large, all of them share every tile, each
// with a part of its pixels and then of its regions. Sums of integers, and of extremes the first in the order of
// pixels: both give the same bits.
template <class T>
class PoolJob {
public:
    PoolJob(const T* values, const std::int32_t* labels, const PoolShape& shape, Reduce reduce, int threads, T* out)
        : values_(values),
          labels_(labels),
          shape_(shape),
          reduce_(reduce),
          out_(out),
          useful_(useful_workers(threads, shape.items * shape.channels * shape.pixels, kValuesPerWorker)),
          tiles_(shape, widest_tile(shape, useful_)),
          exponent_(core::fixed_exponent(shape.pixels)),
          unit_(core::power_of_two(exponent_)) {
        together_ = tiles_.count() < useful_ && chunks_of(shape.pixels) > 1 && reduce != Reduce::kMedian;
        const std::int64_t most = together_ ? chunks_of(shape.pixels) : tiles_.count();
        const auto workers = static_cast<int>(std::min<std::int64_t>(useful_, most));
        workers_.reserve(static_cast<std::size_t>(workers));
        for (int i = 0; i < workers; ++i) workers_.emplace_back(shape, reduce, tiles_.width());
    }

    void run() {
        run_team(static_cast<int>(workers_.size()), [&](Team& team, int index) { work(team, index); });
        if (labels_outside_) refuse_labels(labels_, shape_.groups * shape_.pixels, shape_.regions);
        if (values_infinite_) throw InvalidValue("values: expected finite values, got NaN or infinity");
    }

private:
    // What one worker needs; all of it is allocated before the team starts.
    struct Worker {
        Worker(const PoolShape& shape, Reduce reduce, std::int64_t tile_width) : runs(shape.pixels) {
            const auto n = static_cast<std::size_t>(shape.regions), width = static_cast<std::size_t>(tile_width);
            largest.resize(width);
            if (needs_sizes(reduce)) {
                sizes.resize(n);
                totals.resize(n);
            }
            if (reduce == Reduce::kMedian) {
                start.resize(n + 1);
                next.resize(n);
                sorted.resize(static_cast<std::size_t>(shape.pixels));
            } else if (is_extreme(reduce)) {
                extremes.resize(n * width);
            } else {
                sums.resize(n * width);
                exponents.resize(width);
                scale.resize(width);
                factor.resize(width);
            }
            if (is_deviation(reduce)) {
                means.resize(n * width);
                widest.resize(width);
                widen.resize(width);
            }
        }

        RunList runs;
        std::vector<MagnitudeBits<T>> largest;
        std::vector<std::int64_t> sizes, start, next;
        std::vector<std::uint64_t> sums;
        std::vector<T> extremes, sorted;
        std::vector<int> exponents;
        std::vector<double> totals;  // sizes of the whole regions, for those that this worker finishes
        std::vector<double> scale, factor, means, widest, widen;
    };

    // One worker's view of the tile at hand.
    struct Turn {
        Team& team;
        Worker& self;   // this worker's own part
        Worker& whole;  // where the parts come together
        Share regions;  // that this worker finishes
        Tile tile;
        const T* values;
    };

    void work(Team& team, int index) {
        Worker& self = workers_[static_cast<std::size_t>(index)];
        const Share everything{0, chunks_of(shape_.pixels)};
        const Share chunks = together_ ? team.share(everything.last, index) : everything;
        const std::int64_t first = chunks.first * kChunk;
        const std::int64_t pixels = std::min(chunks.last * kChunk, shape_.pixels) - first;
        const Share mine = together_ ? Share{0, tiles_.count()} : team.share(tiles_.count(), index);
        Turn turn{team,
                  self,
                  together_ ? workers_.front() : self,
                  together_ ? team.share(shape_.regions, index) : Share{0, shape_.regions},
                  {},
                  nullptr};
        std::int64_t item = mine.first / tiles_.per_item(), of_item = mine.first % tiles_.per_item(), group = -1;
        for (std::int64_t i = mine.first; i < mine.last; ++i) {
            turn.tile = tiles_.at(item, of_item);
            turn.values = values_ + turn.tile.pixels + first * turn.tile.step;
            const bool new_labels = turn.tile.group != group;
            if (new_labels) {
                group = turn.tile.group;
                scan(turn, labels_ + group * shape_.pixels + first, pixels);
            }
            if (!measure(turn)) values_infinite_ = true;
            meet(turn);
            // Where the team works together, all see the same here: nobody is beyond the next meeting.
            if (!labels_outside_ && !values_infinite_) {
                if (new_labels) add_sizes(turn);
                reduce(turn);
                meet(turn);
            }
            if (++of_item == tiles_.per_item()) {
                of_item = 0;
                ++item;
            }
        }
    }

    void scan(Turn& turn, const std::int32_t* labels, std::int64_t pixels) {
        Worker& self = turn.self;
        if (!self.runs.scan(labels, pixels, shape_.regions)) {
            labels_outside_ = true;
        } else if (needs_sizes(reduce_)) {
            std::fill(self.sizes.begin(), self.sizes.end(), 0);
            self.runs.count(self.sizes.data());
        }
    }

    void add_sizes(Turn& turn) const {
        if (!needs_sizes(reduce_)) return;
        for (std::int64_t r = turn.regions.first; r < turn.regions.last; ++r) {
            std::int64_t size = 0;
            for_each_part(turn, [&](const Worker& part) { size += part.sizes[static_cast<std::size_t>(r)]; });
            turn.self.totals[static_cast<std::size_t>(r)] = static_cast<double>(size);
        }
    }

    void meet(Turn& turn) const {
        if (together_) turn.team.meet();
    }

    // The largest magnitude of each channel; are all of them finite?
    bool measure(Turn& turn) const {
        auto& largest = turn.self.largest;
        std::fill(largest.begin(), largest.end(), 0);
        pool_kernels<T>().measure(turn.values, turn.self.runs.pixels(), turn.tile.step, turn.tile.width,
                                  largest.data());
        constexpr auto kInfinity = std::bit_cast<MagnitudeBits<T>>(std::numeric_limits<T>::infinity());
        return *std::max_element(largest.begin(), largest.end()) < kInfinity;
    }

    // Calls body with every worker whose part belongs to this tile, in the order of pixels.
    template <class Body>
    void for_each_part(const Turn& turn, Body&& body) const {
        if (!together_) return body(turn.self);
        for (int i = 0; i < turn.team.size(); ++i) body(workers_[static_cast<std::size_t>(i)]);
    }

    // As for_each_part, without the part where all come together.
    template <class Body>
    void for_each_other(const Turn& turn, Body&& body) const {
        for_each_part(turn, [&](const Worker& part) {
            if (&part != &turn.whole) body(part);
        });
    }

    void reduce(Turn& turn) {
        switch (reduce_) {
            case Reduce::kMax:
            case Reduce::kMin: return extreme(turn);
            case Reduce::kMedian: return median(turn);
            default: return sum(turn);
        }
    }

    T* out(const Turn& turn, std::int64_t region) const { return out_ + turn.tile.regions + region * turn.tile.step; }

    void add_up(Turn& turn, Term term) const {
        Worker& self = turn.self;
        const Scaling scaling{self.scale.data(), self.factor.data(), self.widen.data(), turn.whole.means.data(), unit_,
                              exponent_ > 51};
        std::fill(self.sums.begin(), self.sums.end(), 0);
        self.runs.for_each(turn.values, turn.tile, [&](const Chunk<T>& chunk) {
            pool_kernels<T>().add(chunk, term, scaling, self.sums.data());
        });
        meet(turn);
        const auto width = turn.tile.width;
        for_each_other(turn, [&](const Worker& part) {
            for (std::int64_t k = turn.regions.first * width; k < turn.regions.last * width; ++k) {
                turn.whole.sums[static_cast<std::size_t>(k)] += part.sums[static_cast<std::size_t>(k)];
            }
        });
    }

    void sum(Turn& turn) {
        Worker& self = turn.self;
        const auto width = static_cast<std::size_t>(turn.tile.width);
        for (std::size_t c = 0; c < width; ++c) {
            MagnitudeBits<T> largest = 0;
            for_each_part(turn, [&](const Worker& part) { largest = std::max(largest, part.largest[c]); });
            self.exponents[c] = core::magnitude_exponent(static_cast<double>(std::bit_cast<T>(largest)));
            self.scale[c] = core::power_of_two(-self.exponents[c]);
            self.factor[c] = self.scale[c] * unit_;
        }
        add_up(turn, term_of(reduce_));
        if (is_deviation(reduce_)) add_up_deviations(turn);
        switch (reduce_) {
            case Reduce::kMean: return finish<true>(turn, 1, [](double mean) { return mean; });
            case Reduce::kVar: return finish<true>(turn, 2, [](double mean) { return mean; });
            case Reduce::kStd: return finish<true>(turn, 1, [](double mean) { return std::sqrt(mean); });
            case Reduce::kL2: return finish<false>(turn, 1, [](double sum) { return std::sqrt(sum); });
            default: return finish<false>(turn, 1, [](double sum) { return sum; });
        }
    }

    // Replaces the sums by those of the squared deviations from the means.
    void add_up_deviations(Turn& turn) const {
        Worker& self = turn.self;
        const auto width = turn.tile.width;
        for (std::int64_t r = turn.regions.first; r < turn.regions.last; ++r) {
            const double size = self.totals[static_cast<std::size_t>(r)];
            for (std::int64_t k = r * width; k < (r + 1) * width; ++k) {
                const auto sum = static_cast<std::int64_t>(turn.whole.sums[static_cast<std::size_t>(k)]);
                const double scaled = static_cast<double>(sum) / unit_;
                turn.whole.means[static_cast<std::size_t>(k)] = size > 0.0 ? scaled / size : 0.0;
            }
        }
        meet(turn);
        const Scaling scaling{self.scale.data(), self.factor.data(), nullptr, turn.whole.means.data(), unit_, false};
        std::fill(self.widest.begin(), self.widest.end(), 0.0);
        self.runs.for_each(turn.values, turn.tile, [&](const Chunk<T>& chunk) {
            pool_kernels<T>().deviate(chunk, scaling, self.widest.data());
        });
        meet(turn);
        for (std::size_t c = 0; c < static_cast<std::size_t>(width); ++c) {
            double widest = 0.0;
            for_each_part(turn, [&](const Worker& part) { widest = std::max(widest, part.widest[c]); });
            const int spread = core::magnitude_exponent(widest);
            self.widen[c] = core::power_of_two(-spread);
            self.exponents[c] += spread;
        }
        add_up(turn, Term::kDeviation);
    }

    // Writes of(sum) or of(mean), times 2^(degree * exponent of its channel).
    template <bool kOfMean, class Of>
    void finish(const Turn& turn, int degree, Of&& of) const {
        Worker& self = turn.self;
        const auto width = static_cast<std::size_t>(turn.tile.width);
        bool normal = true;
        for (std::size_t c = 0; c < width; ++c) {
            self.exponents[c] *= degree;
            self.factor[c] = core::power_of_two(self.exponents[c]);
            normal = normal && std::isnormal(self.factor[c]);
        }
        const double one = 1.0 / unit_;
        // One row per region, or one for all regions of a plane.
        const auto write = [&](std::int64_t first, std::int64_t count, auto&& size, auto&& channel) {
            const std::uint64_t* sums = turn.whole.sums.data() + first * turn.tile.width;
            T* row = out(turn, first);
            const auto value = [&](std::int64_t i) {
                const double sum = static_cast<double>(static_cast<std::int64_t>(sums[i])) * one;
                return of(kOfMean ? (size(i) > 0.0 ? sum / size(i) : kNaN) : sum);
            };
            if (normal) {
                for (std::int64_t i = 0; i < count; ++i) {
                    row[i] = static_cast<T>(value(i) * self.factor[channel(i)]);
                }
            } else {
                for (std::int64_t i = 0; i < count; ++i) {
                    row[i] = static_cast<T>(std::ldexp(value(i), self.exponents[channel(i)]));
                }
            }
        };
        const double* totals = self.totals.data();
        const std::int64_t first = turn.regions.first, last = turn.regions.last;  // clang 14 captures no bindings
        if (turn.tile.step == 1) {
            write(
                first, last - first, [&](std::int64_t i) { return totals[first + i]; },
                [](std::int64_t) { return std::size_t{0}; });
        } else {
            for (std::int64_t r = first; r < last; ++r) {
                write(
                    r, turn.tile.width, [&](std::int64_t) { return totals[r]; },
                    [](std::int64_t c) { return static_cast<std::size_t>(c); });
            }
        }
    }

    void extreme(Turn& turn) const {
        const bool maximum = reduce_ == Reduce::kMax;
        constexpr T kInfinity = std::numeric_limits<T>::infinity();
        const T worst = maximum ? -kInfinity : kInfinity;
        std::vector<T>& extremes = turn.self.extremes;
        std::fill(extremes.begin(), extremes.end(), worst);
        turn.self.runs.for_each(turn.values, turn.tile, [&](const Chunk<T>& chunk) {
            pool_kernels<T>().extreme(chunk, maximum, extremes.data());
        });
        meet(turn);
        const auto width = turn.tile.width;
        T* whole = turn.whole.extremes.data();
        for_each_other(turn, [&](const Worker& part) {
            for (std::int64_t k = turn.regions.first * width; k < turn.regions.last * width; ++k) {
                const T other = part.extremes[static_cast<std::size_t>(k)];
                if (maximum ? other > whole[k] : other < whole[k]) whole[k] = other;
            }
        });
        // Where the regions lie one after the other they are one row.
        const bool dense = turn.tile.step == width;
        const std::int64_t length = dense ? (turn.regions.last - turn.regions.first) * width : width;
        for (std::int64_t r = turn.regions.first; r < turn.regions.last; r += dense ? length / width : 1) {
            const T* best = whole + r * width;
            T* row = out(turn, r);
            for (std::int64_t c = 0; c < length; ++c) row[c] = best[c] == worst ? static_cast<T>(kNaN) : best[c];
        }
    }

    void median(Turn& turn) const {
        Worker& self = turn.self;
        const auto n = self.sizes.size();
        for (std::size_t r = 0; r < n; ++r) self.start[r + 1] = self.start[r] + self.sizes[r];
        for (std::int64_t c = 0; c < turn.tile.width; ++c) {
            std::copy(self.start.begin(), self.start.end() - 1, self.next.begin());
            const std::int32_t* labels = labels_ + turn.tile.group * shape_.pixels;
            for (std::int64_t p = 0; p < shape_.pixels; ++p) {
                const auto place = self.next[static_cast<std::size_t>(labels[p])]++;
                self.sorted[static_cast<std::size_t>(place)] = turn.values[p * turn.tile.step + c];
            }
            for (std::size_t r = 0; r < n; ++r) {
                const auto first = self.sorted.begin() + self.start[r], last = self.sorted.begin() + self.start[r + 1];
                const auto middle = first + self.sizes[r] / 2;
                T& result = out(turn, static_cast<std::int64_t>(r))[c];
                if (first == last) {
                    result = static_cast<T>(kNaN);
                    continue;
                }
                std::nth_element(first, middle, last);
                // Halves before adding: the sum of two large values must not overflow.
                result = self.sizes[r] % 2 == 1 ? *middle : *middle / 2 + *std::max_element(first, middle) / 2;
            }
        }
    }

    const T* values_;
    const std::int32_t* labels_;
    PoolShape shape_;
    Reduce reduce_;
    T* out_;
    int useful_;  // workers, if there are things to share out
    Tiles tiles_;
    int exponent_;
    double unit_;
    bool together_ = false;
    std::vector<Worker> workers_;
    std::atomic<bool> labels_outside_{false}, values_infinite_{false};
};

}  // namespace

template <class T>
void pool(const T* values, const std::int32_t* labels, const PoolShape& shape, Reduce reduce, int threads, T* out) {
    if (shape.items * shape.channels == 0) return refuse_labels(labels, shape.groups * shape.pixels, shape.regions);
    PoolJob<T>(values, labels, shape, reduce, threads, out).run();
}

template void pool(const float*, const std::int32_t*, const PoolShape&, Reduce, int, float*);
template void pool(const double*, const std::int32_t*, const PoolShape&, Reduce, int, double*);

}  // namespace midgrain::cpu

#include "cpu/slic_narrow.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <memory>

namespace midgrain::cpu {
namespace {

// Bits of a key that always remain for the candidate: D^2 and |q|^2 together are below 2^27 + 2^25 (core/slic.hpp).
constexpr int kSmallestKeyBits = 3;
static_assert(3 * ((std::int64_t{1} << 27) + (std::int64_t{1} << 25)) << kSmallestKeyBits <= std::int64_t{1} << 32);

using core::Dims;

// Largest s with magnitude * 2^s within int16.
int headroom(std::int64_t magnitude) {
    int shift = 0;
    while (shift < 8 && magnitude << (shift + 1) <= INT16_MAX) ++shift;
    return shift;
}

}  // namespace

NarrowClustering::NarrowClustering(const FeatureRows& rows, Dims dims, const core::SlicGeometry& geometry,
                                   std::span<const Range> ranges, std::span<const double> weights, int max_num_iter,
                                   int workers, Workspace& workspace)
    : rows_(rows),
      geometry_(geometry),
      ranges_(ranges),
      weights_(weights),
      max_num_iter_(max_num_iter),
      channels_(static_cast<int>(ranges.size())),
      count_(geometry.count()),
      variant_(narrow_variant()) {
    const int lanes = variant_.tiles->lanes;
    grid_ = {dims, lanes, (channels_ + 1) / 2, (dims.x + lanes - 1) / lanes, (dims.y + kTileRows - 1) / kTileRows};
    const std::int64_t padded[3] = {dims.z, grid_.padded_y(), grid_.padded_x()};
    for (int a = 0; a < 3; ++a) {
        const std::int64_t cells = geometry_.cells[a];
        position_[a] = workspace.take<std::int32_t>(padded[a]);
        home_[a] = workspace.take<std::int32_t>(cells);
        cell_position_[a] = workspace.take<std::int64_t>(cells);
        std::fill_n(cell_position_[a], cells, 0);
        for (std::int64_t i = 0; i < padded[a]; ++i) {
            const bool inside = i < dims[a];
            position_[a][i] = core::pixel_position(inside ? i : dims[a] - 1, geometry_.per_pixel[a]);
            if (inside) cell_position_[a][core::initial_cell(i, dims[a], cells)] += position_[a][i];
        }
    }
    for (int a = 0; a < 3; ++a) {
        for (std::int64_t i = 0; i < geometry_.cells[a]; ++i) {
            home_[a][i] = static_cast<std::int32_t>(core::divide_half_up(cell_position_[a][i], cell_size(a, i)));
        }
    }
    // Features are stored as far up in int16 as the ranges let them; three bits always fit in the key.
    std::int64_t widest = 1;
    for (int c = 0; c < channels_; ++c) {
        const auto at = static_cast<std::size_t>(c);
        const float scale = core::feature_scale(geometry_.units, weights_[at]);
        const std::int64_t high = core::quantise(ranges_[at].high, ranges_[at].low, ranges_[at].high, scale);
        const std::int64_t low = core::quantise(ranges_[at].low, ranges_[at].low, ranges_[at].high, scale);
        widest = std::max({widest, std::abs(low), std::abs(high)});
    }
    key_.feature_shift = std::min(headroom(widest), kSmallestKeyBits);
    position_sums_ = workspace.take<std::int64_t>((padded[1] + padded[2]) * kSumHeader);
    for (std::int64_t i = 0; i < padded[1] + padded[2]; ++i) {
        std::int64_t* entry = position_sums_ + i * kSumHeader;
        const bool along_x = i < padded[2];
        entry[0] = along_x ? 0 : 1;
        entry[1] = 0;
        entry[2] = along_x ? 0 : position_[1][i - padded[2]];
        entry[3] = along_x ? position_[2][i] : 0;
    }
    features_ = workspace.take<std::int32_t>(grid_.count() * grid_.tile_words());
    labels_ = workspace.take<std::int32_t>(grid_.count() * kTileRows * lanes);
    states_ = workspace.take<TileState>(grid_.count());
    const std::int64_t room = count_ + kMaxLanes;
    for (auto& axis : centre_position_) {
        axis = workspace.take<std::int32_t>(room);
        std::fill_n(axis, room, 0);
    }
    centre_features_ = workspace.take<std::int32_t>(count_ * 2 * grid_.pairs);
    std::fill_n(centre_features_, count_ * 2 * grid_.pairs, 0);
    base_ = workspace.take<std::uint32_t>(room);
    coefficients_ = workspace.take<std::uint32_t>(count_ * grid_.pairs);
    moved_ = workspace.take<float>(room);
    auto* first = workspace.take<Worker>(workers);
    std::uninitialized_value_construct_n(first, workers);
    workers_ = {first, static_cast<std::size_t>(workers)};
    sums_ = workspace.take<const std::int64_t*>(workers);
    for (Worker& worker : workers_) {
        worker.sums = workspace.take<std::int64_t>(count_ * grid_.sum_width());
        sums_[&worker - first] = worker.sums;
        // The search writes whole vectors, and look-ups read whole tables.
        worker.candidates = workspace.take<std::int32_t>(room + kMaxGroup);
        std::fill_n(worker.candidates, room + kMaxGroup, 0);
        worker.reach[0] = workspace.take<CellRange>(dims.z);
        worker.reach[1] = workspace.take<CellRange>(grid_.tiles_y);
        worker.reach[2] = workspace.take<CellRange>(grid_.tiles_x);
        worker.lowest = workspace.take<std::int32_t>(channels_);
        worker.highest = workspace.take<std::int32_t>(channels_);
        worker.finite = true;
    }
    // Float rows and column sums of every channel, and a row of cell numbers.
    row_scratch_bytes_ = (2 * channels_ + 1) * padded[2] * 4;
    row_scratch_ = workspace.take<std::byte>(workers * row_scratch_bytes_);
}

// Pixels along one axis that start in a cell.
std::int64_t NarrowClustering::cell_size(int axis, std::int64_t cell) const {
    const std::int64_t pixels = grid_.dims[axis], cells = geometry_.cells[axis];
    return core::cell_begin(cell + 1, pixels, cells) - core::cell_begin(cell, pixels, cells);
}

bool NarrowClustering::finite() const {
    return std::all_of(workers_.begin(), workers_.end(), [](const Worker& worker) { return worker.finite; });
}

void NarrowClustering::run(Team& team, int index) {
    Worker& own = workers_[static_cast<std::size_t>(index)];
    const Share centres = team.share(count_, index);
    std::fill_n(own.sums, count_ * grid_.sum_width(), 0);
    pack(team.share(grid_.tile_rows(), index), own);
    count_cells(centres, own);
    team.meet();
    if (!finite()) return;
    if (index == 0) choose_key(team);
    team.meet();
    update(team, centres, own);
    team.meet();
    for (int round = 0; round < max_num_iter_; ++round) {
        find_reach(team, own);
        const bool last = round + 1 == max_num_iter_;
        assign(team, index, last);
        if (last) break;
        team.meet();
        // No label changed anywhere: every further round would give the same centres and labels.
        const bool settled =
            std::none_of(workers_.begin(), workers_.end(), [](const Worker& worker) { return worker.changed; });
        if (!settled) update(team, centres, own);
        own.claimed = 0;
        team.meet();
        if (settled) break;
    }
}

// Quantises rows into tiles and sums them over the cells that the centres start from.
void NarrowClustering::pack(Share tile_rows, Worker& worker) {
    const Dims& dims = grid_.dims;
    const std::int64_t padded = grid_.padded_x();
    auto* scratch = reinterpret_cast<float*>(row_scratch_ + (&worker - workers_.data()) * row_scratch_bytes_);
    auto* columns = reinterpret_cast<std::int32_t*>(scratch + channels_ * padded);
    std::int32_t* cell = columns + channels_ * padded;
    std::fill_n(columns, channels_ * padded, 0);
    for (std::int64_t x = 0; x < padded; ++x) {
        cell[x] = static_cast<std::int32_t>(core::initial_cell(std::min(x, dims.x - 1), dims.x, geometry_.cells.x));
    }
    std::array<PackChannel, core::kMaxChannels> channels;
    for (int c = 0; c < channels_; ++c) {
        const auto at = static_cast<std::size_t>(c);
        channels[at] = {nullptr,
                        ranges_[at].low,
                        ranges_[at].high,
                        core::range_middle(ranges_[at].low, ranges_[at].high),
                        core::feature_scale(geometry_.units, weights_[at]),
                        columns + c * padded,
                        INT32_MAX,
                        INT32_MIN};
    }
    const float* values[core::kMaxChannels];
    for (std::int64_t tile_row = tile_rows.first; tile_row < tile_rows.last; ++tile_row) {
        const std::int64_t z = tile_row / grid_.tiles_y, first_y = tile_row % grid_.tiles_y * kTileRows;
        std::int32_t* tiles = features_ + tile_row * grid_.tiles_x * grid_.tile_words();
        std::fill_n(states_ + tile_row * grid_.tiles_x, grid_.tiles_x, TileState{});
        for (std::int64_t r = 0; r < kTileRows; ++r) {
            const std::int64_t y = first_y + r;
            if (y < dims.y) {
                worker.finite &= rows_.row(z, y, scratch, padded, values);
                for (int c = 0; c < channels_; ++c) channels[static_cast<std::size_t>(c)].values = values[c];
            }
            // Rows beyond the picture repeat its last one.
            for (int pair = 0; pair < grid_.pairs; ++pair) {
                PackChannel* even = channels.data() + 2 * pair;
                worker.finite &=
                    variant_.pack_row(*even, 2 * pair + 1 < channels_ ? even + 1 : nullptr, dims.x, key_.feature_shift,
                                      grid_.tile_words(), tiles + (r * grid_.pairs + pair) * grid_.lanes);
            }
            if (y >= dims.y) continue;
            const std::int64_t cell_z = core::initial_cell(z, dims.z, geometry_.cells.z);
            const std::int64_t cell_y = core::initial_cell(y, dims.y, geometry_.cells.y);
            const auto first = static_cast<std::int32_t>((cell_z * geometry_.cells.y + cell_y) * geometry_.cells.x);
            std::int32_t* labels = labels_ + (tile_row * grid_.tiles_x * kTileRows + r) * grid_.lanes;
            for (std::int64_t x = 0; x < padded; x += grid_.lanes, labels += kTileRows * grid_.lanes) {
                __builtin_prefetch(labels + grid_.lanes, 1);
                for (int i = 0; i < grid_.lanes; ++i) labels[i] = first + cell[x + i];
            }
            const bool ends =
                y + 1 == dims.y || r + 1 == kTileRows || core::initial_cell(y + 1, dims.y, geometry_.cells.y) != cell_y;
            if (ends) flush_columns(z, y, worker, columns);
        }
        if (first_y + kTileRows > dims.y) std::fill_n(columns, channels_ * padded, 0);  // of the repeated rows
    }
    for (int c = 0; c < channels_; ++c) {
        worker.lowest[c] = channels[static_cast<std::size_t>(c)].lowest;
        worker.highest[c] = channels[static_cast<std::size_t>(c)].highest;
    }
}

// Adds the column sums to the cells of row (z, y) and clears them.
void NarrowClustering::flush_columns(std::int64_t z, std::int64_t y, Worker& worker, std::int32_t* columns) {
    const Dims& dims = grid_.dims;
    const Dims& cells = geometry_.cells;
    const std::int64_t cell_z = core::initial_cell(z, dims.z, cells.z);
    const std::int64_t cell_y = core::initial_cell(y, dims.y, cells.y);
    const std::int64_t width = grid_.sum_width();
    std::int64_t* sums = worker.sums + (cell_z * cells.y + cell_y) * cells.x * width;
    for (int c = 0; c < channels_; ++c) {
        std::int32_t* column = columns + c * grid_.padded_x();
        std::int64_t x = 0;
        for (std::int64_t cell = 0; cell < cells.x; ++cell) {
            const std::int64_t end = x + cell_size(2, cell);
            std::int64_t total = 0;
            for (; x < end; ++x) total += column[x];
            sums[cell * width + kSumHeader + c] += total << key_.feature_shift;
        }
    }
    std::fill_n(columns, channels_ * grid_.padded_x(), 0);
}

// Members and positions of the cells, which follow from the grid alone.
void NarrowClustering::count_cells(Share centres, Worker& worker) {
    const Dims& cells = geometry_.cells;
    for (std::int64_t k = centres.first; k < centres.last; ++k) {
        const std::int64_t cell[3] = {k / (cells.y * cells.x), k / cells.x % cells.y, k % cells.x};
        std::int64_t n[3];
        for (int a = 0; a < 3; ++a) n[a] = cell_size(a, cell[a]);
        std::int64_t* sums = worker.sums + k * grid_.sum_width();
        sums[0] += n[0] * n[1] * n[2];
        sums[1] += cell_position_[0][cell[0]] * n[1] * n[2];
        sums[2] += cell_position_[1][cell[1]] * n[0] * n[2];
        sums[3] += cell_position_[2][cell[2]] * n[0] * n[1];
    }
}

void NarrowClustering::choose_key(const Team& team) {
    std::int64_t square = 0, spread = 0, widest = 1;
    for (int c = 0; c < channels_; ++c) {
        std::int64_t low = INT32_MAX, high = INT32_MIN;
        for (int t = 0; t < team.size(); ++t) {
            low = std::min<std::int64_t>(low, workers_[static_cast<std::size_t>(t)].lowest[c]);
            high = std::max<std::int64_t>(high, workers_[static_cast<std::size_t>(t)].highest[c]);
        }
        const std::int64_t magnitude = std::max(std::abs(low), std::abs(high));
        square += magnitude * magnitude;
        spread += (high - low) * (high - low);
        widest = std::max(widest, magnitude);
    }
    const std::int64_t window = geometry_.window();
    int axes = 0;
    for (int a = 0; a < 3; ++a) axes += grid_.dims[a] > 1;
    // Keys lie below `range` << bits; a pixel out of reach along both axes has twice that added.
    const std::int64_t range = spread + axes * window * window + square + 1;
    int bits = kSmallestKeyBits;
    while (bits < kLargestKeyBits && 3 * range << (bits + 1) <= (std::int64_t{1} << 32)) ++bits;
    const int coefficient_shift = std::min(bits - key_.feature_shift, headroom(2 * widest));
    key_.coefficient_shift = std::max(coefficient_shift, 0);
    key_.offset = static_cast<std::uint32_t>(square);
    key_.beyond = static_cast<std::uint32_t>(range << key_.bits());
}

void NarrowClustering::update(const Team& team, Share centres, Worker& worker) {
    UpdateCentresJob job{};
    job.sums = sums_;
    job.workers = team.size();
    job.pairs = grid_.pairs;
    job.width = grid_.sum_width();
    job.key = key_;
    job.cells = geometry_.cells;
    for (int a = 0; a < 3; ++a) {
        job.position[a] = centre_position_[a];
        job.home[a] = home_[a];
    }
    job.features = centre_features_;
    job.base = base_;
    job.coefficients = coefficients_;
    job.moved = moved_;
    variant_.update_centres(job, centres.first, centres.last);
    std::copy_n(job.drift, 3, worker.drift);
}

// For every tile the cells whose centres may be within the window: those that started near enough, given how far
// any centre has drifted.
void NarrowClustering::find_reach(const Team& team, Worker& worker) {
    const std::int64_t tiles[3] = {grid_.dims.z, grid_.tiles_y, grid_.tiles_x};
    const std::int64_t side[3] = {1, kTileRows, grid_.lanes};
    for (int a = 0; a < 3; ++a) {
        std::int64_t margin = geometry_.window();
        std::int32_t drift = 0;
        for (int t = 0; t < team.size(); ++t) drift = std::max(drift, workers_[static_cast<std::size_t>(t)].drift[a]);
        margin += drift;
        const std::int64_t cells = geometry_.cells[a];
        std::int32_t first = 0, last = 0;
        for (std::int64_t i = 0; i < tiles[a]; ++i) {
            const std::int64_t low = position_[a][i * side[a]] - margin;
            const std::int64_t high = position_[a][i * side[a] + side[a] - 1] + margin;
            while (first < cells && home_[a][first] < low) ++first;
            while (last < cells && home_[a][last] <= high) ++last;
            worker.reach[a][i] = {first, last};
        }
    }
}

void NarrowClustering::write_labels(Share rows, std::int32_t* out) const {
    const Dims& dims = grid_.dims;
    const std::int64_t lanes = grid_.lanes, tile_size = kTileRows * lanes;
    for (std::int64_t row = rows.first; row < rows.last; ++row) {
        const std::int64_t z = row / dims.y, y = row % dims.y;
        const std::int64_t tile = (z * grid_.tiles_y + y / kTileRows) * grid_.tiles_x;
        const std::int32_t* in = labels_ + tile * tile_size + y % kTileRows * lanes;
        std::int32_t* to = out + row * dims.x;
        for (std::int64_t x = 0; x < dims.x; x += lanes, in += tile_size) {
            const std::int64_t n = std::min(lanes, dims.x - x);
            std::memcpy(to + x, in, static_cast<std::size_t>(n) * sizeof(std::int32_t));
        }
    }
}

// A worker takes the tiles of its own share, then helps with the others': textured parts take longer than flat ones.
// Whose sums a moved pixel goes to does not matter, only their total does.
void NarrowClustering::assign(const Team& team, int index, bool last) {
    constexpr std::int64_t kClaim = 8;
    Worker& own = workers_[static_cast<std::size_t>(index)];
    AssignTilesJob job = this->job(own);
    if (last) job.sums = nullptr;
    own.changed = false;
    for (int turn = 0; turn < team.size(); ++turn) {
        const int part = (index + turn) % team.size();
        const Share tiles = team.share(grid_.count(), part);
        std::atomic<std::int64_t>& claimed = workers_[static_cast<std::size_t>(part)].claimed;
        for (;;) {
            const std::int64_t first = tiles.first + claimed.fetch_add(kClaim);
            if (first >= tiles.last) break;
            own.changed |= variant_.tiles->assign(job, first, std::min(first + kClaim, tiles.last));
        }
    }
}

AssignTilesJob NarrowClustering::job(const Worker& worker) const {
    AssignTilesJob job{};
    job.grid = grid_;
    job.key = key_;
    job.centres = {{centre_position_[0], centre_position_[1], centre_position_[2]}, base_, coefficients_, moved_};
    job.cells = geometry_.cells;
    for (int a = 0; a < 3; ++a) {
        job.reach[a] = worker.reach[a];
        job.position[a] = position_[a];
    }
    job.position_sums = position_sums_;
    job.window = static_cast<std::int32_t>(geometry_.window());
    job.features = features_;
    job.states = states_;
    job.labels = labels_;
    job.sums = worker.sums;
    job.candidates = worker.candidates;
    return job;
}

}  // namespace midgrain::cpu

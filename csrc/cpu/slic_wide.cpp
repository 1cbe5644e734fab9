// SLIC with wide features (core/slic.hpp): int32 features and int64 distances, in raster order.
#include "cpu/slic_wide.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu/kernels.hpp"
#include "cpu/parallel.hpp"
#include "cpu/slic_wide_assign.hpp"

namespace midgrain::cpu {
namespace {

using core::Dims;
using core::FeatureRef;
using core::SlicGeometry;

// Pixels below which a second thread costs more than it brings.
constexpr std::int64_t kPixelsPerWorker = 8192;

// Rows of an item that a centre reaches along one axis: indices with |position - centre| <= window.
void reach(const std::vector<std::int32_t>& position, std::int64_t centre, std::int64_t window, std::int64_t& first,
           std::int64_t& last) {
    const auto begin = position.begin(), end = position.end();
    first = std::lower_bound(begin, end, centre - window) - begin;
    last = std::upper_bound(begin, end, centre + window) - begin;
}

class WideClustering {
public:
    WideClustering(const FeatureRef<float>& features, std::int64_t item, const SlicGeometry& geometry,
                   const std::vector<Range>& ranges, const SlicParameters& parameters, std::int32_t* labels)
        : source_(features),
          item_(item),
          geometry_(geometry),
          ranges_(ranges),
          parameters_(parameters),
          dims_(features.dims),
          pixels_(dims_.size()),
          channels_(features.channels),
          width_(3 + features.channels),
          count_(geometry.count()),
          features_(static_cast<std::size_t>(channels_ * pixels_)),
          best_(static_cast<std::size_t>(pixels_)),
          centres_(static_cast<std::size_t>(count_ * width_)),
          boxes_(static_cast<std::size_t>(count_)),
          labels_(labels) {
        for (int a = 0; a < 3; ++a) {
            position_[a].resize(static_cast<std::size_t>(dims_[a]));
            for (std::int64_t i = 0; i < dims_[a]; ++i) {
                position_[a][static_cast<std::size_t>(i)] = core::pixel_position(i, geometry.per_pixel[a]);
            }
        }
    }

    void run(int threads) {
        const int wanted = useful_workers(static_cast<int>(std::min<std::int64_t>(threads, dims_.z * dims_.y)), pixels_,
                                          kPixelsPerWorker);
        // Everything is allocated here: a thread of the team must not throw.
        sums_.assign(static_cast<std::size_t>(wanted), std::vector<std::int64_t>(centres_.size()));
        members_.assign(static_cast<std::size_t>(wanted), std::vector<std::int64_t>(boxes_.size()));
        moved_.assign(static_cast<std::size_t>(wanted), 1);
        previous_.resize(static_cast<std::size_t>(pixels_));
        run_team(wanted, [this](Team& team, int index) { work(team, index); });
    }

private:
    void work(Team& team, int index) {
        const Share rows = team.share(dims_.z * dims_.y, index);
        quantise(rows);
        fill_cells(rows);
        accumulate(rows, index);
        team.meet();
        update(team, index);
        team.meet();
        const std::size_t bytes = static_cast<std::size_t>((rows.last - rows.first) * dims_.x) * sizeof(std::int32_t);
        const std::int32_t* band = labels_ + rows.first * dims_.x;
        std::int32_t* previous = previous_.data() + rows.first * dims_.x;
        for (int round = 0; round < parameters_.max_num_iter; ++round) {
            std::memcpy(previous, band, bytes);
            assign(rows);
            moved_[static_cast<std::size_t>(index)] = std::memcmp(previous, band, bytes) != 0;
            if (round + 1 == parameters_.max_num_iter) break;
            accumulate(rows, index);
            team.meet();
            // No label changed anywhere: every further round would give the same centres and labels.
            const bool settled =
                std::none_of(moved_.begin(), moved_.begin() + team.size(), [](char value) { return value != 0; });
            if (!settled) update(team, index);
            team.meet();
            if (settled) break;
        }
    }

    void quantise(Share rows) {
        for (int c = 0; c < channels_; ++c) {
            const Range range = ranges_[static_cast<std::size_t>(c)];
            const float scale = core::feature_scale(geometry_.units, parameters_.weights[static_cast<std::size_t>(c)]);
            const float* in = source_.plane(item_, c);
            std::int32_t* out = features_.data() + c * pixels_;
            for (std::int64_t i = rows.first * dims_.x; i < rows.last * dims_.x; ++i) {
                out[i] = core::quantise(in[i], range.low, range.high, scale);
            }
        }
    }

    void fill_cells(Share rows) {
        for (std::int64_t row = rows.first; row < rows.last; ++row) {
            const std::int64_t cell_z = core::initial_cell(row / dims_.y, dims_.z, geometry_.cells.z);
            const std::int64_t cell_y = core::initial_cell(row % dims_.y, dims_.y, geometry_.cells.y);
            const std::int64_t first = (cell_z * geometry_.cells.y + cell_y) * geometry_.cells.x;
            for (std::int64_t x = 0; x < dims_.x; ++x) {
                labels_[row * dims_.x + x] =
                    static_cast<std::int32_t>(first + core::initial_cell(x, dims_.x, geometry_.cells.x));
            }
        }
    }

    void assign(Share rows) {
        AssignWideJob job{};
        job.features = features_.data();
        job.channels = channels_;
        job.y = dims_.y;
        job.x = dims_.x;
        job.plane = pixels_;
        for (int a = 0; a < 3; ++a) job.position[a] = position_[a].data();
        job.centres = centres_.data();
        job.boxes = boxes_.data();
        job.count = count_;
        job.first_row = rows.first;
        job.last_row = rows.last;
        assign_wide()(job, labels_, best_.data());
    }

    // Sums of positions and features, and member counts, over this worker's rows.
    void accumulate(Share rows, int index) {
        auto& sums = sums_[static_cast<std::size_t>(index)];
        auto& members = members_[static_cast<std::size_t>(index)];
        std::fill(sums.begin(), sums.end(), 0);
        std::fill(members.begin(), members.end(), 0);
        for (std::int64_t row = rows.first; row < rows.last; ++row) {
            const std::int64_t z = position_[0][static_cast<std::size_t>(row / dims_.y)];
            const std::int64_t y = position_[1][static_cast<std::size_t>(row % dims_.y)];
            const std::int32_t* labels = labels_ + row * dims_.x;
            const std::int32_t* features = features_.data() + row * dims_.x;
            for (std::int64_t x = 0; x < dims_.x; ++x) {
                const std::int64_t k = labels[x];
                std::int64_t* sum = sums.data() + k * width_;
                members[static_cast<std::size_t>(k)] += 1;
                sum[0] += z;
                sum[1] += y;
                sum[2] += position_[2][static_cast<std::size_t>(x)];
                for (int c = 0; c < channels_; ++c) sum[3 + c] += features[c * pixels_ + x];
            }
        }
    }

    // New centres and their reach, for this worker's share of the centres.
    void update(const Team& team, int index) {
        const Share mine = team.share(count_, index);
        for (std::int64_t k = mine.first; k < mine.last; ++k) {
            std::int64_t n = 0;
            for (int t = 0; t < team.size(); ++t) {
                n += members_[static_cast<std::size_t>(t)][static_cast<std::size_t>(k)];
            }
            if (n == 0) continue;
            std::int32_t* centre = centres_.data() + k * width_;
            for (std::int64_t c = 0; c < width_; ++c) {
                std::int64_t total = 0;
                for (int t = 0; t < team.size(); ++t) {
                    total += sums_[static_cast<std::size_t>(t)][static_cast<std::size_t>(k * width_ + c)];
                }
                centre[c] = static_cast<std::int32_t>(core::divide_half_up(total, n));
            }
            CentreBox& box = boxes_[static_cast<std::size_t>(k)];
            reach(position_[0], centre[0], geometry_.window(), box.z0, box.z1);
            reach(position_[1], centre[1], geometry_.window(), box.y0, box.y1);
            reach(position_[2], centre[2], geometry_.window(), box.x0, box.x1);
        }
    }

    const FeatureRef<float>& source_;
    std::int64_t item_;
    const SlicGeometry& geometry_;
    const std::vector<Range>& ranges_;
    const SlicParameters& parameters_;
    Dims dims_;
    std::int64_t pixels_;
    int channels_;
    std::int64_t width_;
    std::int64_t count_;
    std::vector<std::int32_t> features_;
    std::vector<std::int64_t> best_;
    std::vector<std::int32_t> centres_;
    std::vector<CentreBox> boxes_;
    std::vector<std::int32_t> position_[3];
    std::int32_t* labels_;
    std::vector<std::vector<std::int64_t>> sums_;
    std::vector<std::vector<std::int64_t>> members_;
    std::vector<char> moved_;
    std::vector<std::int32_t> previous_;
};

}  // namespace

void cluster_wide(const FeatureRef<float>& features, std::int64_t item, const SlicGeometry& geometry,
                  const std::vector<Range>& ranges, const SlicParameters& parameters, int threads,
                  std::int32_t* labels) {
    WideClustering(features, item, geometry, ranges, parameters, labels).run(threads);
}

}  // namespace midgrain::cpu

// Heat maps drawn over pictures on the CPU (core/overlay.hpp).
#include "core/overlay.hpp"

#include <algorithm>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include "cpu/kernels.hpp"
#include "cpu/overlay_rows.hpp"

namespace midgrain::cpu {
namespace {

// For each of n pixels the cell that it sees.
std::vector<std::int32_t> nearest_cells(std::int64_t n, std::int64_t cells) {
    std::vector<std::int32_t> found(static_cast<std::size_t>(n));
    for (std::int64_t i = 0; i < n; ++i) {
        found[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(core::nearest_cell(i, n, cells));
    }
    return found;
}

// The pixels of each row that are on a border.
class Borders {
public:
    Borders(const std::int32_t* labels, const core::Overlay& overlay, const OverlayKernels& kernels)
        : labels_(labels),
          overlay_(overlay),
          kernels_(kernels),
          columns_(nearest_cells(overlay.width, overlay.label_width)),
          here_(columns_.size()),
          below_(columns_.size()),
          found_(columns_.size() + kOverlaySlack) {}

    // Columns, in their order. Rows are asked for from the top.
    std::span<const std::int32_t> of_row(std::int64_t y) {
        const std::int64_t row = cell(y), next = cell(std::min(y + 1, overlay_.height - 1));
        if (row != row_ || next != next_) {
            if (row != row_ && row == next_) {
                here_.swap(below_);
            } else if (row != row_) {
                expand(row, here_);
            }
            if (next != row) expand(next, below_);
            row_ = row;
            next_ = next;
            const std::vector<std::int32_t>& below = next != row ? below_ : here_;
            count_ = kernels_.find_borders(here_.data(), below.data(), overlay_.width, found_.data());
        }
        return {found_.data(), static_cast<std::size_t>(count_)};
    }

private:
    std::int64_t cell(std::int64_t y) const { return core::nearest_cell(y, overlay_.height, overlay_.label_height); }

    void expand(std::int64_t row, std::vector<std::int32_t>& out) const {
        kernels_.gather(labels_ + row * overlay_.label_width, columns_.data(), overlay_.width, out.data());
    }

    const std::int32_t* labels_;
    const core::Overlay& overlay_;
    const OverlayKernels& kernels_;
    std::vector<std::int32_t> columns_;
    std::int64_t row_ = -1, next_ = -1;
    std::vector<std::int32_t> here_, below_;  // labels of row_, and of next_ where that is another one
    std::vector<std::int32_t> found_;
    std::int64_t count_ = 0;
};

// The colours [steps, 3] with a fourth value, so that one can be copied at once.
std::vector<float> padded(const float* table, int steps) {
    std::vector<float> found(4 * static_cast<std::size_t>(steps));
    for (std::size_t i = 0; i < static_cast<std::size_t>(steps); ++i) {
        for (std::size_t c = 0; c < 3; ++c) found[4 * i + c] = table[3 * i + c];
    }
    return found;
}

// The colours of a row of scores, at the columns that pixels see. Writes one value more than there are.
template <class T>
void colour_row(const T* scores, const core::Overlay& overlay, const float* table,
                const std::vector<std::int32_t>& columns, std::vector<int>& steps, float* out) {
    for (std::size_t x = 0; x < steps.size(); ++x) steps[x] = 4 * core::colour_step(scores[x], overlay.steps);
    for (const std::int32_t column : columns) {
        std::memcpy(out, table + steps[static_cast<std::size_t>(column)], 4 * sizeof(float));
        out += 3;
    }
}

}  // namespace

template <class T>
void draw_overlay(const core::Overlay& overlay, const T* heat, const std::int32_t* labels, const float* table,
                  std::uint8_t* picture) {
    const OverlayKernels& kernels = overlay_kernels();
    const std::vector<std::int32_t> columns = nearest_cells(overlay.width, overlay.heat_width);
    std::vector<int> steps(static_cast<std::size_t>(overlay.heat_width));
    const std::vector<float> palette = padded(table, overlay.steps);
    std::vector<float> colours(3 * columns.size() + 1), blended(colours.size());
    std::optional<Borders> borders;
    if (labels != nullptr) borders.emplace(labels, overlay, kernels);
    std::int64_t coloured = -1;
    for (std::int64_t y = 0; y < overlay.height; ++y) {
        const std::int64_t row = core::nearest_cell(y, overlay.height, overlay.heat_height);
        if (row != coloured) {
            colour_row(heat + row * overlay.heat_width, overlay, palette.data(), columns, steps, colours.data());
            coloured = row;
        }
        std::uint8_t* out = picture + 3 * ((overlay.top + y) * overlay.picture_width + overlay.left);
        kernels.blend(out, colours.data(), overlay.keep, 3 * overlay.width, blended.data());
        if (borders) {
            for (const std::int32_t x : borders->of_row(y)) {
                float* pixel = blended.data() + 3 * static_cast<std::size_t>(x);
                for (int c = 0; c < 3; ++c) pixel[c] = core::draw_border(pixel[c]);
            }
        }
        kernels.to_bytes(blended.data(), 3 * overlay.width, out);
    }
}

template void draw_overlay(const core::Overlay&, const float*, const std::int32_t*, const float*, std::uint8_t*);
template void draw_overlay(const core::Overlay&, const double*, const std::int32_t*, const float*, std::uint8_t*);

}  // namespace midgrain::cpu

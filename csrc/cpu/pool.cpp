// Superpixel pooling and painting on the CPU (core/pool.hpp).
#include "core/pool.hpp"

#include <algorithm>
#include <exception>
#include <limits>
#include <mutex>
#include <string>
#include <vector>

#include "cpu/kernels.hpp"
#include "cpu/parallel.hpp"

namespace midgrain::cpu {
namespace {

using core::Reduce;

constexpr std::int64_t kPixelsPerWorker = 16384;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

void check_labels(const std::int32_t* labels, std::int64_t groups, std::int64_t pixels, std::int64_t n) {
    for (std::int64_t i = 0; i < groups * pixels; ++i) {
        if (labels[i] < 0 || labels[i] >= n) {
            throw InvalidValue("labels: expected values in 0 .. " + std::to_string(n - 1) + ", got " +
                               std::to_string(labels[i]));
        }
    }
}

template <class T>
double largest_magnitude(const T* values, std::int64_t pixels) {
    T largest = 0, poison = 0;
    for (std::int64_t i = 0; i < pixels; ++i) {
        const T magnitude = values[i] < 0 ? -values[i] : values[i];
        largest = magnitude > largest ? magnitude : largest;
        poison += values[i] - values[i];  // NaN as soon as one value is not finite
    }
    if (!(poison == 0)) throw InvalidValue("values: expected finite values, got NaN or infinity");
    return static_cast<double>(largest);
}

// Exact sum per region of term(v), |term| <= 1 for the scaled value v; in units of one.
template <class T, class Term>
void add_up(const T* values, const std::int32_t* labels, std::int64_t pixels, std::int64_t n, double scale,
            std::vector<std::int64_t>& fixed, std::vector<double>& sums, Term&& term) {
    const int exponent = core::fixed_exponent(pixels);
    const double unit = std::ldexp(1.0, exponent);
    fixed.assign(static_cast<std::size_t>(n), 0);
    for (std::int64_t i = 0; i < pixels; ++i) {
        const double value = term(static_cast<double>(values[i]) * scale, labels[i]);
        fixed[static_cast<std::size_t>(labels[i])] += std::llrint(value * unit);
    }
    sums.resize(static_cast<std::size_t>(n));
    for (std::size_t r = 0; r < sums.size(); ++r) sums[r] = std::ldexp(static_cast<double>(fixed[r]), -exponent);
}

template <class T>
class PlanePool {
public:
    PlanePool(std::int64_t pixels, std::int64_t n) : pixels_(pixels), n_(n) {}

    void run(const T* values, const std::int32_t* labels, Reduce reduce, T* out) {
        const double largest = largest_magnitude(values, pixels_);
        count(labels);
        switch (reduce) {
            case Reduce::kMax: return extreme(values, labels, out, [](T a, T b) { return a > b; });
            case Reduce::kMin: return extreme(values, labels, out, [](T a, T b) { return a < b; });
            case Reduce::kMedian: return median(values, labels, out);
            default: return sum(values, labels, core::magnitude_exponent(largest), reduce, out);
        }
    }

private:
    void count(const std::int32_t* labels) {
        members_.assign(static_cast<std::size_t>(n_), 0);
        for (std::int64_t i = 0; i < pixels_; ++i) ++members_[static_cast<std::size_t>(labels[i])];
    }

    void sum(const T* values, const std::int32_t* labels, int exponent, Reduce reduce, T* out) {
        const double scale = std::ldexp(1.0, -exponent);
        const bool squares = reduce == Reduce::kVar || reduce == Reduce::kStd;
        if (reduce == Reduce::kL2) {
            add_up(values, labels, pixels_, n_, scale, fixed_, sums_, [](double v, std::int32_t) { return v * v; });
        } else if (reduce == Reduce::kAbsSum) {
            add_up(values, labels, pixels_, n_, scale, fixed_, sums_,
                   [](double v, std::int32_t) { return v < 0.0 ? -v : v; });
        } else {
            add_up(values, labels, pixels_, n_, scale, fixed_, sums_, [](double v, std::int32_t) { return v; });
        }
        if (squares) {
            means_.resize(sums_.size());
            for (std::size_t r = 0; r < sums_.size(); ++r) {
                means_[r] = members_[r] > 0 ? sums_[r] / static_cast<double>(members_[r]) : 0.0;
            }
            const auto deviation = [this](double v, std::int32_t label) {
                return v - means_[static_cast<std::size_t>(label)];
            };
            double widest = 0.0;
            for (std::int64_t i = 0; i < pixels_; ++i) {
                widest = std::max(widest, std::abs(deviation(static_cast<double>(values[i]) * scale, labels[i])));
            }
            const int spread = core::magnitude_exponent(widest);
            const double widen = std::ldexp(1.0, -spread);
            add_up(values, labels, pixels_, n_, scale, fixed_, sums_, [&](double v, std::int32_t label) {
                const double d = deviation(v, label) * widen;
                return d * d;
            });
            exponent += spread;
        }
        for (std::size_t r = 0; r < sums_.size(); ++r) {
            out[r] = static_cast<T>(finish(sums_[r], static_cast<double>(members_[r]), exponent, reduce));
        }
    }

    static double finish(double sum, double n, int exponent, Reduce reduce) {
        switch (reduce) {
            case Reduce::kMean: return n > 0.0 ? std::ldexp(sum / n, exponent) : kNaN;
            case Reduce::kVar: return n > 0.0 ? std::ldexp(sum / n, 2 * exponent) : kNaN;
            case Reduce::kStd: return n > 0.0 ? std::ldexp(std::sqrt(sum / n), exponent) : kNaN;
            case Reduce::kL2: return std::ldexp(std::sqrt(sum), exponent);
            default: return std::ldexp(sum, exponent);
        }
    }

    template <class Better>
    void extreme(const T* values, const std::int32_t* labels, T* out, Better better) {
        std::fill(out, out + n_, static_cast<T>(kNaN));
        for (std::int64_t i = 0; i < pixels_; ++i) {
            T& best = out[labels[i]];
            if (best != best || better(values[i], best)) best = values[i];
        }
    }

    void median(const T* values, const std::int32_t* labels, T* out) {
        start_.assign(static_cast<std::size_t>(n_) + 1, 0);
        for (std::size_t r = 0; r < members_.size(); ++r) start_[r + 1] = start_[r] + members_[r];
        sorted_.resize(static_cast<std::size_t>(pixels_));
        next_.assign(start_.begin(), start_.end() - 1);
        for (std::int64_t i = 0; i < pixels_; ++i) {
            sorted_[static_cast<std::size_t>(next_[static_cast<std::size_t>(labels[i])]++)] = values[i];
        }
        for (std::size_t r = 0; r < members_.size(); ++r) {
            if (members_[r] == 0) {
                out[r] = static_cast<T>(kNaN);
                continue;
            }
            const auto first = sorted_.begin() + start_[r], last = sorted_.begin() + start_[r + 1];
            const auto middle = first + members_[r] / 2;
            std::nth_element(first, middle, last);
            // Halves before adding: the sum of two large values must not overflow.
            out[r] = members_[r] % 2 == 1 ? *middle : *middle / 2 + *std::max_element(first, middle) / 2;
        }
    }

    std::int64_t pixels_, n_;
    std::vector<std::int64_t> members_, fixed_, start_, next_;
    std::vector<double> sums_, means_;
    std::vector<T> sorted_;
};

}  // namespace

template <class T>
void pool(const T* values, const std::int32_t* labels, std::int64_t groups, std::int64_t planes, std::int64_t pixels,
          std::int64_t n, Reduce reduce, int threads, T* out) {
    check_labels(labels, groups, pixels, n);
    const auto most = static_cast<int>(std::min<std::int64_t>(threads, groups * planes));
    std::mutex guard;
    std::exception_ptr failure;
    run_team(useful_workers(most, groups * planes * pixels, kPixelsPerWorker), [&](Team& team, int index) {
        const Share mine = team.share(groups * planes, index);
        try {
            PlanePool<T> plane(pixels, n);
            for (std::int64_t i = mine.first; i < mine.last; ++i) {
                plane.run(values + i * pixels, labels + i / planes * pixels, reduce, out + i * n);
            }
        } catch (...) {
            const std::lock_guard lock(guard);
            failure = std::current_exception();
        }
    });
    if (failure) std::rethrow_exception(failure);
}

template <class T>
void paint(const T* scores, const std::int32_t* labels, std::int64_t groups, std::int64_t planes, std::int64_t pixels,
           std::int64_t n, int threads, T* out) {
    check_labels(labels, groups, pixels, n);
    const auto most = static_cast<int>(std::min<std::int64_t>(threads, groups * planes));
    run_team(useful_workers(most, groups * planes * pixels, kPixelsPerWorker), [&](Team& team, int index) {
        const Share mine = team.share(groups * planes, index);
        for (std::int64_t i = mine.first; i < mine.last; ++i) {
            const T* row = scores + i * n;
            const std::int32_t* label = labels + i / planes * pixels;
            T* target = out + i * pixels;
            for (std::int64_t p = 0; p < pixels; ++p) target[p] = row[label[p]];
        }
    });
}

template void pool(const float*, const std::int32_t*, std::int64_t, std::int64_t, std::int64_t, std::int64_t, Reduce,
                   int, float*);
template void pool(const double*, const std::int32_t*, std::int64_t, std::int64_t, std::int64_t, std::int64_t, Reduce,
                   int, double*);
template void paint(const float*, const std::int32_t*, std::int64_t, std::int64_t, std::int64_t, std::int64_t, int,
                    float*);
template void paint(const double*, const std::int32_t*, std::int64_t, std::int64_t, std::int64_t, std::int64_t, int,
                    double*);

}  // namespace midgrain::cpu

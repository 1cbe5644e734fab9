// What the fuzzer's bytes mean: shapes, parameters and values, drawn one after the other.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "core/array_ref.hpp"

namespace midgrain::fuzz {

class Input {
public:
    Input(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {
        // FNV-1a of all bytes: where they run out, what follows still depends on them.
        for (std::size_t i = 0; i < size; ++i) hash_ = (hash_ ^ data[i]) * 0x100000001B3u;
    }

    std::uint8_t byte() {
        if (at_ < size_) return data_[at_++];
        std::uint64_t h = hash_ += 0x9E3779B97F4A7C15u;
        h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9u;
        return static_cast<std::uint8_t>(h >> 56);
    }

    bool flag() { return (byte() & 1) != 0; }

    // low .. high, from one byte or, where there are more numbers than it has, from two.
    std::int64_t between(std::int64_t low, std::int64_t high) {
        std::int64_t drawn = byte();
        if (high - low > 255) drawn = drawn << 8 | byte();
        return low + drawn % (high - low + 1);
    }

    template <class T>
    T bits() {
        std::uint8_t bytes[sizeof(T)];
        for (std::uint8_t& each : bytes) each = byte();
        T value;
        std::memcpy(&value, bytes, sizeof value);
        return value;
    }

    core::Dims dims(std::int64_t z, std::int64_t y, std::int64_t x) {
        // Drawn one after the other: braces keep the order.
        return core::Dims{flag() ? std::int64_t{1} : between(1, z), between(1, y), between(1, x)};
    }

    // n floats of one kind: small integers, fractions, any bits, or any bits with what is not finite taken out.
    template <class T>
    std::vector<T> floats(std::int64_t n) {
        const std::int64_t kind = between(0, 5);
        const T unit = std::ldexp(T{1}, static_cast<int>(between(0, 160)) - 80);
        std::vector<T> values(static_cast<std::size_t>(n));
        for (T& value : values) {
            switch (kind) {
                case 0: value = static_cast<T>(between(0, 3)); break;
                case 1: value = static_cast<T>(static_cast<std::int8_t>(byte())) * unit; break;
                case 2: value = bits<T>(); break;
                case 3:
                    value = bits<T>();
                    if (!std::isfinite(value)) value = T{0};
                    break;
                default: value = static_cast<T>(byte()) / T{255};
            }
        }
        return values;
    }

    std::vector<std::int32_t> labels(std::int64_t n, std::int64_t below) {
        std::vector<std::int32_t> values(static_cast<std::size_t>(n));
        const bool in_runs = flag();
        std::int32_t last = 0;
        for (std::int32_t& value : values) {
            if (!in_runs || byte() < 64) last = static_cast<std::int32_t>(between(0, below - 1));
            value = last;
        }
        return values;
    }

private:
    const std::uint8_t* data_;
    std::size_t size_, at_ = 0;
    std::uint64_t hash_ = 0xCBF29CE484222325u;
};

}  // namespace midgrain::fuzz

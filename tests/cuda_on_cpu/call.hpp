// Functions for Python's ctypes: errors come back as text.
#pragma once

#include <cstring>
#include <exception>

namespace midgrain::cuda {

inline constexpr int kMessageBytes = 512;

// Runs body; 0, or 1 with what it threw in `message` [kMessageBytes].
template <class Body>
int call(char* message, Body&& body) {
    try {
        body();
        return 0;
    } catch (const std::exception& error) {
        std::strncpy(message, error.what(), kMessageBytes - 1);
        message[kMessageBytes - 1] = '\0';
        return 1;
    }
}

}  // namespace midgrain::cuda

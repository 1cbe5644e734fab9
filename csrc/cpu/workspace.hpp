// Scratch memory that outlives a call. Fresh pages cost more to be handed out by the system than the kernels need
// to fill them, so blocks are kept for the next call, up to a fixed total.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace midgrain::cpu {

// Memory of one call; goes back to the process's store when it ends. Not for use by several threads at once.
class Workspace {
public:
    Workspace() = default;
    Workspace(const Workspace&) = delete;
    Workspace& operator=(const Workspace&) = delete;
    ~Workspace();

    // Uninitialised room for n values, aligned to 64 bytes. Throws std::bad_alloc.
    template <class T>
    T* take(std::int64_t n) {
        return static_cast<T*>(take_bytes(static_cast<std::size_t>(n) * sizeof(T)));
    }

private:
    struct Block {
        std::byte* data;
        std::size_t size;
    };

    void* take_bytes(std::size_t bytes);

    std::vector<Block> blocks_;
    std::size_t used_ = 0;  // of the last block

    friend class WorkspaceStore;
};

}  // namespace midgrain::cpu

#include "cpu/workspace.hpp"

#include <algorithm>
#include <mutex>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace midgrain::cpu {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kSmallestBlock = std::size_t{1} << 20;
constexpr std::size_t kHugePage = std::size_t{1} << 21;

std::size_t round_up(std::size_t bytes, std::size_t unit) { return (bytes + unit - 1) / unit * unit; }

}  // namespace

// Blocks that no call uses at the moment. The lock is only tried, never waited for: a process forked while another
// thread held it would wait for ever.
class WorkspaceStore {
public:
    using Block = Workspace::Block;

    static WorkspaceStore& instance() {
        // Never destroyed: a thread may still end a call while the process exits.
        static auto* store = new WorkspaceStore;
        return *store;
    }

    // The smallest kept block of at least `bytes`, or a new one.
    Block acquire(std::size_t bytes) {
        if (const std::unique_lock lock(guard_, std::try_to_lock); lock) {
            auto best = free_.end();
            for (auto block = free_.begin(); block != free_.end(); ++block) {
                if (block->size >= bytes && (best == free_.end() || block->size < best->size)) best = block;
            }
            if (best != free_.end()) {
                const Block found = *best;
                free_.erase(best);
                kept_ -= found.size;
                return found;
            }
        }
        const std::size_t size = round_up(std::max(bytes, kSmallestBlock), kHugePage);
        auto* data = static_cast<std::byte*>(::operator new(size, std::align_val_t{kHugePage}));
#if defined(__linux__)
        madvise(data, size, MADV_HUGEPAGE);  // a wish: failure changes nothing
#endif
        return {data, size};
    }

    void release(Block block) noexcept {
        if (const std::unique_lock lock(guard_, std::try_to_lock);
            lock && kept_ + block.size <= kMostKept && free_.size() < free_.capacity()) {
            free_.push_back(block);
            kept_ += block.size;
            return;
        }
        ::operator delete(block.data, std::align_val_t{kHugePage});
    }

private:
    static constexpr std::size_t kMostKept = std::size_t{128} << 20;

    WorkspaceStore() { free_.reserve(kMostKept / kHugePage); }

    std::mutex guard_;
    std::vector<Block> free_;
    std::size_t kept_ = 0;
};

void* Workspace::take_bytes(std::size_t bytes) {
    const std::size_t wanted = round_up(bytes, kAlignment);
    if (blocks_.empty() || blocks_.back().size - used_ < wanted) {
        blocks_.reserve(blocks_.size() + 1);
        blocks_.push_back(WorkspaceStore::instance().acquire(wanted));
        used_ = 0;
    }
    void* result = blocks_.back().data + used_;
    used_ += wanted;
    return result;
}

Workspace::~Workspace() {
    for (const Block& block : blocks_) WorkspaceStore::instance().release(block);
}

}  // namespace midgrain::cpu

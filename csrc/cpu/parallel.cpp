#include "cpu/parallel.hpp"

#include <algorithm>

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

namespace midgrain::cpu {
namespace {

// Threads that calls of this process run on at this moment.
std::atomic<int> running{0};
// Of those, the ones that are counted for the call that this thread is in.
thread_local int counted_here = 0;

int usable_cores() {
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(CPU_COUNT(&set), 1);
#endif
    return std::max(static_cast<int>(std::thread::hardware_concurrency()), 1);
}

#if defined(__linux__)
// A forked child has none of the threads that were counted.
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, [] { running = 0; });
#endif

}  // namespace

ThreadClaim::ThreadClaim(int wanted) : size_(std::max(wanted, 1)), before_(counted_here) {
    if (before_ > 1) return;  // inside a team
    const int more = size_ - before_;
    const int others = running.fetch_add(more) - before_;
    if (others > 0 && size_ > 1) {
        // Other calls are at work: what they leave of the cores, at least the caller's own thread.
        const int granted = std::clamp(usable_cores() - others, 1, size_);
        running -= size_ - granted;
        size_ = granted;
    }
    counted_here = size_;
}

void ThreadClaim::join_team(int size) { counted_here = size; }

ThreadClaim::~ThreadClaim() {
    if (before_ > 1) return;
    running -= size_ - before_;
    counted_here = before_;
}

}  // namespace midgrain::cpu

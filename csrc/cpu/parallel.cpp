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
thread_local bool inside_team = false;

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

ThreadClaim::ThreadClaim(int wanted) : outermost_(!inside_team) {
    size_ = std::max(wanted, 1);
    if (!outermost_) return;
    inside_team = true;
    int before = running.fetch_add(size_);
    if (before > 0 && size_ > 1) {
        // Other calls are at work: what they leave of the cores, at least the caller's own thread.
        const int granted = std::clamp(usable_cores() - before, 1, size_);
        running -= size_ - granted;
        size_ = granted;
    }
}

void ThreadClaim::join_team() { inside_team = true; }

ThreadClaim::~ThreadClaim() {
    if (!outermost_) return;
    running -= size_;
    inside_team = false;
}

}  // namespace midgrain::cpu

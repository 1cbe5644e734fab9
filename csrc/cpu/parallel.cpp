#include "cpu/parallel.hpp"

#include <algorithm>
#include <exception>
#include <thread>
#include <utility>
#include <vector>

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

#if defined(__linux__)

struct Helpers::State {
    cpu_set_t allowed;
    std::vector<int> cores;  // the allowed ones after the parent's own, in a circle
    std::vector<pthread_t> threads;
};

namespace {

struct Start {
    std::function<void()> body;
    cpu_set_t allowed;
    bool placed;
};

void* run_helper(void* argument) {
    const std::unique_ptr<Start> start(static_cast<Start*>(argument));
    if (start->placed) sched_setaffinity(0, sizeof start->allowed, &start->allowed);
    start->body();
    return nullptr;
}

}  // namespace

Helpers::Helpers() : state_(std::make_unique<State>()) {
    const int here = sched_getcpu();
    if (here < 0 || sched_getaffinity(0, sizeof state_->allowed, &state_->allowed) != 0) return;
    for (int step = 1; step < CPU_SETSIZE; ++step) {
        const int core = (here + step) % CPU_SETSIZE;
        if (CPU_ISSET(core, &state_->allowed)) state_->cores.push_back(core);
    }
}

bool Helpers::start(std::function<void()> body) {
    State& state = *state_;
    const bool placed = !state.cores.empty();
    auto start = std::make_unique<Start>(Start{std::move(body), state.allowed, placed});
    state.threads.reserve(state.threads.size() + 1);
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) return false;
    if (placed) {
        cpu_set_t only;
        CPU_ZERO(&only);
        CPU_SET(state.cores[state.threads.size() % state.cores.size()], &only);
        pthread_attr_setaffinity_np(&attributes, sizeof only, &only);
    }
    pthread_t thread;
    const bool started = pthread_create(&thread, &attributes, run_helper, start.get()) == 0;
    pthread_attr_destroy(&attributes);
    if (!started) return false;
    start.release();
    state.threads.push_back(thread);
    return true;
}

Helpers::~Helpers() {
    for (const pthread_t thread : state_->threads) pthread_join(thread, nullptr);
}

#else

struct Helpers::State {
    std::vector<std::thread> threads;
};

Helpers::Helpers() : state_(std::make_unique<State>()) {}

bool Helpers::start(std::function<void()> body) {
    try {
        state_->threads.emplace_back(std::move(body));
    } catch (const std::exception&) {
        return false;
    }
    return true;
}

Helpers::~Helpers() {
    for (std::thread& thread : state_->threads) thread.join();
}

#endif

}  // namespace midgrain::cpu

// Threads for one call: started for it, joined before it returns. Nothing spins or waits between calls, and a
// process that forks (a data loader) has no pool to lose.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <thread>

namespace midgrain::cpu {

// Part [first, last) of n things.
struct Share {
    std::int64_t first, last;
};

// Where the workers of one call wait for each other. A worker that comes early looks for the others for a while,
// giving its core away in between, before it goes to sleep: to be woken takes longer than most waits here.
class Barrier {
public:
    explicit Barrier(int size) : size_(size) {}

    void arrive_and_wait() {
        const std::uint32_t before = round_.load(std::memory_order_acquire);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
            arrived_.store(0, std::memory_order_relaxed);
            round_.fetch_add(1, std::memory_order_release);
            round_.notify_all();
            return;
        }
        for (int look = 0; look < kLooks; ++look) {
            for (int i = 0; i < kPauses; ++i) {
                if (round_.load(std::memory_order_acquire) != before) return;
                pause();
            }
            std::this_thread::yield();
        }
        while (round_.load(std::memory_order_acquire) == before) round_.wait(before, std::memory_order_acquire);
    }

private:
    // About a microsecond each on current processors, and a few hundred of them.
    static constexpr int kPauses = 16, kLooks = 300;

    static void pause() {
#if defined(__SSE2__)
        __builtin_ia32_pause();
#endif
    }

    int size_;
    std::atomic<int> arrived_{0};
    std::atomic<std::uint32_t> round_{0};
};

// The workers of one call, as seen by one of them.
class Team {
public:
    explicit Team(int size) : size_(size), barrier_(size) {}

    int size() const { return size_; }

    // Waits until every worker has come here; what each wrote before is then visible to all.
    void meet() {
        if (size_ > 1) barrier_.arrive_and_wait();
    }

    // The contiguous part of n things that worker `index` takes; sizes differ by at most one.
    Share share(std::int64_t n, int index) const { return {n * index / size_, n * (index + 1) / size_}; }

private:
    int size_;
    Barrier barrier_;
};

// A call's share of the machine. A call alone gets what it asks for; one that finds others running (several Python
// threads, a thread pool) gets the cores that they leave, so that together they don't outnumber the cores. Calls made
// from inside a team are part of it.
class ThreadClaim {
public:
    explicit ThreadClaim(int wanted);
    ThreadClaim(const ThreadClaim&) = delete;
    ThreadClaim& operator=(const ThreadClaim&) = delete;
    ~ThreadClaim();

    int size() const { return size_; }

    // Says that the calling thread, fresh and soon to end, belongs to a team of that size, which has been counted.
    static void join_team(int size);

private:
    int size_;
    int before_;  // threads that were already counted for the calling thread's call
};

// The helpers of one call. Each starts on a core of its own as long as there are enough: left alone, some systems
// start a thread on its parent's core and take longer to move it than a call lasts. Once it runs, it may go to any core
// that its parent may use.
class Helpers {
public:
    Helpers();
    Helpers(const Helpers&) = delete;
    Helpers& operator=(const Helpers&) = delete;
    // Waits for all of them.
    ~Helpers();

    // Starts one; false: the system refuses.
    bool start(std::function<void()> body);

private:
    struct State;
    std::unique_ptr<State> state_;
};

// Runs body(team, index) on up to `wanted` threads, the caller being number 0. Where the system refuses a thread,
// the team is smaller. body must not throw.
template <class Body>
void run_team(int wanted, Body&& body) {
    const ThreadClaim claim(wanted);
    wanted = claim.size();
    std::optional<Team> team;
    if (wanted <= 1) {
        body(team.emplace(1), 0);
        return;
    }
    std::atomic<int> size{0};
    Helpers helpers;
    int started = 1;
    try {
        while (started < wanted && helpers.start([&, index = started] {
            ThreadClaim::join_team(claim.size());
            size.wait(0);
            body(*team, index);
        })) {
            ++started;
        }
    } catch (const std::exception&) {
        // No more memory to be had: those that did start make up the team.
    }
    team.emplace(started);
    size = started;
    size.notify_all();
    body(*team, 0);
}

// Workers worth starting: at most `threads`, at most one per `grain` units of work, at least one.
inline int useful_workers(int threads, std::int64_t work, std::int64_t grain) {
    const std::int64_t most = work / grain;
    const std::int64_t workers = most < threads ? most : threads;
    return static_cast<int>(workers < 1 ? 1 : workers);
}

}  // namespace midgrain::cpu

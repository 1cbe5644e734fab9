// Threads for one call: started for it, joined before it returns. Nothing spins or waits between calls, and a
// process that forks (a data loader) has no pool to lose.
#pragma once

#include <atomic>
#include <barrier>
#include <cstdint>
#include <exception>
#include <optional>
#include <thread>
#include <vector>

namespace midgrain::cpu {

// Part [first, last) of n things.
struct Share {
    std::int64_t first, last;
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
    std::barrier<> barrier_;
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

    // Says that the calling thread, fresh and soon to end, belongs to a team that has been counted.
    static void join_team();

private:
    bool outermost_;
    int size_;
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
    std::vector<std::thread> others;
    others.reserve(static_cast<std::size_t>(wanted - 1));
    try {
        for (int index = 1; index < wanted; ++index) {
            others.emplace_back([&, index] {
                ThreadClaim::join_team();
                size.wait(0);
                body(*team, index);
            });
        }
    } catch (const std::exception&) {
        // No more threads or memory to be had: those that did start make up the team.
    }
    team.emplace(static_cast<int>(others.size()) + 1);
    size = team->size();
    size.notify_all();
    body(*team, 0);
    for (auto& thread : others) thread.join();
}

// Workers worth starting: at most `threads`, at most one per `grain` units of work, at least one.
inline int useful_workers(int threads, std::int64_t work, std::int64_t grain) {
    const std::int64_t most = work / grain;
    const std::int64_t workers = most < threads ? most : threads;
    return static_cast<int>(workers < 1 ? 1 : workers);
}

}  // namespace midgrain::cpu

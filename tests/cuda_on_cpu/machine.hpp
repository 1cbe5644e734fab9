// Runs the threads of launches in fibres, in seeded orders (cuda_on_cpu.hpp says what that is for).
#pragma once

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <source_location>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

struct uint3 {
    unsigned x, y, z;
};

struct dim3 {
    unsigned x, y, z;
    constexpr explicit dim3(unsigned x_in = 1, unsigned y_in = 1, unsigned z_in = 1) : x(x_in), y(y_in), z(z_in) {}
};

inline uint3 threadIdx{}, blockIdx{};
inline dim3 blockDim, gridDim;

namespace cuda_on_cpu {

constexpr unsigned kLanes = 32;
constexpr std::size_t kMostShared = 48 * 1024;
#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kStack = 512 * 1024;
#else
constexpr std::size_t kStack = 64 * 1024;
#endif

// SplitMix64.
class Random {
public:
    explicit Random(std::uint64_t seed) : state_(seed) {}
    std::uint64_t operator()() {
        std::uint64_t h = state_ += 0x9E3779B97F4A7C15u;
        h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9u;
        h = (h ^ (h >> 27)) * 0x94D049BB133111EBu;
        return h ^ (h >> 31);
    }
    std::size_t below(std::size_t n) { return static_cast<std::size_t>((*this)() % n); }

private:
    std::uint64_t state_;
};

// A stack of its own. Between fibres of a plain build control passes by setjmp and longjmp, which need no system call;
// under the address sanitizer by ucontext and with its annotations.
struct Fibre {
    ucontext_t context{};
    jmp_buf jump{};
    char* stack = nullptr;
    void* fake_stack = nullptr;
    bool is_started = false;
};

struct Block;

enum class State { kReady, kAtBarrier, kInWarp, kEnded };

struct Thread {
    Block* block = nullptr;
    unsigned number = 0;
    State state = State::kReady;
    Fibre* fibre = nullptr;  // null: not begun
    std::source_location where;
    unsigned mask = 0;
    std::uint64_t given = 0;
    std::uint64_t received[kLanes] = {};
};

struct FreeBytes {
    void operator()(std::byte* bytes) const { ::operator delete[](bytes); }
};

struct Block {
    uint3 index{};
    std::vector<Thread> threads;
    std::size_t ended = 0, at_barrier = 0, shared_bytes = 0;
    std::uint64_t sum = 0, total = 0;  // of what is brought to the barrier, and of the last one
    std::source_location where;
    std::map<const void*, std::unique_ptr<std::byte[], FreeBytes>> shared;
};

inline std::string text(const std::source_location& where) {
    const std::string file = where.file_name();
    return file.substr(file.rfind('/') + 1) + ":" + std::to_string(where.line());
}

class Machine {
public:
    static Machine& instance() {
        static Machine machine;
        return machine;
    }

    void reseed(std::uint64_t seed) { random_ = Random(seed); }
    std::int64_t launches() const { return launches_; }

    void run(dim3 grid, dim3 block, const std::function<void()>& body) {
        const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
        if (threads == 0 || threads > 1024 || block.z > 64) throw std::runtime_error("a block of an impossible size");
        const std::uint64_t blocks = std::uint64_t{grid.x} * grid.y * grid.z;
        if (blocks == 0 || grid.x > 0x7FFFFFFFu || grid.y > 65535 || grid.z > 65535) {
            throw std::runtime_error("a grid of an impossible size");
        }
        ++launches_;
        body_ = &body;
        blockDim = block;
        gridDim = grid;
        order_.resize(blocks);
        for (std::size_t i = 0; i < blocks; ++i) order_[i] = i;
        for (std::size_t i = blocks; i > 1; --i) std::swap(order_[i - 1], order_[random_.below(i)]);
        const std::size_t at_once = 1 + random_.below(4);
        for (std::size_t i = 0; i < at_once; ++i) begin_block();
        while (!ready_.empty() && failure_.empty()) {
            Thread* thread = draw();
            if (thread->fibre == nullptr) thread->fibre = take_fibre();
            resume(thread);
        }
        if (failure_.empty() && !blocks_.empty()) failure_ = describe_waiting();
        const std::string failure = std::exchange(failure_, {});
        if (!failure.empty()) {
            abandon();
            throw std::runtime_error(failure);
        }
    }

    // What a thread of the launch asks for.

    Thread& current() { return *current_; }

    void fail(std::string message) {
        failure_ = std::move(message);
        leave();
    }

    void maybe_yield() {
        if (ready_.empty() || random_.below(8) != 0) return;
        ready_.push_back(current_);
        leave();
    }

    // Waits for all threads of the block; the sum of what they bring.
    std::uint64_t barrier(std::uint64_t value, const std::source_location& where) {
        Thread& self = *current_;
        Block& block = *self.block;
        if (block.at_barrier > 0 && (where.line() != block.where.line() || where.column() != block.where.column())) {
            fail("threads of one block wait at two barriers, " + text(block.where) + " and " + text(where));
        }
        block.where = where;
        block.sum += value;
        self.state = State::kAtBarrier;
        self.where = where;
        if (++block.at_barrier == block.threads.size()) {
            block.at_barrier = 0;
            block.total = std::exchange(block.sum, 0);
            for (Thread& thread : block.threads) wake(thread);
        } else if (block.at_barrier + block.ended == block.threads.size()) {
            fail(missed_barrier(block));
        }
        leave();
        return block.total;
    }

    // Waits for the lanes in mask; `received` of each holds what they brought.
    const std::uint64_t* exchange(unsigned mask, std::uint64_t value, const std::source_location& where) {
        Thread& self = *current_;
        std::vector<Thread>& threads = self.block->threads;
        const unsigned first = self.number / kLanes * kLanes, lane = self.number % kLanes;
        if (((mask >> lane) & 1u) == 0) fail("a lane is missing from its own mask at " + text(where));
        self.state = State::kInWarp;
        self.where = where;
        self.mask = mask;
        self.given = value;
        bool is_complete = true;
        for (unsigned i = 0; i < kLanes; ++i) {
            if (((mask >> i) & 1u) == 0) continue;
            if (first + i >= threads.size()) fail("a mask names lanes that the block does not have at " + text(where));
            const Thread& other = threads[first + i];
            if (other.state == State::kEnded) fail("a mask names a lane that has ended at " + text(where));
            const bool waits = other.state == State::kInWarp;
            if (waits && ((other.mask >> lane) & 1u) != 0 &&
                (other.mask != mask || other.where.line() != where.line())) {
                fail("lanes meet in two warp operations, " + text(other.where) + " and " + text(where));
            }
            is_complete &= waits;
        }
        if (is_complete) {
            for (unsigned i = 0; i < kLanes; ++i) {
                if (((mask >> i) & 1u) == 0) continue;
                for (unsigned j = 0; j < kLanes; ++j) {
                    if (((mask >> j) & 1u) != 0) threads[first + i].received[j] = threads[first + j].given;
                }
            }
            for (unsigned i = 0; i < kLanes; ++i) {
                if (((mask >> i) & 1u) != 0) wake(threads[first + i]);
            }
        }
        leave();
        return self.received;
    }

    void* shared_array(const void* site, std::size_t bytes) {
        Block& block = *current_->block;
        std::unique_ptr<std::byte[], FreeBytes>& memory = block.shared[site];
        if (!memory) {
            block.shared_bytes += bytes;
            if (block.shared_bytes > kMostShared) fail("a block uses more than 48 KiB of shared memory");
            memory.reset(static_cast<std::byte*>(::operator new[](bytes)));
            for (std::size_t i = 0; i < bytes; ++i) memory[i] = static_cast<std::byte>(random_());
        }
        return memory.get();
    }

private:
    void begin_block() {
        if (order_.empty()) return;
        const std::size_t number = order_.back();
        order_.pop_back();
        blocks_.push_back(std::make_unique<Block>());
        Block& block = *blocks_.back();
        block.index = {static_cast<unsigned>(number % gridDim.x), static_cast<unsigned>(number / gridDim.x % gridDim.y),
                       static_cast<unsigned>(number / gridDim.x / gridDim.y)};
        block.threads.resize(std::size_t{blockDim.x} * blockDim.y * blockDim.z);
        for (std::size_t i = 0; i < block.threads.size(); ++i) {
            block.threads[i].block = &block;
            block.threads[i].number = static_cast<unsigned>(i);
            ready_.push_back(&block.threads[i]);
        }
    }

    Thread* draw() {
        std::swap(ready_[random_.below(ready_.size())], ready_.back());
        Thread* thread = ready_.back();
        ready_.pop_back();
        return thread;
    }

    void wake(Thread& thread) {
        thread.state = State::kReady;
        ready_.push_back(&thread);
    }

    void enter(Thread* thread) {
        current_ = thread;
        const unsigned i = thread->number;
        threadIdx = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
        blockIdx = thread->block->index;
    }

    // Runs threads to their ends, one after the other, as long as the next one has not begun in another fibre.
    void work() {
        for (;;) {
            Thread* thread = current_;
            try {
                (*body_)();
            } catch (const std::exception& error) {
                failure_ = error.what();
            }
            end(*thread);
            if (failure_.empty() && !ready_.empty()) {
                Thread* next = draw();
                if (next->fibre == nullptr) {
                    next->fibre = std::exchange(thread->fibre, nullptr);
                    enter(next);
                    continue;
                }
                ready_.push_back(next);
            }
            idle_.push_back(std::exchange(thread->fibre, nullptr));
            leave_from(*idle_.back());
        }
    }

    void end(Thread& thread) {
        thread.state = State::kEnded;
        Block& block = *thread.block;
        if (++block.ended == block.threads.size()) {
            finished_.push_back(&block);
            begin_block();
        } else if (block.at_barrier > 0 && block.at_barrier + block.ended == block.threads.size()) {
            failure_ = missed_barrier(block);
        }
    }

    static std::string missed_barrier(const Block& block) {
        return "the barrier at " + text(block.where) + " was reached by " + std::to_string(block.at_barrier) + " of " +
               std::to_string(block.threads.size()) + " threads; the others have ended";
    }

    std::string describe_waiting() const {
        for (const auto& block : blocks_) {
            for (const Thread& thread : block->threads) {
                if (thread.state == State::kAtBarrier || thread.state == State::kInWarp) {
                    return "no thread can go on; thread " + std::to_string(thread.number) + " waits at " +
                           text(thread.where);
                }
            }
        }
        return "no thread can go on";
    }

    Fibre* take_fibre() {
        if (!idle_.empty()) {
            Fibre* fibre = idle_.back();
            idle_.pop_back();
            return fibre;
        }
        fibres_.push_back(std::make_unique<Fibre>());
        Fibre* fibre = fibres_.back().get();
        void* stack = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stack == MAP_FAILED) throw std::runtime_error("no memory for another fibre");
        fibre->stack = static_cast<char*>(stack);
        reset(*fibre);
        return fibre;
    }

    static void reset(Fibre& fibre) {
        getcontext(&fibre.context);
        fibre.context.uc_stack.ss_sp = fibre.stack;
        fibre.context.uc_stack.ss_size = kStack;
        fibre.context.uc_link = nullptr;
        makecontext(&fibre.context, &Machine::begin_fibre, 0);
        fibre.is_started = false;
    }

    static void begin_fibre() {
        Machine& machine = instance();
#if defined(__SANITIZE_ADDRESS__)
        __sanitizer_finish_switch_fiber(nullptr, &machine.main_stack_, &machine.main_stack_size_);
#endif
        machine.work();
    }

    void resume(Thread* thread) {
        Fibre& fibre = *thread->fibre;
        enter(thread);
#if defined(__SANITIZE_ADDRESS__)
        void* fake_stack = nullptr;
        __sanitizer_start_switch_fiber(&fake_stack, fibre.stack, kStack);
        swapcontext(&main_context_, &fibre.context);
        __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#else
        if (_setjmp(main_jump_) == 0) {
            if (fibre.is_started) _longjmp(fibre.jump, 1);
            fibre.is_started = true;
            setcontext(&fibre.context);
        }
#endif
        // Not while a fibre might still stand on their memory.
        for (Block* block : finished_) {
            std::erase_if(blocks_, [block](const auto& one) { return one.get() == block; });
        }
        finished_.clear();
    }

    // Gives control back to run(); returns when the thread goes on.
    void leave() { leave_from(*current_->fibre); }

    void leave_from(Fibre& fibre) {
        Thread* const self = current_;
#if defined(__SANITIZE_ADDRESS__)
        __sanitizer_start_switch_fiber(&fibre.fake_stack, main_stack_, main_stack_size_);
        swapcontext(&fibre.context, &main_context_);
        __sanitizer_finish_switch_fiber(fibre.fake_stack, nullptr, nullptr);
#else
        if (_setjmp(fibre.jump) == 0) _longjmp(main_jump_, 1);
#endif
        static_cast<void>(self);
    }

    // After a failure: no thread goes on, and the fibres begin anew.
    void abandon() {
        ready_.clear();
        order_.clear();
        blocks_.clear();
        finished_.clear();
        idle_.clear();
        for (const auto& fibre : fibres_) {
#if defined(__SANITIZE_ADDRESS__)
            ASAN_UNPOISON_MEMORY_REGION(fibre->stack, kStack);
            fibre->fake_stack = nullptr;
#endif
            reset(*fibre);
            idle_.push_back(fibre.get());
        }
    }

    Random random_{0};
    std::int64_t launches_ = 0;
    const std::function<void()>* body_ = nullptr;
    std::vector<std::size_t> order_;  // blocks that have not begun
    std::vector<std::unique_ptr<Block>> blocks_;
    std::vector<Block*> finished_;
    std::vector<Thread*> ready_;
    std::vector<std::unique_ptr<Fibre>> fibres_;
    std::vector<Fibre*> idle_;
    Thread* current_ = nullptr;
    std::string failure_;
    ucontext_t main_context_{};
    jmp_buf main_jump_{};
    const void* main_stack_ = nullptr;
    std::size_t main_stack_size_ = 0;
};

inline void* shared_array(const void* site, std::size_t bytes) { return Machine::instance().shared_array(site, bytes); }

// The arguments are copied, as a launch copies them, and every thread gets its own copy.
template <class... Parameters, class... Arguments>
void run(void (*kernel)(Parameters...), dim3 grid, dim3 block, const Arguments&... arguments) {
    const std::tuple<std::decay_t<Parameters>...> copies(arguments...);
    Machine::instance().run(grid, block, [&] { std::apply(kernel, copies); });
}

}  // namespace cuda_on_cpu

// The machine that runs one launch: threads as fibers, warps, the block in flight, and the device
// that owns memory and reports.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include <boost/context/detail/fcontext.hpp>

#include "counters.h"
#include "memory.h"
#include "runtime.h"

namespace starlight::emulator
{

inline constexpr unsigned WARP_LANES = 32, THREADS_MAX = 1024;

enum class Collective { barrier, vote, shuffle, matrices, mma };

struct Warp;

// An asynchronous copy on its way.
struct Copy {
    uint64_t shared_offset;
    int bytes;
    std::array<uint8_t, 16> data; // as it was when the copy began
};

struct Thread : Position {
    boost::context::detail::fcontext_t context;
    Warp *warp;
    unsigned number, lane; // in the block, in the warp
    uint32_t bit;          // of the lane

    // What it waits at, while it waits.
    Place place;
    Collective collective;
    uint32_t mask;
    void *arguments; // of the collective, on the thread's stack
    Vote vote;
    bool predicate;

    std::vector<Copy> copies;
    std::vector<size_t> groups; // committed, as ends in `copies`
};

// Masks of lanes; every lane of `exists` is in exactly one of the others.
struct Warp {
    unsigned number;
    Thread *threads; // 32
    uint32_t exists, ready, at_collective, at_barrier, exited;
    uint32_t barrier_time; // of the last __syncwarp of all
};

struct Options {
    uint32_t seed = 0; // 0: blocks, warps and lanes in order; else the order is drawn
    bool count = true;
    bool run = true; // else launches are only told
    int multiprocessors = 4;
    size_t shared_bytes_per_block = 99 << 10;
};

class Device
{
public:
    Options options;
    std::vector<LaunchReport> launches;

    // The address at which kernels find `host`: a multiple of 256, plus `misalignment`.
    uint64_t add(const std::string &name, void *host, uint64_t bytes, int element_bytes, Role role,
                 uint64_t misalignment);
    void remove(uint64_t address);
    Buffer *buffer_at(uint64_t address) const { return buffers_[slot_of(address)].get(); }
    uint32_t start_launch(); // its number, 1..255
    void finish_launch(LaunchReport &report) const;

    static unsigned slot_of(uint64_t address)
    {
        return static_cast<unsigned>((address - address_space) >> SLOT_BITS);
    }

private:
    std::array<std::unique_ptr<Buffer>, SLOTS> buffers_; // the first stays empty
    uint32_t launch_ = 0;
};

class Machine
{
public:
    Device *device = nullptr;
    LaunchReport *report = nullptr;
    SharedMemory shared;
    AccessLog log;

    void run(Device &on, const LaunchShape &shape, void (*invoke)(const void *), const void *data);

    Now now_of(const Thread &thread) const
    {
        return {time_, block_barrier_, thread.warp->barrier_time, thread.number,
                thread.warp->number};
    }
    Now now_of(const Warp &warp) const
    {
        return {time_, block_barrier_, warp.barrier_time, WARP + warp.number, warp.number};
    }
    uint32_t block() const { return launch_ << 24 | block_; }
    uint64_t serial() const { return serial_; } // of this launch in this process
    bool is_running() const { return invoke_ != nullptr; }
    bool is_stack_guard(uint64_t address) const;

    int wait_for_block(Thread &thread);
    void wait_for_warp(Thread &thread);
    void pass_warp_barrier(Warp &warp);

    [[noreturn]] void fault(const char *kind, const std::string &what, std::optional<Place> place);

private:
    void check(const LaunchShape &shape) const;
    void run_block(Index block);
    static void enter(boost::context::detail::transfer_t from);
    void resume(Thread &next);
    void switch_from(Thread &thread);
    Thread &next_in(Warp &warp, unsigned after);
    Thread *next_thread(Warp &warp, unsigned after);
    void draw_order();
    bool complete(Warp &warp, const Thread &thread);
    bool complete_any(Warp &warp);
    void pass_block_barrier();
    [[noreturn]] void end(const char *kind, const std::string &message);
    [[noreturn]] void report_stuck_warp(const Warp &warp);
    [[noreturn]] void report_stuck_barrier();
    template <class Condition> std::string describe_threads(Condition condition) const;
    void tick();

    std::array<Thread, THREADS_MAX> threads_;
    std::array<Warp, WARP_LANES> warps_;
    std::vector<unsigned> warp_order_;
    unsigned thread_count_ = 0, warp_count_ = 0;
    bool descending_ = false; // lanes in a warp
    std::mt19937 random_;
    const char *name_ = "";
    void (*invoke_)(const void *) = nullptr;
    const void *data_ = nullptr;
    boost::context::detail::fcontext_t host_ = nullptr;
    uint32_t time_ = 1, block_barrier_ = 0, launch_ = 0, block_ = 0;
    int vote_result_ = 0;
    uint64_t serial_ = 0;
    std::optional<Fault> fault_;
    uint8_t *stacks_ = nullptr; // mapped with the first launch, for good
};

extern Machine machine;

inline Thread &current_thread()
{
    return *static_cast<Thread *>(current);
}

// The operation of a warp, once every lane of the mask waits at it.
void execute(Warp &warp, Collective collective, uint32_t mask);

} // namespace starlight::emulator

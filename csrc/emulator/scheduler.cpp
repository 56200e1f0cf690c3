// Threads as fibers. A thread runs until it waits; then the next lane of its warp runs, when all
// lanes wait the warp operation is done, and when all warps stand at the block's barrier it opens.
#include "machine.h"

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <numeric>

#include <cxxabi.h>
#include <dlfcn.h>
#include <sys/mman.h>

namespace starlight::emulator
{

using boost::context::detail::fcontext_t;
using boost::context::detail::jump_fcontext;
using boost::context::detail::make_fcontext;
using boost::context::detail::transfer_t;

Machine machine;
Position *current = nullptr;

namespace
{

// Below each stack a page that traps; tops staggered, or all would meet in the same cache lines.
constexpr size_t STACK_BYTES = 128 << 10, STACK_GUARD_BYTES = 4 << 10, STAGGER_BYTES = 128;

std::string index_text(Index index)
{
    return "(" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " +
           std::to_string(index.z) + ")";
}

// Without a name where the kernel is not exported: static, or in an unnamed namespace.
std::string name_of(const void *kernel)
{
    Dl_info info;
    if (dladdr(kernel, &info) == 0 || info.dli_saddr != kernel) return "";
    const std::unique_ptr<char, void (*)(void *)> name(
        abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, nullptr), std::free);
    return name ? name.get() : info.dli_sname;
}

std::vector<std::vector<uint8_t>> bytes_of(std::span<const Argument> arguments)
{
    std::vector<std::vector<uint8_t>> result;
    for (const Argument &argument : arguments) {
        const auto *const bytes = static_cast<const uint8_t *>(argument.data);
        result.emplace_back(bytes, bytes + argument.bytes);
    }
    return result;
}

std::string place_text(Place place)
{
    const char *slash = std::strrchr(place.file, '/');
    return (slash != nullptr ? slash + 1 : place.file) + (":" + std::to_string(place.line));
}

bool same_place(Place a, Place b)
{
    return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

// A plain read or write of device memory, or a stack that is full, ends the launch as a fault.
// Anything else is none of the emulator's business.
class Traps
{
public:
    Traps()
    {
        stack_t stack{};
        stack.ss_sp = stack_;
        stack.ss_size = sizeof stack_;
        sigaltstack(&stack, &old_stack_);
        struct sigaction action{};
        action.sa_sigaction = handle;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER; // the handler does not return
        sigaction(SIGSEGV, &action, &old_action);
    }

    ~Traps()
    {
        sigaction(SIGSEGV, &old_action, nullptr);
        sigaltstack(&old_stack_, nullptr);
    }

private:
    static void handle(int, siginfo_t *info, void *)
    {
        const auto address = reinterpret_cast<uint64_t>(info->si_addr);
        if (current != nullptr && in_address_space(address))
            machine.fault("raw_access",
                          "plain read or write of " + describe_address(address) +
                              ", must go through ld, st and their like",
                          {});
        if (current != nullptr && machine.is_stack_guard(address))
            machine.fault("stack", "a thread's stack must fit in 128 KiB, got more", {});
        sigaction(SIGSEGV, &old_action, nullptr); // the instruction traps again
    }

    static inline struct sigaction old_action;
    stack_t old_stack_{};
    alignas(16) uint8_t stack_[64 << 10];
};

} // namespace

void run(Device &device, const LaunchShape &shape, void (*invoke)(const void *), const void *data)
{
    static std::mutex one_at_a_time;
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    machine.run(device, shape, invoke, data);
}

void Machine::check(const LaunchShape &shape) const
{
    const auto require = [&](bool holds, const std::string &rule) {
        if (!holds)
            throw Fault("launch", std::string(shape.name) + ": " + rule + ", grid " +
                                      index_text(shape.grid) + ", block " +
                                      index_text(shape.block));
    };
    const uint64_t threads = uint64_t{shape.block.x} * shape.block.y * shape.block.z;
    const uint64_t blocks = uint64_t{shape.grid.x} * shape.grid.y * shape.grid.z;
    const auto got = [](uint64_t value) { return ", got " + std::to_string(value); };
    require(threads >= 1 && threads <= THREADS_MAX && shape.block.z <= 64,
            "block must have 1 to 1024 threads and z <= 64" + got(threads));
    require(shape.grid.x <= 0x7fffffff && shape.grid.y <= 65535 && shape.grid.z <= 65535,
            "grid must have x < 2^31, y and z < 2^16");
    require(blocks < Buffer::MANY_BLOCKS,
            "grid must have less than 2^24 blocks here" + got(blocks));
    require(shape.shared_bytes <= device->options.shared_bytes_per_block,
            "dynamic shared memory must fit in " +
                std::to_string(device->options.shared_bytes_per_block) + " bytes" +
                got(shape.shared_bytes));
    size_t argument_bytes = 0;
    for (const Argument &argument : shape.arguments)
        argument_bytes += argument.bytes;
    require(argument_bytes <= 4096, "parameters must fit in 4096 bytes" + got(argument_bytes));
}

void Machine::run(Device &on, const LaunchShape &shape, void (*invoke)(const void *),
                  const void *data)
{
    if (uint64_t{shape.grid.x} * shape.grid.y * shape.grid.z == 0) return;
    device = &on;
    check(shape);
    on.launches.push_back(
        {shape.name, name_of(shape.kernel), bytes_of(shape.arguments), shape.grid, shape.block});
    report = &on.launches.back();
    report->dynamic_shared_bytes = shape.shared_bytes;
    if (!on.options.run) return;
    if (stacks_ == nullptr) {
        void *memory =
            mmap(nullptr, THREADS_MAX * (STACK_BYTES + STACK_GUARD_BYTES), PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) throw std::bad_alloc();
        stacks_ = static_cast<uint8_t *>(memory);
        for (unsigned thread = 0; thread < THREADS_MAX; thread++)
            mprotect(stacks_ + thread * (STACK_BYTES + STACK_GUARD_BYTES), STACK_GUARD_BYTES,
                     PROT_NONE);
    }
    name_ = shape.name;
    invoke_ = invoke;
    data_ = data;
    fault_.reset();
    launch_ = on.start_launch();
    serial_++;
    random_.seed(on.options.seed);
    descending_ = false;
    shared.start_launch(shape.shared_bytes);
    log.start_launch(*report, on.options.count);
    thread_count_ = shape.block.x * shape.block.y * shape.block.z;
    warp_count_ = (thread_count_ + WARP_LANES - 1) / WARP_LANES;
    warp_order_.resize(warp_count_);
    std::iota(warp_order_.begin(), warp_order_.end(), 0u);
    std::vector<uint32_t> order(shape.grid.x * shape.grid.y * shape.grid.z);
    std::iota(order.begin(), order.end(), 0u);
    if (on.options.seed != 0) std::shuffle(order.begin(), order.end(), random_);

    for (Thread &thread : threads_) {
        thread.block_size = shape.block;
        thread.grid_size = shape.grid;
    }
    {
        const Traps traps;
        for (const uint32_t block : order) {
            block_ = block;
            run_block({block % shape.grid.x, block / shape.grid.x % shape.grid.y,
                       block / shape.grid.x / shape.grid.y});
            if (fault_.has_value()) break;
            report->blocks++;
        }
    }
    current = nullptr;
    invoke_ = nullptr;
    report->static_shared_bytes = shared.static_bytes();
    log.finish_launch();
    on.finish_launch(*report);
    if (fault_.has_value()) throw *fault_;
}

void Machine::run_block(Index block)
{
    time_ = 1;
    block_barrier_ = 0;
    shared.start_block();
    for (unsigned number = 0; number < warp_count_; number++) {
        const unsigned lanes = std::min(WARP_LANES, thread_count_ - number * WARP_LANES);
        const uint32_t exists = 0xffffffffu >> (WARP_LANES - lanes);
        warps_[number] = {number, &threads_[number * WARP_LANES], exists, exists, 0, 0, 0, 0};
    }
    for (unsigned number = 0; number < thread_count_; number++) {
        Thread &thread = threads_[number];
        const Index size = thread.block_size;
        thread.Position::thread = {number % size.x, number / size.x % size.y,
                                   number / size.x / size.y};
        thread.block = block;
        thread.number = number;
        thread.lane = number % WARP_LANES;
        thread.bit = 1u << thread.lane;
        thread.warp = &warps_[number / WARP_LANES];
        thread.copies.clear();
        thread.groups.clear();
        uint8_t *top = stacks_ + (number + 1) * (STACK_BYTES + STACK_GUARD_BYTES) -
                       thread.lane * STAGGER_BYTES;
        thread.context = make_fcontext(top, STACK_BYTES - WARP_LANES * STAGGER_BYTES, enter);
    }
    draw_order();
    Warp &first = warps_[warp_order_.front()];
    Thread &thread = next_in(first, descending_ ? 0 : WARP_LANES - 1);
    current = &thread;
    jump_fcontext(thread.context, nullptr);
    current = nullptr;
}

bool Machine::is_stack_guard(uint64_t address) const
{
    const uint64_t offset = address - reinterpret_cast<uint64_t>(stacks_);
    return offset < THREADS_MAX * (STACK_BYTES + STACK_GUARD_BYTES) &&
           offset % (STACK_BYTES + STACK_GUARD_BYTES) < STACK_GUARD_BYTES;
}

void Machine::draw_order()
{
    if (device->options.seed == 0) return;
    std::shuffle(warp_order_.begin(), warp_order_.end(), random_);
    descending_ = (random_() & 1) != 0;
}

// ---- fibers: whoever is resumed keeps the context of the one that it was resumed by

void Machine::enter(transfer_t from)
{
    (from.data != nullptr ? static_cast<Thread *>(from.data)->context : machine.host_) = from.fctx;
    Thread &thread = current_thread();
    machine.invoke_(machine.data_);
    if (!thread.copies.empty())
        machine.fault("unfinished_copy", "a thread must wait for its copies before it ends", {});
    thread.warp->ready &= ~thread.bit;
    thread.warp->exited |= thread.bit;
    Thread *next = machine.next_thread(*thread.warp, thread.lane);
    current = next;
    jump_fcontext(next != nullptr ? next->context : machine.host_, &thread);
}

void Machine::switch_from(Thread &thread)
{
    Thread *next = next_thread(*thread.warp, thread.lane); // there is one: ours is not done
    current = next;
    if (next == &thread) return;
    const transfer_t from = jump_fcontext(next->context, &thread);
    static_cast<Thread *>(from.data)->context = from.fctx;
}

Thread &Machine::next_in(Warp &warp, unsigned after)
{
    const unsigned above = after + 1;
    if (descending_) {
        const uint32_t below = warp.ready & ((1u << after) - 1);
        return warp.threads[31 - __builtin_clz(below != 0 ? below : warp.ready)];
    }
    const uint32_t next = above < WARP_LANES ? warp.ready & ~((1u << above) - 1) : 0;
    return warp.threads[__builtin_ctz(next != 0 ? next : warp.ready)];
}

// Null when all threads of the block have ended.
Thread *Machine::next_thread(Warp &warp, unsigned after)
{
    if (warp.ready == 0 && warp.at_collective != 0 && !complete_any(warp)) report_stuck_warp(warp);
    if (warp.ready != 0) return &next_in(warp, after);
    log.close();
    const unsigned start = descending_ ? 0 : WARP_LANES - 1;
    const auto first_ready = [&]() -> Thread * {
        for (const unsigned number : warp_order_)
            if (warps_[number].ready != 0) return &next_in(warps_[number], start);
        return nullptr;
    };
    if (Thread *next = first_ready()) return next;
    const auto done = [](const Warp &candidate) { return candidate.exited == candidate.exists; };
    if (std::all_of(warps_.begin(), warps_.begin() + warp_count_, done)) return nullptr;
    pass_block_barrier();
    draw_order();
    return first_ready();
}

// ---- barriers and warp operations

void Machine::tick()
{
    if (++time_ >= TIME_MAX)
        fault("launch", "a block must have less than 2^20 barriers of it and its warps here", {});
}

int Machine::wait_for_block(Thread &thread)
{
    thread.warp->ready &= ~thread.bit;
    thread.warp->at_barrier |= thread.bit;
    switch_from(thread);
    return vote_result_;
}

void Machine::pass_block_barrier()
{
    unsigned votes = 0;
    const Thread &first = threads_[0];
    for (unsigned number = 0; number < thread_count_; number++) {
        const Thread &thread = threads_[number];
        if ((thread.warp->at_barrier & thread.bit) == 0 || !same_place(thread.place, first.place))
            report_stuck_barrier();
        votes += thread.predicate ? 1 : 0;
    }
    switch (first.vote) {
    case Vote::any: vote_result_ = votes != 0; break;
    case Vote::all: vote_result_ = votes == thread_count_; break;
    default: vote_result_ = static_cast<int>(votes);
    }
    for (unsigned number = 0; number < warp_count_; number++) {
        warps_[number].ready = warps_[number].at_barrier;
        warps_[number].at_barrier = 0;
    }
    block_barrier_ = time_;
    tick();
    report->block_barriers++;
}

void Machine::wait_for_warp(Thread &thread)
{
    Warp &warp = *thread.warp;
    if ((thread.mask & thread.bit) == 0)
        fault("warp", "a warp operation's mask must name the lane that calls it", thread.place);
    warp.ready &= ~thread.bit;
    warp.at_collective |= thread.bit;
    if (!complete(warp, thread)) switch_from(thread);
}

// Whether the operation that the thread waits at has been reached by all, and is now done.
bool Machine::complete(Warp &warp, const Thread &thread)
{
    const uint32_t needed = thread.mask & warp.exists; // one that has ended will not come
    if ((warp.at_collective & needed) != needed) return false;
    for (uint32_t lanes = needed; lanes != 0; lanes &= lanes - 1) {
        const Thread &other = warp.threads[__builtin_ctz(lanes)];
        if (other.collective != thread.collective || other.mask != thread.mask ||
            !same_place(other.place, thread.place))
            return false;
    }
    execute(warp, thread.collective, needed);
    warp.at_collective &= ~needed;
    warp.ready |= needed;
    if (needed == (warp.exists & ~warp.exited)) log.close();
    return true;
}

bool Machine::complete_any(Warp &warp)
{
    for (uint32_t lanes = warp.at_collective; lanes != 0; lanes &= lanes - 1)
        if (complete(warp, warp.threads[__builtin_ctz(lanes)])) return true;
    return false;
}

void Machine::pass_warp_barrier(Warp &warp)
{
    warp.barrier_time = time_;
    tick();
    report->warp_barriers++;
}

// ---- faults

void Machine::fault(const char *kind, const std::string &what, std::optional<Place> place)
{
    std::string message = name_;
    if (current != nullptr)
        message +=
            ": block " + index_text(current->block) + ", thread " + index_text(current->thread);
    end(kind, message + (place.has_value() ? ", " + place_text(*place) : "") + ": " + what);
}

void Machine::end(const char *kind, const std::string &message)
{
    if (current == nullptr) throw Fault(kind, message);
    fault_.emplace(kind, message);
    current = nullptr;
    jump_fcontext(host_, nullptr); // the fibers are left where they are: they own nothing
    __builtin_unreachable();
}

// "0-31, 40" of the threads that keep the condition.
template <class Condition> std::string Machine::describe_threads(Condition condition) const
{
    std::string text;
    for (unsigned first = 0; first < thread_count_; first++) {
        if (!condition(threads_[first])) continue;
        unsigned last = first;
        while (last + 1 < thread_count_ && condition(threads_[last + 1]))
            last++;
        text += (text.empty() ? "" : ", ") + std::to_string(first) +
                (last > first ? "-" + std::to_string(last) : "");
        first = last;
    }
    return text;
}

void Machine::report_stuck_warp(const Warp &warp)
{
    const auto of_warp = [&](const Thread &thread) { return thread.warp == &warp; };
    const auto waits = [&](const Thread &thread) {
        return of_warp(thread) && ((warp.at_collective | warp.at_barrier) & thread.bit) != 0;
    };
    std::vector<Place> places;
    for (unsigned lane = 0; lane < WARP_LANES; lane++) {
        const Thread &thread = warp.threads[lane];
        const auto same = [&](Place place) { return same_place(place, thread.place); };
        if (thread.number < thread_count_ && waits(thread) &&
            std::none_of(places.begin(), places.end(), same))
            places.push_back(thread.place);
    }
    std::string where;
    for (const Place place : places)
        where += (where.empty() ? "threads " : "; threads ") +
                 describe_threads([&](const Thread &thread) {
                     return waits(thread) && same_place(thread.place, place);
                 }) +
                 " at " + place_text(place);
    const std::string ended = describe_threads(
        [&](const Thread &thread) { return of_warp(thread) && (warp.exited & thread.bit) != 0; });
    if (!ended.empty()) where += "; threads " + ended + " have ended";
    end("warp", std::string(name_) + ": block " + index_text(current->block) +
                    ": a warp operation must be reached by every lane of its mask, got " + where);
}

void Machine::report_stuck_barrier()
{
    const auto waits = [](const Thread &thread) {
        return (thread.warp->at_barrier & thread.bit) != 0;
    };
    const Thread *first = std::find_if(threads_.begin(), threads_.begin() + thread_count_, waits);
    const auto here = [&](const Thread &thread) {
        return waits(thread) && same_place(thread.place, first->place);
    };
    const std::string elsewhere =
        describe_threads([&](const Thread &thread) { return waits(thread) && !here(thread); });
    const std::string ended =
        describe_threads([&](const Thread &thread) { return !waits(thread); });
    fault(
        "barrier",
        "__syncthreads must be reached by all threads of the block at the same call, got threads " +
            describe_threads(here) + " at it" +
            (elsewhere.empty() ? "" : "; threads " + elsewhere + " at another") +
            (ended.empty() ? "" : "; threads " + ended + " have ended"),
        first->place);
}

} // namespace starlight::emulator

// Buffers and the address space: every access of a kernel to global memory is checked here.
#include "memory.h"

#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>

#include <sys/mman.h>

#include "machine.h"

namespace starlight::emulator
{

const uint64_t address_space = [] {
    void *reserved = mmap(nullptr, SLOTS * SLOT_BYTES, PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return reserved != MAP_FAILED ? reinterpret_cast<uint64_t>(reserved) : 0;
}();

std::string describe_who(uint32_t who)
{
    if (who < WARP) return "thread " + std::to_string(who);
    if (who < MANY) return "threads of warp " + std::to_string(who - WARP);
    if (who == MANY) return "threads of several warps";
    if (who == ATOMIC) return "an atomic operation";
    return "a copy of thread " + std::to_string(who & ~COPY);
}

std::string describe_address(uint64_t address)
{
    if (!in_address_space(address)) return "an address outside of device memory";
    if (Device::slot_of(address) == 0) return machine.shared.describe(address - address_space);
    const Buffer *buffer = machine.device->buffer_at(address);
    if (buffer == nullptr) return "an address of no buffer";
    const auto offset = static_cast<int64_t>(address - buffer->address);
    return "'" + buffer->name + "' " + (offset < 0 ? "- " : "+ ") +
           std::to_string(std::abs(offset)) + " of " + std::to_string(buffer->bytes) + " bytes";
}

// ---- buffers

void Buffer::Free::operator()(Entry *entries) const
{
    std::free(entries);
}

Buffer::Buffer(std::string given_name, uint8_t *host_data, uint64_t size, int element,
               Role given_role, uint64_t at)
    : name(std::move(given_name)), host(host_data), bytes(size), address(at), role(given_role),
      element_bytes_(element),
      entries_((size + static_cast<uint64_t>(element) - 1) / static_cast<uint64_t>(element))
{
    if (role != Role::input) writes_ = make_entries();
}

// Zero pages that cost nothing until they are touched.
Buffer::Entries Buffer::make_entries() const
{
    auto *entries = static_cast<Entry *>(std::calloc(entries_ + 1, sizeof(Entry)));
    if (entries == nullptr) throw std::bad_alloc();
    return Entries(entries);
}

namespace
{

bool is_same_launch(const Buffer::Entry &past, uint32_t block)
{
    return past.stamp != 0 && past.block >> 24 == block >> 24;
}

bool is_ordered_globally(const Buffer::Entry &past, uint32_t block, const Now &now)
{
    if (!is_same_launch(past, block)) return true;
    if (past.block != block) return now.who == ATOMIC && who_of(past.stamp) == ATOMIC;
    return is_ordered(past.stamp, now);
}

} // namespace

void Buffer::refuse(const char *what, uint64_t entry, const Entry &past, uint32_t block,
                    Place place) const
{
    const uint32_t number = past.block & MANY_BLOCKS;
    const std::string who = past.block == block ? describe_who(who_of(past.stamp))
                            : number == MANY_BLOCKS
                                ? "several blocks of the same launch"
                                : "block " + std::to_string(number) + " of the same launch";
    machine.fault("race",
                  describe_address(address + entry * static_cast<uint64_t>(element_bytes_)) + ": " +
                      what + " " + who + " without a barrier between",
                  place);
}

void Buffer::check_written(uint64_t offset, int count, Place place) const
{
    if (role != Role::output) return;
    const auto element = static_cast<uint64_t>(element_bytes_);
    const uint64_t last = (offset + static_cast<uint64_t>(count) - 1) / element;
    for (uint64_t entry = offset / element; entry <= last; entry++)
        if (writes_[entry].stamp == 0)
            machine.fault("unwritten",
                          describe_address(address + entry * element) +
                              ": must be written before it is read",
                          place);
}

void Buffer::read(uint64_t offset, int count, bool constant, uint32_t block, const Now &now,
                  Place place)
{
    if (role == Role::input) return;
    check_written(offset, count, place);
    if (!reads_) reads_ = make_entries();
    const auto element = static_cast<uint64_t>(element_bytes_);
    const uint64_t last = (offset + static_cast<uint64_t>(count) - 1) / element;
    for (uint64_t entry = offset / element; entry <= last; entry++) {
        const Entry written = writes_[entry];
        if (constant && is_same_launch(written, block))
            refuse("ld_const after a write by", entry, written, block, place);
        if (!is_ordered_globally(written, block, now))
            refuse("read after a write by", entry, written, block, place);
        Entry &read = reads_[entry];
        if (constant || (is_same_launch(read, block) && read.block != block))
            read = {block | MANY_BLOCKS, now.stamp()};
        else
            read = {block, read.block == block ? merge_reader(read.stamp, now) : now.stamp()};
    }
}

void Buffer::write(uint64_t offset, int count, uint32_t block, const Now &now, Place place)
{
    if (role == Role::input)
        machine.fault("read_only", describe_address(address + offset) + ": must not be written",
                      place);
    const auto element = static_cast<uint64_t>(element_bytes_);
    const uint64_t last = (offset + static_cast<uint64_t>(count) - 1) / element;
    for (uint64_t entry = offset / element; entry <= last; entry++) {
        const Entry written = writes_[entry];
        if (!is_ordered_globally(written, block, now))
            refuse("write after a write by", entry, written, block, place);
        if (reads_) {
            const Entry read = reads_[entry];
            if (!is_ordered_globally(read, block, now))
                refuse("write after a read by", entry, read, block, place);
        }
        writes_[entry] = {block, now.stamp()};
    }
}

void Buffer::fill(uint64_t offset, uint64_t count)
{
    if (role == Role::input) throw Fault("read_only", "'" + name + "' must not be set to zero");
    if (offset > bytes || count > bytes - offset)
        throw Fault("out_of_bounds", "'" + name + "' must hold what is set to zero, " +
                                         std::to_string(bytes) + " bytes, got " +
                                         std::to_string(offset) + " + " + std::to_string(count));
    const auto element = static_cast<uint64_t>(element_bytes_);
    std::memset(host + offset, 0, count);
    for (uint64_t entry = offset / element; entry * element < offset + count; entry++)
        writes_[entry] = {0, 1u << WHO_BITS};
}

uint64_t Buffer::unwritten_bytes() const
{
    uint64_t entries = 0;
    if (role == Role::output)
        for (uint64_t entry = 0; entry < entries_; entry++)
            entries += writes_[entry].stamp == 0 ? 1 : 0;
    return entries * static_cast<uint64_t>(element_bytes_);
}

void Buffer::forget_launches()
{
    for (uint64_t entry = 0; entry < entries_; entry++) {
        if (writes_) writes_[entry].block = 0;
        if (reads_) reads_[entry] = {};
    }
}

// ---- the device's table of them

uint64_t Device::add(const std::string &name, void *host, uint64_t bytes, int element_bytes,
                     Role role, uint64_t misalignment)
{
    if (address_space == 0)
        throw std::runtime_error("emulator: host must reserve 256 GiB of addresses, got a refusal");
    if (bytes > SLOT_BYTES / 2)
        throw std::runtime_error("buffer: bytes must be at most 2^31, got " +
                                 std::to_string(bytes));
    for (unsigned slot = 1; slot < SLOTS; slot++) {
        if (buffers_[slot]) continue;
        const uint64_t address = address_space + slot * SLOT_BYTES + BUFFER_OFFSET + misalignment;
        buffers_[slot] = std::make_unique<Buffer>(name, static_cast<uint8_t *>(host), bytes,
                                                  element_bytes, role, address);
        return address;
    }
    throw std::runtime_error("buffer: a device must have at most 63 of them");
}

void Device::remove(uint64_t address)
{
    buffers_[slot_of(address)].reset();
}

uint32_t Device::start_launch()
{
    for (const auto &buffer : buffers_) {
        if (!buffer) continue;
        buffer->loads = buffer->stores = {};
        if (launch_ == 255) buffer->forget_launches();
    }
    launch_ = launch_ == 255 ? 1 : launch_ + 1;
    return launch_;
}

void Device::finish_launch(LaunchReport &report) const
{
    for (const auto &buffer : buffers_)
        if (buffer && buffer->loads.transactions + buffer->stores.transactions != 0)
            report.buffers[buffer->name] = {buffer->loads, buffer->stores};
}

void zero_memory(Device &device, void *pointer, size_t bytes)
{
    const auto address = reinterpret_cast<uint64_t>(pointer);
    if (bytes == 0) return;
    Buffer *buffer = in_address_space(address) ? device.buffer_at(address) : nullptr;
    if (buffer == nullptr)
        throw Fault("out_of_bounds", "set_zero: pointer must be of a buffer, got another");
    buffer->fill(address - buffer->address, bytes);
}

int multiprocessors(const Device &device)
{
    return device.options.multiprocessors;
}

size_t shared_bytes_per_block(const Device &device)
{
    return device.options.shared_bytes_per_block;
}

// ---- a kernel's accesses

namespace
{

enum class Use { read, read_constant, write, atomic };

// Checks the access and tells where its bytes lie on the host.
template <int Bytes> uint8_t *access(uint64_t address, Use use, const Now &now, Place place)
{
    if (address % Bytes != 0)
        machine.fault("misaligned",
                      describe_address(address) + ": must be aligned to the " +
                          std::to_string(Bytes) + " bytes of the access",
                      place);
    if (!in_address_space(address))
        machine.fault("out_of_bounds", describe_address(address) + ": must be of device memory",
                      place);
    const unsigned slot = Device::slot_of(address);
    if (slot == 0) {
        const uint64_t offset = address - address_space;
        if (use == Use::read_constant)
            machine.fault("read_only",
                          "ld_const must read global memory, got " + describe_address(address),
                          place);
        if (use == Use::atomic) machine.shared.check_written(offset, Bytes, now, place);
        if (use == Use::read)
            machine.shared.read<Bytes>(offset, now, place);
        else
            machine.shared.write<Bytes>(offset, now, place);
        return machine.shared.bytes(offset);
    }
    Buffer *buffer = machine.device->buffer_at(address);
    const uint64_t offset = buffer != nullptr ? address - buffer->address : 0;
    if (buffer == nullptr || offset >= buffer->bytes || buffer->bytes - offset < Bytes)
        machine.fault("out_of_bounds",
                      describe_address(address) + ": must have the " + std::to_string(Bytes) +
                          " bytes of the access",
                      place);
    const bool constant = use == Use::read_constant;
    if (use == Use::atomic) buffer->check_written(offset, Bytes, place);
    if (use == Use::read || constant)
        buffer->read(offset, Bytes, constant, machine.block(), now, place);
    else
        buffer->write(offset, Bytes, machine.block(), now, place);
    return buffer->host + offset;
}

} // namespace

template <int Bytes> void load(void *to, const void *from, bool constant, Place place)
{
    const auto address = reinterpret_cast<uint64_t>(from);
    const Thread &thread = current_thread();
    machine.log.add(thread.lane, Operation::load, Bytes, place, address);
    const Use use = constant ? Use::read_constant : Use::read;
    std::memcpy(to, access<Bytes>(address, use, machine.now_of(thread), place), Bytes);
}

template <int Bytes> void store(void *to, const void *from, Place place)
{
    const auto address = reinterpret_cast<uint64_t>(to);
    const Thread &thread = current_thread();
    machine.log.add(thread.lane, Operation::store, Bytes, place, address);
    std::memcpy(access<Bytes>(address, Use::write, machine.now_of(thread), place), from, Bytes);
}

template <int Bytes> void skip_load(Place place)
{
    machine.log.skip(current_thread().lane, Operation::load, Bytes, place);
}

template <int Bytes> void skip_store(Place place)
{
    machine.log.skip(current_thread().lane, Operation::store, Bytes, place);
}

template <class T> T atomic(T *target, AtomicOperation operation, T value, T expected, Place place)
{
    const auto address = reinterpret_cast<uint64_t>(target);
    const Thread &thread = current_thread();
    machine.log.add(thread.lane, Operation::atomic, sizeof(T), place, address);
    Now now = machine.now_of(thread);
    now.who = ATOMIC; // ordered with its like
    uint8_t *host = access<sizeof(T)>(address, Use::atomic, now, place);
    T before;
    std::memcpy(&before, host, sizeof before);
    T after = before;
    switch (operation) {
    case AtomicOperation::add:
        if constexpr (std::is_same_v<T, int32_t>)
            after = static_cast<T>(static_cast<uint32_t>(before) + static_cast<uint32_t>(value));
        else
            after = before + value;
        break;
    case AtomicOperation::maximum: after = value > before ? value : before; break;
    case AtomicOperation::minimum: after = value < before ? value : before; break;
    case AtomicOperation::exchange_if_equal: after = before == expected ? value : before; break;
    }
    std::memcpy(host, &after, sizeof after);
    return before;
}

// ---- asynchronous copies

template <int Bytes> void copy_async(void *shared, const void *global, bool condition, Place place)
{
    const auto to = reinterpret_cast<uint64_t>(shared), from = reinterpret_cast<uint64_t>(global);
    Thread &thread = current_thread();
    const Now now = machine.now_of(thread);
    Copy copy{to - address_space, Bytes, {}};
    if (condition) {
        machine.log.add(thread.lane, Operation::copy_from, Bytes, place, from);
        if (in_address_space(from) && Device::slot_of(from) == 0)
            machine.fault("out_of_bounds",
                          "cp_async must read global memory, got " + describe_address(from), place);
        std::memcpy(copy.data.data(), access<Bytes>(from, Use::read, now, place), Bytes);
    } else
        machine.log.skip(thread.lane, Operation::copy_from, Bytes, place);
    machine.log.add(thread.lane, Operation::copy_to, Bytes, place, to);
    if (!in_address_space(to) || Device::slot_of(to) != 0)
        machine.fault("out_of_bounds",
                      "cp_async must write shared memory, got " + describe_address(to), place);
    access<Bytes>(to, Use::write, now, place);
    machine.shared.begin_copy(copy.shared_offset, Bytes, now);
    thread.copies.push_back(copy);
}

void copy_commit()
{
    Thread &thread = current_thread();
    thread.groups.push_back(thread.copies.size());
}

void copy_wait(unsigned groups, Place)
{
    Thread &thread = current_thread();
    if (thread.groups.size() <= groups) return;
    const size_t done = thread.groups.size() - groups, end = thread.groups[done - 1];
    const Now now = machine.now_of(thread);
    for (size_t copy = 0; copy < end; copy++) {
        const Copy &landed = thread.copies[copy];
        machine.shared.finish_copy(landed.shared_offset, landed.bytes, landed.data.data(), now);
    }
    const auto begin = thread.copies.begin();
    thread.copies.erase(begin, begin + static_cast<std::ptrdiff_t>(end));
    thread.groups.erase(thread.groups.begin(),
                        thread.groups.begin() + static_cast<std::ptrdiff_t>(done));
    for (size_t &group : thread.groups)
        group -= end;
}

#define STARLIGHT_ACCESS(Bytes)                                                                    \
    template void load<Bytes>(void *, const void *, bool, Place);                                  \
    template void store<Bytes>(void *, const void *, Place);                                       \
    template void skip_load<Bytes>(Place);                                                         \
    template void skip_store<Bytes>(Place);
STARLIGHT_ACCESS(1)
STARLIGHT_ACCESS(2)
STARLIGHT_ACCESS(4)
STARLIGHT_ACCESS(8)
STARLIGHT_ACCESS(16)

template void copy_async<4>(void *, const void *, bool, Place);
template void copy_async<8>(void *, const void *, bool, Place);
template void copy_async<16>(void *, const void *, bool, Place);

template int32_t atomic(int32_t *, AtomicOperation, int32_t, int32_t, Place);
template uint32_t atomic(uint32_t *, AtomicOperation, uint32_t, uint32_t, Place);
template float atomic(float *, AtomicOperation, float, float, Place);

} // namespace starlight::emulator

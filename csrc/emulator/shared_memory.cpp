// The shared memory of a block, and the shadow of each of its bytes.
#include <algorithm>
#include <cstring>

#include "machine.h"

namespace starlight::emulator
{

SharedMemory::SharedMemory() : regions_{{"dynamic shared memory", 0, 0}} {}

void SharedMemory::start_launch(size_t dynamic_bytes)
{
    if (data_.empty()) {
        data_.resize(WINDOW);
        writes_.resize(WINDOW);
        reads_.resize(WINDOW);
    }
    std::fill(writes_.begin(), writes_.end(), GUARD);
    regions_ = {{"dynamic shared memory", 0, dynamic_bytes}};
    used_ = dynamic_bytes;
}

void SharedMemory::start_block()
{
    for (const Region &region : regions_) {
        const auto offset = static_cast<std::ptrdiff_t>(region.offset);
        const auto count = static_cast<std::ptrdiff_t>(region.bytes);
        std::fill_n(writes_.begin() + offset, count, Stamp{});
        std::fill_n(reads_.begin() + offset, count, Stamp{});
    }
}

void *SharedMemory::add(const char *name, size_t bytes)
{
    constexpr uint64_t ALIGNMENT = 256; // at least; guards are on top
    const uint64_t offset = (used_ + GUARD_BYTES + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    const uint64_t limit = machine.device->options.shared_bytes_per_block;
    const uint64_t taken = static_bytes() + bytes;
    constexpr uint64_t STATIC_MAX = 48 << 10;
    if (taken > STATIC_MAX || taken + dynamic_bytes() > limit)
        machine.fault("launch",
                      "shared memory must fit in " + std::to_string(limit) +
                          " bytes, 48 KiB of them static, got " + std::to_string(taken) +
                          " static with " + std::to_string(dynamic_bytes()) + " dynamic",
                      {});
    regions_.push_back({name, offset, bytes});
    used_ = offset + bytes;
    std::fill_n(writes_.begin() + static_cast<std::ptrdiff_t>(offset), bytes, Stamp{});
    std::fill_n(reads_.begin() + static_cast<std::ptrdiff_t>(offset), bytes, Stamp{});
    return address(offset);
}

void *SharedMemory::address(uint64_t offset) const
{
    return reinterpret_cast<void *>(address_space + offset);
}

size_t SharedMemory::static_bytes() const
{
    size_t sum = 0;
    for (size_t region = 1; region < regions_.size(); region++)
        sum += (regions_[region].bytes + 15) / 16 * 16;
    return sum;
}

// By the region that begins last before it: an array is left more often upwards.
std::string SharedMemory::describe(uint64_t offset) const
{
    const Region *found = &regions_[0];
    for (const Region &region : regions_)
        if (region.bytes != 0 && region.offset <= offset) found = &region;
    return std::string("shared '") + found->name + "' + " + std::to_string(offset - found->offset) +
           " of " + std::to_string(found->bytes) + " bytes";
}

void SharedMemory::refuse(const char *use, uint64_t offset, Stamp written, Stamp read,
                          const Now &now, Place place) const
{
    const std::string where = describe(offset) + ": ";
    if (written == GUARD || offset >= WINDOW)
        machine.fault("out_of_bounds", where + "must not be accessed", place);
    if (is_copy(written))
        machine.fault("unfinished_copy",
                      where + use + " before the end of " + describe_who(who_of(written)), place);
    if (written == 0)
        machine.fault("unwritten", where + "must be written before it is read", place);
    const bool by_writer = !is_ordered(written, now);
    machine.fault("race",
                  where + use + " after a " + (by_writer ? "write" : "read") + " by " +
                      describe_who(who_of(by_writer ? written : read)) +
                      " without a barrier between",
                  place);
}

template <int Bytes> void SharedMemory::read(uint64_t offset, const Now &now, Place place)
{
    if (offset + Bytes > WINDOW) refuse("read", offset, GUARD, 0, now, place);
    const Stamp *writes = &writes_[offset];
    Stamp *reads = &reads_[offset];
    // The quick answer for whole values: all written before the last barrier, by stores.
    const Stamp newest = now.block_barrier << WHO_BITS | WHO_MASK;
    Stamp slow = 0, mixed = 0;
    for (int byte = 0; byte < Bytes; byte++) {
        slow |= (writes[byte] - 1 >= newest ? COPY : 0) | writes[byte];
        mixed |= reads[byte] ^ reads[0];
    }
    if (is_copy(slow))
        for (int byte = 0; byte < Bytes; byte++) {
            const Stamp past = writes[byte];
            if (past == 0 || is_copy(past) || !is_ordered(past, now))
                refuse("read", offset + static_cast<uint64_t>(byte), past, 0, now, place);
        }
    if (mixed == 0)
        std::fill_n(reads, Bytes, merge_reader(reads[0], now));
    else
        for (int byte = 0; byte < Bytes; byte++)
            reads[byte] = merge_reader(reads[byte], now);
}

template <int Bytes> void SharedMemory::write(uint64_t offset, const Now &now, Place place)
{
    if (offset + Bytes > WINDOW) refuse("write", offset, GUARD, 0, now, place);
    Stamp *writes = &writes_[offset];
    const Stamp *reads = &reads_[offset];
    const Stamp newest = now.block_barrier << WHO_BITS | WHO_MASK;
    Stamp slow = 0;
    for (int byte = 0; byte < Bytes; byte++)
        slow |= (std::max(writes[byte], reads[byte]) > newest ? COPY : 0) | writes[byte];
    if (is_copy(slow))
        for (int byte = 0; byte < Bytes; byte++)
            if (is_copy(writes[byte]) || !is_ordered(writes[byte], now) ||
                !is_ordered(reads[byte], now))
                refuse("write", offset + static_cast<uint64_t>(byte), writes[byte], reads[byte],
                       now, place);
    std::fill_n(writes, Bytes, now.stamp());
}

void SharedMemory::check_written(uint64_t offset, int count, const Now &now, Place place) const
{
    for (uint64_t byte = offset; byte < offset + static_cast<uint64_t>(count); byte++)
        if (byte >= WINDOW || writes_[byte] == 0)
            refuse("atomic operation", byte, byte < WINDOW ? 0 : GUARD, 0, now, place);
}

void SharedMemory::begin_copy(uint64_t offset, int count, const Now &now)
{
    std::fill_n(writes_.begin() + static_cast<std::ptrdiff_t>(offset), count,
                now.stamp_as(COPY + now.who));
}

void SharedMemory::finish_copy(uint64_t offset, int count, const uint8_t *from, const Now &now)
{
    std::memcpy(bytes(offset), from, static_cast<size_t>(count));
    std::fill_n(writes_.begin() + static_cast<std::ptrdiff_t>(offset), count, now.stamp());
}

void *static_shared(SharedArray &array)
{
    if (array.launch != machine.serial()) {
        array.address = machine.shared.add(array.name, array.bytes);
        array.launch = machine.serial();
    }
    return array.address;
}

void *dynamic_shared_memory()
{
    return machine.shared.address(0);
}

#define STARLIGHT_ACCESS(Bytes)                                                                    \
    template void SharedMemory::read<Bytes>(uint64_t, const Now &, Place);                         \
    template void SharedMemory::write<Bytes>(uint64_t, const Now &, Place);
STARLIGHT_ACCESS(1)
STARLIGHT_ACCESS(2)
STARLIGHT_ACCESS(4)
STARLIGHT_ACCESS(8)
STARLIGHT_ACCESS(16)

} // namespace starlight::emulator

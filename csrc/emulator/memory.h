// Device memory as kernels see it: addresses that no plain access survives, behind them the
// host's arrays and the shadow of every byte.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime.h"
#include "shadow.h"

namespace starlight::emulator
{

// Everything that a kernel can address is one reservation without access rights, so that a read or
// write past the emulator's functions traps. It is cut into slots: the first is shared memory,
// every other one holds one buffer in its middle, far from its neighbours.
inline constexpr unsigned SLOT_BITS = 32, SLOTS = 64;
inline constexpr uint64_t SLOT_BYTES = uint64_t{1} << SLOT_BITS;
inline constexpr uint64_t BUFFER_OFFSET = SLOT_BYTES / 4;

extern const uint64_t address_space; // where it starts, 0 where the host refuses it

inline bool in_address_space(uint64_t address)
{
    return address - address_space < SLOTS * SLOT_BYTES;
}

// input: never written. output: holds nothing until it is written. memory: both.
enum class Role { input, output, memory };

// Global bytes that one warp instruction after another moved; a transaction is a 32-byte sector,
// full when the instruction asks for all of it.
struct Traffic {
    uint64_t bytes = 0, transactions = 0, full_transactions = 0;
};

// One array of global memory. Its shadow has one entry per `element_bytes`.
class Buffer
{
public:
    Buffer(std::string name, uint8_t *host, uint64_t bytes, int element_bytes, Role role,
           uint64_t address);

    const std::string name;
    uint8_t *const host;
    const uint64_t bytes, address;
    const Role role;
    Traffic loads, stores;

    // A stamp within a block, and which block: launch << 24 | block, launches counted from 1.
    static constexpr uint32_t MANY_BLOCKS = 0xffffff;
    struct Entry {
        uint32_t block;
        Stamp stamp;
    };

    // `constant`: no one may write there during the launch, before or after.
    void read(uint64_t offset, int count, bool constant, uint32_t block, const Now &now,
              Place place);
    void write(uint64_t offset, int count, uint32_t block, const Now &now, Place place);
    void check_written(uint64_t offset, int count, Place place) const;
    void fill(uint64_t offset, uint64_t count); // by the host
    uint64_t unwritten_bytes() const;
    // All that is remembered is of earlier launches: their count may start again.
    void forget_launches();

private:
    struct Free {
        void operator()(Entry *entries) const;
    };

    using Entries = std::unique_ptr<Entry[], Free>;

    Entries make_entries() const;
    [[noreturn]] void refuse(const char *what, uint64_t entry, const Entry &past, uint32_t block,
                             Place place) const;

    const int element_bytes_;
    const uint64_t entries_;
    Entries writes_, reads_; // reads_ from the first read of memory that may be written
};

// The shared memory of one block: dynamic at 0, then the static arrays, each between guards.
class SharedMemory
{
public:
    static constexpr uint64_t WINDOW = uint64_t{1} << 20, GUARD_BYTES = 256;

    SharedMemory();
    void start_launch(size_t dynamic_bytes);
    void start_block();
    // Address of a new static array, in this block and those to come.
    void *add(const char *name, size_t bytes);
    void *address(uint64_t offset) const;
    size_t static_bytes() const;
    size_t dynamic_bytes() const { return regions_[0].bytes; }
    std::string describe(uint64_t offset) const;

    template <int Bytes> void read(uint64_t offset, const Now &now, Place place);
    template <int Bytes> void write(uint64_t offset, const Now &now, Place place);
    void check_written(uint64_t offset, int count, const Now &now, Place place) const;
    // What write() has allowed is on its way, and no one's until it has landed.
    void begin_copy(uint64_t offset, int count, const Now &now);
    void finish_copy(uint64_t offset, int count, const uint8_t *from, const Now &now);

    uint8_t *bytes(uint64_t offset) { return data_.data() + offset; }

private:
    struct Region {
        const char *name;
        uint64_t offset, bytes;
    };

    [[noreturn]] void refuse(const char *use, uint64_t offset, Stamp written, Stamp read,
                             const Now &now, Place place) const;

    std::vector<Region> regions_;
    uint64_t used_ = 0;
    std::vector<uint8_t> data_;
    std::vector<Stamp> writes_, reads_;
};

// "'x' + 12 of 4096 bytes"
std::string describe_address(uint64_t address);
std::string describe_who(uint32_t who);

} // namespace starlight::emulator

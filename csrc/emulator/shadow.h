// Who touched a byte last, and when: the record by which a race is seen.
//
// Time counts the barriers of a block, its warps' own among them. Two accesses are ordered when a
// block barrier lies between them, or, within a warp, a __syncwarp of all its threads.
#pragma once

#include <cstdint>

namespace starlight::emulator
{

// time << 12 | who. 0: never.
using Stamp = uint32_t;

inline constexpr unsigned WHO_BITS = 12;
inline constexpr uint32_t WHO_MASK = (1u << WHO_BITS) - 1;
inline constexpr uint32_t TIME_MAX = (1u << (32 - WHO_BITS)) - 2;

// Who: a thread 0..1023, several threads of warp w as WARP + w, or
inline constexpr uint32_t WARP = 1024;
inline constexpr uint32_t MANY = WARP + 32; // threads of several warps
inline constexpr uint32_t ATOMIC = MANY + 1;
inline constexpr uint32_t COPY = 2048;   // COPY + thread: an asynchronous copy on its way
inline constexpr Stamp GUARD = ~Stamp{}; // no one may touch it

// The present of a thread, or of a whole warp.
struct Now {
    uint32_t time;
    uint32_t block_barrier; // accesses up to this time are ordered before ours
    uint32_t warp_barrier;  // those of our warp too, up to this time
    uint32_t who, warp;

    Stamp stamp() const { return time << WHO_BITS | who; }
    Stamp stamp_as(uint32_t other) const { return time << WHO_BITS | other; }
};

inline uint32_t who_of(Stamp stamp)
{
    return stamp & WHO_MASK;
}

inline bool is_copy(Stamp stamp)
{
    return (stamp & COPY) != 0;
}

// Whether the access that left `past` happened before ours.
inline bool is_ordered(Stamp past, const Now &now)
{
    const uint32_t time = past >> WHO_BITS, who = who_of(past);
    if (time <= now.block_barrier || who == now.who) return true;
    const bool same_warp = who < WARP ? who / 32 == now.warp : who == WARP + now.warp;
    return same_warp && time <= now.warp_barrier;
}

// The stamp of all who have read since the block's last barrier, ourselves added.
inline Stamp merge_reader(Stamp past, const Now &now)
{
    if (is_ordered(past, now)) return now.stamp();
    const uint32_t who = who_of(past);
    const bool same_warp = who < WARP ? who / 32 == now.warp : who == WARP + now.warp;
    return now.stamp_as(same_warp ? WARP + now.warp : MANY);
}

} // namespace starlight::emulator

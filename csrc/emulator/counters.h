// What a launch did, counted as the hardware would group it: lanes of a warp that are at the same
// call, for the n-th time since they last met, make one request.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "memory.h"
#include "runtime.h"

namespace starlight::emulator
{

enum class Operation : uint8_t { load, store, atomic, copy_from, copy_to, matrices };

// Of one call, all its blocks together.
struct SiteReport {
    Place place;
    Operation operation;
    int bytes; // of one lane
    bool shared;
    uint64_t requests = 0; // warp instructions that accessed anything
    uint64_t asked_bytes = 0;
    Traffic traffic{};           // global
    uint64_t bank_conflicts = 0; // shared: cycles beyond those of a conflict-free request
    uint64_t ambiguous = 0;      // meetings at which lanes had called unequally often
};

struct BufferReport {
    Traffic loads, stores;
};

struct LaunchReport {
    std::string name, kernel; // the latter as C++ has it
    std::vector<std::vector<uint8_t>> arguments;
    Index grid, block;
    size_t static_shared_bytes = 0, dynamic_shared_bytes = 0;
    uint64_t blocks = 0, block_barriers = 0, warp_barriers = 0, shuffles = 0, votes = 0;
    std::array<uint64_t, 7> mma{}; // by Mma
    std::map<std::string, BufferReport> buffers{};
    std::vector<SiteReport> sites{};
};

class AccessLog
{
public:
    void start_launch(LaunchReport &report, bool enabled);
    // A lane's access, or that it takes part without one.
    void add(unsigned lane, Operation operation, int bytes, Place place, uint64_t address)
    {
        if (!enabled_) return;
        Group &group = next_group(lane, operation, bytes, place);
        group.lanes |= 1u << lane;
        group.addresses[lane] = address;
    }
    void skip(unsigned lane, Operation operation, int bytes, Place place)
    {
        if (enabled_) next_group(lane, operation, bytes, place);
    }
    // The warp's lanes have met: what they did since they last met is counted.
    void close();
    // Eight rows of 16 bytes, one after another.
    void add_matrix(Place place, const std::array<uint64_t, 8> &rows);
    void finish_launch();

private:
    struct Group {
        uint32_t lanes = 0;
        std::array<uint64_t, 32> addresses;
    };

    struct Site {
        Place place;
        Operation operation;
        int bytes;
        std::array<uint32_t, 32> counts{};
        std::vector<Group> groups;
        size_t used = 0; // of groups
        SiteReport global, shared;
    };

    Site &find(Operation operation, int bytes, Place place);
    Group &next_group(unsigned lane, Operation operation, int bytes, Place place);
    void count_group(Site &site, const Group &group);

    bool enabled_ = false;
    LaunchReport *report_ = nullptr;
    std::vector<std::unique_ptr<Site>> sites_;
    std::array<Site *, 4096> table_{};
    std::vector<Site *> open_; // called since the last meeting
};

std::string report_json(const std::vector<LaunchReport> &launches);

} // namespace starlight::emulator

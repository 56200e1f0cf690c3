#include "counters.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <sstream>

#include "machine.h"

namespace starlight::emulator
{

// ---- one request

namespace
{

// Distinct words asked of the bank that is asked for most.
unsigned busiest_bank(const std::array<uint64_t, 32> &addresses, uint32_t lanes, uint64_t words)
{
    std::array<std::array<uint64_t, 32>, 32> asked;
    std::array<unsigned, 32> counts{};
    unsigned cycles = 0;
    for (; lanes != 0; lanes &= lanes - 1) {
        const uint64_t first = addresses[static_cast<unsigned>(std::countr_zero(lanes))] / 4;
        for (uint64_t word = first; word < first + words; word++) {
            auto &bank = asked[word % 32];
            unsigned &count = counts[word % 32];
            if (std::find(bank.begin(), bank.begin() + count, word) != bank.begin() + count)
                continue;
            bank[count++] = word;
            cycles = std::max(cycles, count);
        }
    }
    return cycles;
}

// Whether no two lanes ask a bank for different words, as seen at a glance: lanes of one word side
// by side.
bool is_conflict_free(const std::array<uint64_t, 32> &addresses, uint32_t lanes, uint64_t words)
{
    const uint32_t width = (1u << words) - 1;
    uint32_t busy = 0;
    uint64_t last = ~uint64_t{};
    for (; lanes != 0; lanes &= lanes - 1) {
        const uint64_t word = addresses[static_cast<unsigned>(std::countr_zero(lanes))] / 4;
        if (word == last) continue;
        const uint32_t banks = width << word % 32; // aligned: they do not wrap
        if ((busy & banks) != 0) return false;
        busy |= banks;
        last = word;
    }
    return true;
}

// Cycles beyond the conflict-free of a request to shared memory, `bytes` from each lane: 32 banks
// of 4 bytes; lanes are served 32, 16 or 8 at a time where each asks for up to 4, 8 or 16 bytes;
// lanes of one word share it.
uint64_t bank_conflicts(const std::array<uint64_t, 32> &addresses, uint32_t lanes, int bytes)
{
    const unsigned at_once = bytes <= 4 ? 32 : bytes == 8 ? 16 : 8;
    const uint64_t words = bytes <= 4 ? 1 : static_cast<uint64_t>(bytes) / 4;
    const uint32_t together = 0xffffffffu >> (32 - at_once);
    uint64_t conflicts = 0;
    for (unsigned first = 0; first < 32; first += at_once) {
        const uint32_t phase = lanes & together << first;
        if (!is_conflict_free(addresses, phase, words))
            conflicts += busiest_bank(addresses, phase, words) - 1;
    }
    return conflicts;
}

constexpr uint64_t SECTOR = 32;

// Sectors of a request, each with the bytes that it asks for.
struct Sectors {
    std::array<uint64_t, 32> number;
    std::array<uint32_t, 32> asked;
    unsigned count = 0;

    void add(uint64_t address, int bytes)
    {
        const uint64_t sector = address / SECTOR;
        const auto mask = static_cast<uint32_t>(((uint64_t{1} << bytes) - 1) << address % SECTOR);
        for (unsigned index = count; index-- > 0;) // neighbours are likely
            if (number[index] == sector) {
                asked[index] |= mask;
                return;
            }
        number[count] = sector;
        asked[count++] = mask;
    }
};

void add_to(Traffic &sum, uint32_t asked)
{
    sum.bytes += static_cast<unsigned>(std::popcount(asked));
    sum.transactions++;
    sum.full_transactions += asked == 0xffffffff ? 1 : 0;
}

bool is_shared(uint64_t address)
{
    return in_address_space(address) && Device::slot_of(address) == 0;
}

} // namespace

// ---- the log

void AccessLog::start_launch(LaunchReport &report, bool enabled)
{
    enabled_ = enabled;
    report_ = &report;
    sites_.clear();
    open_.clear();
    table_.fill(nullptr);
}

AccessLog::Site &AccessLog::find(Operation operation, int bytes, Place place)
{
    const auto key = static_cast<size_t>(place.line) * 97 + static_cast<size_t>(operation) * 11 +
                     static_cast<size_t>(bytes) + reinterpret_cast<size_t>(place.file) / 8;
    for (size_t slot = key % table_.size();; slot = (slot + 1) % table_.size()) {
        Site *site = table_[slot];
        if (site == nullptr) {
            sites_.push_back(std::make_unique<Site>());
            site = sites_.back().get();
            site->place = place;
            site->operation = operation;
            site->bytes = bytes;
            site->global = {place, operation, bytes, false};
            site->shared = {place, operation, bytes, true};
            table_[slot] = site;
        }
        if (site->place.line == place.line && site->operation == operation &&
            site->bytes == bytes && site->place.file == place.file)
            return *site;
    }
}

AccessLog::Group &AccessLog::next_group(unsigned lane, Operation operation, int bytes, Place place)
{
    Site &site = find(operation, bytes, place);
    const size_t index = site.counts[lane]++;
    if (index >= site.used) {
        if (site.used == 0) open_.push_back(&site);
        if (index >= site.groups.size()) site.groups.emplace_back();
        site.groups[index].lanes = 0;
        site.used = index + 1;
    }
    return site.groups[index];
}

void AccessLog::close()
{
    for (Site *site : open_) {
        const uint32_t most = static_cast<uint32_t>(site->used);
        bool unequal = false;
        for (uint32_t &count : site->counts) {
            unequal |= count != 0 && count != most;
            count = 0;
        }
        bool shared = false;
        for (size_t index = 0; index < site->used; index++) {
            const Group &group = site->groups[index];
            if (group.lanes == 0) continue;
            shared =
                is_shared(group.addresses[static_cast<unsigned>(std::countr_zero(group.lanes))]);
            count_group(*site, group);
        }
        (shared ? site->shared : site->global).ambiguous += unequal ? 1 : 0;
        site->used = 0;
    }
    open_.clear();
}

void AccessLog::count_group(Site &site, const Group &group)
{
    const bool shared =
        is_shared(group.addresses[static_cast<unsigned>(std::countr_zero(group.lanes))]);
    SiteReport &sum = shared ? site.shared : site.global;
    sum.requests++;
    sum.asked_bytes += static_cast<uint64_t>(std::popcount(group.lanes) * site.bytes);
    if (shared) {
        sum.bank_conflicts += bank_conflicts(group.addresses, group.lanes, site.bytes);
        return;
    }
    Sectors touched;
    for (uint32_t lanes = group.lanes; lanes != 0; lanes &= lanes - 1)
        touched.add(group.addresses[static_cast<unsigned>(std::countr_zero(lanes))], site.bytes);
    for (unsigned index = 0; index < touched.count; index++) {
        Buffer *buffer = machine.device->buffer_at(touched.number[index] * SECTOR);
        add_to(sum.traffic, touched.asked[index]);
        if (site.operation == Operation::load || site.operation == Operation::copy_from)
            add_to(buffer->loads, touched.asked[index]);
        else
            add_to(buffer->stores, touched.asked[index]);
    }
}

void AccessLog::add_matrix(Place place, const std::array<uint64_t, 8> &rows)
{
    if (!enabled_) return;
    std::array<uint64_t, 32> addresses{};
    std::copy(rows.begin(), rows.end(), addresses.begin());
    SiteReport &sum = find(Operation::matrices, 16, place).shared;
    sum.requests++;
    sum.asked_bytes += 8 * 16;
    sum.bank_conflicts += bank_conflicts(addresses, 0xff, 16);
}

void AccessLog::finish_launch()
{
    if (!enabled_) return;
    for (const auto &site : sites_)
        for (const SiteReport *sum : {&site->global, &site->shared})
            if (sum->requests != 0) report_->sites.push_back(*sum);
}

// ---- the report

namespace
{

// A JSON string: names are plain, but for what a path may hold.
std::string quoted(const std::string &text)
{
    std::string result = "\"";
    for (const char letter : text) {
        if (letter == '"' || letter == '\\') result += '\\';
        result += letter;
    }
    return result + '"';
}

// Bytes as a string of hexadecimal digits.
std::string json(const std::vector<uint8_t> &bytes)
{
    static constexpr char DIGITS[] = "0123456789abcdef";
    std::string result = "\"";
    for (const uint8_t byte : bytes)
        (result += DIGITS[byte >> 4]) += DIGITS[byte & 15];
    return result + '"';
}

std::string json(Index index)
{
    return "[" + std::to_string(index.x) + "," + std::to_string(index.y) + "," +
           std::to_string(index.z) + "]";
}

std::string json(const Traffic &traffic)
{
    std::ostringstream out;
    out << R"({"bytes":)" << traffic.bytes << R"(,"transactions":)" << traffic.transactions
        << R"(,"full_transactions":)" << traffic.full_transactions << "}";
    return out.str();
}

std::string json(const SiteReport &site)
{
    static constexpr const char *NAMES[] = {"load",      "store",   "atomic",
                                            "copy_from", "copy_to", "matrices"};
    std::ostringstream out;
    out << R"({"file":)" << quoted(site.place.file) << R"(,"line":)" << site.place.line
        << R"(,"operation":")" << NAMES[static_cast<int>(site.operation)] << R"(","space":")"
        << (site.shared ? "shared" : "global") << R"(","lane_bytes":)" << site.bytes
        << R"(,"requests":)" << site.requests << R"(,"asked_bytes":)" << site.asked_bytes
        << R"(,"traffic":)" << json(site.traffic) << R"(,"bank_conflicts":)" << site.bank_conflicts
        << R"(,"ambiguous":)" << site.ambiguous << "}";
    return out.str();
}

std::string json(const LaunchReport &launch)
{
    static constexpr const char *SHAPES[] = {"f16_k16", "bf16_k16", "f16_k8", "bf16_k8",
                                             "tf32_k8", "s8_k32",   "s8_k16"};
    std::ostringstream out;
    const char *separator = "";
    out << R"({"name":)" << quoted(launch.name) << R"(,"kernel":)" << quoted(launch.kernel)
        << R"(,"arguments":[)";
    for (const auto &argument : launch.arguments) {
        out << separator << json(argument);
        separator = ",";
    }
    out << R"(],"grid":)" << json(launch.grid) << R"(,"block":)" << json(launch.block)
        << R"(,"static_shared_bytes":)" << launch.static_shared_bytes
        << R"(,"dynamic_shared_bytes":)" << launch.dynamic_shared_bytes << R"(,"blocks":)"
        << launch.blocks << R"(,"block_barriers":)" << launch.block_barriers
        << R"(,"warp_barriers":)" << launch.warp_barriers << R"(,"shuffles":)" << launch.shuffles
        << R"(,"votes":)" << launch.votes << R"(,"mma":{)";
    for (size_t shape = 0; shape < launch.mma.size(); shape++)
        out << (shape == 0 ? "" : ",") << '"' << SHAPES[shape] << "\":" << launch.mma[shape];
    out << R"(},"buffers":{)";
    separator = "";
    for (const auto &[name, buffer] : launch.buffers) {
        out << separator << quoted(name) << R"(:{"loads":)" << json(buffer.loads) << R"(,"stores":)"
            << json(buffer.stores) << "}";
        separator = ",";
    }
    out << R"(},"sites":[)";
    separator = "";
    for (const SiteReport &site : launch.sites) {
        out << separator << json(site);
        separator = ",";
    }
    out << "]}";
    return out.str();
}

} // namespace

std::string report_json(const std::vector<LaunchReport> &launches)
{
    std::string result = "[";
    for (const LaunchReport &launch : launches)
        result += (result.size() > 1 ? "," : "") + json(launch);
    return result + "]";
}

} // namespace starlight::emulator

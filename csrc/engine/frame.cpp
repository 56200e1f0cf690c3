#include "frame.h"

#include <algorithm>
#include <cstring>

namespace starlight::engine
{
namespace
{

int round_up(int value, int multiple)
{
    return (value + multiple - 1) / multiple * multiple;
}

struct Place {
    std::size_t begin, end;
    int first_step, last_step;
};

// The lowest address at which `bytes` meet nothing that lives in the same steps.
std::size_t lowest(std::vector<Place> &taken, std::size_t bytes, int first_step, int last_step)
{
    std::size_t begin = 0;
    std::sort(taken.begin(), taken.end(),
              [](const Place &a, const Place &b) { return a.begin < b.begin; });
    for (const Place &place : taken)
        if (place.first_step <= last_step && first_step <= place.last_step &&
            place.begin < begin + bytes && begin < place.end)
            begin = place.end;
    taken.push_back({begin, begin + bytes, first_step, last_step});
    return begin;
}

} // namespace

Frame::Frame(const Plan &plan, Size given)
    : size(given), scratch(static_cast<std::size_t>(given.threads)), threads(given.threads),
      padded_width_(round_up(given.width, plan.grid)),
      padded_height_(round_up(given.height, plan.grid))
{
    const bool wide = std::any_of(plan.buffers.begin(), plan.buffers.end(),
                                  [](const Buffer &buffer) { return buffer.value_bytes == 2; });
    zero_rows[0] = take<std::uint8_t>(block_bytes(0));
    std::memset(zero_rows[0].data(), ZERO, block_bytes(0));
    zero_rows[1] = take<std::uint8_t>(wide ? block_bytes(0, 2) : 0);
    place_buffers(plan);
    for (Scratch &own : scratch)
        make_scratch(plan, own);
}

std::size_t Frame::block_bytes(int level, int value_bytes) const
{
    const std::size_t pixels = std::size_t(1) + static_cast<std::size_t>(width(level));
    const std::size_t bytes = (pixels + SLACK_PIXELS) * LANES * static_cast<unsigned>(value_bytes);
    // An odd number of cache lines: rows one above the other fall into different sets.
    return (bytes + 63) / 128 * 128 + 64;
}

template <class T> Aligned<T> Frame::take(std::size_t count)
{
    bytes_ += count * sizeof(T);
    return Aligned<T>(count);
}

void Frame::place_buffers(const Plan &plan)
{
    std::vector<Place> taken;
    std::vector<std::size_t> begins;
    std::size_t total = 0;
    for (const Buffer &buffer : plan.buffers) {
        const std::size_t bytes =
            buffer.image ? 0
                         : block_bytes(buffer.level, buffer.value_bytes) *
                               static_cast<std::size_t>(buffer.kept_blocks * height(buffer.level));
        begins.push_back(lowest(taken, bytes, buffer.first_step, buffer.last_step));
        total = std::max(total, begins.back() + bytes);
    }
    memory_ = take<std::uint8_t>(total);
    for (std::size_t i = 0; i < plan.buffers.size(); i++) {
        const std::size_t bytes = block_bytes(plan.buffers[i].level, plan.buffers[i].value_bytes);
        buffers.push_back({memory_.data() + begins[i],
                           bytes * static_cast<std::size_t>(plan.buffers[i].kept_blocks), bytes,
                           ~0u});
    }
}

void Frame::make_scratch(const Plan &plan, Scratch &own)
{
    std::size_t dwords = 0, ring = 0, join = 0, sums = 0;
    for (const Layer &layer : plan.layers) {
        dwords = std::max(dwords, static_cast<std::size_t>(layer.taps * layer.dwords));
        if (layer.scaled) {
            const int pixels = width(layer.input.level) / layer.stride + SLACK_PIXELS;
            sums = std::max(sums, static_cast<std::size_t>(pixels * VECTORS_MAX * LANES));
        }
        if (!layer.joins) continue;
        const int blocks = layer.output.end / LANES + 1;
        join = std::max(join, block_bytes(layer.output.level, layer.join_bytes) *
                                  static_cast<std::size_t>(blocks));
    }
    for (const Buffer &buffer : plan.buffers)
        ring = std::max(ring, block_bytes(buffer.level, buffer.value_bytes) * RING_ROWS *
                                  static_cast<std::size_t>(buffer.blocks - buffer.kept_blocks));
    own.image = take<std::uint8_t>(block_bytes(0) * RING_ROWS);
    own.ring = take<std::uint8_t>(ring);
    own.join = take<std::uint8_t>(join);
    own.residual = take<std::uint8_t>(block_bytes(0));
    own.sums = take<std::int32_t>(sums);
    own.table = take<const std::uint8_t *>(dwords);
    own.pairs = take<const std::uint8_t *>(dwords);
}

} // namespace starlight::engine

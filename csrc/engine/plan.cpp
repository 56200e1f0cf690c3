#include "plan.h"

#include <algorithm>
#include <cstring>

namespace starlight::engine
{
namespace
{

constexpr int HALF = LANES / 2;

View view_of(const sl_view_record &view)
{
    return {view.buffer, view.channel_offset, view.channel_offset + view.channels, view.level};
}

// Where the weights of a layer lie, as the bundle streams them: [block][ky][kx][input][lane].
class Weights
{
public:
    Weights(const sl_model &model, const sl_layer_record &layer)
        : bytes_(reinterpret_cast<const std::int8_t *>(model.weights.data) + layer.weight_offset),
          block_(static_cast<int>(model.model.channel_block)), kernel_(layer.kernel),
          inputs_(static_cast<int>(layer.in_channels))
    {
    }
    int at(int output, int ky, int kx, int input) const
    {
        const std::size_t taps = std::size_t(kernel_) * kernel_ * inputs_;
        const std::size_t within = (std::size_t(ky) * kernel_ + kx) * inputs_ + input;
        return bytes_[(output / block_ * taps + within) * block_ + output % block_];
    }
    int sum(int output) const
    {
        int total = 0;
        for (int ky = 0; ky < kernel_; ky++)
            for (int kx = 0; kx < kernel_; kx++)
                for (int input = 0; input < inputs_; input++)
                    total += at(output, ky, kx, input);
        return total;
    }

private:
    const std::int8_t *bytes_;
    int block_, kernel_, inputs_;
};

class Packer
{
public:
    Packer(const sl_model &model, const Kernels &kernels, std::uint32_t index)
        : model_(model), kernels_(kernels), record_(sl_layer(&model, index)),
          weights_(model, record_)
    {
        layer_.name = sl_name(&model, record_.name);
        layer_.op = record_.op;
        layer_.taps = record_.kernel;
        layer_.stride = record_.stride;
        layer_.relu = (record_.flags & SL_LAYER_RELU) != 0;
        layer_.joins = (record_.flags & SL_LAYER_JOIN) != 0;
        layer_.tail = record_.op == SL_OP_TAIL;
        layer_.input = view_of(record_.input);
        if (layer_.joins) layer_.join = view_of(record_.join);
        layer_.output = layer_.tail ? View{-1, 0, SL_IMAGE_CHANNELS, 0} : view_of(record_.output);
        const bool multiplies = model.model.arithmetic == SL_ARITHMETIC_MULTIPLIER;
        layer_.in_bytes = value_bytes(record_.input);
        layer_.join_bytes = layer_.joins ? value_bytes(record_.join) : 1;
        layer_.out_bytes = layer_.tail ? 1 : value_bytes(record_.output);
        layer_.scaled = multiplies || layer_.join_bytes == 2 || layer_.out_bytes == 2;
        dot_ = DOT / layer_.in_bytes;
        layer_.first_dword = layer_.input.first / dot_;
        layer_.dwords = (layer_.input.end + dot_ - 1) / dot_ - layer_.first_dword;
    }

    Layer pack()
    {
        const View &output = layer_.output;
        const int end = (output.end + LANES - 1) / LANES;
        for (int quarter = 0; quarter < quarters(); quarter++)
            for (int block = output.first / LANES; block < end;) {
                const int vectors = std::min(VECTORS_MAX, end - block);
                layer_.units.push_back(unit(block, vectors, quarter));
                block += vectors;
            }
        return std::move(layer_);
    }

private:
    int value_bytes(const sl_view_record &view) const
    {
        return sl_buffer(&model_, view.buffer).bits / 8;
    }

    // What the dot product takes a value to be, less q.
    int input_offset() const { return layer_.in_bytes == 1 ? kernels_.input_offset : 0; }

    int quarters() const { return record_.op == SL_OP_UP ? 4 : 1; }

    // The layer's own number of the channel that a lane of a block holds; -1 for none.
    int channel_of(int block, int lane, int quarter) const
    {
        const int place = block * LANES + lane;
        if (place < layer_.output.first || place >= layer_.output.end) return -1;
        return (place - layer_.output.first) * quarters() + quarter;
    }

    Unit unit(int block, int vectors, int quarter)
    {
        Unit unit{};
        unit.vectors = vectors;
        unit.block = block;
        unit.quarter = quarter;
        for (int n = 0; n < vectors; n++)
            for (int lane = 0; lane < LANES; lane++)
                if (channel_of(block + n, lane, quarter) >= 0)
                    unit.lanes[n].mask |= static_cast<std::uint16_t>(1 << lane);
        unit.pairs = kernels_.pairs && record_.op == SL_OP_CONV3X3 && vectors == 1 &&
                     !layer_.joins && !layer_.scaled && layer_.in_bytes == 1 &&
                     layer_.first_dword % 2 == 0 && layer_.dwords % 2 == 0 &&
                     (unit.lanes[0].mask == 0x00FF || unit.lanes[0].mask == 0xFF00);
        const int parts = unit.pairs ? 2 : 1; // dwords that an entry takes
        const int entries = record_.kernel * layer_.dwords / parts;
        unit.weights =
            Aligned<std::int8_t>(std::size_t(entries) * record_.kernel * vectors * ENTRY);
        std::int8_t *to = unit.weights.data();
        for (int ky = 0; ky < record_.kernel; ky++)
            for (int entry = 0; entry < layer_.dwords; entry += parts)
                for (int kx = 0; kx < record_.kernel; kx++)
                    for (int n = 0; n < vectors; n++)
                        for (int lane = 0; lane < LANES; lane++, to += DOT) {
                            const int dword = entry + (unit.pairs ? lane % 2 : 0);
                            const int channel = channel_of(block + n, own(unit, lane), quarter);
                            if (channel >= 0) put(to, channel, ky, kx, dword);
                        }
        for (int n = 0; n < vectors; n++)
            for (int lane = 0; lane < LANES; lane++)
                number(unit, n, lane, channel_of(block + n, own(unit, lane), quarter));
        return unit;
    }

    // The lane of the output that a lane of the accumulators belongs to.
    static int own(const Unit &unit, int lane)
    {
        if (!unit.pairs) return lane;
        return (unit.lanes[0].mask == 0x00FF ? 0 : HALF) + lane / 2;
    }

    void put(std::int8_t *to, int channel, int ky, int kx, int dword) const
    {
        for (int i = 0; i < dot_; i++) {
            const int place = (layer_.first_dword + dword) * dot_ + i;
            if (place < layer_.input.first || place >= layer_.input.end) continue;
            const int weight = weights_.at(channel, ky, kx, place - layer_.input.first);
            if (layer_.in_bytes == 1) {
                to[i] = static_cast<std::int8_t>(weight);
            } else {
                const auto word = static_cast<std::int16_t>(weight);
                std::memcpy(to + i * sizeof word, &word, sizeof word);
            }
        }
    }

    // Sums wrap modulo 2^32, and with them what they are corrected by.
    void number(Unit &unit, int vector, int lane, int channel) const
    {
        Lanes &lanes = unit.lanes[vector];
        lanes.shift[lane] = 1;
        if (channel < 0) return;
        const std::uint32_t row = record_.channel_row + static_cast<std::uint32_t>(channel);
        const sl_channel_record record = sl_channel(&model_, row);
        auto bias = static_cast<std::uint32_t>(record.bias);
        bias -= static_cast<std::uint32_t>(input_offset() * weights_.sum(channel));
        if (layer_.scaled) {
            lanes.bias[lane] = static_cast<std::int32_t>(bias);
            scale(unit.scales[vector], lane, row, record);
            return;
        }
        bias += 1u << (record.shift - 1);
        if (layer_.joins) bias -= std::uint32_t{ZERO} << record.join_shift;
        if (unit.pairs && lane % 2 == 1) bias = 0; // the pair's sum has it once
        lanes.bias[lane] = static_cast<std::int32_t>(bias);
        lanes.shift[lane] = record.shift;
        lanes.join_shift[lane] = record.join_shift;
    }

    // Dyadic arithmetic is multiplier 1 and join_multiplier 2^j.
    void scale(Scales &scales, int lane, std::uint32_t row, const sl_channel_record &record) const
    {
        sl_multiplier_record numbers{1, 1u << record.join_shift, record.shift, {}};
        if (model_.model.arithmetic == SL_ARITHMETIC_MULTIPLIER)
            numbers = sl_multiplier(&model_, row);
        scales.multiplier[lane] = static_cast<std::int32_t>(numbers.multiplier);
        scales.join_multiplier[lane] = static_cast<std::int32_t>(numbers.join_multiplier);
        scales.shift[lane] = numbers.shift;
        scales.offset[lane] = (std::uint64_t{1} << 62) + (std::uint64_t{1} << (numbers.shift - 1));
        scales.back[lane] = std::int64_t{1} << (62 - numbers.shift);
    }

    const sl_model &model_;
    const Kernels &kernels_;
    sl_layer_record record_;
    Weights weights_;
    Layer layer_{};
    int dot_ = DOT; // input channels of a dword
};

bool meet(const View &view, int buffer, int first, int end)
{
    return view.buffer == buffer && view.first < end && first < view.end;
}

// Whether layers i..i+3 are a dense block on whole vectors: three windows that each add a member to
// one buffer, and a 1x1 over all of it to another, with nobody else to read the members.
bool is_dense(const Plan &plan, std::size_t i)
{
    if (i + DENSE_LAYERS > plan.layers.size()) return false;
    const Layer &fuse = plan.layers[i + 3];
    const int buffer = plan.layers[i].input.buffer;
    const int kept = plan.layers[i].input.end;
    const int growth = plan.layers[i].output.end - plan.layers[i].output.first;
    if (plan.buffers[static_cast<std::size_t>(buffer)].image || kept % LANES != 0 ||
        growth % HALF != 0)
        return false;
    for (int member = 0; member < 3; member++) {
        const Layer &layer = plan.layers[i + static_cast<std::size_t>(member)];
        const int end = kept + member * growth;
        if (layer.op != SL_OP_CONV3X3 || layer.joins || layer.input.buffer != buffer ||
            layer.input.first != 0 || layer.input.end != end || layer.output.buffer != buffer ||
            layer.output.first != end || layer.output.end != end + growth)
            return false;
    }
    const int end = kept + 3 * growth;
    if (fuse.op != SL_OP_CONV1X1 || fuse.input.buffer != buffer || fuse.input.first != 0 ||
        fuse.input.end != end || fuse.output.buffer == buffer ||
        (fuse.joins && meet(fuse.join, buffer, kept, INT32_MAX)))
        return false;
    for (std::size_t other = 0; other < plan.layers.size(); other++) {
        if (other >= i && other < i + DENSE_LAYERS) continue;
        const Layer &layer = plan.layers[other];
        if (meet(layer.input, buffer, kept, INT32_MAX) ||
            meet(layer.output, buffer, kept, INT32_MAX) ||
            (layer.joins && meet(layer.join, buffer, kept, INT32_MAX)))
            return false;
    }
    return true;
}

void touch(Plan &plan, const View &view, int step)
{
    if (view.buffer < 0) return;
    Buffer &buffer = plan.buffers[static_cast<std::size_t>(view.buffer)];
    buffer.first_step = std::min(buffer.first_step, step);
    buffer.last_step = std::max(buffer.last_step, step);
}

} // namespace

Plan make_plan(const sl_model &model, const Kernels &kernels)
{
    Plan plan{model, &kernels, 1 << model.model.levels, {}, {}, {}};
    for (std::uint32_t i = 0; i < model.model.buffer_count; i++) {
        const sl_buffer_record record = sl_buffer(&model, i);
        const int blocks = (record.channels + LANES - 1) / LANES;
        plan.buffers.push_back({record.level, record.kind == SL_BUFFER_IMAGE, record.bits / 8,
                                blocks, blocks, INT32_MAX, -1});
    }
    for (std::uint32_t i = 0; i < model.model.layer_count; i++)
        plan.layers.push_back(Packer(model, kernels, i).pack());
    for (std::size_t i = 0; i < plan.layers.size();) {
        const bool dense = is_dense(plan, i);
        const int step = static_cast<int>(plan.steps.size());
        plan.steps.push_back({static_cast<int>(i), dense ? DENSE_LAYERS : 1});
        if (dense) {
            const View &x = plan.layers[i].input;
            plan.buffers[static_cast<std::size_t>(x.buffer)].kept_blocks = x.end / LANES;
        }
        for (int layer = 0; layer < plan.steps.back().layers; layer++, i++) {
            touch(plan, plan.layers[i].input, step);
            touch(plan, plan.layers[i].output, step);
            if (plan.layers[i].joins) touch(plan, plan.layers[i].join, step);
        }
    }
    return plan;
}

} // namespace starlight::engine

// A frame's steps. Threads take chunks of a step's rows; what a chunk needs of its neighbours
// within a dense block it makes again, so chunks do not wait for each other.
#include <algorithm>
#include <cstring>

#include "engine.h"
#include "intmath.h"

namespace starlight::engine
{
namespace
{

constexpr int LEAST_ROWS = 64; // of a chunk of a dense block: what is made twice stays near 2 %
constexpr int CHUNKS = 4;      // for each thread, if they are high enough: a late thread gets fewer

struct Job {
    const Plan &plan;
    Frame &frame;
    const Image &image;
    const Trace *trace;
    const Step &step;
    int rows, chunks;
};

// One thread's part of a chunk: the rows [first, end) of the step's accumulators are its own.
class Chunk
{
public:
    Chunk(Job &job, int thread, int item)
        : job_(job), frame_(job.frame), own_(job.frame.scratch[static_cast<std::size_t>(thread)]),
          first_(static_cast<int>(std::int64_t{job.rows} * item / job.chunks)),
          end_(static_cast<int>(std::int64_t{job.rows} * (item + 1) / job.chunks))
    {
        own_.image_rows.fill(-1);
    }

    void run()
    {
        if (job_.step.layers == 1) {
            for (int y = first_; y < end_; y++)
                make_row(layer(0), y);
            return;
        }
        enter_dense();
        // Member s of row t + 2 - s, the fused row t: each reads rows that the earlier ones made.
        for (int t = first_ - 4; t < end_; t++)
            for (int stage = 0; stage < DENSE_LAYERS; stage++) {
                const int halo = std::max(0, 2 - stage);
                const int y = t + halo;
                if (y >= std::max(0, first_ - halo) && y < std::min(job_.rows, end_ + halo))
                    make_row(layer(stage), y);
            }
    }

private:
    const Layer &layer(int index) const
    {
        return job_.plan.layers[static_cast<std::size_t>(job_.step.first_layer + index)];
    }

    void enter_dense()
    {
        const View &x = layer(0).input;
        const Buffer &buffer = job_.plan.buffers[static_cast<std::size_t>(x.buffer)];
        dense_buffer_ = x.buffer;
        kept_blocks_ = buffer.kept_blocks;
        const std::size_t bytes = frame_.block_bytes(x.level, buffer.value_bytes);
        ring_ = {own_.ring.data(), bytes * static_cast<std::size_t>(buffer.blocks - kept_blocks_),
                 bytes, RING_ROWS - 1};
    }

    // Pixel -1 of a block of a row that is inside the map.
    std::uint8_t *place(int buffer, int block, int row) const
    {
        if (buffer == dense_buffer_ && block >= kept_blocks_)
            return ring_.at(block - kept_blocks_, row);
        return frame_.buffers[static_cast<std::size_t>(buffer)].at(block, row);
    }

    // The same to read, of any row: the image is made here, zeros lie above and below a map.
    const std::uint8_t *source(const View &view, int block, int row)
    {
        const Buffer &buffer = job_.plan.buffers[static_cast<std::size_t>(view.buffer)];
        if (row < 0 || row >= frame_.height(view.level))
            return frame_.zero_rows[buffer.value_bytes == 1 ? 0 : 1].data();
        if (buffer.image) return image_row(row);
        return place(view.buffer, block, row);
    }

    // A row of the padded image: 128 is the zero of its bytes too.
    const std::uint8_t *image_row(int y)
    {
        const auto slot = static_cast<std::size_t>(y % RING_ROWS);
        std::uint8_t *row = own_.image.data() + slot * frame_.block_bytes(0);
        if (own_.image_rows[slot] == y) return row;
        own_.image_rows[slot] = y;
        const int from = std::min(y, frame_.size.height - 1);
        const std::uint8_t *rgb =
            job_.image.in + static_cast<std::size_t>(from) * job_.image.in_stride;
        std::uint8_t *to = row + LANES;
        for (int x = 0; x < frame_.width(0); x++, to += LANES) {
            std::memcpy(to, rgb, SL_IMAGE_CHANNELS);
            if (x < frame_.size.width - 1) rgb += SL_IMAGE_CHANNELS;
        }
        close_row(row, 0, 1);
        return row;
    }

    void close_row(std::uint8_t *row, int level, int value_bytes) const
    {
        const auto pixel = static_cast<std::size_t>(value_bytes) * LANES;
        const int zero = value_bytes == 1 ? ZERO : 0;
        std::memset(row, zero, pixel);
        std::memset(row + static_cast<std::size_t>(1 + frame_.width(level)) * pixel, zero, pixel);
    }

    void fill_table(const Layer &layer, int y)
    {
        const int pad = layer.taps / 2, channels = DOT / layer.in_bytes;
        std::size_t at = 0;
        for (int ky = 0; ky < layer.taps; ky++)
            for (int i = 0; i < layer.dwords; i++, at++) {
                const int channel = (layer.first_dword + i) * channels;
                own_.table[at] = source(layer.input, channel / LANES, y * layer.stride + ky - pad) +
                                 (channel % LANES + (1 - pad) * LANES) * layer.in_bytes;
            }
        for (std::size_t i = 0; 2 * i < at; i++)
            own_.pairs[i] = own_.table[2 * i];
    }

    // Block `block` of the output's row as the join has it, at pixel 0.
    const std::uint8_t *join_row(const Layer &layer, int block, int row, int block_of_first)
    {
        const int moved = layer.join.first - layer.output.first;
        const int pixel = LANES * layer.join_bytes;
        if (moved % LANES == 0) return source(layer.join, block + moved / LANES, row) + pixel;
        std::uint8_t *made =
            own_.join.data() + static_cast<std::size_t>(block - block_of_first) *
                                   frame_.block_bytes(layer.output.level, layer.join_bytes);
        for (int lane = 0; lane < LANES; lane++) {
            const int channel = block * LANES + lane;
            if (channel < layer.output.first || channel >= layer.output.end) continue;
            const int from = channel + moved;
            const std::uint8_t *values =
                source(layer.join, from / LANES, row) + from % LANES * layer.join_bytes;
            std::uint8_t *to = made + lane * layer.join_bytes;
            for (int x = 1; x <= frame_.width(layer.output.level); x++)
                for (int byte = 0; byte < layer.join_bytes; byte++)
                    to[x * pixel + byte] = values[x * pixel + byte];
        }
        return made + pixel;
    }

    // Row y of a layer's accumulators, and the row or two of its output that they become.
    void make_row(const Layer &layer, int y)
    {
        fill_table(layer, y);
        const bool up = layer.op == SL_OP_UP;
        for (const Unit &unit : layer.units) {
            const int row = up ? 2 * y + unit.quarter / 2 : y;
            const std::ptrdiff_t shuffled = (unit.quarter % 2) * LANES;
            Row job{};
            job.wide = layer.in_bytes == 2;
            job.sums = layer.scaled ? own_.sums.data() : nullptr;
            job.in = unit.pairs ? own_.pairs.data() : own_.table.data();
            job.entries = layer.taps * layer.dwords / (unit.pairs ? 2 : 1);
            job.taps = layer.taps;
            job.stride = layer.stride;
            job.vectors = unit.vectors;
            job.pairs = unit.pairs;
            job.weights = unit.weights.data();
            job.lanes = unit.lanes.data();
            job.epilogue = layer.tail ? Epilogue::tail : Epilogue::requantise;
            job.low = layer.relu ? 0 : -128;
            job.step = up ? 2 * LANES : LANES;
            job.pixels = frame_.width(layer.input.level) / layer.stride;
            for (int n = 0; n < unit.vectors; n++) {
                const int block = unit.block + n;
                if (layer.tail) {
                    job.join[n] = image_row(row) + LANES;
                    job.out[n] = own_.residual.data() + LANES;
                    continue;
                }
                if (layer.joins)
                    job.join[n] =
                        join_row(layer, block, row, unit.block) + shuffled * layer.join_bytes;
                job.out[n] =
                    place(layer.output.buffer, block, row) + (LANES + shuffled) * layer.out_bytes;
            }
            if (unit.pairs && unit.lanes[0].mask == 0xFF00) job.out[0] += LANES / 2;
            job_.plan.kernels->row(job);
            if (layer.scaled) job_.plan.kernels->finish(job, ending(layer, unit));
        }
        const int first = up ? 2 * y : y;
        for (int row = first; row < first + (up ? 2 : 1); row++)
            end_row(layer, y, row);
    }

    static Ending ending(const Layer &layer, const Unit &unit)
    {
        Ending ending{};
        const bool wide = layer.out_bytes == 2;
        ending.scales = unit.scales.data();
        ending.wide_join = layer.join_bytes == 2;
        ending.wide_out = wide;
        ending.high = layer.tail ? SL_PIXEL_MAX : wide ? SL_WIDE_ACTIVATION_MAX : SL_ACTIVATION_MAX;
        ending.low = layer.tail || layer.relu ? 0
                     : wide                   ? SL_WIDE_ACTIVATION_MIN
                                              : SL_ACTIVATION_MIN;
        return ending;
    }

    void end_row(const Layer &layer, int y, int row)
    {
        if (layer.tail) {
            put_out(row);
        } else {
            for (int block = layer.output.first / LANES; block * LANES < layer.output.end; block++)
                close_row(place(layer.output.buffer, block, row), layer.output.level,
                          layer.out_bytes);
        }
        if (job_.trace != nullptr && y >= first_ && y < end_) record(layer, row);
    }

    void put_out(int y)
    {
        if (y >= frame_.size.height) return;
        std::uint8_t *to = job_.image.out + static_cast<std::size_t>(y) * job_.image.out_stride;
        const std::uint8_t *from = own_.residual.data() + LANES;
        for (int x = 0; x < frame_.size.width; x++, to += SL_IMAGE_CHANNELS, from += LANES)
            std::memcpy(to, from, SL_IMAGE_CHANNELS);
    }

    void record(const Layer &layer, int row)
    {
        const View &view = layer.output;
        const auto channels = static_cast<std::size_t>(view.end - view.first);
        const auto width = static_cast<std::size_t>(frame_.width(view.level));
        const auto index = static_cast<std::size_t>(&layer - job_.plan.layers.data());
        const auto bytes = static_cast<std::size_t>(layer.out_bytes);
        std::uint8_t *to =
            (*job_.trace)[index] + static_cast<std::size_t>(row) * width * channels * bytes;
        for (std::size_t c = 0; c < channels; c++) {
            const int channel = view.first + static_cast<int>(c);
            const std::uint8_t *from =
                layer.tail ? own_.residual.data() : place(view.buffer, channel / LANES, row);
            from += static_cast<std::size_t>(LANES + channel % LANES) * bytes;
            const int zero = layer.tail ? 0 : ZERO;
            if (bytes == 1)
                for (std::size_t x = 0; x < width; x++)
                    to[x * channels + c] = static_cast<std::uint8_t>(from[x * LANES] - zero);
            else
                for (std::size_t x = 0; x < width; x++)
                    record_wide(to + (x * channels + c) * bytes, from + x * LANES * bytes);
        }
    }

    // Little-endian on every host, as in the bundle.
    static void record_wide(std::uint8_t *to, const std::uint8_t *from)
    {
        std::uint16_t value = 0;
        std::memcpy(&value, from, sizeof value);
        to[0] = static_cast<std::uint8_t>(value & 0xFF);
        to[1] = static_cast<std::uint8_t>(value >> 8);
    }

    Job &job_;
    Frame &frame_;
    Scratch &own_;
    int first_, end_;
    int dense_buffer_ = -1, kept_blocks_ = 0;
    Rows ring_{};
};

} // namespace

void run_step(const Plan &plan, Frame &frame, const Image &image, const Trace *trace,
              const Step &step)
{
    const Layer &layer = plan.layers[static_cast<std::size_t>(step.first_layer)];
    const bool cut = layer.tail && trace == nullptr; // nobody asks for the padding's rows
    const int rows = cut ? frame.size.height : frame.height(layer.input.level) / layer.stride;
    const int threads = frame.threads.count();
    const int least = step.layers == 1 ? 1 : LEAST_ROWS;
    const int chunks = std::max(std::min(threads, rows), std::min(threads * CHUNKS, rows / least));
    Job job{plan, frame, image, trace, step, rows, threads == 1 ? 1 : chunks};
    frame.threads.run(
        job.chunks,
        [](void *context, int thread, int item) {
            Chunk(*static_cast<Job *>(context), thread, item).run();
        },
        &job);
}

void run_frame(const Plan &plan, Frame &frame, const Image &image, const Trace *trace)
{
    for (const Step &step : plan.steps)
        run_step(plan, frame, image, trace, step);
}

} // namespace starlight::engine

// What the dense block's forward and backward have in common: three convolutions that read a
// growing buffer, run in rolling order, so that each row is used while it is in cache.
//   forward:   [x] -> out1,   [x, out1] -> out2,   [x, out1, out2] -> out3
//   gradients: [d3] -> d2,    [d3, d2] -> d1,      [d3, d2, d1] -> grad_x
#pragma once

#include "../dense_block.h"
#include "growth.h"

#include <atomic>

namespace starlight::ops::STARLIGHT_ISA
{

// work(item, worker) over [0, count), each item to the next free worker.
template <class Work> void for_each_item(const Pool &pool, int64_t count, Work work)
{
    struct Job {
        Work &work;
        int64_t count;
        std::atomic<int64_t> next;
    } job{work, count, 0};
    pool.run(
        pool.context,
        [](void *context, int worker) {
            Job &self = *static_cast<Job *>(context);
            for (;;) {
                const int64_t item = self.next.fetch_add(1, std::memory_order_relaxed);
                if (item >= self.count) return;
                self.work(item, worker);
            }
        },
        &job);
}

// Channels in the buffers. The block's own fill whole vectors, growth may fill half of one, but at
// least two lanes: panels of half a vector take channels in pairs.
template <class L> struct DenseChannels {
    int m, g; // padded
    int real_m, real_g;
    int fuse_outputs; // m again, but at least half a vector is enough

    explicit DenseChannels(const DenseBlock &block)
        : m(padded(block.channels, L::n)),
          g(padded(block.growth, L::n > 2 && block.growth <= L::n / 2 ? L::n / 2 : L::n)),
          real_m(block.channels), real_g(block.growth),
          fuse_outputs(padded(block.channels, L::n / 2))
    {
    }

    static int padded(int channels, int to) { return (channels + to - 1) / to * to; }
    static int blocks(int channels) { return (channels + L::n - 1) / L::n; }
    int forward_depth(int conv) const { return m + (conv - 1) * g; } // conv 1, 2, 3; 4 is fuse
    int gradient_offset() const { return blocks(3 * g) * L::n; } // of grad_out behind d3, d2, d1
    // Place in [x, out1, out2, out3] of a padded channel; -1 in the padding.
    int real_forward(int channel) const
    {
        if (channel < m) return channel < real_m ? channel : -1;
        const int part = (channel - m) / g, lane = (channel - m) % g;
        return lane < real_g ? real_m + part * real_g + lane : -1;
    }
};

// How far each convolution is computed beyond its region, in units.
struct Halo {
    int64_t units[3];
};

// Part of one image, in units of the convolution.
struct Region {
    int64_t image;
    Span rows, columns;
};

// The cut of all images into regions of about `unit_rows` x `unit_columns`.
struct Regions {
    int64_t images, rows, columns; // units of an image
    int64_t row_parts, column_parts;

    template <class Shape>
    Regions(const Shape &block, int unit, int64_t unit_rows, int64_t unit_columns)
        : images(block.images), rows((block.height + unit - 1) / unit),
          columns((block.width + unit - 1) / unit), row_parts((rows + unit_rows - 1) / unit_rows),
          column_parts((columns + unit_columns - 1) / unit_columns)
    {
    }
    int64_t count() const { return images * row_parts * column_parts; }
    int64_t most_rows() const { return row_parts ? (rows + row_parts - 1) / row_parts : 0; }
    int64_t most_columns() const
    {
        return column_parts ? (columns + column_parts - 1) / column_parts : 0;
    }
    Region operator[](int64_t i) const
    {
        const int64_t column = i % column_parts, row = i / column_parts % row_parts;
        return {i / column_parts / row_parts,
                {rows * row / row_parts, rows * (row + 1) / row_parts},
                {columns * column / column_parts, columns * (column + 1) / column_parts}};
    }
};

// Policy:
//   source(y, pixels)       fills row y of the first source, channels [0, first depth)
//   sink(conv, y)           taker of row y of convolution 0, 1, 2
//   finish(y, pixels)       runs when row y of the last convolution stands
template <class L, class Convolution, class Policy>
void run_chain(Convolution &convolution, const GrowthBuffer<L> &buffer, const Layer<L> (&layers)[3],
               const Region &region, const Halo &halo, Policy &policy)
{
    constexpr int64_t unit = Convolution::unit;
    const int64_t unit_rows = (buffer.height + unit - 1) / unit;
    const int64_t unit_columns = (buffer.width + unit - 1) / unit;
    Span rows[3], columns[3];
    int64_t last = 0;
    for (int conv = 0; conv < 3; conv++) {
        rows[conv] = widened(region.rows, halo.units[conv], unit_rows);
        columns[conv] = widened(region.columns, halo.units[conv], unit_columns);
        last = std::max(last, rows[conv].end + conv);
    }
    const auto pixels = [&](Span span, int64_t margin) {
        return widened({span.begin * unit, span.end * unit}, margin, buffer.width);
    };
    const Span source_pixels = pixels(columns[0], 1);
    int64_t next_source = std::max<int64_t>(rows[0].begin * unit - 1, 0);
    for (int64_t step = rows[0].begin; step < last; step++) {
        if (rows[0].contains(step))
            for (; next_source < std::min((step + 1) * unit + 1, buffer.height); next_source++)
                policy.source(next_source, source_pixels);
        int read = 0;
        for (int conv = 0; conv < 3; conv++) {
            const int64_t row = step - conv;
            if (rows[conv].contains(row)) {
                convolution.read(buffer, read, layers[conv].depth - read, row, columns[conv]);
                convolution.convolve(buffer, layers[conv], row,
                                     unit == 1 ? pixels(columns[conv], 0) : columns[conv],
                                     [&](int64_t y) { return policy.sink(conv, y); });
            }
            read = layers[conv].depth;
        }
        if (region.rows.contains(step - 2))
            for (int64_t y = (step - 2) * unit; y < std::min((step - 1) * unit, buffer.height); y++)
                policy.finish(y, pixels(region.columns, 0));
    }
}

// Rows that a ring must hold: from the row above the oldest unit in work to the newest source row.
template <class Convolution> constexpr int64_t ring_rows = 3 * Convolution::unit + 2;

} // namespace starlight::ops::STARLIGHT_ISA

// The growth buffer of one worker: rows of one region of one image, channels in blocks.
#pragma once

#include "vector.h"

namespace starlight::ops::STARLIGHT_ISA
{

struct Span {
    int64_t begin, end;

    bool contains(int64_t i) const { return begin <= i && i < end; }
    int64_t size() const { return end - begin; }
};

inline Span widened(Span span, int64_t by, int64_t limit)
{
    return {std::max<int64_t>(span.begin - by, 0), std::min(span.end + by, limit)};
}

// Workspace handed out piece by piece; with a null base it only counts.
class Arena
{
public:
    explicit Arena(void *base) : base_(static_cast<char *>(base)) {}

    template <class T> T *take(int64_t count)
    {
        T *piece = reinterpret_cast<T *>(base_ + bytes_);
        bytes_ +=
            (count * int64_t{sizeof(T)} + 63) / 64 * 64 + 64; // a line apart: no aliasing sets
        return piece;
    }
    int64_t bytes() const { return bytes_; }

private:
    char *base_;
    int64_t bytes_ = 0;
};

// Row y is [block][column][lane]; a ring of `capacity` rows. Rows outside the image are zeros, and
// so are columns that nobody writes.
template <class L> struct GrowthBuffer {
    using Real = typename L::Real;
    Real *data, *zeros;
    int64_t capacity, columns;
    int blocks;
    int64_t height, width; // of the image
    int64_t first_row = 0, first_column = 0;

    GrowthBuffer(Arena &arena, int64_t capacity, int64_t columns, int blocks, int64_t height,
                 int64_t width)
        : data(arena.take<Real>(capacity * columns * blocks * L::n)),
          zeros(arena.take<Real>(columns * blocks * L::n)), capacity(capacity), columns(columns),
          blocks(blocks), height(height), width(width)
    {
    }

    int64_t block_stride() const { return columns * L::n; }
    int64_t row_size() const { return blocks * block_stride(); }

    // From now on it holds rows from `row` and columns from `column`.
    void reset(int64_t row, int64_t column)
    {
        first_row = row;
        first_column = column;
        std::memset(data, 0, sizeof(Real) * capacity * row_size());
        std::memset(zeros, 0, sizeof(Real) * row_size());
    }
    STARLIGHT_INLINE Real *row(int64_t y) const
    {
        if (y < 0 || y >= height) return zeros;
        return data + (y - first_row) % capacity * row_size();
    }
    STARLIGHT_INLINE Real *cell(Real *row, int channel, int64_t x) const
    {
        return row + (channel / L::n) * block_stride() + (x - first_column) * L::n + channel % L::n;
    }

    // Copies pixels [columns.begin, columns.end) of an image's row to blocks from `channel` on.
    template <class T>
    void fill(Real *row, int channel, Span columns, const T *pixels, int64_t pixel_stride,
              int channels) const
    {
        int c = 0;
        for (; c + L::n <= channels; c += L::n) {
            Real *to = cell(row, channel + c, columns.begin);
            const T *from = pixels + columns.begin * pixel_stride + c;
#pragma GCC unroll 4
            for (int64_t x = columns.begin; x < columns.end; x++) {
                L::store(to, load_as<L>(from, L::n));
                to += L::n;
                from += pixel_stride;
            }
        }
        if (c < channels)
            fill_part(cell(row, channel + c, columns.begin), columns, pixels + c, pixel_stride,
                      channels - c);
    }

private:
    // `count` channels, fewer than a vector: read whole where the row goes on behind them.
    template <class T>
    void fill_part(Real *to, Span columns, const T *pixels, int64_t pixel_stride, int count) const
    {
        const int64_t last = (columns.end - 1) * pixel_stride + count;
        for (int64_t x = columns.begin; x < columns.end; x++, to += L::n) {
            const int64_t at = x * pixel_stride;
            L::store(to, at + L::n <= last ? L::first(load_as<L>(pixels + at, L::n), count)
                                           : load_as<L>(pixels + at, count));
        }
    }
};

// A 3x3 convolution inside a growth buffer: reads channels [0, depth), writes `outputs` channels.
// Both are padded: depth and outputs to multiples of n / 2.
template <class L> struct Layer {
    int depth, outputs;
    const typename L::Real *weights;
};

} // namespace starlight::ops::STARLIGHT_ISA

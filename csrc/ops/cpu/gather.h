// What the taps of a convolution see of each pixel, gathered into blocks: pixels of several rows
// and images in one sequence, so that rows, images and borders vanish.
//
//   gathered chunk [block][pixel][word]        block: 16 words of one tap of one part
#pragma once

#include "dense_chain.h"
#include "words.h"

namespace starlight::ops::STARLIGHT_ISA
{

struct Offset {
    int64_t dy, dx;
};

// Channels of images [height, width] that a product reads at nine taps, or at the centre alone;
// pixel (y, x) of the product has its centre at (stride y, stride x).
struct Part {
    ConstImage from;
    int channels, taps;
    int64_t height, width;
    int stride = 1;

    Offset offset(int tap) const
    {
        return taps == 9 ? Offset{tap / 3 - 1, tap % 3 - 1} : Offset{0, 0};
    }
};

inline ConstImage channels_from(const ConstImage &image, int channel, size_t element_bytes)
{
    return {static_cast<const char *>(image.data) + channel * element_bytes, image.image_stride,
            image.row_stride, image.pixel_stride};
}

inline ConstImage constant(const Image &image)
{
    return {image.data, image.image_stride, image.row_stride, image.pixel_stride};
}

inline int tiles_of(int channels, int each)
{
    return (channels + each - 1) / each;
}

// Pixels of all images in one sequence, row after row.
struct Pixels {
    int64_t images, height, width;

    int64_t count() const { return images * height * width; }

    // do_run(image, y, columns, items before them) over the pieces of rows in `span`.
    template <class Do> STARLIGHT_INLINE void for_each_run(Span span, Do do_run) const
    {
        for (int64_t p = span.begin; p < span.end;) {
            const int64_t x = p % width, row = p / width;
            const int64_t end = std::min(width, x + span.end - p);
            do_run(row / height, row % height, Span{x, end}, p - span.begin);
            p += end - x;
        }
    }

    // Where each pixel of the span lies in an image.
    void offsets(Span span, const ConstImage &image, int64_t *to) const
    {
        for_each_run(span, [&](int64_t i, int64_t y, Span columns, int64_t item) {
            for (int64_t x = columns.begin; x < columns.end; x++)
                to[item++] = i * image.image_stride + y * image.row_stride + x * image.pixel_stride;
        });
    }
};

// Takes the words of pixels in turn, from `item` of a block on.
template <class D, bool PAIRS> struct Gathered {
    static constexpr int n = D::L::n;
    typename D::Word *to;

    STARLIGHT_INLINE Gathered(typename D::Word *block, int64_t item) : to(block + item * n) {}
    STARLIGHT_INLINE void put(typename D::Words words)
    {
        D::store(to, words);
        to += n;
    }
    STARLIGHT_INLINE void finish(bool) {}
};

template <class D> struct Gathered<D, true> {
    static constexpr int n = D::L::n;
    typename D::Word *to;
    bool second;
    typename D::Words first{}; // of the pair, while its second is missing

    STARLIGHT_INLINE Gathered(typename D::Word *block, int64_t item)
        : to(block + item / 2 * 2 * n), second(item % 2)
    {
        if (second) first = D::load(to);
    }
    STARLIGHT_INLINE void put(typename D::Words words)
    {
        if (second) {
            D::store_pair(to, first, words);
            to += 2 * n;
        } else {
            first = words;
        }
        second = !second;
    }
    // The run ends here, and at `last` all runs.
    STARLIGHT_INLINE void finish(bool last)
    {
        if (!second) return;
        if (last)
            D::store_pair(to, first, typename D::Words{});
        else
            D::store(to, first);
    }
};

// Blocks of what each pixel sees of `part` at an offset of -1, 0 or 1 from its centre; zeros
// outside the image.
//
// PAIRS: pixels two by two as D::store_pair lays them, the last one beside zeros where it is alone.
template <class D, bool PAIRS = false>
void gather(const Pixels &pixels, Span span, const Part &part, Offset offset, typename D::Word *to,
            int64_t block_stride)
{
    constexpr int step = D::L::n * D::values;
    using T = typename D::T;
    const T *const data = static_cast<const T *>(part.from.data);
    const int64_t s = part.stride, stride = s * part.from.pixel_stride;
    const Span within{(s - 1 - offset.dx) / s, (part.width - offset.dx + s - 1) / s};
    pixels.for_each_run(span, [&](int64_t image, int64_t y, Span columns, int64_t item) {
        const int64_t row_y = s * y + offset.dy;
        const bool inside = row_y >= 0 && row_y < part.height;
        const Span seen{inside ? std::clamp(within.begin, columns.begin, columns.end) : columns.end,
                        std::clamp(within.end, columns.begin, columns.end)};
        const T *const row = data + image * part.from.image_stride + row_y * part.from.row_stride +
                             offset.dx * part.from.pixel_stride;
        typename D::Word *block = to;
        for (int c = 0; c < part.channels; c += step, block += block_stride) {
            int64_t x = columns.begin;
            Gathered<D, PAIRS> next(block, item);
            const auto beyond = [&](int64_t end) {
                for (; x < end; x++)
                    next.put(typename D::Words{});
            };
            beyond(seen.begin);
            if (part.channels - c >= step)
                for (; x < seen.end; x++)
                    next.put(D::read(row + x * stride + c, step));
            else
                for (; x < seen.end; x++)
                    next.put(D::read(row + x * stride + c, part.channels - c));
            beyond(columns.end);
            next.finish(item + columns.size() == span.size());
        }
    });
}

// take(i, the sum over all pixels of channel + i), for up to n channels.
template <class D, class Take>
void channel_sums(const Pixels &pixels, const ConstImage &from, int channel, int count, Take take)
{
    using T = typename D::T;
    typename VectorOf<double, D::L::n>::type total{};
    pixels.for_each_run({0, pixels.count()}, [&](int64_t image, int64_t y, Span row, int64_t) {
        const T *at = static_cast<const T *>(from.data) + image * from.image_stride +
                      y * from.row_stride + channel;
        for (int64_t x = 0; x < row.end; x++, at += from.pixel_stride)
            total += __builtin_convertvector(D::widen(at, count), decltype(total));
    });
    for (int i = 0; i < count; i++)
        take(i, typename D::L::Real(total[i]));
}

// The gradients of up to n biases from `channel` on, of `channels`.
template <class D>
void bias_sums(const Pixels &pixels, const ConstImage &grad_out, int channel, int channels,
               typename D::L::Real *grad_bias, int64_t stride = 1)
{
    channel_sums<D>(
        pixels, grad_out, channel, std::min(D::L::n, channels - channel),
        [&](int i, typename D::L::Real sum) { grad_bias[(channel + i) * stride] = sum; });
}

} // namespace starlight::ops::STARLIGHT_ISA

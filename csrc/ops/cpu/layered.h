// A convolution of whole images as one matrix product: the pixels that each tap reads are gathered
// into blocks beside each other, a chunk of pixels at a time, so that rows of any length, several
// rows and several images fill the same registers.
//
//   gathered chunk [block][pixel][word]           packed weights, a panel: [block][word][output]
//   block: 16 words of one tap of one part         every pixel's word meets all lanes of a panel
#pragma once

#include "dense_chain.h"
#include "matmul.h"
#include "words.h"

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

// Blocks of what each pixel sees of `part` at an offset of -1, 0 or 1 from its centre; zeros
// outside the image.
template <class D>
void gather(const Pixels &pixels, Span span, const Part &part, Offset offset, typename D::Word *to,
            int64_t block_stride)
{
    constexpr int n = D::L::n, step = n * D::values;
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
        typename D::Word *block = to + item * n;
        for (int c = 0; c < part.channels; c += step, block += block_stride) {
            typename D::Word *out = block;
            int64_t x = columns.begin;
            for (; x < seen.begin; x++, out += n)
                D::store(out, typename D::Words{});
            if (part.channels - c >= step)
                for (; x < seen.end; x++, out += n)
                    D::store(out, D::read(row + x * stride + c, step));
            else
                for (; x < seen.end; x++, out += n)
                    D::store(out, D::read(row + x * stride + c, part.channels - c));
            for (; x < columns.end; x++, out += n)
                D::store(out, typename D::Words{});
        }
    });
}

// Sums over all pixels of up to n channels.
template <class D>
auto channel_sums(const Pixels &pixels, const ConstImage &from, int channel, int count)
{
    using T = typename D::T;
    typename VectorOf<double, D::L::n>::type total{};
    pixels.for_each_run({0, pixels.count()}, [&](int64_t image, int64_t y, Span row, int64_t) {
        const T *at = static_cast<const T *>(from.data) + image * from.image_stride +
                      y * from.row_stride + channel;
        for (int64_t x = 0; x < row.end; x++, at += from.pixel_stride)
            total += __builtin_convertvector(D::widen(at, count), decltype(total));
    });
    return total;
}

template <class D> class LayeredProduct
{
public:
    using L = typename D::L;
    using Word = typename D::Word;
    using Real = typename L::Real;
    static constexpr int n = L::n, block_values = n * D::values;
    static constexpr int panel = L::panel_vectors * n;

    Part parts[2];
    int outputs; // padded to whole vectors
    Word *weights;

    LayeredProduct(Arena &arena, const Part &first, const Part &second, int outputs)
        : parts{first, second}, outputs((outputs + n - 1) / n * n),
          weights(arena.take<Word>(words() * this->outputs)), real_outputs_(outputs)
    {
    }

    int panels() const { return (outputs + panel - 1) / panel; }
    int64_t gathered_words() const { return blocks() * chunk() * n; }
    // Pixels gathered at a time: what half of a core's own cache holds.
    int64_t chunk() const
    {
        constexpr int64_t grain = L::accumulators, bytes = 400 << 10;
        const int64_t pixels = bytes / (blocks() * n * int64_t{sizeof(Word)});
        return std::clamp<int64_t>(pixels / grain * grain, grain, 8 * grain);
    }

    // weight(part, channel, tap) -> {its first output's weight, elements to the next output's}.
    template <class Weight> void pack(int index, Weight weight) const
    {
        const int o = index * panel, width = std::min(panel, outputs - o);
        Word *const to = weights + o * words();
        int64_t first = 0;
        for (int p = 0; p < 2; p++) {
            const int depth = words_of(parts[p]);
            for (int k = 0; k < depth; k += n)
                for (int tap = 0; tap < parts[p].taps; tap++)
                    for (int i = k; i < std::min(k + n, depth); i++)
                        for (int lane = 0; lane < width; lane += n)
                            pack_words(to + (first + int64_t{tap} * depth + i) * width + lane, p, i,
                                       tap, o + lane, weight);
            first += int64_t{depth} * parts[p].taps;
        }
    }

    // sink(pixel of the span, output, sums).
    template <class Sink>
    void multiply(const Pixels &pixels, Span span, Word *gathered, Sink sink) const
    {
        const int64_t stride = chunk() * n;
        Word *to = gathered;
        for (const Part &part : parts)
            for (int tap = 0; tap < part.taps; tap++) {
                gather<D>(pixels, span, part, part.offset(tap), to, stride);
                to += blocks_of(part) * stride;
            }
        multiply_gathered(span.size(), gathered, stride, sink);
    }

    // The same of blocks that lie gathered, `stride` words apart.
    template <class Sink>
    void multiply_gathered(int64_t pixels, const Word *gathered, int64_t stride, Sink sink) const
    {
        for (int o = 0; o < outputs; o += panel) {
            const Word *const w = weights + o * words();
            if (outputs - o >= panel)
                multiply_panel<L::panel_vectors>(pixels, gathered, stride, w, o, sink);
            else
                multiply_panel<1>(pixels, gathered, stride, w, o, sink);
        }
    }

    static int blocks_of(const Part &part) { return (words_of(part) + n - 1) / n; }

private:
    static int words_of(const Part &part) { return (part.channels + D::values - 1) / D::values; }
    int64_t words() const
    {
        return int64_t{parts[0].taps} * words_of(parts[0]) +
               int64_t{parts[1].taps} * words_of(parts[1]);
    }
    int64_t blocks() const
    {
        return int64_t{parts[0].taps} * blocks_of(parts[0]) +
               int64_t{parts[1].taps} * blocks_of(parts[1]);
    }

    template <class Weight>
    void pack_words(Word *to, int part, int word, int tap, int o, Weight weight) const
    {
        Real values[D::values][n] = {};
        const int count = std::min(n, real_outputs_ - o);
        for (int v = 0; v < D::values; v++) {
            const int channel = word * D::values + v;
            if (channel >= parts[part].channels) continue;
            const auto [first, stride] = weight(part, channel, tap);
            const Real *const from = first + o * stride;
            if (count == n)
                for (int i = 0; i < n; i++)
                    values[v][i] = from[i * stride];
            else
                for (int i = 0; i < count; i++)
                    values[v][i] = from[i * stride];
        }
        D::store(to, D::narrow(values));
    }

    template <int VECTORS, class Sink>
    STARLIGHT_INLINE void multiply_panel(int64_t rows, const Word *gathered, int64_t stride,
                                         const Word *w, int o, Sink sink) const
    {
        for_each_rows<L::accumulators / VECTORS>(rows, [&]<int ROWS>(int64_t first) {
            multiply_rows<ROWS, VECTORS>(
                gathered + first * n, stride, w,
                [&](int i, int v, typename L::V sums) { sink(first + i, o + v * n, sums); });
        });
    }

    template <int ROWS, int VECTORS, class Finish>
    STARLIGHT_INLINE void multiply_rows(const Word *a, int64_t stride, const Word *w,
                                        Finish finish) const
    {
        PiecewiseSums<L, ROWS, VECTORS> piecewise;
        auto &sums = piecewise.sums;
        constexpr int piece = piecewise.longest / n; // blocks
#pragma GCC unroll 1
        for (const Part &part : parts) {
            const int depth = words_of(part);
            int left = piece;
            if (&part != parts) piecewise.end_piece(); // else small terms round as large ones do
#pragma GCC unroll 1
            for (int tap = 0; tap < part.taps; tap++)
#pragma GCC unroll 1
                for (int k = 0; k < depth; k += n, a += stride) {
                    if (left-- == 0) {
                        piecewise.end_piece();
                        left = piece - 1;
                    }
                    const Word *const end = w + std::min(n, depth - k) * VECTORS * n;
#pragma GCC unroll 1
                    for (const Word *at = a; w != end; at++) {
                        typename D::Words operands[VECTORS];
#pragma GCC unroll 4
                        for (int v = 0; v < VECTORS; v++)
                            operands[v] = D::load(w + v * n);
                        w += VECTORS * n;
#pragma GCC unroll 32
                        for (int i = 0; i < ROWS; i++) {
                            const typename D::Words s = D::splat(at + i * n);
#pragma GCC unroll 4
                            for (int v = 0; v < VECTORS; v++)
                                sums[i][v] = D::multiply_add(sums[i][v], s, operands[v]);
                        }
                    }
                }
        }
        piecewise.add_before();
#pragma GCC unroll 32
        for (int i = 0; i < ROWS; i++) {
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++)
                finish(i, v, sums[i][v]);
        }
    }

    int real_outputs_;
};

// Sums over pixels of gradients times what the taps saw, for 2n channels of one part and all
// `outputs`: [tap][output][channel], both in the order of `D`'s pairs.
template <class D> class LayeredSums
{
public:
    using L = typename D::L;
    using Word = typename D::Word;
    using Real = typename L::Real;
    static constexpr int n = L::n, block_values = n * D::values;
    static constexpr int tile = 2 * n; // channels
    static constexpr int64_t chunk = 192;

    LayeredSums(Arena &arena, int taps, int outputs)
        : outputs_((outputs + block_values - 1) / block_values * block_values),
          seen_(arena.take<Word>(taps * tile_blocks * chunk * n)),
          gradients_(arena.take<Word>(outputs_ / D::values * chunk)),
          sums_(arena.take<Real>(int64_t{taps} * outputs_ * tile))
    {
    }

    // weight: [outputs][weight_inputs][taps], the part's first channel.
    void run(const Pixels &pixels, const Part &part, const Part &gradient, Real *weight,
             int64_t weight_inputs)
    {
        std::fill_n(sums_, int64_t{part.taps} * outputs_ * tile, Real(0));
        const int64_t stride = chunk * n;
        for (int64_t p = 0; p < pixels.count(); p += chunk) {
            const Span span{p, std::min(p + chunk, pixels.count())};
            const int64_t items = (span.size() + D::values - 1) / D::values;
            gather_pairs(pixels, span, gradient, {}, gradients_,
                         (gradient.channels + block_values - 1) / block_values);
            for (int tap = 0; tap < part.taps; tap++) {
                Word *const seen = seen_ + tap * tile_blocks * stride;
                gather_pairs(pixels, span, part, part.offset(tap), seen, tile_blocks);
                for (int o = 0; o < outputs_; o += rows)
                    if (o / block_values * block_values + channel_at(o % block_values) <
                        gradient.channels)
                        add(gradients_ + (o / block_values) * stride + o % block_values, seen,
                            items, sums_ + (int64_t{tap} * outputs_ + o) * tile);
            }
        }
        for (int o = 0; o < gradient.channels; o++) {
            const Real *const from =
                sums_ + (o / block_values * block_values + place_of(o % block_values)) * tile;
            Real *const to = weight + o * weight_inputs * part.taps;
            for (int c = 0; c < part.channels; c++)
                for (int tap = 0; tap < part.taps; tap++)
                    to[c * part.taps + tap] = from[int64_t{tap} * outputs_ * tile + place_of(c)];
        }
    }

private:
    static constexpr int tile_blocks = tile / block_values; // 2, or 1 of pairs
    static constexpr int rows = std::min(L::accumulators >= 24 ? 8 : 4, n);

    // Pairs of pixels hold the even channels of a block, then the odd ones.
    static constexpr int place_of(int channel)
    {
        return D::values == 1 ? channel : channel % 2 * n + channel / 2;
    }
    static constexpr int channel_at(int place)
    {
        return D::values == 1 ? place : place % n * 2 + place / n;
    }

    static void gather_pairs(const Pixels &pixels, Span span, const Part &part, Offset offset,
                             Word *to, int blocks)
    {
        gather<D>(pixels, span, part, offset, to, chunk * n);
        for (int b = 0; b < blocks; b++) {
            if (b * block_values >= part.channels)
                std::fill_n(to + b * chunk * n, span.size() * n, Word(0));
            else if (D::values == 2) {
                if (span.size() % 2)
                    D::store(to + b * chunk * n + span.size() * n, typename D::Words{});
                D::pair_pixels(to + b * chunk * n, span.size());
            }
        }
    }

    STARLIGHT_INLINE static void add(const Word *a, const Word *b, int64_t items, Real *to)
    {
        constexpr int64_t item = n * D::values, vector = D::values == 1 ? chunk * n : n;
        typename L::V sums[rows][2] = {};
#pragma GCC unroll 1
        for (int64_t i = 0; i < items; i++, a += item, b += item) {
            const typename D::Words first = D::load(b), second = D::load(b + vector);
#pragma GCC unroll 8
            for (int o = 0; o < rows; o++) {
                const typename D::Words s = D::splat(a + o);
                sums[o][0] = D::multiply_add(sums[o][0], s, first);
                sums[o][1] = D::multiply_add(sums[o][1], s, second);
            }
        }
#pragma GCC unroll 8
        for (int o = 0; o < rows; o++) {
            L::store(to + o * tile, L::load(to + o * tile) + sums[o][0]);
            L::store(to + o * tile + n, L::load(to + o * tile + n) + sums[o][1]);
        }
    }

    int outputs_;
    Word *seen_, *gradients_;
    Real *sums_;
};

} // namespace starlight::ops::STARLIGHT_ISA

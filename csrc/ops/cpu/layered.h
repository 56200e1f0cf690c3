// A convolution of whole images as one matrix product of gathered pixels, so that rows of any
// length, several rows and several images fill the same registers.
//
//   gathered chunk [block][pixel][word]           packed weights, a panel: [block][word][output]
//   block: 16 words of one tap of one part         every pixel's word meets all lanes of a panel
#pragma once

#include "gather.h"
#include "matmul.h"

#include <array>

namespace starlight::ops::STARLIGHT_ISA
{

template <class D> class LayeredProduct
{
public:
    using L = typename D::L;
    using Word = typename D::Word;
    using Real = typename L::Real;
    static constexpr int n = L::n, block_values = n * D::values;
    static constexpr int panel = L::panel_vectors * n;
    static constexpr int64_t most_chunk = 8 * L::accumulators;
    using Offsets = std::array<int64_t, most_chunk>; // of a chunk's pixels in an image

    Part parts[2];
    int outputs; // padded to whole vectors
    Word *weights;

    // `groups` of outputs, each padded to whole vectors.
    LayeredProduct(Arena &arena, const Part &first, const Part &second, int group_outputs,
                   int groups = 1)
        : parts{first, second}, outputs(groups * padded(group_outputs)),
          weights(arena.take<Word>(words() * outputs)), group_outputs_(group_outputs)
    {
    }
    static int padded(int outputs) { return (outputs + n - 1) / n * n; }

    int panels() const { return (outputs + panel - 1) / panel; }
    int64_t gathered_bytes() const
    {
        return (blocks() * chunk() * n * int64_t{sizeof(Word)} + 127) / 64 * 64;
    }
    // Pixels gathered at a time: what half of a core's own cache holds.
    int64_t chunk() const
    {
        constexpr int64_t grain = L::accumulators, bytes = 40 << 10;
        const int64_t pixels = bytes / (blocks() * n * int64_t{sizeof(Word)});
        return std::clamp<int64_t>(pixels / grain * grain, grain, most_chunk);
    }
    int64_t chunks(const Pixels &pixels) const { return (pixels.count() + chunk() - 1) / chunk(); }
    Span chunk_of(const Pixels &pixels, int64_t index) const
    {
        return {index * chunk(), std::min((index + 1) * chunk(), pixels.count())};
    }
    static Offsets offsets(const Pixels &pixels, Span span, const ConstImage &image)
    {
        Offsets to;
        pixels.offsets(span, image, to.data());
        return to;
    }

    // weight(part, channel, tap, group) -> {the first output's weight, elements to the next one's};
    // without the group where there is one.
    template <class Weight> void pack(int index, Weight weight) const
    {
        const int o = index * panel, width = std::min(panel, outputs - o);
        Word *const to = weights + o * words();
        int64_t first = 0;
        for (int p = 0; p < 2; p++) {
            const int depth = words_of(parts[p]);
            for (int k = 0; k < depth; k += n)
                // Taps lie side by side in memory: all of a line while it is near.
                for (int i = k; i < std::min(k + n, depth); i++)
                    for (int tap = 0; tap < parts[p].taps; tap++)
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

    // All pixels; make_sink(span) makes the sink of each chunk. Workers' scratch lies scratch_bytes
    // apart, at least gathered_bytes() each.
    template <class MakeSink>
    void run(const Pool &pool, const Pixels &pixels, char *scratch, int64_t scratch_bytes,
             MakeSink make_sink) const
    {
        for_each_item(pool, chunks(pixels), [&](int64_t item, int worker) {
            const Span span = chunk_of(pixels, item);
            auto sink = make_sink(span);
            multiply(pixels, span, reinterpret_cast<Word *>(scratch + worker * scratch_bytes),
                     sink);
        });
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
        typename L::V values[D::values] = {};
        const int group = o / padded(group_outputs_), from = o % padded(group_outputs_);
        const int count = std::min(n, group_outputs_ - from);
        for (int v = 0; v < D::values; v++) {
            const int channel = word * D::values + v;
            if (channel >= parts[part].channels) continue;
            const auto [first, stride] = [&] {
                if constexpr (std::is_invocable_v<Weight, int, int, int, int>)
                    return weight(part, channel, tap, group);
                else
                    return weight(part, channel, tap);
            }();
            values[v] = D::spread(first + from * stride, stride, count);
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

    int group_outputs_;
};

// Sums over pixels of gradients times what the taps saw, for 2n channels of one part and all
// `outputs`: [tap][output][channel].
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

    // put(output, channel of the part, tap, sum) takes them all.
    template <class Put>
    void run(const Pixels &pixels, Span all, const Part &part, const Part &gradient, Put put)
    {
        std::fill_n(sums_, int64_t{part.taps} * outputs_ * tile, Real(0));
        const int64_t stride = chunk * n;
        for (int64_t p = all.begin; p < all.end; p += chunk) {
            const Span span{p, std::min(p + chunk, all.end)};
            const int64_t items = (span.size() + D::values - 1) / D::values;
            gather_items(pixels, span, gradient, {}, gradients_,
                         (gradient.channels + block_values - 1) / block_values);
            for (int tap = 0; tap < part.taps; tap++) {
                Word *const seen = seen_ + tap * tile_blocks * stride;
                gather_items(pixels, span, part, part.offset(tap), seen, tile_blocks);
                for (int o = 0; o < gradient.channels; o += rows)
                    add(gradients_ + (o / block_values) * stride + o % block_values, seen, items,
                        sums_ + (int64_t{tap} * outputs_ + o) * tile);
            }
        }
        for (int o = 0; o < gradient.channels; o++) {
            const Real *const from = sums_ + o * tile;
            for (int c = 0; c < part.channels; c++)
                for (int tap = 0; tap < part.taps; tap++)
                    put(o, c, tap, from[int64_t{tap} * outputs_ * tile + c]);
        }
    }

private:
    static constexpr int tile_blocks = tile / block_values; // 2, or 1 of pairs
    static constexpr int rows = std::min(L::accumulators >= 24 ? 8 : 4, n);

    // With two values to a word, a channel of two pixels side by side.
    static void gather_items(const Pixels &pixels, Span span, const Part &part, Offset offset,
                             Word *to, int blocks)
    {
        gather<D, D::values == 2>(pixels, span, part, offset, to, chunk * n);
        for (int b = (part.channels + block_values - 1) / block_values; b < blocks; b++)
            std::fill_n(to + b * chunk * n, (span.size() + 1) / 2 * 2 * n, Word(0));
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

// The gradients of a single convolution, shared by workers: weights by parts of the pixels too,
// whose number depends on the pixels alone. So the result is the same bits for any number of
// workers.
template <class D> struct LayeredGradients {
    using L = typename D::L;
    using Real = typename L::Real;

    Pixels pixels;
    int64_t weights; // of the convolution
    Real *others;    // sums of the parts but the first

    LayeredGradients(Arena &arena, const Pixels &pixels, int64_t weights)
        : pixels(pixels), weights(weights), others(arena.take<Real>((parts() - 1) * weights))
    {
    }
    int64_t parts() const { return std::clamp<int64_t>(pixels.count() / 1024, 1, 8); }

    // sum(item, span of pixels, to, worker) over `sums` items, which write all of `to` between
    // them; other(item, worker) over `others` items; bias(first of n outputs).
    template <class Sum, class Bias, class Other>
    void run(const Pool &pool, Real *grad_weight, int64_t sums, Sum sum, int outputs, Bias bias,
             int64_t other_items, Other other) const
    {
        const int64_t first = parts() * sums, biases = (outputs + L::n - 1) / L::n;
        for_each_item(pool, first + biases + other_items, [&](int64_t item, int worker) {
            if (item < first) { // the long items first
                const int64_t part = item % parts(), all = pixels.count();
                sum(item / parts(), Span{all * part / parts(), all * (part + 1) / parts()},
                    part ? others + (part - 1) * weights : grad_weight, worker);
            } else if (item < first + biases) {
                bias(int(item - first) * L::n);
            } else {
                other(item - first - biases, worker);
            }
        });
        for (int64_t part = 1; part < parts(); part++)
            for (int64_t i = 0; i < weights; i++)
                grad_weight[i] += others[(part - 1) * weights + i];
    }
};

} // namespace starlight::ops::STARLIGHT_ISA

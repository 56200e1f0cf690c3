// Gradients of weights and biases: a product of matrices whose inner dimension is pixels.
//   d weight[o, c, ky, kx] = sum of gradient[y, x, o] * input[y s + ky - 1, x s + kx - 1, c]
//   d bias[o]              = sum of gradient[y, x, o]
// A job is 16 outputs by 16 inputs of a layer, all taps. Blocks share a job's tiles of pixels; what
// each has summed is added in a second kernel, in a fixed order: equal inputs, equal bits.
#pragma once

#include "tile.cuh"

namespace starlight::cuda
{

constexpr int JOB_CHANNELS = 16; // outputs and inputs
constexpr int GRADIENT_WARPS = 8, GRADIENT_THREADS = GRADIENT_WARPS * WARP;
constexpr int GRADIENT_TILES = 9 * 2 + 1; // of a job: [ky][kx][half of the inputs], then the bias
constexpr int PARTIAL_VALUES = GRADIENT_TILES * WARP * 4;
constexpr int MOST_GRADIENT_LAYERS = 4;

struct GradientLayer {
    Source gradient, input[2];
    bool full_window;    // 3x3, else 1x1
    int first_job;       // of all layers'
    int input_channels;  // of all sources
    void *weight, *bias; // Accumulator<T>, [outputs, input channels, taps], [outputs]
};

struct GradientPlan {
    GradientLayer layer[MOST_GRADIENT_LAYERS];
    int layers, jobs;
    int64_t tiles;        // of all images
    int tiles_y, tiles_x; // of one
    void *partials;       // Accumulator<T>, [splits][jobs][PARTIAL_VALUES]
    int splits;
};

template <class T> STARLIGHT_DEVICE int channel_blocks(const Source &source)
{
    return (source.units * UNIT<T> + JOB_CHANNELS - 1) / JOB_CHANNELS;
}

// A job's part of the plan.
template <class T> struct GradientJob {
    int layer, output, source, channel; // the first of JOB_CHANNELS each

    STARLIGHT_DEVICE GradientJob(const GradientPlan &plan, int job)
    {
        layer = 0;
        while (layer + 1 < plan.layers && job >= plan.layer[layer + 1].first_job)
            layer++;
        const GradientLayer &all = plan.layer[layer];
        const int outputs = channel_blocks<T>(all.gradient);
        const int first = channel_blocks<T>(all.input[0]);
        const int within = job - all.first_job, block = within / outputs;
        output = within % outputs * JOB_CHANNELS;
        source = block < first ? 0 : 1;
        channel = (block - source * first) * JOB_CHANNELS;
    }
};

template <class T, int Stride> struct GradientShape {
    static constexpr int ROWS = Stride == 1 && sizeof(T) < 8 ? 2 : 1; // of a warp
    static constexpr int TILE_ROWS = GRADIENT_WARPS * ROWS;
    static constexpr int UNITS = JOB_CHANNELS / UNIT<T>; // of a pixel
    using Input = HaloTile<TILE_ROWS, Stride, 3, UNITS>;
    using Gradient = HaloTile<TILE_ROWS, 1, 1, UNITS>;
    static constexpr int STAGE_BYTES = Input::BYTES + Gradient::BYTES;
    static constexpr int SUM_BYTES = PARTIAL_VALUES * static_cast<int>(sizeof(Accumulator<T>));
    static constexpr int STAGES = sizeof(T) == 8 ? 1 : 2; // two of double would not fit
    static constexpr int SHARED_BYTES =
        STAGES * STAGE_BYTES > SUM_BYTES ? STAGES * STAGE_BYTES : SUM_BYTES;
};

// Where channel `channel` of a pixel of a row lies; neighbouring channels of a unit follow.
template <class T> struct RowAddress {
    const unsigned char *row;
    PixelOrder order;
    int first_pixel;

    STARLIGHT_DEVICE const unsigned char *operator()(int pixel, int channel) const
    {
        return row + order.offset(first_pixel + pixel, channel / UNIT<T>) +
               channel % UNIT<T> * static_cast<int>(sizeof(T));
    }
};

template <class T, int Stride>
STARLIGHT_DEVICE void copy_gradient_tile(unsigned char *to, const GradientPlan &plan,
                                         const GradientJob<T> &job, int64_t tile)
{
    using Shape = GradientShape<T, Stride>;
    const GradientLayer &layer = plan.layer[job.layer];
    const Source &input = layer.input[job.source];
    const int64_t n = tile / (int64_t{plan.tiles_y} * plan.tiles_x);
    const int in_image = static_cast<int>(tile - n * plan.tiles_y * plan.tiles_x);
    const int first_y = in_image / plan.tiles_x * Shape::TILE_ROWS;
    const int first_x = in_image % plan.tiles_x * TILE_PIXELS;
    const bool full = layer.full_window;
    Shape::Input::template copy<T, GRADIENT_THREADS>(
        to, input, n, first_y * Stride - 1, first_x * Stride - 1, job.channel / UNIT<T>,
        Shape::UNITS, [full](int row, int column) {
            return full ||
                   (row > 0 && row <= Shape::TILE_ROWS && column > 0 && column <= TILE_PIXELS);
        });
    Shape::Gradient::template copy<T, GRADIENT_THREADS>(
        to + Shape::Input::BYTES, layer.gradient, n, first_y, first_x, job.output / UNIT<T>,
        Shape::UNITS, [](int, int) { return true; });
}

// A lane's sums: of weights [ky][kx][half of the inputs], of biases.
template <class T> struct GradientSums {
    Accumulator<T> weight[3][3][2][4], bias[4];
};

// A warp's rows of a tile, for a window of Taps x Taps.
template <class T, int Stride, int Taps>
STARLIGHT_DEVICE void add_tile(GradientSums<T> &sums, const unsigned char *tile)
{
    using M = Math<T>;
    using Shape = GradientShape<T, Stride>;
    constexpr int ROWS = Shape::ROWS, FIRST = Taps == 3 ? 0 : 1; // the centre is tap 1
    const PixelOrder order(Shape::UNITS);
    const int first_row = warp_index() * ROWS;
    const unsigned char *const gradients = tile + Shape::Input::BYTES;
    const typename M::Columns ones = M::ones();
#pragma unroll 1
    for (int pixel = 0; pixel < TILE_PIXELS; pixel += M::STEP_PIXELS) {
        typename M::Rows a[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            M::load(
                a[r],
                RowAddress<T>{gradients + (first_row + r) * Shape::Gradient::ROW_BYTES, order, 0},
                pixel);
            M::multiply(sums.bias, a[r], ones);
        }
#pragma unroll
        for (int j = 0; j < INPUT_ROWS<ROWS, Stride, Taps>; j++)
#pragma unroll
            for (int kx = FIRST; kx < FIRST + Taps; kx++) {
                typename M::Columns b[2];
                M::load(
                    b,
                    RowAddress<T>{tile + (first_row * Stride + FIRST + j) * Shape::Input::ROW_BYTES,
                                  order, place_of_column<Stride>(kx)},
                    pixel);
#pragma unroll
                for (int r = 0; r < ROWS; r++) {
                    const int ky = j - r * Stride;
                    if (ky < 0 || ky >= Taps) continue;
#pragma unroll
                    for (int half = 0; half < 2; half++)
                        M::multiply(sums.weight[FIRST + ky][kx][half], a[r], b[half]);
                }
            }
    }
}

// sums[i] of this lane += values, or = values for the first.
template <class A>
STARLIGHT_DEVICE void add_to_sums(unsigned char *sums, int tile, const A (&values)[4], bool first)
{
    constexpr int PART = UNIT_BYTES / static_cast<int>(sizeof(A));
    using P = Packet<A, PART>;
#pragma unroll
    for (int i = 0; i < 4; i += PART) {
        unsigned char *const place =
            sums + ((i / PART * GRADIENT_TILES + tile) * WARP + lane_index()) * UNIT_BYTES;
        P sum{};
        if (!first) sum = ld<P>(place);
#pragma unroll
        for (int k = 0; k < PART; k++)
            sum[k] += values[i + k];
        st(place, sum);
    }
}

// grid: splits, jobs.
template <class T, int Stride>
__global__ void __launch_bounds__(GRADIENT_THREADS, 1) sum_weight_gradients(const GradientPlan plan)
{
    using Shape = GradientShape<T, Stride>;
    unsigned char *const shared = dynamic_shared();
    const GradientJob<T> job(plan, static_cast<int>(blockIdx.y));
    const bool full = plan.layer[job.layer].full_window;

    GradientSums<T> sums{};
    const auto copy = [&](int64_t tile, int stage) {
        if (tile < plan.tiles)
            copy_gradient_tile<T, Stride>(shared + stage * Shape::STAGE_BYTES, plan, job, tile);
        cp_async_commit();
    };
    constexpr bool AHEAD = Shape::STAGES == 2;
    if (AHEAD) copy(blockIdx.x, 0);
    int stage = 0;
#pragma unroll 1
    for (int64_t tile = blockIdx.x; tile < plan.tiles; tile += plan.splits) {
        if (AHEAD) {
            copy(tile + plan.splits, 1 - stage);
            cp_async_wait<1>();
        } else {
            copy(tile, stage);
            cp_async_wait<0>();
        }
        __syncthreads();
        const unsigned char *const pixels = shared + stage * Shape::STAGE_BYTES;
        // Both windows at once would not fit into registers with double: there a 1x1 sums nine
        // taps, of which one is kept.
        constexpr bool ALWAYS_FULL = Stride == 2 || sizeof(T) == 8;
        GradientSums<T> part{};
        GradientSums<T> &to = Math<T>::SUMS_IN_PARTS ? part : sums;
        if (ALWAYS_FULL || full)
            add_tile<T, Stride, 3>(to, pixels);
        else if constexpr (!ALWAYS_FULL)
            add_tile<T, Stride, 1>(to, pixels);
        if constexpr (Math<T>::SUMS_IN_PARTS) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                sums.bias[i] += part.bias[i];
#pragma unroll
                for (int tap = 0; tap < 9; tap++)
#pragma unroll
                    for (int half = 0; half < 2; half++)
                        sums.weight[tap / 3][tap % 3][half][i] +=
                            part.weight[tap / 3][tap % 3][half][i];
            }
        }
        __syncthreads();
        if (AHEAD) stage = 1 - stage;
    }
    cp_async_wait<0>();

    for (int warp = 0; warp < GRADIENT_WARPS; warp++) {
        if (warp_index() == warp) {
#pragma unroll
            for (int ky = 0; ky < 3; ky++)
#pragma unroll
                for (int kx = 0; kx < 3; kx++)
#pragma unroll
                    for (int half = 0; half < 2; half++)
                        add_to_sums(shared, (ky * 3 + kx) * 2 + half, sums.weight[ky][kx][half],
                                    warp == 0);
            add_to_sums(shared, GRADIENT_TILES - 1, sums.bias, warp == 0);
        }
        __syncthreads();
    }
    unsigned char *const to = static_cast<unsigned char *>(plan.partials) +
                              (int64_t{blockIdx.x} * plan.jobs + blockIdx.y) * Shape::SUM_BYTES;
    for (int i = static_cast<int>(threadIdx.x) * UNIT_BYTES; i < Shape::SUM_BYTES;
         i += GRADIENT_THREADS * UNIT_BYTES)
        st(to + i, ld<uint4>(shared + i));
}

// grid: as many blocks as PARTIAL_VALUES needs, jobs.
template <class T>
__global__ void __launch_bounds__(GRADIENT_THREADS) add_weight_gradients(const GradientPlan plan)
{
    using A = Accumulator<T>;
    constexpr int PART = UNIT_BYTES / static_cast<int>(sizeof(A));
    const int index = static_cast<int>(blockIdx.x * GRADIENT_THREADS + threadIdx.x);
    const bool active = index < PARTIAL_VALUES;
    const int job_index = static_cast<int>(blockIdx.y);
    A sum = 0;
#pragma unroll 4
    for (int split = 0; split < plan.splits; split++)
        sum += ld_const_if<A>(static_cast<const A *>(plan.partials) +
                                  (int64_t{split} * plan.jobs + job_index) * PARTIAL_VALUES + index,
                              active);

    // Back from the lane's place (add_to_sums) to output and input.
    const int value = index % PART + index / PART / WARP / GRADIENT_TILES * PART;
    const int lane = index / PART % WARP, tile = index / PART / WARP % GRADIENT_TILES;
    const GradientJob<T> job(plan, job_index);
    const GradientLayer &layer = plan.layer[job.layer];
    const Source &input = layer.input[job.source];
    const int output = job.output + lane / 4 + value / 2 * 8;
    const int joined = job.channel + tile % 2 * 8 + lane % 4 * 2 + value % 2;
    const int member_channels = input.member_units * UNIT<T>;
    const int member = joined / member_channels, within = joined % member_channels;
    const bool is_bias = tile == GRADIENT_TILES - 1;
    const bool valid = active && output < layer.gradient.channels;
    const int taps = layer.full_window ? 9 : 1, tap = layer.full_window ? tile / 2 : tile / 2 - 4;
    const int channel =
        (job.source == 0 ? 0 : layer.input[0].channels) + member * input.channels + within;
    st_if(static_cast<A *>(layer.weight) +
              (int64_t{output} * layer.input_channels + channel) * taps + tap,
          sum,
          valid && !is_bias && tap >= 0 && tap < taps && within < input.channels &&
              joined < input.units * UNIT<T>);
    st_if(static_cast<A *>(layer.bias) + output, sum,
          valid && is_bias && lane % 4 == 0 && value % 2 == 0 && job.source == 0 &&
              job.channel == 0);
}

} // namespace starlight::cuda

// A convolution as a product of matrices in tiles: pixels by input channels, from a tile with its
// halo in shared memory, times packed weights; two stages of asynchronous copies.
#pragma once

#include "epilogue.cuh"

namespace starlight::cuda
{

// How output pixels lie to input pixels. `unit_stride` has 3x3 and 1x1 sources. `transposed` is the
// gradient of `strided` with respect to its input: of the four parities of an output pixel, each
// has its own one, two or four taps, and is a plane of its own in the grid.
enum class Geometry { unit_stride, strided, transposed };

struct ConvPlan {
    Source source[2];
    int sources;
    bool full_window[2];            // 3x3, else the centre alone
    const unsigned char *packed[4]; // of a parity; others have the first
    int64_t group_bytes[4];         // from a group of outputs to the next
    ChannelParameters parameters;
    bool relu;
    Source residual, mask; // as the output; no data: none. Zero where mask <= 0
    Target target;
    int tiles_y, tiles_x; // of one image
};

constexpr int CONV_WARPS = 8, CONV_THREADS = CONV_WARPS * WARP;
constexpr int CONV_STAGE_UNITS = 2;

template <class T, Geometry G, int Tiles> struct ConvShape {
    static constexpr int STRIDE = G == Geometry::strided ? 2 : 1;
    static constexpr int TAPS = G == Geometry::transposed ? 2 : 3;
    static constexpr int ORIGIN = G == Geometry::transposed ? 0 : -1;
    static constexpr int ROWS = STRIDE == 1 ? 2 : 1; // of a warp
    static constexpr int TILE_ROWS = CONV_WARPS * ROWS;
    using Tile = HaloTile<TILE_ROWS, STRIDE, TAPS, CONV_STAGE_UNITS>;
    static constexpr int STAGE_BYTES =
        Tile::BYTES + CONV_STAGE_UNITS * TAPS * TAPS * Tiles * BLOCK_BYTES;
    static_assert((STAGE_BYTES - Tile::BYTES) % (WARP * UNIT_BYTES) == 0);
    static constexpr int PIPELINE_BYTES = 2 * STAGE_BYTES;
    static constexpr int STAGING_BYTES = CONV_WARPS * StagedRow<T, Tiles>::BYTES;
    static constexpr int SHARED_BYTES =
        PIPELINE_BYTES > STAGING_BYTES ? PIPELINE_BYTES : STAGING_BYTES;
};

STARLIGHT_DEVICE int conv_stages(const Source &source)
{
    return (source.units + CONV_STAGE_UNITS - 1) / CONV_STAGE_UNITS;
}

// A stage's part of the plan.
struct ConvStage {
    int source, unit, units;

    STARLIGHT_DEVICE ConvStage(const ConvPlan &plan, int stage)
    {
        const int first = conv_stages(plan.source[0]);
        source = stage < first ? 0 : 1;
        unit = (stage - source * first) * CONV_STAGE_UNITS;
        units = min(CONV_STAGE_UNITS, plan.source[source].units - unit);
    }
};

// Where a block's tile lies in the grid.
struct ConvPlace {
    int64_t image;
    int first_y, first_x, group, parity_y, parity_x;

    STARLIGHT_DEVICE ConvPlace(const ConvPlan &plan, int tile_rows)
    {
        const int64_t tile = blockIdx.x;
        image = tile / (int64_t{plan.tiles_y} * plan.tiles_x);
        const int in_image = static_cast<int>(tile - image * plan.tiles_y * plan.tiles_x);
        first_y = in_image / plan.tiles_x * tile_rows;
        first_x = in_image % plan.tiles_x * TILE_PIXELS;
        group = static_cast<int>(blockIdx.y);
        parity_y = static_cast<int>(blockIdx.z) / 2;
        parity_x = static_cast<int>(blockIdx.z) % 2;
    }
};

// Starts the copies of a stage's pixels and of its `bytes` of weights.
template <class T, class Shape>
STARLIGHT_DEVICE void copy_stage(unsigned char *to, const ConvPlan &plan, const ConvPlace &place,
                                 const ConvStage &stage, const unsigned char *weights, int bytes)
{
    const Source &source = plan.source[stage.source];
    const bool full = plan.full_window[stage.source];
    Shape::Tile::template copy<T, CONV_THREADS>(
        to, source, place.image, place.first_y * Shape::STRIDE + Shape::ORIGIN,
        place.first_x * Shape::STRIDE + Shape::ORIGIN, stage.unit, stage.units,
        [full](int row, int column) {
            return full ||
                   (row > 0 && row <= Shape::TILE_ROWS && column > 0 && column <= TILE_PIXELS);
        });
    // Whole warps, with zeros behind what is there.
    unsigned char *const blocks = to + Shape::Tile::BYTES;
    constexpr int WARP_BYTES = WARP * UNIT_BYTES;
    const int copied = (bytes + WARP_BYTES - 1) / WARP_BYTES * WARP_BYTES;
    for (int i = static_cast<int>(threadIdx.x) * UNIT_BYTES; i < copied;
         i += CONV_THREADS * UNIT_BYTES)
        cp_async16(blocks + i, weights + i, i < bytes);
}

// A stage's products with a window of TapsY x TapsX, whose first tap is at (first, first) of the
// tile with its halo.
template <class T, class Shape, int TapsY, int TapsX, int Tiles>
STARLIGHT_DEVICE void multiply_stage(Accumulator<T> (&d)[Shape::ROWS][Tiles][4],
                                     const unsigned char *pixels, int first, int units)
{
    int rows[INPUT_ROWS<Shape::ROWS, Shape::STRIDE, TapsY>];
#pragma unroll
    for (int j = 0; j < INPUT_ROWS<Shape::ROWS, Shape::STRIDE, TapsY>; j++)
        rows[j] = (warp_index() * Shape::ROWS * Shape::STRIDE + first + j) * Shape::Tile::ROW_BYTES;
    accumulate<T, Shape::ROWS, Shape::STRIDE, TapsY, TapsX, Tiles>(
        d, pixels, rows, PixelOrder(CONV_STAGE_UNITS), first, units, pixels + Shape::Tile::BYTES);
}

// The same with the window that a stage has: 3x3 or the centre, or that of a parity.
template <class T, class Shape, Geometry G, int Tiles>
STARLIGHT_DEVICE void multiply_window(Accumulator<T> (&d)[Shape::ROWS][Tiles][4],
                                      const unsigned char *pixels, bool full, int parity, int units)
{
    if constexpr (G == Geometry::transposed) {
        if (parity == 0)
            multiply_stage<T, Shape, 1, 1, Tiles>(d, pixels, 0, units);
        else if (parity == 1)
            multiply_stage<T, Shape, 1, 2, Tiles>(d, pixels, 0, units);
        else if (parity == 2)
            multiply_stage<T, Shape, 2, 1, Tiles>(d, pixels, 0, units);
        else
            multiply_stage<T, Shape, 2, 2, Tiles>(d, pixels, 0, units);
    } else if (G == Geometry::strided || full) {
        multiply_stage<T, Shape, 3, 3, Tiles>(d, pixels, 0, units);
    } else if constexpr (G == Geometry::unit_stride) {
        multiply_stage<T, Shape, 1, 1, Tiles>(d, pixels, 1, units);
    }
}

// Bias, residual or ReLU, mask, and the output.
template <class T, class Shape, int Tiles>
STARLIGHT_DEVICE void finish_row(const Accumulator<T> (&d)[Tiles][4], unsigned char *staging,
                                 const ConvPlan &plan, const Target &target, const ConvPlace &place,
                                 int y, const StagedParameters<T> &parameters)
{
    using P = Packet<T, UNIT<T>>;
    hand_on<T, Tiles>(
        d, staging, [&](int pixel, int channel, Accumulator<T>(&values)[UNIT<T>], bool active) {
            const int x = place.first_x + pixel;
            const int output = place.group * Tiles * TILE_CHANNELS + channel;
            active = active && contains(target, y, x);
            const auto read = [&](const Source &image) {
                return load_unit<T>(pixel_address(image, place.image, y, x), output, image.channels,
                                    image.whole_units, active);
            };
            P result;
            if (plan.residual.data != nullptr)
                result = join<T>(values, parameters, channel, read(plan.residual));
            else
                result = activate<T>(values, parameters, channel, plan.relu);
            if (plan.mask.data != nullptr) {
                const P mask = read(plan.mask);
#pragma unroll
                for (int i = 0; i < UNIT<T>; i++)
                    if (Number<T>::widen(mask[i]) <= 0) result[i] = T{};
            }
            store_unit<T>(target, pixel_address(target, place.image, y, x), output, result, active);
        });
}

// grid: tiles of all images, groups of outputs, parities.
template <class T, Geometry G, int Tiles>
__global__ void __launch_bounds__(CONV_THREADS, sizeof(T) == 8 ? 1 : 2)
    convolve(const ConvPlan plan)
{
    using Shape = ConvShape<T, G, Tiles>;
    constexpr int CHANNELS = Tiles * TILE_CHANNELS;
    SHARED(unsigned char, channel_memory, [StagedParameters<T>::bytes(CHANNELS)]);
    unsigned char *const shared = dynamic_shared();
    const ConvPlace place(plan, Shape::TILE_ROWS);
    const int parity = static_cast<int>(blockIdx.z);
    const int window = G == Geometry::transposed ? (1 + place.parity_y) * (1 + place.parity_x) : 9;

    const StagedParameters<T> parameters(channel_memory, CHANNELS);
    parameters.fill(plan.parameters, place.group * CHANNELS, CHANNELS,
                    static_cast<int>(threadIdx.x), CONV_THREADS);

    const unsigned char *weights = plan.packed[parity] + place.group * plan.group_bytes[parity];
    const int stages =
        conv_stages(plan.source[0]) + (plan.sources == 2 ? conv_stages(plan.source[1]) : 0);
    const auto copy = [&](int index) {
        const ConvStage stage(plan, index);
        const int taps = plan.full_window[stage.source] ? window : 1;
        const int bytes = taps * stage.units * Tiles * BLOCK_BYTES;
        copy_stage<T, Shape>(shared + index % 2 * Shape::STAGE_BYTES, plan, place, stage, weights,
                             bytes);
        weights += bytes;
    };

    Accumulator<T> d[Shape::ROWS][Tiles][4] = {};
    copy(0);
    cp_async_commit();
#pragma unroll 1
    for (int index = 0; index < stages; index++) {
        if (index + 1 < stages) copy(index + 1);
        cp_async_commit();
        cp_async_wait<1>();
        __syncthreads();
        const ConvStage stage(plan, index);
        const unsigned char *const pixels = shared + index % 2 * Shape::STAGE_BYTES;
        const bool full = plan.full_window[stage.source];
        if constexpr (Math<T>::SUMS_IN_PARTS) {
            Accumulator<T> part[Shape::ROWS][Tiles][4] = {};
            multiply_window<T, Shape, G, Tiles>(part, pixels, full, parity, stage.units);
#pragma unroll
            for (int r = 0; r < Shape::ROWS; r++)
#pragma unroll
                for (int n = 0; n < Tiles; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        d[r][n][i] += part[r][n][i];
        } else {
            multiply_window<T, Shape, G, Tiles>(d, pixels, full, parity, stage.units);
        }
        __syncthreads();
    }
    cp_async_wait<0>();

    Target target = plan.target;
    if constexpr (G == Geometry::transposed) { // the pixels of this parity
        target.data += place.parity_y * target.row_stride + place.parity_x * target.pixel_stride;
        target.row_stride *= 2;
        target.pixel_stride *= 2;
        target.height = (target.height + 1 - place.parity_y) / 2;
        target.width = (target.width + 1 - place.parity_x) / 2;
    }
    unsigned char *const staging = shared + warp_index() * StagedRow<T, Tiles>::BYTES;
#pragma unroll
    for (int r = 0; r < Shape::ROWS; r++)
        finish_row<T, Shape, Tiles>(d[r], staging, plan, target, place,
                                    place.first_y + warp_index() * Shape::ROWS + r, parameters);
}

} // namespace starlight::cuda

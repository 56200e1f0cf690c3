// The dense block in one pass over the image: rows stream through shared memory.
//
// A block of threads owns a strip of STRIP_PIXELS columns and walks down a segment of rows, Rows of
// them a step. In shared memory stand the weights, a ring of rows of x and a ring of rows of out1
// and out2 side by side, so that joins are addresses. A step, with X the last row of x that is
// there:
//
//   conv1  rows X - Rows     .. X - 1     from x                to the ring
//   conv2  rows X - Rows - 1 .. X - 2     from x, out1          to the ring
//   conv3  rows X - Rows - 2 .. X - 3     from x, out1, out2    to the warp's own scratch
//   fuse   the same rows                  from all, plus x      to the image
//
// and a barrier between one and the next. Meanwhile the next step's rows of x arrive. A warp owns
// 16 columns; three at either end of a strip are halo, as are three rows at either end of a
// segment. Where a pixel is an odd number of units, the halo has four columns: copies and stores
// then start at whole transactions of 32 bytes.
#pragma once

#include "epilogue.cuh"

namespace starlight::cuda
{

constexpr int STRIP_PIXELS = 64, HALO = 3;
constexpr int DENSE_WARPS = STRIP_PIXELS / TILE_PIXELS, DENSE_THREADS = DENSE_WARPS * WARP;
constexpr int RING_PIXELS = STRIP_PIXELS + 2; // a pixel at either end that only zeros reach

template <int Rows> constexpr int X_RING_ROWS = 2 * Rows + 4;
template <int Rows> constexpr int GROWTH_RING_ROWS = Rows + 3;

// Offsets in shared memory, in bytes.
struct DenseLayout {
    int x_ring, growth_ring; // from 0 to weights[0] all is zero at first
    int weights[4];          // of conv1, conv2, conv3, fuse
    int parameters, scratch, staging;
    int bytes;
};

struct DensePlan {
    Source x;
    Target out;
    const unsigned char *packed; // all weights, as they lie in shared memory
    int packed_bytes;
    ChannelParameters parameters[4];
    int growth_units; // of a member
    int out_channels; // of the fusing convolution, whole groups
    int strips, strip_halo, strip_outputs;
    int segments, segment_rows;
    DenseLayout layout;
};

template <class T, int Rows, int Tiles, int FuseTiles> struct DenseBlockKernel {
    using A = Accumulator<T>;
    static constexpr int GROUP = Tiles * TILE_CHANNELS, FUSE_GROUP = FuseTiles * TILE_CHANNELS;

    const DensePlan &plan;
    unsigned char *const shared;
    const PixelOrder x_order, growth_order, scratch_order;
    const int growth; // channels of a member, whole groups
    const int x_row_bytes, growth_row_bytes, scratch_row_bytes;
    const StagedParameters<T> parameters;
    int64_t image;
    int first_x, first_y; // of the strip's and the segment's outputs
    int rows;             // of the segment
    const int warp, lane;

    STARLIGHT_DEVICE DenseBlockKernel(const DensePlan &plan, unsigned char *shared)
        : plan(plan), shared(shared), x_order(plan.x.units), growth_order(2 * plan.growth_units),
          scratch_order(plan.growth_units), growth(plan.growth_units * UNIT<T>),
          x_row_bytes(RING_PIXELS * plan.x.units * UNIT_BYTES),
          growth_row_bytes(RING_PIXELS * 2 * plan.growth_units * UNIT_BYTES),
          scratch_row_bytes(TILE_PIXELS * plan.growth_units * UNIT_BYTES),
          parameters(shared + plan.layout.parameters, 3 * growth + plan.out_channels),
          warp(warp_index()), lane(lane_index())
    {
        const int64_t block = blockIdx.x;
        const int per_image = plan.strips * plan.segments;
        image = block / per_image;
        const int within = static_cast<int>(block - image * per_image);
        first_x = within % plan.strips * plan.strip_outputs;
        first_y = within / plan.strips * plan.segment_rows;
        rows = min(plan.segment_rows, plan.out.height - first_y);
    }

    // Rows count from 0, the first of x: row HALO is the segment's first output.
    STARLIGHT_DEVICE int image_y(int row) const { return first_y - HALO + row; }
    STARLIGHT_DEVICE int image_x(int column) const { return first_x - plan.strip_halo + column; }

    STARLIGHT_DEVICE int x_row(int row) const
    {
        constexpr int DEPTH = X_RING_ROWS<Rows>;
        return plan.layout.x_ring + (row + DEPTH) % DEPTH * x_row_bytes;
    }

    STARLIGHT_DEVICE int growth_row(int row) const
    {
        constexpr int DEPTH = GROWTH_RING_ROWS<Rows>;
        return plan.layout.growth_ring + (row + DEPTH) % DEPTH * growth_row_bytes;
    }

    STARLIGHT_DEVICE void start() const
    {
        const int thread = static_cast<int>(threadIdx.x);
        for (int i = thread * UNIT_BYTES; i < plan.layout.weights[0];
             i += DENSE_THREADS * UNIT_BYTES)
            st(shared + i, uint4{});
        for (int i = thread * UNIT_BYTES; i < plan.layout.parameters - plan.layout.weights[0];
             i += DENSE_THREADS * UNIT_BYTES)
            cp_async16(shared + plan.layout.weights[0] + i, plan.packed + i, i < plan.packed_bytes);
        for (int k = 0; k < 4; k++)
            parameters.at(k * growth)
                .fill(plan.parameters[k], 0, k < 3 ? growth : plan.out_channels, thread,
                      DENSE_THREADS);
        __syncthreads();
    }

    // Starts the copies of rows first .. first + Rows - 1 of x.
    STARLIGHT_DEVICE void copy_rows(int first) const
    {
        const int units = plan.x.units;
        for (int r = 0; r < Rows; r++) {
            const int row = first + r, y = image_y(row);
            unsigned char *const to = shared + x_row(row);
            for (int i = static_cast<int>(threadIdx.x); i < STRIP_PIXELS * units;
                 i += DENSE_THREADS) {
                const int column = i / units, unit = i - column * units, x = image_x(column);
                copy_unit<T>(to + x_order.offset(column + 1, unit), plan.x, image, y, x, unit,
                             row < rows + 2 * HALO && contains(plan.x, y, x));
            }
        }
    }

    // The 3x3 sums of convolution k = 1, 2, 3 for a group of its outputs, from row `first` on.
    STARLIGHT_DEVICE void convolve(A (&d)[Rows][Tiles][4], int k, int group, int first) const
    {
        constexpr int UNIT_WEIGHTS = 9 * Tiles * BLOCK_BYTES;
        const int growth_units = (k - 1) * plan.growth_units;
        const unsigned char *const weights = shared + plan.layout.weights[k - 1] +
                                             group * (plan.x.units + growth_units) * UNIT_WEIGHTS;
        int offsets[Rows + 2];
#pragma unroll
        for (int j = 0; j < Rows + 2; j++)
            offsets[j] = x_row(first - 1 + j);
        accumulate<T, Rows, 1, 3, 3, Tiles>(d, shared, offsets, x_order, warp * TILE_PIXELS,
                                            plan.x.units, weights);
        if (k == 1) return;
#pragma unroll
        for (int j = 0; j < Rows + 2; j++)
            offsets[j] = growth_row(first - 1 + j);
        accumulate<T, Rows, 1, 3, 3, Tiles>(d, shared, offsets, growth_order, warp * TILE_PIXELS,
                                            growth_units, weights + plan.x.units * UNIT_WEIGHTS);
    }

    // Convolution k's activations of a group, zeros outside the image, to where `place(r, pixel,
    // channel)` points.
    template <class Place>
    STARLIGHT_DEVICE void keep(const A (&d)[Rows][Tiles][4], int k, int group, int first,
                               const Place &place) const
    {
#pragma unroll
        for (int n = 0; n < Tiles; n++) {
            const int channel = group * GROUP + n * TILE_CHANNELS + lane % 4 * 2;
#pragma unroll
            for (int r = 0; r < Rows; r++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const int pixel = lane / 4 + 8 * i;
                    const A sums[2] = {d[r][n][2 * i], d[r][n][2 * i + 1]};
                    Packet<T, 2> values =
                        activate<T>(sums, parameters, (k - 1) * growth + channel, true);
                    if (!contains(plan.x, image_y(first + r), image_x(warp * TILE_PIXELS + pixel)))
                        values = {};
                    st(place(r, pixel, channel / UNIT<T>) +
                           channel % UNIT<T> * static_cast<int>(sizeof(T)),
                       values);
                }
        }
    }

    // conv1 and conv2, into the ring.
    STARLIGHT_DEVICE void grow(int k, int first) const
    {
#pragma unroll 1
        for (int group = 0; group * GROUP < growth; group++) {
            A d[Rows][Tiles][4] = {};
            convolve(d, k, group, first);
            keep(d, k, group, first, [&](int r, int pixel, int unit) {
                return shared + growth_row(first + r) +
                       growth_order.offset(warp * TILE_PIXELS + 1 + pixel,
                                           (k - 1) * plan.growth_units + unit);
            });
        }
    }

    // conv3 and the fusing convolution, into the image.
    STARLIGHT_DEVICE void finish(int first) const
    {
        unsigned char *const scratch =
            shared + plan.layout.scratch + warp * Rows * scratch_row_bytes;
#pragma unroll 1
        for (int group = 0; group * GROUP < growth; group++) {
            A d[Rows][Tiles][4] = {};
            convolve(d, 3, group, first);
            keep(d, 3, group, first, [&](int r, int pixel, int unit) {
                return scratch + r * scratch_row_bytes + scratch_order.offset(pixel, unit);
            });
        }
        __syncwarp();
#pragma unroll 1
        for (int r = 0; r < Rows; r++)
            fuse_row(first + r, scratch + r * scratch_row_bytes);
    }

    STARLIGHT_DEVICE void fuse_row(int row, const unsigned char *out3) const
    {
        constexpr int UNIT_WEIGHTS = FuseTiles * BLOCK_BYTES;
        const int first_pixel = warp * TILE_PIXELS + 1, units = plan.x.units;
        const int x_offset[1] = {x_row(row)}, growth_offset[1] = {growth_row(row)}, here[1] = {0};
        const int y = image_y(row);
        const bool row_is_output = row >= HALO && row < HALO + rows;
        unsigned char *const staging =
            shared + plan.layout.staging + warp * StagedRow<T, FuseTiles>::BYTES;
        const unsigned char *weights = shared + plan.layout.weights[3];
#pragma unroll 1
        for (int begin = 0; begin < plan.out_channels; begin += FUSE_GROUP) {
            A d[1][FuseTiles][4] = {};
            accumulate<T, 1, 1, 1, 1, FuseTiles>(d, shared, x_offset, x_order, first_pixel, units,
                                                 weights);
            weights += units * UNIT_WEIGHTS;
            accumulate<T, 1, 1, 1, 1, FuseTiles>(d, shared, growth_offset, growth_order,
                                                 first_pixel, 2 * plan.growth_units, weights);
            weights += 2 * plan.growth_units * UNIT_WEIGHTS;
            accumulate<T, 1, 1, 1, 1, FuseTiles>(d, out3, here, scratch_order, 0, plan.growth_units,
                                                 weights);
            weights += plan.growth_units * UNIT_WEIGHTS;
            hand_on<T, FuseTiles>(
                d[0], staging, [&](int pixel, int within, A(&values)[UNIT<T>], bool active) {
                    const int column = warp * TILE_PIXELS + pixel, x = image_x(column);
                    const int channel = begin + within, unit = channel / UNIT<T>;
                    active = active && row_is_output && column >= plan.strip_halo &&
                             column < STRIP_PIXELS - plan.strip_halo && contains(plan.out, y, x) &&
                             unit < units;
                    const auto residual = ld_if<Packet<T, UNIT<T>>>(
                        shared + x_offset[0] + x_order.offset(column + 1, active ? unit : 0),
                        active);
                    store_unit<T>(plan.out, pixel_address(plan.out, image, y, x), channel,
                                  join<T>(values, parameters.at(3 * growth), channel, residual),
                                  active);
                });
        }
    }

    STARLIGHT_DEVICE void run() const
    {
        start();
        copy_rows(0);
        cp_async_commit();
        // `last`: of x, X in the picture above.
#pragma unroll 1
        for (int last = Rows - 1; last < rows + 2 * HALO + Rows - 1; last += Rows) {
            cp_async_wait<0>();
            __syncthreads();
            copy_rows(last + 1);
            cp_async_commit();
            if (last >= 2) grow(1, last - Rows);
            __syncthreads();
            if (last >= 4) grow(2, last - Rows - 1);
            __syncthreads();
            if (last >= 6) finish(last - Rows - 2);
        }
        cp_async_wait<0>();
    }
};

// grid: strips by segments of all images.
template <class T, int Rows, int Tiles, int FuseTiles>
__global__ void __launch_bounds__(DENSE_THREADS, 2) dense_block(const DensePlan plan)
{
    DenseBlockKernel<T, Rows, Tiles, FuseTiles>(plan, dynamic_shared()).run();
}

} // namespace starlight::cuda

// Images in global memory, pixels in shared memory, and the convolution of the one with weights.
#pragma once

#include "math.cuh"

namespace starlight::cuda
{

// Activations to be read: [images, height, width, channels] in one piece or in `members` of
// `channels` each, joined behind one another. Strides count bytes.
struct Source {
    const unsigned char *data;
    int64_t image_stride, row_stride, pixel_stride, member_stride;
    int height, width;
    int channels;     // of a member, those in memory
    int member_units; // of a member, those joined: beyond `channels` zeros
    int units;        // of all members
    bool whole_units; // 16-byte copies may be used: addresses and channels fit
};

// Activations to be written; `channels` those in memory.
struct Target {
    unsigned char *data;
    int64_t image_stride, row_stride, pixel_stride;
    int height, width;
    int channels;
    bool whole_units;
};

template <class Image>
STARLIGHT_DEVICE auto pixel_address(const Image &image, int64_t n, int64_t y, int64_t x)
    -> decltype(image.data)
{
    return image.data + n * image.image_stride + y * image.row_stride + x * image.pixel_stride;
}

template <class Image> STARLIGHT_DEVICE bool contains(const Image &image, int y, int x)
{
    return y >= 0 && y < image.height && x >= 0 && x < image.width;
}

// One unit of a pixel to shared memory, zeros where `inside` is false; part of the thread's next
// group of asynchronous copies.
template <class T>
STARLIGHT_DEVICE void copy_unit(unsigned char *to, const Source &from, int64_t n, int y, int x,
                                int unit, bool inside)
{
    const int member = unit / from.member_units;
    const int channel = (unit - member * from.member_units) * UNIT<T>;
    const unsigned char *const address = pixel_address(from, n, y, x) +
                                         member * from.member_stride +
                                         channel * static_cast<int>(sizeof(T));
    inside = inside && unit < from.units;
    if (from.whole_units) {
        cp_async16(to, address, inside);
        return;
    }
    Packet<T, UNIT<T>> values;
#pragma unroll
    for (int i = 0; i < UNIT<T>; i++)
        values[i] = ld_const_if<T>(address + i * sizeof(T), inside && channel + i < from.channels);
    st(to, values);
}

// A unit of global memory; what lies beyond `channels` is zero.
template <class T>
STARLIGHT_DEVICE Packet<T, UNIT<T>> load_unit(const unsigned char *pixel, int channel, int channels,
                                              bool whole_units, bool inside)
{
    const unsigned char *const address = pixel + channel * static_cast<int>(sizeof(T));
    if (whole_units) return ld_const_if<Packet<T, UNIT<T>>>(address, inside && channel < channels);
    Packet<T, UNIT<T>> values;
#pragma unroll
    for (int i = 0; i < UNIT<T>; i++)
        values[i] = ld_const_if<T>(address + i * sizeof(T), inside && channel + i < channels);
    return values;
}

template <class T>
STARLIGHT_DEVICE void store_unit(const Target &to, unsigned char *pixel, int channel,
                                 const Packet<T, UNIT<T>> &values, bool inside)
{
    unsigned char *const address = pixel + channel * static_cast<int>(sizeof(T));
    if (to.whole_units) {
        st_if(address, values, inside && channel < to.channels);
        return;
    }
#pragma unroll
    for (int i = 0; i < UNIT<T>; i++)
        st_if(address + i * sizeof(T), values[i], inside && channel + i < to.channels);
}

// Pixels side by side in shared memory, `units` of 16 bytes each, in an order in which the same
// unit of eight neighbours lies in different banks: the more often 2 divides `units`, the sooner
// neighbours would meet in a bank, and the more bits of a unit's number are turned with the pixel.
struct PixelOrder {
    int units, shift, mask;

    STARLIGHT_DEVICE explicit PixelOrder(int units) : units(units)
    {
        const int twos = min(__ffs(units) - 1, 3);
        shift = 3 - twos;
        mask = (1 << twos) - 1;
    }

    STARLIGHT_DEVICE int offset(int pixel, int unit) const
    {
        return (pixel * units + (unit ^ ((pixel >> shift) & mask))) * UNIT_BYTES;
    }
};

// ---- convolution

template <int Rows, int Stride, int TapsY> constexpr int INPUT_ROWS = (Rows - 1) * Stride + TapsY;

// Where column `x` of a tile lies in its row: with a stride of 2 all even columns before all odd
// ones, of which there are at most 17, and one place between them that keeps neighbours in
// different banks.
template <int Stride> STARLIGHT_DEVICE constexpr int place_of_column(int x)
{
    return Stride == 1 ? x : x % 2 * (TILE_PIXELS + 2) + x / 2;
}

// The input of `Rows` x TILE_PIXELS outputs in shared memory, of `Units` units a pixel.
template <int Rows, int Stride, int Taps, int Units> struct HaloTile {
    static constexpr int HEIGHT = INPUT_ROWS<Rows, Stride, Taps>;
    static constexpr int WIDTH = INPUT_ROWS<TILE_PIXELS, Stride, Taps>;
    static constexpr int ROW_PIXELS = Stride == 1 ? WIDTH : 2 * TILE_PIXELS + 3;
    static constexpr int ROW_BYTES = ROW_PIXELS * Units * UNIT_BYTES;
    // Whole warps copy; what they copy too much are zeros behind the tile. With a stride of 2 a
    // row has an even number of columns, the last of them surplus.
    static constexpr int COLUMNS = Stride == 1 ? WIDTH : WIDTH + 1;
    static constexpr int NEEDED = HEIGHT * COLUMNS * Units;
    static constexpr int COPIES = (NEEDED + WARP - 1) / WARP * WARP;
    static constexpr int BYTES = HEIGHT * ROW_BYTES + (COPIES - NEEDED) * UNIT_BYTES;

    // Starts the copies of units first_unit .. of image n, from row y and column x on; zeros where
    // `in_tile(row, column)` is false or `units` are exceeded.
    template <class T, int Threads, class InTile>
    static STARLIGHT_DEVICE void copy(unsigned char *to, const Source &from, int64_t n, int y,
                                      int x, int first_unit, int units, const InTile &in_tile)
    {
        const PixelOrder order(Units);
#pragma unroll 1
        for (int i = static_cast<int>(threadIdx.x); i < COPIES; i += Threads) {
            const int unit = i % Units, pixel = i / Units;
            const int row = pixel / COLUMNS, column = pixel % COLUMNS;
            const int offset =
                i < NEEDED ? row * ROW_BYTES + order.offset(place_of_column<Stride>(column), unit)
                           : HEIGHT * ROW_BYTES + (i - NEEDED) * UNIT_BYTES;
            copy_unit<T>(to + offset, from, n, y + row, x + column, first_unit + unit,
                         i < NEEDED && column < WIDTH && unit < units && in_tile(row, column) &&
                             contains(from, y + row, x + column));
        }
    }
};

// d[r][n] += taps over units `unit` .. `unit + Units - 1`, for Rows rows of a warp's tile and Tiles
// times TILE_CHANNELS outputs. rows[] are byte offsets of the input rows, of which output row r
// reads r * Stride and the following; `weights` starts with the blocks of `unit`: [tx][ty][n].
template <class T, int Units, int Rows, int Stride, int TapsY, int TapsX, int Tiles>
STARLIGHT_DEVICE void
accumulate_step(Accumulator<T> (&d)[Rows][Tiles][4], const unsigned char *pixels,
                const int (&rows)[INPUT_ROWS<Rows, Stride, TapsY>], const PixelOrder &order,
                int first_pixel, int unit, const unsigned char *weights)
{
    using M = Math<T>;
#pragma unroll
    for (int tx = 0; tx < TapsX; tx++) {
        int offsets[M::A_POINTERS];
#pragma unroll
        for (int i = 0; i < M::A_POINTERS; i++)
            offsets[i] = order.offset(first_pixel + place_of_column<Stride>(tx) + M::pixel(i),
                                      unit + M::template unit<Units>());
        typename M::template Pixels<Units> a[INPUT_ROWS<Rows, Stride, TapsY>];
#pragma unroll
        for (int j = 0; j < INPUT_ROWS<Rows, Stride, TapsY>; j++)
            M::load(a[j], pixels + rows[j], offsets);
#pragma unroll
        for (int ty = 0; ty < TapsY; ty++)
#pragma unroll
            for (int n = 0; n < Tiles; n++) {
                typename M::template Weights<Units> b;
                M::load(b, weights + ((tx * TapsY + ty) * Tiles + n) * Units * BLOCK_BYTES);
#pragma unroll
                for (int r = 0; r < Rows; r++)
                    M::multiply(d[r][n], a[r * Stride + ty], b);
            }
    }
}

// The same over units 0 .. units - 1.
template <class T, int Rows, int Stride, int TapsY, int TapsX, int Tiles>
STARLIGHT_DEVICE void accumulate(Accumulator<T> (&d)[Rows][Tiles][4], const unsigned char *pixels,
                                 const int (&rows)[INPUT_ROWS<Rows, Stride, TapsY>],
                                 const PixelOrder &order, int first_pixel, int units,
                                 const unsigned char *weights)
{
    constexpr int STEP = Math<T>::STEP_UNITS;
    constexpr int BYTES = TapsY * TapsX * Tiles * BLOCK_BYTES; // of a unit's weights
    int unit = 0;
#pragma unroll 1
    for (; unit + STEP <= units; unit += STEP)
        accumulate_step<T, STEP, Rows, Stride, TapsY, TapsX, Tiles>(
            d, pixels, rows, order, first_pixel, unit, weights + unit * BYTES);
    if constexpr (STEP == 2)
        if (unit < units)
            accumulate_step<T, 1, Rows, Stride, TapsY, TapsX, Tiles>(
                d, pixels, rows, order, first_pixel, unit, weights + unit * BYTES);
}

// ---- from accumulators to units

// Accumulators of a warp's row of pixels in shared memory: [pixel][channel], where tiles are turned
// with the pixel so that those of the pixels that one cycle touches lie in different banks.
template <class T, int Tiles> struct StagedRow {
    using A = Accumulator<T>;
    static constexpr int TILE_BYTES = TILE_CHANNELS * static_cast<int>(sizeof(A));
    static constexpr int PIXEL_BYTES = Tiles * TILE_BYTES, BYTES = TILE_PIXELS * PIXEL_BYTES;
    static constexpr int PER_CYCLE = 128 / TILE_BYTES; // tiles
    static constexpr int TURNS = Tiles < PER_CYCLE ? Tiles : PER_CYCLE;
    static_assert((Tiles & (Tiles - 1)) == 0, "Tiles must be a power of 2");

    static STARLIGHT_DEVICE int offset(int pixel, int channel)
    {
        const int turn = pixel / (PER_CYCLE / TURNS) % TURNS;
        return pixel * PIXEL_BYTES + (channel / TILE_CHANNELS ^ turn) * TILE_BYTES +
               channel % TILE_CHANNELS * static_cast<int>(sizeof(A));
    }
};

// Hands a row of a warp's tile on, unit by unit, so that neighbouring lanes hold neighbouring
// memory: finish(pixel, channel, Accumulator<T> (&values)[UNIT<T>], active). `staging` is the
// warp's own; all lanes call, and `finish` too, those without a unit with active = false.
template <class T, int Tiles, class Finish>
STARLIGHT_DEVICE void hand_on(const Accumulator<T> (&d)[Tiles][4], unsigned char *staging,
                              const Finish &finish)
{
    using A = Accumulator<T>;
    using Row = StagedRow<T, Tiles>;
    constexpr int PER_PIXEL = Tiles * TILE_CHANNELS / UNIT<T>;
    static_assert(PER_PIXEL * UNIT<T> == Tiles * TILE_CHANNELS, "a unit is whole tiles or a part");
    constexpr int PART = UNIT_BYTES / static_cast<int>(sizeof(A)); // of a load
    constexpr int PARTS = UNIT<T> / PART;
    const int lane = lane_index();
#pragma unroll
    for (int n = 0; n < Tiles; n++)
#pragma unroll
        for (int i = 0; i < 2; i++)
            st(staging + Row::offset(lane / 4 + 8 * i, n * TILE_CHANNELS + lane % 4 * 2),
               Packet<A, 2>{{d[n][2 * i], d[n][2 * i + 1]}});
    __syncwarp();
#pragma unroll
    for (int first = 0; first < TILE_PIXELS * PER_PIXEL; first += WARP) {
        const int item = first + lane;
        const bool active = item < TILE_PIXELS * PER_PIXEL;
        const int pixel = item / PER_PIXEL, channel = item % PER_PIXEL * UNIT<T>;
        Packet<A, PART> parts[PARTS];
#pragma unroll
        for (int i = 0; i < PARTS; i++) { // neighbours in other order, for other banks
            const int part = PARTS == 1 ? 0 : i ^ (item >> 2 & 1);
            parts[i] =
                ld_if<Packet<A, PART>>(staging + Row::offset(pixel, channel + part * PART), active);
        }
        A values[UNIT<T>];
#pragma unroll
        for (int i = 0; i < UNIT<T>; i++) {
            const int part = i / PART;
            values[i] = PARTS > 1 && (item >> 2 & 1) != 0 ? parts[part ^ (PARTS > 1)][i % PART]
                                                          : parts[part][i % PART];
        }
        finish(pixel, channel, values, active);
    }
    __syncwarp();
}

} // namespace starlight::cuda

// Multiply-accumulate by warps, one face for all element types: tensor cores for f16, bf16 and
// int8, plain multiply-adds for float and double.
//
// A warp's tile is 16 pixels by 8 channels. Whatever the type, lane holds of it
//   d[0], d[1]: pixel lane / 4,     channels 2 (lane % 4) and the next
//   d[2], d[3]: pixel lane / 4 + 8, the same channels
// which is the accumulator of the PTX ISA's m16n8.
//
// Input channels come in units of 16 bytes, the grain of every layout of these kernels. A step
// multiplies one or two units. Its weights are a block of 128 bytes a unit, in the order in which
// lanes take them (`BlockPlace`).
#pragma once

#include "launch.h"

namespace starlight::cuda
{

constexpr int WARP = 32;
constexpr int UNIT_BYTES = 16;
constexpr int TILE_PIXELS = 16, TILE_CHANNELS = 8;
// Of weights: of one unit of input channels, TILE_CHANNELS outputs, one tap.
constexpr int BLOCK_BYTES = UNIT_BYTES * TILE_CHANNELS;

template <class T> constexpr int UNIT = UNIT_BYTES / static_cast<int>(sizeof(T)); // channels

STARLIGHT_DEVICE int lane_index()
{
    return static_cast<int>(threadIdx.x) % WARP;
}

STARLIGHT_DEVICE int warp_index()
{
    return static_cast<int>(threadIdx.x) / WARP;
}

// What sums of products of T are held in, and the way there and back.
template <class T> struct Number {
    using Accumulator = float;
    using Parameter = float; // weights as the caller gives them
    static STARLIGHT_DEVICE float widen(T value) { return to_float(value); }
    static STARLIGHT_DEVICE T narrow(float value) { return from_float<T>(value); }
};

template <> struct Number<double> {
    using Accumulator = double;
    using Parameter = double;
    static STARLIGHT_DEVICE double widen(double value) { return value; }
    static STARLIGHT_DEVICE double narrow(double value) { return value; }
};

template <> struct Number<int8_t> {
    using Accumulator = int32_t;
    using Parameter = int8_t;
    static STARLIGHT_DEVICE int32_t widen(int8_t value) { return value; }
    static STARLIGHT_DEVICE int8_t narrow(int32_t value) { return static_cast<int8_t>(value); }
};

template <class T> using Accumulator = typename Number<T>::Accumulator;

// Where the value of a block lies: input channel `value` of `unit`, output channel `channel`.
struct BlockPlace {
    int unit, value, channel;
};

// ---- tensor cores

// The m16n8 instructions of a T, of 32 and of 16 bytes of channels.
STARLIGHT_DEVICE void mma(f16, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    mma_16x8x16<f16>(d, a, b);
}

STARLIGHT_DEVICE void mma(f16, float (&d)[4], const uint32_t (&a)[2], const uint32_t (&b)[1])
{
    mma_16x8x8<f16>(d, a, b);
}

STARLIGHT_DEVICE void mma(bf16, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    mma_16x8x16<bf16>(d, a, b);
}

STARLIGHT_DEVICE void mma(bf16, float (&d)[4], const uint32_t (&a)[2], const uint32_t (&b)[1])
{
    mma_16x8x8<bf16>(d, a, b);
}

STARLIGHT_DEVICE void mma(int8_t, int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    mma_16x8x32_s8(d, a, b);
}

STARLIGHT_DEVICE void mma(int8_t, int32_t (&d)[4], const uint32_t (&a)[2], const uint32_t (&b)[1])
{
    mma_16x8x16_s8(d, a, b);
}

template <class T> struct TensorMath {
    static constexpr int STEP_UNITS = 2; // at most
    static constexpr bool SUMS_IN_PARTS = false;
    static constexpr int A_POINTERS = 1; // what a lane gives to load its pixels

    template <int Units> struct Pixels {
        uint32_t r[2 * Units];
    };
    template <int Units> struct Weights {
        uint32_t r[Units];
    };

    // Pixel of the tile, and unit of the step, at which pointer `i` of this lane points.
    static STARLIGHT_DEVICE int pixel(int) { return lane_index() % 16; }
    template <int Units> static STARLIGHT_DEVICE int unit()
    {
        return Units == 2 ? lane_index() / 16 : 0;
    }

    template <int Units>
    static STARLIGHT_DEVICE void load(Pixels<Units> &a, const unsigned char *base,
                                      const int (&offsets)[A_POINTERS])
    {
        ldmatrix(a.r, base + offsets[0]);
    }

    template <int Units>
    static STARLIGHT_DEVICE void load(Weights<Units> &b, const unsigned char *block)
    {
        const auto words = ld<Packet<uint32_t, Units>>(block + lane_index() * (4 * Units));
        for (int i = 0; i < Units; i++)
            b.r[i] = words[i];
    }

    template <int Units>
    static STARLIGHT_DEVICE void multiply(Accumulator<T> (&d)[4], const Pixels<Units> &a,
                                          const Weights<Units> &b)
    {
        mma(T{}, d, a.r, b.r);
    }

    // Of value `index` of a block of `units`.
    static STARLIGHT_DEVICE BlockPlace place(int index, int units)
    {
        constexpr int PER_WORD = 4 / static_cast<int>(sizeof(T));
        const int word = index / PER_WORD, lane = word / units;
        return {word % units, lane % 4 * PER_WORD + index % PER_WORD, lane / 4};
    }

    // ---- sums over pixels: outputs are 16 channels of one image by 8 of another

    static constexpr int STEP_PIXELS = 16;

    struct Rows { // 16 channels of STEP_PIXELS pixels
        uint32_t r[4];
    };
    struct Columns { // 8 channels of them
        uint32_t r[2];
    };

    // `at(pixel, channel)` is an address; channels 0..15 of pixels 0..15.
    template <class At> static STARLIGHT_DEVICE void load(Rows &a, const At &at, int pixel)
    {
        const int lane = lane_index();
        ldmatrix_transposed(a.r, at(pixel + lane / 16 * 8 + lane % 8, lane / 8 % 2 * 8));
    }

    // Channels 0..7 and 8..15.
    template <class At> static STARLIGHT_DEVICE void load(Columns (&b)[2], const At &at, int pixel)
    {
        const int lane = lane_index();
        uint32_t r[4];
        ldmatrix_transposed(r, at(pixel + lane % 16, lane / 16 * 8));
        b[0] = {{r[0], r[1]}};
        b[1] = {{r[2], r[3]}};
    }

    static STARLIGHT_DEVICE Columns ones()
    {
        const uint32_t pair = pack<T>(1, 1);
        return {{pair, pair}};
    }

    static STARLIGHT_DEVICE void multiply(Accumulator<T> (&d)[4], const Rows &a, const Columns &b)
    {
        mma(T{}, d, a.r, b.r);
    }
};

// ---- plain multiply-adds

STARLIGHT_DEVICE float multiply_add(float a, float b, float sum)
{
    return fmaf(a, b, sum);
}

STARLIGHT_DEVICE double multiply_add(double a, double b, double sum)
{
    return fma(a, b, sum);
}

template <class T> struct PlainMath {
    static constexpr int STEP_UNITS = 1;
    // Long sums are added from parts: the rounding of one chain would grow with its length.
    static constexpr bool SUMS_IN_PARTS = sizeof(T) == 4;
    static constexpr int A_POINTERS = 2;

    template <int Units> struct Pixels {
        Packet<T, UNIT<T>> rows[2];
    };
    template <int Units> struct Weights {
        Packet<T, UNIT<T>> columns[2];
    };

    static STARLIGHT_DEVICE int pixel(int i) { return lane_index() / 4 + 8 * i; }
    template <int Units> static STARLIGHT_DEVICE int unit() { return 0; }

    template <int Units>
    static STARLIGHT_DEVICE void load(Pixels<Units> &a, const unsigned char *base,
                                      const int (&offsets)[A_POINTERS])
    {
        for (int i = 0; i < 2; i++)
            a.rows[i] = ld<Packet<T, UNIT<T>>>(base + offsets[i]);
    }

    template <int Units>
    static STARLIGHT_DEVICE void load(Weights<Units> &b, const unsigned char *block)
    {
        for (int i = 0; i < 2; i++)
            b.columns[i] = ld<Packet<T, UNIT<T>>>(block + (lane_index() % 4 * 2 + i) * UNIT_BYTES);
    }

    template <int Units>
    static STARLIGHT_DEVICE void multiply(T (&d)[4], const Pixels<Units> &a,
                                          const Weights<Units> &b)
    {
#pragma unroll
        for (int k = 0; k < UNIT<T>; k++)
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int j = 0; j < 2; j++)
                    d[2 * i + j] = multiply_add(a.rows[i][k], b.columns[j][k], d[2 * i + j]);
    }

    static STARLIGHT_DEVICE BlockPlace place(int index, int)
    {
        return {0, index % UNIT<T>, index / UNIT<T>};
    }

    static constexpr int STEP_PIXELS = sizeof(T) == 8 ? 1 : 4; // in registers

    struct Rows {
        T values[2][STEP_PIXELS];
    };
    struct Columns {
        Packet<T, 2> values[STEP_PIXELS];
    };

    template <class At> static STARLIGHT_DEVICE void load(Rows &a, const At &at, int pixel)
    {
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int k = 0; k < STEP_PIXELS; k++)
                a.values[i][k] = ld<T>(at(pixel + k, lane_index() / 4 + 8 * i));
    }

    template <class At> static STARLIGHT_DEVICE void load(Columns (&b)[2], const At &at, int pixel)
    {
#pragma unroll
        for (int j = 0; j < 2; j++)
#pragma unroll
            for (int k = 0; k < STEP_PIXELS; k++)
                b[j].values[k] = ld<Packet<T, 2>>(at(pixel + k, lane_index() % 4 * 2 + 8 * j));
    }

    static STARLIGHT_DEVICE Columns ones()
    {
        Columns b;
        for (int k = 0; k < STEP_PIXELS; k++)
            b.values[k] = {{T(1), T(1)}};
        return b;
    }

    static STARLIGHT_DEVICE void multiply(T (&d)[4], const Rows &a, const Columns &b)
    {
#pragma unroll
        for (int k = 0; k < STEP_PIXELS; k++)
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int j = 0; j < 2; j++)
                    d[2 * i + j] = multiply_add(a.values[i][k], b.values[k][j], d[2 * i + j]);
    }
};

template <class T> struct MathOf {
    using type = TensorMath<T>;
};
template <> struct MathOf<float> {
    using type = PlainMath<float>;
};
template <> struct MathOf<double> {
    using type = PlainMath<double>;
};
template <class T> using Math = typename MathOf<T>::type;

} // namespace starlight::cuda

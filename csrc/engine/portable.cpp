#include "intmath.h"
#include "isa.h"

#define SL_UNROLL
#include "rows.h"
#include "scaled_rows.h"

namespace starlight::engine
{
namespace
{

// Arrays of 16, for the compiler to make of what the target has.
struct Portable {
    struct Acc {
        int32_t lane[LANES];
    };
    struct Weights {
        const int8_t *bytes;
    };
    struct Input {
        int32_t byte[DOT];
    };
    using WideWeights = Weights;
    struct WideInput {
        int16_t word[DOT / 2];
    };
    static constexpr int PIXEL_BYTES = LANES;
    static constexpr int PIXELS[VECTORS_MAX + 1] = {0, 4, 4};
    static constexpr bool FUSED = false;
    static constexpr bool PAIRS = false;
    static constexpr bool QUARTETS = false;

    template <class Function> static Acc map(Function &&function)
    {
        Acc result;
        for (int i = 0; i < LANES; i++)
            result.lane[i] = function(i);
        return result;
    }
    // Sums wrap: corrections cancel modulo 2^32, and the true sum is proven to fit.
    static int32_t wrap(uint32_t value) { return static_cast<int32_t>(value); }
    static uint32_t bits(int32_t value) { return static_cast<uint32_t>(value); }

    static Acc load(const int32_t *from)
    {
        return map([=](int i) { return from[i]; });
    }
    static Acc all(int32_t value)
    {
        return map([=](int) { return value; });
    }
    static Weights load_weights(const int8_t *from) { return {from}; }
    static Input broadcast(const uint8_t *from) { return {{from[0], from[1], from[2], from[3]}}; }
    static Acc dot(const Acc &acc, const Input &input, const Weights &weights)
    {
        return map([&](int i) {
            const int8_t *w = weights.bytes + DOT * i;
            const int32_t sum = input.byte[0] * w[0] + input.byte[1] * w[1] + input.byte[2] * w[2] +
                                input.byte[3] * w[3];
            return wrap(bits(acc.lane[i]) + bits(sum));
        });
    }
    static Weights load_weights_wide(const int8_t *from) { return {from}; }
    static WideInput broadcast_wide(const uint8_t *from)
    {
        WideInput input;
        __builtin_memcpy(&input, from, sizeof input);
        return input;
    }
    static Acc dot_wide(const Acc &acc, const WideInput &input, const Weights &weights)
    {
        int16_t w[DOT / 2 * LANES];
        __builtin_memcpy(w, weights.bytes, sizeof w);
        return map([&](int i) {
            const int32_t sum = input.word[0] * w[2 * i] + input.word[1] * w[2 * i + 1];
            return wrap(bits(acc.lane[i]) + bits(sum));
        });
    }
    static void keep(int32_t *to, const Acc &acc) { __builtin_memcpy(to, acc.lane, sizeof acc); }
    static Acc add(const Acc &a, const Acc &b)
    {
        return map([&](int i) { return wrap(bits(a.lane[i]) + bits(b.lane[i])); });
    }
    static Acc subtract(const Acc &a, const Acc &b)
    {
        return map([&](int i) { return wrap(bits(a.lane[i]) - bits(b.lane[i])); });
    }
    static Acc shift_left(const Acc &a, const Acc &by)
    {
        return map([&](int i) { return wrap(bits(a.lane[i]) << by.lane[i]); });
    }
    static Acc shift_right(const Acc &a, const Acc &by)
    {
        return map([&](int i) { return sl_floor_shift32(a.lane[i], bits(by.lane[i])); });
    }
    static Acc at_least(const Acc &a, int32_t low)
    {
        return map([&](int i) { return a.lane[i] < low ? low : a.lane[i]; });
    }
    static Acc widen(const uint8_t *from)
    {
        return map([=](int i) { return int32_t{from[i]}; });
    }
    static void store(uint8_t *to, const Acc &acc, uint16_t mask)
    {
        for (int i = 0; i < LANES; i++)
            if (mask >> i & 1)
                to[i] = static_cast<uint8_t>(sl_clamp(acc.lane[i], -128, 127) + ZERO);
    }
};

} // namespace

const Kernels portable_kernels = {"portable", ZERO, Portable::PAIRS, any_row<Portable>,
                                  scaled_row<Portable>};

} // namespace starlight::engine

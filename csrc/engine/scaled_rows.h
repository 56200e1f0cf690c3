// The end of rows that leave the 8-bit dyadic way: 16 bits at either end, or multipliers. Plain
// loops over 16 lanes in 64 bits, for the compiler to make of what the set's flags allow.
#ifndef STARLIGHT_ENGINE_SCALED_ROWS_H
#define STARLIGHT_ENGINE_SCALED_ROWS_H

#include "kernels.h"

namespace starlight::engine
{

// How a map holds a value: the byte q + 128, or the int16 q.
template <bool WIDE> struct Held {
    using Value = uint8_t;
    static constexpr int32_t ZERO_AT = ZERO;
};
template <> struct Held<true> {
    using Value = int16_t;
    static constexpr int32_t ZERO_AT = 0;
};

// One vector of a row. `V` is there to make a function of each instruction set's own.
template <class V, bool WIDE_JOIN, bool WIDE_OUT>
void scaled_vector(const Row &row, const Ending &ending, int n)
{
    using Join = typename Held<WIDE_JOIN>::Value;
    using Out = typename Held<WIDE_OUT>::Value;
    const Scales &scales = ending.scales[n];
    const uint16_t mask = row.lanes[n].mask;
    const bool tail = row.epilogue == Epilogue::tail;
    const bool joins = !tail && row.join[n] != nullptr;
    const int64_t low = ending.low, high = ending.high;
    const int32_t *sums = row.sums + ptrdiff_t{n} * LANES;
    for (int x = 0; x < row.pixels; x++, sums += ptrdiff_t{row.vectors} * LANES) {
        const ptrdiff_t at = ptrdiff_t{x} * row.step;
        int64_t value[LANES];
        Join joined[LANES];
        Out out[LANES];
        for (int i = 0; i < LANES; i++)
            value[i] = int64_t{sums[i]} * scales.multiplier[i];
        if (row.join[n] != nullptr)
            __builtin_memcpy(joined, row.join[n] + at * ptrdiff_t{sizeof(Join)}, sizeof joined);
        if (joins)
            for (int i = 0; i < LANES; i++)
                value[i] +=
                    int64_t{joined[i] - Held<WIDE_JOIN>::ZERO_AT} * scales.join_multiplier[i];
        for (int i = 0; i < LANES; i++)
            value[i] = static_cast<int64_t>((static_cast<uint64_t>(value[i]) + scales.offset[i]) >>
                                            scales.shift[i]) -
                       scales.back[i];
        if (tail)
            for (int i = 0; i < LANES; i++)
                value[i] = joined[i] - value[i];
        for (int i = 0; i < LANES; i++) {
            const int64_t least = value[i] < low ? low : value[i];
            const int64_t clamped = least > high ? high : least;
            out[i] = static_cast<Out>(clamped + (tail ? 0 : Held<WIDE_OUT>::ZERO_AT));
        }
        uint8_t *to = row.out[n] + at * ptrdiff_t{sizeof(Out)};
        if (mask == 0xFFFF)
            __builtin_memcpy(to, out, sizeof out);
        else
            for (int i = 0; i < LANES; i++)
                if (mask >> i & 1) __builtin_memcpy(to + i * sizeof(Out), out + i, sizeof(Out));
    }
}

template <class V> void scaled_row(const Row &row, const Ending &ending)
{
    for (int n = 0; n < row.vectors; n++)
        if (ending.wide_out)
            ending.wide_join ? scaled_vector<V, true, true>(row, ending, n)
                             : scaled_vector<V, false, true>(row, ending, n);
        else
            ending.wide_join ? scaled_vector<V, true, false>(row, ending, n)
                             : scaled_vector<V, false, false>(row, ending, n);
}

} // namespace starlight::engine

#endif

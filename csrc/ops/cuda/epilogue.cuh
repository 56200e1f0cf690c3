// From an accumulator to an activation: bias, joined residual, ReLU, and for int8 the one rounding
// of csrc/contract.
#pragma once

#include "intmath.h"
#include "tile.cuh"

namespace starlight::cuda
{

// Per output channel, `channels` long. Shifts are there for int8 alone, join_shifts where a
// residual joins.
struct ChannelParameters {
    const void *bias; // Accumulator<T>; may be null: zeros
    const int32_t *shifts, *join_shifts;
    int channels;
};

// The same in shared memory, zeros (a shift of 1) beyond `channels`.
template <class T> struct StagedParameters {
    Accumulator<T> *bias;
    int32_t *shifts, *join_shifts;

    static constexpr bool SHIFTS = sizeof(T) == 1;

    // For `count` channels, a multiple of 8.
    static STARLIGHT_DEVICE constexpr int bytes(int count)
    {
        return count * (static_cast<int>(sizeof(Accumulator<T>)) + (SHIFTS ? 8 : 0));
    }

    STARLIGHT_DEVICE StagedParameters(unsigned char *memory, int count)
    {
        bias = reinterpret_cast<Accumulator<T> *>(memory);
        shifts = reinterpret_cast<int32_t *>(bias + count);
        join_shifts = shifts + count;
    }

    // Those from `channel` on.
    STARLIGHT_DEVICE StagedParameters at(int channel) const
    {
        StagedParameters rest = *this;
        rest.bias += channel;
        rest.shifts += channel;
        rest.join_shifts += channel;
        return rest;
    }

    // Channels first .. first + count - 1; a barrier must follow.
    STARLIGHT_DEVICE void fill(const ChannelParameters &from, int first, int count, int thread,
                               int threads) const
    {
        using A = Accumulator<T>;
        for (int begin = 0; begin < count; begin += threads) {
            const int i = begin + thread, channel = first + i;
            const bool active = i < count, given = active && channel < from.channels;
            const A *const values = static_cast<const A *>(from.bias);
            st_if(bias + i, ld_const_if<A>(values + channel, given && values != nullptr), active);
            if constexpr (SHIFTS) {
                const int32_t shift = ld_const_if<int32_t>(from.shifts + channel, given);
                st_if(shifts + i, given ? shift : 1, active);
                st_if(join_shifts + i,
                      ld_const_if<int32_t>(from.join_shifts + channel,
                                           given && from.join_shifts != nullptr),
                      active);
            }
        }
    }
};

template <class A> STARLIGHT_DEVICE A rectified(A value)
{
    return value < A(0) ? A(0) : value; // NaN stays
}

// Channels `channel` and following of StagedParameters: sums to activations, in place of a ReLU
// after a convolution.
template <class T, int Count>
STARLIGHT_DEVICE Packet<T, Count> activate(const Accumulator<T> (&sums)[Count],
                                           const StagedParameters<T> &parameters, int channel,
                                           bool relu)
{
    using A = Accumulator<T>;
    constexpr int PART = Count < UNIT_BYTES / static_cast<int>(sizeof(A))
                             ? Count
                             : UNIT_BYTES / static_cast<int>(sizeof(A));
    Packet<T, Count> result;
#pragma unroll
    for (int i = 0; i < Count; i += PART) {
        const auto bias = ld<Packet<A, PART>>(parameters.bias + channel + i);
        Packet<int32_t, PART> shifts{};
        if constexpr (StagedParameters<T>::SHIFTS)
            shifts = ld<Packet<int32_t, PART>>(parameters.shifts + channel + i);
#pragma unroll
        for (int k = 0; k < PART; k++) {
            const A value = sums[i + k] + bias[k];
            if constexpr (StagedParameters<T>::SHIFTS) {
                const auto shift = static_cast<unsigned>(shifts[k]);
                result[i + k] =
                    relu ? sl_requantise_relu(value, shift) : sl_requantise(value, shift);
            } else {
                result[i + k] = Number<T>::narrow(relu ? rectified(value) : value);
            }
        }
    }
    return result;
}

// The same for a unit with a residual, and without ReLU.
template <class T>
STARLIGHT_DEVICE Packet<T, UNIT<T>> join(Accumulator<T> (&sums)[UNIT<T>],
                                         const StagedParameters<T> &parameters, int channel,
                                         const Packet<T, UNIT<T>> &residual)
{
    using A = Accumulator<T>;
    if constexpr (StagedParameters<T>::SHIFTS) {
#pragma unroll
        for (int i = 0; i < UNIT<T>; i += 4) {
            const auto shifts = ld<Packet<int32_t, 4>>(parameters.join_shifts + channel + i);
#pragma unroll
            for (int k = 0; k < 4; k++)
                sums[i + k] =
                    sl_join(sums[i + k], residual[i + k], static_cast<unsigned>(shifts[k]));
        }
        return activate<T>(sums, parameters, channel, false);
    } else {
        // x + (sum + bias): the residual is added last, to the rounded sum of the rest.
        constexpr int PART = UNIT_BYTES / static_cast<int>(sizeof(A));
        Packet<T, UNIT<T>> result;
#pragma unroll
        for (int i = 0; i < UNIT<T>; i += PART) {
            const auto bias = ld<Packet<A, PART>>(parameters.bias + channel + i);
#pragma unroll
            for (int k = 0; k < PART; k++)
                result[i + k] =
                    Number<T>::narrow(Number<T>::widen(residual[i + k]) + (sums[i + k] + bias[k]));
        }
        return result;
    }
}

} // namespace starlight::cuda

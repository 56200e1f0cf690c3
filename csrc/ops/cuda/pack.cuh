// Weights in the order in which the kernels read them: for every group of outputs, for every unit
// of input channels (steps of two where two are left), [tx][ty][tile of the group], a block each.
#pragma once

#include "math.cuh"

namespace starlight::cuda
{

// A tensor of weights as one member of a source sees it: value (output, channel, ty, tx) lies at
// first + output * output_stride + ..., in elements.
struct WeightMember {
    const void *weights;
    int64_t first;
    int output_stride, channel_stride, y_stride, x_stride;
};

struct WeightSource {
    WeightMember member[3];
    unsigned char *packed;   // of output group 0
    int64_t group_bytes;     // to the next group
    int channels;            // of a member
    int member_units, units; // as in Source
    int taps_y, taps_x;
    int outputs, tiles, groups;
};

constexpr int MOST_WEIGHT_SOURCES = 12;

struct PackPlan {
    WeightSource source[MOST_WEIGHT_SOURCES];
};

constexpr int PACK_THREADS = 256;

// grid.y: sources; grid.x: as many blocks as the largest of them needs.
template <class T> __global__ void __launch_bounds__(PACK_THREADS) pack_weights(const PackPlan plan)
{
    using M = Math<T>;
    using Parameter = typename Number<T>::Parameter;
    const WeightSource &source = plan.source[blockIdx.y];
    const int taps = source.taps_y * source.taps_x;
    const int unit_values = taps * source.tiles * TILE_CHANNELS * UNIT<T>;
    const int group_values = source.units * unit_values;
    const int64_t index = int64_t{blockIdx.x} * PACK_THREADS + threadIdx.x;
    const bool active = index < int64_t{group_values} * source.groups;
    const int group = active ? static_cast<int>(index / group_values) : 0;
    const int within_group = active ? static_cast<int>(index % group_values) : 0;

    const int step = within_group / (unit_values * M::STEP_UNITS);
    const int first_unit = step * M::STEP_UNITS;
    const int step_units = min(M::STEP_UNITS, source.units - first_unit);
    const int within_step = within_group - step * unit_values * M::STEP_UNITS;
    const int block_values = step_units * TILE_CHANNELS * UNIT<T>;
    const int block = within_step / block_values;
    const BlockPlace place = M::place(within_step % block_values, step_units);

    const int tap = block / source.tiles;
    const int output =
        (group * source.tiles + block % source.tiles) * TILE_CHANNELS + place.channel;
    const int unit = first_unit + place.unit;
    const int member = unit / source.member_units;
    const int channel = unit % source.member_units * UNIT<T> + place.value;
    const WeightMember &from = source.member[member];
    const Parameter value = ld_const_if<Parameter>(
        static_cast<const Parameter *>(from.weights) + from.first +
            int64_t{output} * from.output_stride + int64_t{channel} * from.channel_stride +
            tap % source.taps_y * from.y_stride + tap / source.taps_y * from.x_stride,
        active && output < source.outputs && channel < source.channels);
    st_if(source.packed + group * source.group_bytes + within_group * static_cast<int>(sizeof(T)),
          Number<T>::narrow(value), active);
}

} // namespace starlight::cuda

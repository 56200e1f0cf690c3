// The host's side that both operators share: memory of a workspace, images as kernels see them,
// packing of weights, launches of convolutions and weight gradients.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "conv.cuh"
#include "kernel.h"
#include "pack.cuh"
#include "weight_gradient.cuh"

namespace starlight::cuda
{

constexpr int64_t ceil_divided(int64_t value, int64_t divisor)
{
    return (value + divisor - 1) / divisor;
}

constexpr int64_t round_up(int64_t value, int64_t multiple)
{
    return ceil_divided(value, multiple) * multiple;
}

// run.operator()<T>() for the type of an element that has gradients.
template <class Run> auto with_float_type(Element element, const Run &run)
{
    switch (element) {
    case Element::f32: return run.template operator()<float>();
    case Element::f16: return run.template operator()<f16>();
    case Element::bf16: return run.template operator()<bf16>();
    case Element::f64: return run.template operator()<double>();
    case Element::i8: break;
    }
    throw std::invalid_argument("CUDA kernels: element must be floating point here");
}

// The same for any element.
template <class Run> auto with_type(Element element, const Run &run)
{
    if (element == Element::i8) return run.template operator()<int8_t>();
    return with_float_type(element, run);
}

// Pieces of a workspace, one after another; without memory it only counts.
class Arena
{
public:
    explicit Arena(void *memory) : memory_(static_cast<unsigned char *>(memory)) {}

    unsigned char *take(int64_t bytes)
    {
        unsigned char *const piece = memory_ == nullptr ? nullptr : memory_ + used_;
        used_ += static_cast<size_t>(round_up(bytes, ALIGNMENT_BYTES));
        return piece;
    }

    size_t bytes() const { return used_; }

private:
    unsigned char *memory_;
    size_t used_ = 0;
};

inline unsigned grid_size(int64_t blocks, int64_t most, const char *what)
{
    if (blocks > most)
        throw std::runtime_error(std::string(what) + ": grid must have at most " +
                                 std::to_string(most) + " blocks, got " + std::to_string(blocks));
    return static_cast<unsigned>(blocks);
}

constexpr int64_t MOST_X = 2147483647, MOST_YZ = 65535;

// ---- images

struct Size {
    int64_t images;
    int height, width;

    int64_t pixels() const { return images * height * width; }
};

inline Size size_of(int64_t images, int64_t height, int64_t width)
{
    constexpr int64_t MOST = int64_t{1} << 30;
    if (height > MOST || width > MOST)
        throw std::runtime_error("CUDA kernels: height and width must be at most 2^30, got " +
                                 std::to_string(height) + " and " + std::to_string(width));
    return {images, static_cast<int>(height), static_cast<int>(width)};
}

// Whether every pixel of an image starts at 16 bytes and holds whole units.
template <class T, class View> bool whole_units(const View &image, int channels)
{
    const auto fits = [](int64_t elements) { return elements % UNIT<T> == 0; };
    return reinterpret_cast<uintptr_t>(image.data) % UNIT_BYTES == 0 && fits(channels) &&
           fits(image.image_stride) && fits(image.row_stride) && fits(image.pixel_stride);
}

template <class T> Source source_of(const ConstImage &image, Size size, int channels)
{
    const int units = static_cast<int>(ceil_divided(channels, UNIT<T>));
    const int64_t bytes = sizeof(T);
    return {static_cast<const unsigned char *>(image.data),
            image.image_stride * bytes,
            image.row_stride * bytes,
            image.pixel_stride * bytes,
            0,
            size.height,
            size.width,
            channels,
            units,
            units,
            whole_units<T>(image, channels)};
}

template <class T> Target target_of(const Image &image, Size size, int channels)
{
    const int64_t bytes = sizeof(T);
    return {static_cast<unsigned char *>(image.data),
            image.image_stride * bytes,
            image.row_stride * bytes,
            image.pixel_stride * bytes,
            size.height,
            size.width,
            channels,
            whole_units<T>(image, channels)};
}

// Images of `channels` in a workspace, one behind another, each pixel filled up to whole units and
// to whole tiles of outputs with zeros.
template <class T> class Members
{
public:
    Members(Arena &arena, Size size, int count, int channels)
        : size_(size), channels_(channels),
          units_(static_cast<int>(round_up(channels, std::max(TILE_CHANNELS, UNIT<T>)) / UNIT<T>)),
          data_(arena.take(count * bytes()))
    {
    }

    int units() const { return units_; }

    // Members first .. first + count - 1, joined.
    Source source(int first, int count) const
    {
        return {data_ + first * bytes(),
                pixel_bytes() * size_.width * size_.height,
                pixel_bytes() * size_.width,
                pixel_bytes(),
                bytes(),
                size_.height,
                size_.width,
                channels_,
                units_,
                units_ * count,
                true};
    }

    Target target(int member) const
    {
        return {data_ + member * bytes(),
                pixel_bytes() * size_.width * size_.height,
                pixel_bytes() * size_.width,
                pixel_bytes(),
                size_.height,
                size_.width,
                units_ * UNIT<T>,
                true};
    }

private:
    int64_t pixel_bytes() const { return int64_t{units_} * UNIT_BYTES; }
    int64_t bytes() const { return size_.pixels() * pixel_bytes(); }

    Size size_;
    int channels_, units_;
    unsigned char *data_;
};

// ---- weights

// Of one source of a convolution; `units` those of a member.
struct SourceWeights {
    std::vector<WeightMember> members;
    int channels, units, taps_y, taps_x;
};

struct PackedWeights {
    const unsigned char *data = nullptr;
    int64_t group_bytes = 0;
    int groups = 0;
};

// Packs the weights of many convolutions in one launch.
template <class T> class WeightPacker
{
public:
    // For `outputs` in groups of `tiles` tiles, the last filled up with zeros; sources lie one
    // behind another in a group.
    PackedWeights add(Arena &arena, int outputs, int tiles,
                      const std::vector<SourceWeights> &sources)
    {
        PackedWeights packed;
        packed.groups = static_cast<int>(ceil_divided(outputs, tiles * TILE_CHANNELS));
        for (const SourceWeights &source : sources)
            packed.group_bytes += source_bytes(source, tiles);
        unsigned char *data = arena.take(packed.group_bytes * packed.groups);
        packed.data = data;
        for (const SourceWeights &from : sources) {
            if (count_ == MOST_WEIGHT_SOURCES)
                throw std::logic_error("weights: sources must fit into one launch");
            WeightSource &source = plan_.source[count_++];
            std::copy(from.members.begin(), from.members.end(), source.member);
            source.packed = data;
            source.group_bytes = packed.group_bytes;
            source.channels = from.channels;
            source.member_units = from.units;
            source.units = from.units * static_cast<int>(from.members.size());
            source.taps_y = from.taps_y;
            source.taps_x = from.taps_x;
            source.outputs = outputs;
            source.tiles = tiles;
            source.groups = packed.groups;
            data += source_bytes(from, tiles);
            most_values_ = std::max(most_values_, source_bytes(from, tiles) * packed.groups /
                                                      static_cast<int64_t>(sizeof(T)));
        }
        return packed;
    }

    void launch_on(Stream stream) const
    {
        const unsigned blocks =
            grid_size(ceil_divided(most_values_, PACK_THREADS), MOST_X, "pack_weights");
        launch({"pack_weights", {blocks, static_cast<unsigned>(count_)}, {PACK_THREADS}, 0, stream},
               pack_weights<T>, plan_);
    }

private:
    static int64_t source_bytes(const SourceWeights &source, int tiles)
    {
        return int64_t{source.taps_y} * source.taps_x * tiles * BLOCK_BYTES * source.units *
               static_cast<int64_t>(source.members.size());
    }

    PackPlan plan_{};
    int count_ = 0;
    int64_t most_values_ = 0;
};

// ---- launches

// Tiles of outputs of a convolution's group; registers hold few of double, or of float and its
// parts.
template <class T> constexpr int conv_tiles(int outputs)
{
    return sizeof(Accumulator<T>) == 8 || Math<T>::SUMS_IN_PARTS || outputs <= 16 ? 2 : 4;
}

template <class T, Geometry G, int Tiles>
void launch_conv_tiles(const char *name, ConvPlan &plan, Size size, int groups, Stream stream)
{
    using Shape = ConvShape<T, G, Tiles>;
    plan.tiles_y = static_cast<int>(ceil_divided(size.height, Shape::TILE_ROWS));
    plan.tiles_x = static_cast<int>(ceil_divided(size.width, TILE_PIXELS));
    const unsigned tiles =
        grid_size(size.images * plan.tiles_y * plan.tiles_x, MOST_X, "convolution");
    launch({name,
            {tiles, grid_size(groups, MOST_YZ, "convolution"), G == Geometry::transposed ? 4u : 1u},
            {CONV_THREADS},
            Shape::SHARED_BYTES,
            stream},
           convolve<T, G, Tiles>, plan);
}

// `size`: of the output; of the input with a transposed one. `outputs` as the weights were packed.
template <class T, Geometry G>
void launch_conv(const char *name, ConvPlan plan, Size size, int outputs, Stream stream)
{
    const int groups =
        static_cast<int>(ceil_divided(outputs, conv_tiles<T>(outputs) * TILE_CHANNELS));
    if (conv_tiles<T>(outputs) == 2)
        launch_conv_tiles<T, G, 2>(name, plan, size, groups, stream);
    else if constexpr (conv_tiles<T>(17) == 4)
        launch_conv_tiles<T, G, 4>(name, plan, size, groups, stream);
}

// Blocks that a device is to have at least, where there is work for them.
inline int wanted_blocks(Stream stream)
{
    return 2 * limits(stream).multiprocessors;
}

// Sums gradients of weights and biases of the layers that were added.
template <class T, int Stride> class WeightGradients
{
public:
    // `size`: of the gradients. Layers come before `reserve`.
    explicit WeightGradients(Size size)
    {
        using Shape = GradientShape<T, Stride>;
        plan_.tiles_y = static_cast<int>(ceil_divided(size.height, Shape::TILE_ROWS));
        plan_.tiles_x = static_cast<int>(ceil_divided(size.width, TILE_PIXELS));
        plan_.tiles = size.images * plan_.tiles_y * plan_.tiles_x;
    }

    void add(const Source &gradient, const std::vector<Source> &inputs, bool full_window,
             int input_channels, void *weight, void *bias)
    {
        GradientLayer &layer = plan_.layer[plan_.layers++];
        layer.gradient = gradient;
        std::copy(inputs.begin(), inputs.end(), layer.input);
        layer.full_window = full_window;
        layer.first_job = plan_.jobs;
        layer.input_channels = input_channels;
        layer.weight = weight;
        layer.bias = bias;
        int blocks = 0;
        for (const Source &input : inputs)
            blocks += channel_blocks(input);
        plan_.jobs += blocks * channel_blocks(gradient);
    }

    void reserve(Arena &arena, Stream stream)
    {
        const int64_t splits = ceil_divided(wanted_blocks(stream), plan_.jobs);
        plan_.splits = static_cast<int>(std::max<int64_t>(1, std::min(splits, plan_.tiles)));
        plan_.partials =
            arena.take(int64_t{plan_.splits} * plan_.jobs * GradientShape<T, Stride>::SUM_BYTES);
    }

    void launch_on(Stream stream) const
    {
        const unsigned jobs = grid_size(plan_.jobs, MOST_YZ, "weight gradients");
        launch({"sum_weight_gradients",
                {static_cast<unsigned>(plan_.splits), jobs},
                {GRADIENT_THREADS},
                GradientShape<T, Stride>::SHARED_BYTES,
                stream},
               sum_weight_gradients<T, Stride>, plan_);
        launch({"add_weight_gradients",
                {ceil_divided(PARTIAL_VALUES, GRADIENT_THREADS), jobs},
                {GRADIENT_THREADS},
                0,
                stream},
               add_weight_gradients<T>, plan_);
    }

private:
    static int channel_blocks(const Source &source)
    {
        return static_cast<int>(ceil_divided(source.units * UNIT<T>, JOB_CHANNELS));
    }

    GradientPlan plan_{};
};

} // namespace starlight::cuda

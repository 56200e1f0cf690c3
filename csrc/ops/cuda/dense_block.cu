#include "dense_block.h"

#include "dense_block.cuh"
#include "plan.h"

namespace starlight::cuda
{

namespace
{

// The kernel of a growth: rows of a step and tiles of outputs that a warp holds in registers.
template <class T> struct DenseVariant {
    int rows, tiles;
    static constexpr int FUSE_TILES = sizeof(T) == 1 ? 4 : 2;

    explicit DenseVariant(int growth)
    {
        tiles = growth <= TILE_CHANNELS && sizeof(T) != 1 ? 1 : growth <= 2 * TILE_CHANNELS ? 2 : 4;
        rows = tiles == 4 || (tiles == 2 && sizeof(T) == 4) ? 2 : 4;
    }

    // run.operator()<Rows, Tiles>()
    template <class Run> void with(const Run &run) const
    {
        if constexpr (sizeof(T) == 1) {
            tiles == 2 ? run.template operator()<4, 2>() : run.template operator()<2, 4>();
        } else {
            constexpr int MIDDLE_ROWS = sizeof(T) == 4 ? 2 : 4;
            if (tiles == 1)
                run.template operator()<4, 1>();
            else if (tiles == 2)
                run.template operator()<MIDDLE_ROWS, 2>();
            else
                run.template operator()<2, 4>();
        }
    }
};

// Weights of the block as its convolutions see them, which read x and members of the growth.
template <class T> class BlockWeights
{
public:
    BlockWeights(const DenseBlock &block, const DenseBlockParameters &parameters, int growth_units)
        : m_(block.channels), g_(block.growth),
          x_units_(static_cast<int>(ceil_divided(m_, UNIT<T>))), growth_units_(growth_units),
          parameters_(parameters)
    {
    }

    // Convolution k = 0 .. 3 of the forward.
    std::vector<SourceWeights> forward(int k) const
    {
        const int taps = k < 3 ? 3 : 1, inputs = m_ + k * g_;
        const auto member = [&](int channel) {
            const int area = taps * taps;
            return WeightMember{
                parameters_.weight[k], int64_t{channel} * area, inputs * area, area, taps, 1};
        };
        std::vector<SourceWeights> sources = {{{member(0)}, m_, x_units_, taps, taps}};
        if (k == 0) return sources;
        sources.push_back({{}, g_, growth_units_, taps, taps});
        for (int j = 0; j < k; j++)
            sources[1].members.push_back(member(m_ + j * g_));
        return sources;
    }

    // The gradient of member `target` (0: x, k: out k): from the block's gradient through the
    // fusing convolution, and from those of out 3, out 2, .. target + 1 through theirs, mirrored.
    std::vector<SourceWeights> backward(int target) const
    {
        const int64_t first = target == 0 ? 0 : m_ + (target - 1) * g_;
        std::vector<SourceWeights> sources = {
            {{{parameters_.weight[3], first, 1, m_ + 3 * g_, 0, 0}}, m_, x_units_, 1, 1}};
        if (target == 3) return sources;
        sources.push_back({{}, g_, growth_units_, 3, 3});
        for (int k = 3; k > target; k--)
            sources[1].members.push_back(
                {parameters_.weight[k - 1], first * 9 + 8, 9, (m_ + (k - 1) * g_) * 9, -3, -1});
        return sources;
    }

private:
    int m_, g_, x_units_, growth_units_;
    const DenseBlockParameters &parameters_;
};

// ---- in one pass

template <class T> class OnePass
{
public:
    explicit OnePass(const DenseBlock &block)
        : block_(block), size_(size_of(block.images, block.height, block.width)),
          variant_(block.growth), x_units_(static_cast<int>(ceil_divided(block.channels, UNIT<T>)))
    {
        const int group = variant_.tiles * TILE_CHANNELS;
        growth_ = static_cast<int>(round_up(block.growth, group));
        growth_units_ = growth_ / UNIT<T>;
        out_channels_ =
            static_cast<int>(round_up(block.channels, DenseVariant<T>::FUSE_TILES * TILE_CHANNELS));
        layout_ = layout();
    }

    size_t shared_bytes() const { return static_cast<size_t>(layout_.bytes); }

    size_t forward(const ConstImage &x, const DenseBlockParameters &parameters, const Image &out,
                   void *workspace, Stream stream) const
    {
        Arena arena(workspace);
        WeightPacker<T> packer;
        const BlockWeights<T> weights(block_, parameters, growth_units_);
        DensePlan plan{};
        for (int k = 0; k < 4; k++) {
            const PackedWeights packed = packer.add(arena, k < 3 ? block_.growth : block_.channels,
                                                    tiles(k), weights.forward(k));
            if (k == 0) plan.packed = packed.data;
            plan.packed_bytes += static_cast<int>(packed.group_bytes * packed.groups);
        }
        if (workspace == nullptr || size_.pixels() == 0) return arena.bytes();
        packer.launch_on(stream);

        plan.x = source_of<T>(x, size_, block_.channels);
        plan.out = target_of<T>(out, size_, block_.channels);
        for (int k = 0; k < 4; k++)
            plan.parameters[k] = {parameters.bias[k], parameters.shift[k],
                                  k == 3 ? parameters.join_shift : nullptr,
                                  k < 3 ? block_.growth : block_.channels};
        plan.growth_units = growth_units_;
        plan.out_channels = out_channels_;
        plan.strip_halo = x_units_ % 2 == 0 ? HALO : HALO + 1;
        plan.strip_outputs = STRIP_PIXELS - 2 * plan.strip_halo;
        plan.strips = static_cast<int>(ceil_divided(size_.width, plan.strip_outputs));
        plan.segment_rows = segment_rows(plan.strips, stream);
        plan.segments = static_cast<int>(ceil_divided(size_.height, plan.segment_rows));
        plan.layout = layout_;
        const unsigned blocks =
            grid_size(size_.images * plan.strips * plan.segments, MOST_X, "dense_block");
        variant_.with([&]<int Rows, int Tiles>() {
            launch({"dense_block", {blocks}, {DENSE_THREADS}, shared_bytes(), stream},
                   dense_block<T, Rows, Tiles, DenseVariant<T>::FUSE_TILES>, plan);
        });
        return arena.bytes();
    }

private:
    int tiles(int k) const { return k < 3 ? variant_.tiles : DenseVariant<T>::FUSE_TILES; }

    DenseLayout layout() const
    {
        constexpr int WHOLE_WARPS = WARP * UNIT_BYTES;
        DenseLayout layout{};
        int64_t used = 0;
        const auto take = [&used](int64_t bytes, int64_t multiple) {
            const int64_t offset = used;
            used += round_up(bytes, multiple);
            if (used > int64_t{1} << 30) used = int64_t{1} << 30; // more than any device has
            return static_cast<int>(offset);
        };
        const int64_t ring_row = RING_PIXELS * UNIT_BYTES;
        layout.x_ring = take((2 * variant_.rows + 4) * ring_row * x_units_, UNIT_BYTES);
        layout.growth_ring = take((variant_.rows + 3) * ring_row * 2 * growth_units_, 1);
        used = round_up(used, WHOLE_WARPS); // so that whole warps fill and copy
        for (int k = 0; k < 4; k++) {
            const int outputs = k < 3 ? growth_ : out_channels_, taps = k < 3 ? 9 : 1;
            layout.weights[k] = take(int64_t{outputs} / TILE_CHANNELS * taps * BLOCK_BYTES *
                                         (x_units_ + k * growth_units_),
                                     BLOCK_BYTES);
        }
        used = round_up(used, WHOLE_WARPS);
        layout.parameters =
            take(StagedParameters<T>::bytes(3 * growth_ + out_channels_), UNIT_BYTES);
        layout.scratch =
            take(int64_t{DENSE_WARPS} * variant_.rows * TILE_PIXELS * growth_units_ * UNIT_BYTES,
                 UNIT_BYTES);
        layout.staging =
            take(DENSE_WARPS * StagedRow<T, DenseVariant<T>::FUSE_TILES>::BYTES, UNIT_BYTES);
        layout.bytes = static_cast<int>(used);
        return layout;
    }

    // Steps of a segment times turns of the device, at the least; a segment of few rows would read
    // its halo too often.
    int segment_rows(int strips, Stream stream) const
    {
        constexpr int LEAST_ROWS = 32;
        const int step = variant_.rows;
        const int64_t multiprocessors = limits(stream).multiprocessors;
        int best_rows = 0;
        int64_t best_cost = 0;
        for (int64_t steps = ceil_divided(LEAST_ROWS + 2 * HALO, step);; steps++) {
            const int64_t rows = steps * step - 2 * HALO;
            const int64_t blocks = size_.images * strips * ceil_divided(size_.height, rows);
            const int64_t cost = ceil_divided(blocks, multiprocessors) * steps;
            if (best_rows == 0 || cost < best_cost) {
                best_rows = static_cast<int>(rows);
                best_cost = cost;
            }
            if (rows >= size_.height) return best_rows;
        }
    }

    DenseBlock block_;
    Size size_;
    DenseVariant<T> variant_;
    int x_units_, growth_, growth_units_, out_channels_;
    DenseLayout layout_;
};

// ---- convolution by convolution

template <class T> class Layered
{
public:
    explicit Layered(const DenseBlock &block)
        : block_(block), size_(size_of(block.images, block.height, block.width))
    {
    }

    size_t forward(const ConstImage &x, const DenseBlockParameters &parameters, const Image &out,
                   void *workspace, Stream stream) const
    {
        Arena arena(workspace);
        WeightPacker<T> packer;
        const Members<T> members(arena, size_, 3, block_.growth);
        PackedWeights packed[4];
        pack_forward(arena, packer, parameters, members, packed, 4);
        if (workspace == nullptr || size_.pixels() == 0) return arena.bytes();
        packer.launch_on(stream);
        const Source input = source_of<T>(x, size_, block_.channels);
        grow(input, parameters, members, packed, stream);
        ConvPlan plan = plan_of(input, false, members, 0, 3, packed[3]);
        plan.full_window[1] = false;
        plan.parameters = {parameters.bias[3], parameters.shift[3], parameters.join_shift,
                           block_.channels};
        plan.residual = input;
        plan.target = target_of<T>(out, size_, block_.channels);
        launch_conv<T, Geometry::unit_stride>("dense_block_fuse", plan, size_, block_.channels,
                                              stream);
        return arena.bytes();
    }

    size_t backward(const ConstImage &x, const DenseBlockParameters &parameters,
                    const ConstImage &grad_out, const Image &grad_x,
                    const DenseBlockGradients &gradients, void *workspace, Stream stream) const
    {
        const int m = block_.channels, g = block_.growth;
        Arena arena(workspace);
        WeightPacker<T> packer;
        const Members<T> members(arena, size_, 3, g);          // out 1, 2, 3
        const Members<T> member_gradients(arena, size_, 3, g); // of out 3, 2, 1
        const BlockWeights<T> weights(block_, parameters, members.units());
        PackedWeights packed[3], mirrored[4]; // mirrored[k]: of member k
        pack_forward(arena, packer, parameters, members, packed, 3);
        for (int k = 3; k >= 0; k--) {
            const int outputs = k > 0 ? g : m;
            mirrored[k] = packer.add(arena, outputs, conv_tiles<T>(outputs), weights.backward(k));
        }
        const Source input = source_of<T>(x, size_, m), gradient = source_of<T>(grad_out, size_, m);
        WeightGradients<T, 1> weight_gradients(size_);
        for (int k = 0; k < 4; k++) {
            std::vector<Source> inputs = {input};
            if (k > 0) inputs.push_back(members.source(0, k));
            weight_gradients.add(k < 3 ? member_gradients.source(2 - k, 1) : gradient, inputs,
                                 k < 3, m + k * g, gradients.weight[k], gradients.bias[k]);
        }
        weight_gradients.reserve(arena, stream);
        if (workspace == nullptr) return arena.bytes();

        if (size_.pixels() == 0) {
            for (int k = 0; k < 4; k++) {
                const size_t outputs = static_cast<size_t>(k < 3 ? g : m), taps = k < 3 ? 9 : 1;
                set_zero(gradients.weight[k],
                         sizeof(Accumulator<T>) * outputs * taps * static_cast<size_t>(m + k * g),
                         stream);
                set_zero(gradients.bias[k], sizeof(Accumulator<T>) * outputs, stream);
            }
            return arena.bytes();
        }
        packer.launch_on(stream);
        grow(input, parameters, members, packed, stream);
        for (int k = 3; k >= 0; k--) {
            ConvPlan plan = plan_of(gradient, false, member_gradients, 0, 3 - k, mirrored[k]);
            if (k > 0) {
                plan.mask = members.source(k - 1, 1);
                plan.target = member_gradients.target(3 - k);
            } else {
                plan.residual = gradient;
                plan.target = target_of<T>(grad_x, size_, m);
            }
            launch_conv<T, Geometry::unit_stride>("dense_block_grad", plan, size_, k > 0 ? g : m,
                                                  stream);
        }
        weight_gradients.launch_on(stream);
        return arena.bytes();
    }

private:
    void pack_forward(Arena &arena, WeightPacker<T> &packer, const DenseBlockParameters &parameters,
                      const Members<T> &members, PackedWeights *packed, int count) const
    {
        const BlockWeights<T> weights(block_, parameters, members.units());
        for (int k = 0; k < count; k++) {
            const int outputs = k < 3 ? block_.growth : block_.channels;
            packed[k] = packer.add(arena, outputs, conv_tiles<T>(outputs), weights.forward(k));
        }
    }

    // A convolution of `first_source` and of joined members.
    static ConvPlan plan_of(const Source &first_source, bool full_window, const Members<T> &members,
                            int first, int count, const PackedWeights &packed)
    {
        ConvPlan plan{};
        plan.source[0] = first_source;
        plan.sources = count > 0 ? 2 : 1;
        plan.full_window[0] = full_window;
        plan.full_window[1] = true;
        if (count > 0) plan.source[1] = members.source(first, count);
        plan.packed[0] = packed.data;
        plan.group_bytes[0] = packed.group_bytes;
        return plan;
    }

    // out 1, 2 and 3.
    void grow(const Source &input, const DenseBlockParameters &parameters,
              const Members<T> &members, const PackedWeights *packed, Stream stream) const
    {
        for (int k = 0; k < 3; k++) {
            ConvPlan plan = plan_of(input, true, members, 0, k, packed[k]);
            plan.parameters = {parameters.bias[k], parameters.shift[k], nullptr, block_.growth};
            plan.relu = true;
            plan.target = members.target(k);
            launch_conv<T, Geometry::unit_stride>("dense_block_grow", plan, size_, block_.growth,
                                                  stream);
        }
    }

    DenseBlock block_;
    Size size_;
};

template <class T> bool fits(const DenseBlock &block, Stream stream)
{
    return sizeof(T) != 8 &&
           OnePass<T>(block).shared_bytes() <= limits(stream).shared_bytes_per_block;
}

template <class T>
size_t forward(const DenseBlock &block, const ConstImage &x, const DenseBlockParameters &parameters,
               const Image &out, void *workspace, Stream stream)
{
    if constexpr (sizeof(T) != 8)
        if (fits<T>(block, stream))
            return OnePass<T>(block).forward(x, parameters, out, workspace, stream);
    return Layered<T>(block).forward(x, parameters, out, workspace, stream);
}

} // namespace

bool dense_block_fits(const DenseBlock &block, void *stream)
{
    return with_type(block.element,
                     [&]<class T>() { return fits<T>(block, static_cast<Stream>(stream)); });
}

size_t dense_block_forward_workspace_bytes(const DenseBlock &block, void *stream)
{
    return with_type(block.element, [&]<class T>() {
        return forward<T>(block, {}, {}, {}, nullptr, static_cast<Stream>(stream));
    });
}

void dense_block_forward(const DenseBlock &block, const ConstImage &x,
                         const DenseBlockParameters &parameters, const Image &out, void *workspace,
                         void *stream)
{
    with_type(block.element, [&]<class T>() {
        return forward<T>(block, x, parameters, out, workspace, static_cast<Stream>(stream));
    });
}

size_t dense_block_backward_workspace_bytes(const DenseBlock &block, void *stream)
{
    return with_float_type(block.element, [&]<class T>() {
        return Layered<T>(block).backward({}, {}, {}, {}, {}, nullptr, static_cast<Stream>(stream));
    });
}

void dense_block_backward(const DenseBlock &block, const ConstImage &x,
                          const DenseBlockParameters &parameters, const ConstImage &grad_out,
                          const Image &grad_x, const DenseBlockGradients &gradients,
                          void *workspace, void *stream)
{
    with_float_type(block.element, [&]<class T>() {
        return Layered<T>(block).backward(x, parameters, grad_out, grad_x, gradients, workspace,
                                          static_cast<Stream>(stream));
    });
}

} // namespace starlight::cuda

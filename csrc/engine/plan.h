// A bundle made ready to run: weights packed for the kernels, layers gathered into steps.
#ifndef STARLIGHT_ENGINE_PLAN_H
#define STARLIGHT_ENGINE_PLAN_H

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "contract_constants.h"
#include "isa.h"
#include "starlight_runtime.h"

namespace starlight::engine
{

// Memory at a multiple of a cache line, zero to begin with.
template <class T> class Aligned
{
public:
    Aligned() = default;
    explicit Aligned(std::size_t count)
        : storage_(new std::uint8_t[count * sizeof(T) + ALIGNMENT]())
    {
        const auto place = reinterpret_cast<std::uintptr_t>(storage_.get());
        begin_ = reinterpret_cast<T *>(storage_.get() + (ALIGNMENT - place % ALIGNMENT));
    }
    T *data() const { return begin_; }
    T &operator[](std::size_t index) const { return begin_[index]; }

    static constexpr std::size_t ALIGNMENT = 64;

private:
    std::unique_ptr<std::uint8_t[]> storage_;
    T *begin_ = nullptr;
};

// Channels [first, end) of a buffer.
struct View {
    int buffer, first, end, level;
};

struct Buffer {
    int level;
    bool image;
    int value_bytes; // 1 or 2
    int blocks;      // of 16 channels, all of them
    int kept_blocks; // that lie in the frame's memory; the rest in the rings of a dense block
    int first_step, last_step;
};

// The vectors of a layer that one call of a kernel makes.
struct Unit {
    int vectors;
    bool pairs;
    int block;   // of the output buffer: vector n is block + n
    int quarter; // of UP: 2dy + dx; else 0
    Aligned<std::int8_t> weights;
    std::array<Lanes, VECTORS_MAX> lanes;
    std::array<Scales, VECTORS_MAX> scales; // of a scaled layer
};

struct Layer {
    std::string name;
    int op, taps, stride;
    bool relu, joins, tail;
    int in_bytes, join_bytes, out_bytes; // of a value
    bool scaled; // ends in 64 bits: multipliers, or 16 bits that join or leave
    View input, output,
        join; // the tail's output is the image that leaves, its join the one that came
    int first_dword, dwords; // of the input that its views touch, of DOT / in_bytes channels
    std::vector<Unit> units;
};

// Layers that run together: one, or the four of a dense block in rolling rows.
struct Step {
    int first_layer, layers;
};

constexpr int DENSE_LAYERS = 4;

struct Plan {
    sl_model model; // points into the bundle
    const Kernels *kernels;
    int grid;
    std::vector<Buffer> buffers;
    std::vector<Layer> layers;
    std::vector<Step> steps;
};

// Of a model that sl_open has accepted.
Plan make_plan(const sl_model &model, const Kernels &kernels);

} // namespace starlight::engine

#endif

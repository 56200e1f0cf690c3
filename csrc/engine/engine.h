// The engine: the integer network of a bundle, bit for bit, at the speed of the machine.
//
//     engine <- frame (memory of a run) <- plan (steps, packed weights) <- isa <- kernels
//
// Read-only once it is made, so threads share it: every run takes a frame of its size from a store,
// or makes one, and gives it back.
#ifndef STARLIGHT_ENGINE_H
#define STARLIGHT_ENGINE_H

#include "frame.h"

namespace starlight::engine
{

struct Image {
    const std::uint8_t *in;
    std::uint8_t *out;
    std::size_t in_stride, out_stride; // bytes from row to row of [height][width][3]
};

// Each layer's output, packed [h][w][C]: int8, or int16 little-endian; for the tail uint8 of the
// padded output.
using Trace = std::vector<std::uint8_t *>;

class Engine
{
public:
    // model: opened by sl_open; its bundle must outlive the engine.
    Engine(const sl_model &model, const Kernels &kernels) : plan_(make_plan(model, kernels)) {}

    const Plan &plan() const { return plan_; }

    // `trace` may be null. No heap work when a frame of this size is in store and trace is null.
    void run(const Image &image, Size size, const Trace *trace);
    std::size_t bytes(Size size) const { return Frame(plan_, size).bytes(); }

private:
    std::unique_ptr<Frame> take(Size size);
    void give_back(std::unique_ptr<Frame> frame);

    // Idle frames of at most this many sizes or runs at once are kept.
    static constexpr std::size_t STORE = 4;

    const Plan plan_;
    std::mutex mutex_;
    std::array<std::unique_ptr<Frame>, STORE> store_;
    std::size_t oldest_ = 0;
};

void run_step(const Plan &plan, Frame &frame, const Image &image, const Trace *trace,
              const Step &step);

// Run one frame from the first step to the last.
void run_frame(const Plan &plan, Frame &frame, const Image &image, const Trace *trace);

} // namespace starlight::engine

#endif

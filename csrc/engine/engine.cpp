#include "engine.h"

#include <utility>

namespace starlight::engine
{

std::unique_ptr<Frame> Engine::take(Size size)
{
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        for (std::unique_ptr<Frame> &frame : store_)
            if (frame != nullptr && frame->size == size) return std::move(frame);
    }
    return std::make_unique<Frame>(plan_, size);
}

void Engine::give_back(std::unique_ptr<Frame> frame)
{
    const std::lock_guard<std::mutex> lock(mutex_);
    for (std::unique_ptr<Frame> &place : store_)
        if (place == nullptr) {
            place = std::move(frame);
            return;
        }
    store_[oldest_] = std::move(frame);
    oldest_ = (oldest_ + 1) % STORE;
}

void Engine::run(const Image &image, Size size, const Trace *trace)
{
    std::unique_ptr<Frame> frame = take(size);
    run_frame(plan_, *frame, image, trace);
    give_back(std::move(frame));
}

} // namespace starlight::engine

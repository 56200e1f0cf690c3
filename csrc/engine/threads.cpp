#include "threads.h"

namespace starlight::engine
{
namespace
{

// A step's threads end within microseconds of each other: worth a look before sleeping.
constexpr int LOOKS = 2000;

void pause()
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

} // namespace

Threads::Threads(int count)
{
    try {
        for (int thread = 1; thread < count; thread++)
            others_.emplace_back([this, thread] { serve(thread); });
    } catch (const std::system_error &) {
        // The system gives no more threads: those that there are do all the work.
    }
}

Threads::~Threads()
{
    stop_ = true;
    announce();
    for (std::thread &thread : others_)
        thread.join();
}

template <class Condition> void Threads::await(Condition condition)
{
    for (int look = 0; look < LOOKS; look++) {
        if (condition()) return;
        pause();
    }
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, condition);
}

void Threads::announce()
{
    { // so that whoever found its condition false is asleep by now
        const std::lock_guard<std::mutex> lock(mutex_);
    }
    changed_.notify_all();
}

void Threads::take(int thread)
{
    for (int item; (item = next_.fetch_add(1)) < items_;)
        work_(context_, thread, item);
}

void Threads::serve(int thread)
{
    unsigned seen = 0;
    for (;;) {
        await([&] { return stop_ || job_ != seen; });
        if (stop_) return;
        seen = job_;
        take(thread);
        finished_++;
        announce();
    }
}

void Threads::run(int items, Work work, void *context)
{
    work_ = work;
    context_ = context;
    items_ = items;
    next_ = 0;
    finished_ = 0;
    job_++;
    if (!others_.empty()) announce();
    take(0);
    if (!others_.empty()) await([this] { return finished_ == static_cast<int>(others_.size()); });
}

} // namespace starlight::engine

#include "threads.h"

#if defined(__linux__)
#include <pthread.h>
#endif

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
#if defined(__linux__)
    if (pthread_getaffinity_np(pthread_self(), sizeof allowed_, &allowed_) != 0)
        CPU_ZERO(&allowed_);
#endif
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

// Linux wakes a thread where its waker runs when it takes the machine for busy, and there it waits
// for milliseconds. So the others keep off the caller's CPU, as of the last time that it moved.
void Threads::spread()
{
#if defined(__linux__)
    const int here = sched_getcpu();
    if (here == avoided_ || here < 0 || here >= CPU_SETSIZE) return;
    avoided_ = here;
    cpu_set_t elsewhere = allowed_;
    CPU_CLR(here, &elsewhere);
    if (CPU_COUNT(&elsewhere) == 0) return;
    for (std::thread &thread : others_)
        pthread_setaffinity_np(thread.native_handle(), sizeof elsewhere, &elsewhere);
#endif
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
    if (!others_.empty()) spread();
    job_++;
    if (!others_.empty()) announce();
    take(0);
    if (!others_.empty()) await([this] { return finished_ == static_cast<int>(others_.size()); });
}

} // namespace starlight::engine

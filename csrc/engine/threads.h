// Threads that take the items of one job after another; they belong to one run at a time.
#ifndef STARLIGHT_ENGINE_THREADS_H
#define STARLIGHT_ENGINE_THREADS_H

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

namespace starlight::engine
{

class Threads
{
public:
    // work(context, thread, item), thread in 0..count-1.
    using Work = void (*)(void *context, int thread, int item);

    explicit Threads(int count);
    ~Threads();
    Threads(const Threads &) = delete;
    Threads &operator=(const Threads &) = delete;

    int count() const { return static_cast<int>(others_.size()) + 1; }

    // Runs items 0..items-1, the caller among the workers; returns when all are done. No heap.
    void run(int items, Work work, void *context);

private:
    void spread();
    void take(int thread);
    void serve(int thread);
    template <class Condition> void await(Condition condition);
    void announce();

    std::vector<std::thread> others_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::atomic<unsigned> job_{0};
    std::atomic<int> next_{0}, finished_{0};
    std::atomic<bool> stop_{false};
#if defined(__linux__)
    cpu_set_t allowed_; // to whoever made these threads
    int avoided_ = -1;  // the CPU that the others leave to the caller
#endif
    int items_ = 0;
    Work work_ = nullptr;
    void *context_ = nullptr;
};

} // namespace starlight::engine

#endif

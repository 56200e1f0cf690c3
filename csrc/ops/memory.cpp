#include "memory.h"

#include <algorithm>
#include <cstdlib>
#include <list>
#include <mutex>
#include <new>
#include <string>

#include <c10/util/Exception.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace starlight::ops
{

namespace
{

constexpr size_t SMALL = size_t{64} << 10; // malloc keeps these by itself
constexpr size_t HUGE_PAGE = size_t{2} << 20;

struct Block {
    void *data;
    size_t capacity, used;
};

size_t first_limit()
{
    const char *text = std::getenv("STARLIGHT_KEPT_MB");
    if (text == nullptr) return size_t{1} << 30;
    const std::string digits = text;
    TORCH_CHECK_VALUE(!digits.empty() && digits.size() <= 9 &&
                          digits.find_first_not_of("0123456789") == std::string::npos,
                      "operators: STARLIGHT_KEPT_MB must be a whole number below 10^9, got ", text);
    return static_cast<size_t>(std::stoul(digits)) << 20;
}

void *from_system(size_t capacity)
{
    const bool huge = capacity >= 2 * HUGE_PAGE;
    void *data = std::aligned_alloc(huge ? HUGE_PAGE : 64, capacity);
#if defined(__linux__)
    if (data != nullptr && huge) madvise(data, capacity, MADV_HUGEPAGE); // a wish, not a need
#endif
    return data;
}

class KeptMemory final : public c10::Allocator
{
public:
    c10::DataPtr allocate(size_t bytes) override
    {
        const c10::Device cpu(c10::DeviceType::CPU);
        if (bytes == 0) return {nullptr, nullptr, &give_back, cpu};
        auto *const block = new Block(take(bytes));
        report(*block, 1);
        return {block->data, block, &give_back, cpu};
    }
    void copy_data(void *to, const void *from, size_t bytes) const override
    {
        default_copy_data(to, from, bytes);
    }

    int64_t kept() const
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        return static_cast<int64_t>(total_);
    }
    void shrink(size_t bytes)
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        shrink_locked(bytes);
    }
    void set_limit(size_t bytes)
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        limit_ = bytes;
        shrink_locked(limit_);
    }

private:
    // The smallest kept block that holds `bytes` and wastes at most a quarter of them.
    Block take(size_t bytes)
    {
        const size_t grain = bytes >= 2 * HUGE_PAGE ? HUGE_PAGE : 64;
        const size_t capacity = (bytes + grain - 1) / grain * grain;
        if (capacity >= SMALL) {
            const std::lock_guard<std::mutex> lock(mutex_);
            auto best = blocks_.end();
            for (auto block = blocks_.begin(); block != blocks_.end(); ++block)
                if (block->capacity >= capacity && block->capacity <= capacity + capacity / 4 &&
                    (best == blocks_.end() || block->capacity < best->capacity))
                    best = block;
            if (best != blocks_.end()) {
                const Block found{best->data, best->capacity, bytes};
                total_ -= found.capacity;
                blocks_.erase(best);
                return found;
            }
        }
        void *data = from_system(capacity);
        if (data == nullptr) {
            shrink(0);
            data = from_system(capacity);
        }
        TORCH_CHECK_WITH(OutOfMemoryError, data != nullptr, "operators: memory must suffice for ",
                         bytes, " bytes more, got none");
        return {data, capacity, bytes};
    }

    static void give_back(void *context)
    {
        auto &self = static_cast<KeptMemory &>(*kept_memory());
        const auto *const block = static_cast<Block *>(context);
        if (block == nullptr) return;
        self.report(*block, -1);
        self.keep(*block);
        delete block;
    }

    void keep(const Block &block)
    {
        if (block.capacity < SMALL) return std::free(block.data);
        const std::lock_guard<std::mutex> lock(mutex_);
        blocks_.push_front(block);
        total_ += block.capacity;
        shrink_locked(limit_);
    }

    void shrink_locked(size_t bytes)
    {
        while (total_ > bytes) {
            total_ -= blocks_.back().capacity;
            std::free(blocks_.back().data);
            blocks_.pop_back();
        }
    }

    // As torch's own allocator does, so that its profiler sees these tensors too.
    void report(const Block &block, int sign)
    {
        if (!c10::memoryProfilingEnabled()) return;
        c10::reportMemoryUsageToProfiler(block.data, sign * static_cast<int64_t>(block.used), 0, 0,
                                         c10::Device(c10::DeviceType::CPU));
    }

    mutable std::mutex mutex_;
    std::list<Block> blocks_; // the last given back first
    size_t total_ = 0, limit_ = first_limit();
};

KeptMemory &memory()
{
    static auto *memory = new KeptMemory; // never destroyed: tensors may outlive every static
    return *memory;
}

} // namespace

c10::Allocator *kept_memory()
{
    return &memory();
}

int64_t kept_bytes()
{
    return memory().kept();
}

void release_kept()
{
    memory().shrink(0);
}

void set_kept_limit(int64_t bytes)
{
    TORCH_CHECK_VALUE(bytes >= 0, "operators: limit of kept memory must be 0 or more, got ", bytes);
    memory().set_limit(static_cast<size_t>(bytes));
}

} // namespace starlight::ops

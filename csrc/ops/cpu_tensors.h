// What the operators of torch share on the CPU: instruction set, threads, memory, packed
// parameters.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <list>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include "kernel.h"
#include "memory.h"
#include "tensors.h"

namespace starlight::ops
{

inline constexpr std::pair<const char *, Isa> ISA_NAMES[] = {
    {"portable", Isa::portable}, {"avx2", Isa::avx2}, {"avx512", Isa::avx512}};

inline Isa choose_isa()
{
    const char *wanted = std::getenv("STARLIGHT_ISA");
    if (wanted == nullptr) return best_isa();
    for (const auto &[name, isa] : ISA_NAMES) {
        if (std::string(name) != wanted) continue;
        TORCH_CHECK_VALUE(isa_runs(isa),
                          "operators: STARLIGHT_ISA must name what this processor runs, got ",
                          wanted);
        return isa;
    }
    TORCH_CHECK_VALUE(false, "operators: STARLIGHT_ISA must be portable, avx2 or avx512, got ",
                      wanted);
}

inline Isa isa()
{
    static const Isa chosen = choose_isa(); // once: what was packed stays readable
    return chosen;
}

inline std::string isa_name()
{
    for (const auto &[name, candidate] : ISA_NAMES)
        if (candidate == isa()) return name;
    TORCH_CHECK(false, "operators: instruction set must have a name");
}

inline Element element_of(const Tensor &x)
{
    switch (x.scalar_type()) {
    case at::kFloat: return Element::f32;
    case at::kBFloat16: return Element::bf16;
    case at::kDouble: return Element::f64;
    default:
        TORCH_CHECK_TYPE(false, "operators: x must be float32, bfloat16 or float64, got ",
                         x.scalar_type());
    }
}

inline void run_on_torch_threads(void *, void (*work)(void *job, int worker), void *job)
{
    at::parallel_for(0, at::get_num_threads(), 1, [=](int64_t begin, int64_t end) {
        for (int64_t worker = begin; worker < end; worker++)
            work(job, static_cast<int>(worker));
    });
}

inline Pool torch_pool()
{
    return {at::get_num_threads(), run_on_torch_threads, nullptr};
}

// Uninitialised.
inline Tensor from_kept_memory(at::IntArrayRef shape, at::ScalarType type,
                               std::optional<at::MemoryFormat> format)
{
    return at::detail::empty_generic(shape, kept_memory(),
                                     c10::DispatchKeySet(c10::DispatchKey::CPU), type, format);
}

inline Tensor new_parameter(const Tensor &like)
{
    return from_kept_memory(like.sizes(), like.scalar_type(), std::nullopt);
}

inline Tensor bytes(size_t count)
{
    return from_kept_memory({static_cast<int64_t>(count)}, at::kByte, std::nullopt);
}

// Packed parameters, kept from call to call in inference mode alone (training changes them at every
// step). They are found again by comparing the parameters themselves: no change goes unseen.
class PackedCache
{
public:
    // `form` tells operators, and forms of one, apart.
    template <class Pack>
    Tensor find_or_pack(const char *form, const std::vector<Tensor> &parameters, Pack pack)
    {
        if (!c10::InferenceMode::is_enabled()) return pack();
        const std::lock_guard<std::mutex> lock(mutex_);
        for (auto entry = entries_.begin(); entry != entries_.end(); ++entry) {
            if (entry->form != form || !same(entry->parameters, parameters)) continue;
            entries_.splice(entries_.begin(), entries_, entry);
            return entry->packed;
        }
        Entry entry{form, {}, pack()};
        for (const Tensor &value : parameters)
            entry.parameters.push_back(value.clone());
        total_ += entry.bytes();
        entries_.push_front(entry);
        while (total_ > MOST_BYTES) {
            total_ -= entries_.back().bytes();
            entries_.pop_back();
        }
        return entry.packed;
    }

private:
    static constexpr size_t MOST_BYTES = size_t{256} << 20;

    struct Entry {
        std::string form;
        std::vector<Tensor> parameters;
        Tensor packed;

        size_t bytes() const
        {
            size_t sum = packed.nbytes();
            for (const Tensor &value : parameters)
                sum += value.nbytes();
            return sum;
        }
    };

    static bool same(const std::vector<Tensor> &a, const std::vector<Tensor> &b)
    {
        return std::equal(a.begin(), a.end(), b.begin(), [](const Tensor &x, const Tensor &y) {
            return x.scalar_type() == y.scalar_type() && x.sizes() == y.sizes() &&
                   std::memcmp(x.const_data_ptr(), y.const_data_ptr(), x.nbytes()) == 0;
        });
    }

    std::mutex mutex_;
    std::list<Entry> entries_; // the last used first
    size_t total_ = 0;
};

inline PackedCache &packed_cache()
{
    static auto *cache = new PackedCache; // never destroyed: torch's allocator may go first
    return *cache;
}

inline Tensor new_image(const Tensor &like, int64_t channels, int64_t height, int64_t width)
{
    return from_kept_memory({like.size(0), channels, height, width}, like.scalar_type(),
                            at::MemoryFormat::ChannelsLast);
}

// x with its channels side by side: itself where it can be read as it is.
inline Tensor readable(const Tensor &x)
{
    if (is_readable(x)) return x;
    return new_image(x, x.size(1), x.size(2), x.size(3)).copy_(x);
}

// Transforming the weights costs as much as some pixels gain. In inference mode they are kept, and
// a few tiles pay; more of them where many channels' weights come from beyond the core's own cache.
inline bool winograd_pays(const Tensor &x)
{
    const int64_t channels = x.size(1);
    const int64_t least =
        c10::InferenceMode::is_enabled() ? std::max<int64_t>(256, 4 * channels) : 4096;
    return x.numel() / channels >= least;
}

} // namespace starlight::ops

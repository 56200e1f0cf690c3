// Arm's dot product takes signed bytes: q + 128 becomes q by one exclusive or.
#include <arm_neon.h>

#include "isa.h"
#include "rows.h"
#include "scaled_rows.h"

namespace starlight::engine
{
namespace
{

struct NeonDot {
    struct Acc {
        int32x4_t part[4];
    };
    struct Weights {
        int8x16_t part[4];
    };
    using Input = int8x16_t;
    struct WideWeights {
        int16x8_t part[4];
    };
    using WideInput = int16x8_t;
    static constexpr int PIXEL_BYTES = LANES;
    static constexpr int PIXELS[VECTORS_MAX + 1] = {0, 6, 2};
    static constexpr bool FUSED = false;
    static constexpr bool PAIRS = false;
    static constexpr bool QUARTETS = false;

    template <class Function> static Acc map(Function &&function)
    {
        return {{function(0), function(1), function(2), function(3)}};
    }
    static Acc load(const int32_t *from)
    {
        return map([=](int i) { return vld1q_s32(from + 4 * i); });
    }
    static Acc all(int32_t value)
    {
        return map([=](int) { return vdupq_n_s32(value); });
    }
    static Weights load_weights(const int8_t *from)
    {
        return {{vld1q_s8(from), vld1q_s8(from + 16), vld1q_s8(from + 32), vld1q_s8(from + 48)}};
    }
    static Input broadcast(const uint8_t *from)
    {
        uint32_t dword;
        __builtin_memcpy(&dword, from, sizeof dword);
        return vreinterpretq_s8_u32(vdupq_n_u32(dword ^ 0x80808080u));
    }
    static Acc dot(Acc acc, Input input, Weights weights)
    {
        return map([&](int i) { return vdotq_s32(acc.part[i], weights.part[i], input); });
    }
    static WideWeights load_weights_wide(const int8_t *from)
    {
        const Weights bytes = load_weights(from);
        const auto words = [&](int i) { return vreinterpretq_s16_s8(bytes.part[i]); };
        return {{words(0), words(1), words(2), words(3)}};
    }
    static WideInput broadcast_wide(const uint8_t *from)
    {
        uint32_t dword;
        __builtin_memcpy(&dword, from, sizeof dword);
        return vreinterpretq_s16_u32(vdupq_n_u32(dword));
    }
    static Acc dot_wide(Acc acc, WideInput input, WideWeights weights)
    {
        return map([&](int i) {
            const int32x4_t low = vmull_s16(vget_low_s16(weights.part[i]), vget_low_s16(input));
            const int32x4_t high = vmull_high_s16(weights.part[i], input);
            return vaddq_s32(acc.part[i], vpaddq_s32(low, high));
        });
    }
    static void keep(int32_t *to, Acc acc)
    {
        for (int i = 0; i < 4; i++)
            vst1q_s32(to + 4 * i, acc.part[i]);
    }
    static Acc add(Acc a, Acc b)
    {
        return map([&](int i) { return vaddq_s32(a.part[i], b.part[i]); });
    }
    static Acc subtract(Acc a, Acc b)
    {
        return map([&](int i) { return vsubq_s32(a.part[i], b.part[i]); });
    }
    static Acc shift_left(Acc a, Acc by)
    {
        return map([&](int i) { return vshlq_s32(a.part[i], by.part[i]); });
    }
    static Acc shift_right(Acc a, Acc by)
    {
        return map([&](int i) { return vshlq_s32(a.part[i], vnegq_s32(by.part[i])); });
    }
    static Acc at_least(Acc a, int32_t low)
    {
        return map([&](int i) { return vmaxq_s32(a.part[i], vdupq_n_s32(low)); });
    }
    static Acc widen(const uint8_t *from)
    {
        const uint8x16_t bytes = vld1q_u8(from);
        const uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_u8(vget_high_u8(bytes));
        const auto wide = [](uint16x4_t words) { return vreinterpretq_s32_u32(vmovl_u16(words)); };
        return {{wide(vget_low_u16(low)), wide(vget_high_u16(low)), wide(vget_low_u16(high)),
                 wide(vget_high_u16(high))}};
    }
    static void store(uint8_t *to, Acc acc, uint16_t mask)
    {
        const auto words = [&](int i) {
            return vcombine_s16(vqmovn_s32(acc.part[i]), vqmovn_s32(acc.part[i + 1]));
        };
        const int8x16_t bytes = vcombine_s8(vqmovn_s16(words(0)), vqmovn_s16(words(2)));
        uint8x16_t stored = veorq_u8(vreinterpretq_u8_s8(bytes), vdupq_n_u8(ZERO));
        if (mask != 0xFFFF) {
            const uint8x16_t bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201ull));
            const uint8x16_t spread = vcombine_u8(vdup_n_u8(static_cast<uint8_t>(mask)),
                                                  vdup_n_u8(static_cast<uint8_t>(mask >> 8)));
            stored = vbslq_u8(vtstq_u8(spread, bit), stored, vld1q_u8(to));
        }
        vst1q_u8(to, stored);
    }
};

} // namespace

const Kernels neon_dot_kernels = {"neon_dot", 0, NeonDot::PAIRS, any_row<NeonDot>,
                                  scaled_row<NeonDot>};

} // namespace starlight::engine

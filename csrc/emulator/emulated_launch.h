// launch.h for a host compiler: CUDA's words and the project's, spoken to the emulator.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <tuple>
#include <type_traits>

#include "runtime.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

#define threadIdx (::starlight::emulator::current->thread)
#define blockIdx (::starlight::emulator::current->block)
#define blockDim (::starlight::emulator::current->block_size)
#define gridDim (::starlight::emulator::current->grid_size)

// Of CUDA's vector types, those that kernels need.
#define STARLIGHT_VECTOR(Scalar, name)                                                             \
    struct alignas(8) name##2                                                                      \
    {                                                                                              \
        Scalar x, y;                                                                               \
    };                                                                                             \
    struct alignas(16) name##4                                                                     \
    {                                                                                              \
        Scalar x, y, z, w;                                                                         \
    };                                                                                             \
    inline name##2 make_##name##2(Scalar x, Scalar y)                                              \
    {                                                                                              \
        return {x, y};                                                                             \
    }                                                                                              \
    inline name##4 make_##name##4(Scalar x, Scalar y, Scalar z, Scalar w)                          \
    {                                                                                              \
        return {x, y, z, w};                                                                       \
    }
STARLIGHT_VECTOR(int, int)
STARLIGHT_VECTOR(unsigned, uint)
STARLIGHT_VECTOR(float, float)
#undef STARLIGHT_VECTOR

// The place of the call, as the last parameters of a function.
#define STARLIGHT_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define STARLIGHT_HERE                                                                             \
    ::starlight::emulator::Place                                                                   \
    {                                                                                              \
        file, line                                                                                 \
    }

inline void __syncthreads(STARLIGHT_PLACE)
{
    using namespace starlight::emulator;
    block_barrier(Vote::none, false, STARLIGHT_HERE);
}

inline int __syncthreads_or(int predicate, STARLIGHT_PLACE)
{
    using namespace starlight::emulator;
    return block_barrier(Vote::any, predicate != 0, STARLIGHT_HERE);
}

inline int __syncthreads_and(int predicate, STARLIGHT_PLACE)
{
    using namespace starlight::emulator;
    return block_barrier(Vote::all, predicate != 0, STARLIGHT_HERE);
}

inline int __syncthreads_count(int predicate, STARLIGHT_PLACE)
{
    using namespace starlight::emulator;
    return block_barrier(Vote::count, predicate != 0, STARLIGHT_HERE);
}

inline void __syncwarp(unsigned mask = 0xffffffff, STARLIGHT_PLACE)
{
    starlight::emulator::warp_barrier(mask, STARLIGHT_HERE);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, STARLIGHT_PLACE)
{
    using namespace starlight::emulator;
    return warp_vote(Vote::ballot, mask, predicate != 0, STARLIGHT_HERE);
}

inline int __any_sync(unsigned mask, int predicate, STARLIGHT_PLACE)
{
    using namespace starlight::emulator;
    return static_cast<int>(warp_vote(Vote::any, mask, predicate != 0, STARLIGHT_HERE));
}

inline int __all_sync(unsigned mask, int predicate, STARLIGHT_PLACE)
{
    using namespace starlight::emulator;
    return static_cast<int>(warp_vote(Vote::all, mask, predicate != 0, STARLIGHT_HERE));
}

namespace starlight::emulator
{

template <class T>
T shuffle_value(Shuffle kind, unsigned mask, T value, int argument, int width, Place place)
{
    static_assert(sizeof(T) == 4 || sizeof(T) == 8);
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    bits = shuffle(kind, mask, bits, argument, width, place);
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

} // namespace starlight::emulator

#define STARLIGHT_SHUFFLE(name, kind)                                                              \
    template <class T>                                                                             \
    T name(unsigned mask, T value, int argument, int width = 32, STARLIGHT_PLACE)                  \
    {                                                                                              \
        using namespace starlight::emulator;                                                       \
        return shuffle_value(Shuffle::kind, mask, value, argument, width, STARLIGHT_HERE);         \
    }
STARLIGHT_SHUFFLE(__shfl_sync, index)
STARLIGHT_SHUFFLE(__shfl_xor_sync, exclusive_or)
STARLIGHT_SHUFFLE(__shfl_up_sync, up)
STARLIGHT_SHUFFLE(__shfl_down_sync, down)
#undef STARLIGHT_SHUFFLE

#define STARLIGHT_ATOMIC(name, Type, operation)                                                    \
    inline Type name(Type *target, Type value, STARLIGHT_PLACE)                                    \
    {                                                                                              \
        using namespace starlight::emulator;                                                       \
        return atomic(target, AtomicOperation::operation, value, Type{}, STARLIGHT_HERE);          \
    }
STARLIGHT_ATOMIC(atomicAdd, int, add)
STARLIGHT_ATOMIC(atomicAdd, unsigned, add)
STARLIGHT_ATOMIC(atomicAdd, float, add)
STARLIGHT_ATOMIC(atomicMax, int, maximum)
STARLIGHT_ATOMIC(atomicMax, unsigned, maximum)
STARLIGHT_ATOMIC(atomicMin, int, minimum)
STARLIGHT_ATOMIC(atomicMin, unsigned, minimum)
#undef STARLIGHT_ATOMIC

inline unsigned atomicCAS(unsigned *target, unsigned expected, unsigned value, STARLIGHT_PLACE)
{
    using namespace starlight::emulator;
    return atomic(target, AtomicOperation::exchange_if_equal, value, expected, STARLIGHT_HERE);
}

// ---- numbers

template <class T> T min(T a, T b)
{
    return b < a ? b : a;
}

template <class T> T max(T a, T b)
{
    return a < b ? b : a;
}

inline float rsqrtf(float value)
{
    return 1.0f / std::sqrt(value);
}

inline unsigned __float_as_uint(float value)
{
    unsigned bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float __uint_as_float(unsigned bits)
{
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline int __popc(unsigned value)
{
    return __builtin_popcount(value);
}

inline int __ffs(int value)
{
    return __builtin_ffs(value);
}

inline int __clz(int value)
{
    return value == 0 ? 32 : __builtin_clz(static_cast<unsigned>(value));
}

inline int __dp4a(int a, int b, int sum)
{
    unsigned result = static_cast<unsigned>(sum); // wraps
    for (int byte = 0; byte < 4; byte++)
        result += static_cast<unsigned>(static_cast<int8_t>(a >> 8 * byte) *
                                        static_cast<int8_t>(b >> 8 * byte));
    return static_cast<int>(result);
}

// `type shape` is one array type: float[8][36].
#define SHARED(type, name, shape)                                                                  \
    static ::starlight::emulator::SharedArray name##_shared{#name, sizeof(type shape)};            \
    auto &name = *static_cast<type(*) shape>(::starlight::emulator::static_shared(name##_shared))

namespace starlight::cuda
{

inline unsigned char *dynamic_shared()
{
    return static_cast<unsigned char *>(emulator::dynamic_shared_memory());
}

inline float to_float(float value)
{
    return value;
}

inline float to_float(f16 value)
{
    return emulator::f16_to_float(value.bits);
}

inline float to_float(bf16 value)
{
    return __uint_as_float(static_cast<uint32_t>(value.bits) << 16);
}

template <class T> T from_float(float value);

template <> inline float from_float<float>(float value)
{
    return value;
}

template <> inline f16 from_float<f16>(float value)
{
    return {emulator::float_to_f16(value)};
}

template <> inline bf16 from_float<bf16>(float value)
{
    return {emulator::float_to_bf16(value)};
}

template <class T> uint32_t pack(float low, float high)
{
    return from_float<T>(low).bits | static_cast<uint32_t>(from_float<T>(high).bits) << 16;
}

template <class T> float2 unpack(uint32_t pair)
{
    return {to_float(T{static_cast<uint16_t>(pair)}),
            to_float(T{static_cast<uint16_t>(pair >> 16)})};
}

inline uint32_t to_tf32(float value)
{
    const uint32_t bits = __float_as_uint(value), below = 1u << 12;
    if ((bits & 0x7f800000) == 0x7f800000) return bits; // infinity, NaN
    return (bits + below) & ~(2 * below - 1);
}

// ---- memory

// What one instruction moves.
template <class V>
concept Movable =
    std::is_trivially_copyable_v<V> &&
    (sizeof(V) == 1 || sizeof(V) == 2 || sizeof(V) == 4 || sizeof(V) == 8 || sizeof(V) == 16);

template <Movable V> V ld(const void *pointer, STARLIGHT_PLACE)
{
    V value;
    emulator::load<sizeof(V)>(&value, pointer, false, STARLIGHT_HERE);
    return value;
}

template <Movable V> V ld_const(const void *pointer, STARLIGHT_PLACE)
{
    V value;
    emulator::load<sizeof(V)>(&value, pointer, true, STARLIGHT_HERE);
    return value;
}

template <Movable V> V ld_if(const void *pointer, bool condition, STARLIGHT_PLACE)
{
    V value{};
    if (condition)
        emulator::load<sizeof(V)>(&value, pointer, false, STARLIGHT_HERE);
    else
        emulator::skip_load<sizeof(V)>(STARLIGHT_HERE);
    return value;
}

template <Movable V> V ld_const_if(const void *pointer, bool condition, STARLIGHT_PLACE)
{
    V value{};
    if (condition)
        emulator::load<sizeof(V)>(&value, pointer, true, STARLIGHT_HERE);
    else
        emulator::skip_load<sizeof(V)>(STARLIGHT_HERE);
    return value;
}

template <Movable V> void st(void *pointer, const V &value, STARLIGHT_PLACE)
{
    emulator::store<sizeof(V)>(pointer, &value, STARLIGHT_HERE);
}

template <Movable V> void st_if(void *pointer, const V &value, bool condition, STARLIGHT_PLACE)
{
    if (condition)
        emulator::store<sizeof(V)>(pointer, &value, STARLIGHT_HERE);
    else
        emulator::skip_store<sizeof(V)>(STARLIGHT_HERE);
}

template <int Bytes>
void cp_async(void *shared, const void *global, bool condition = true, STARLIGHT_PLACE)
{
    emulator::copy_async<Bytes>(shared, global, condition, STARLIGHT_HERE);
}

inline void cp_async16(void *shared, const void *global, bool condition = true, STARLIGHT_PLACE)
{
    emulator::copy_async<16>(shared, global, condition, STARLIGHT_HERE);
}

inline void cp_async_commit()
{
    emulator::copy_commit();
}

template <int Groups> void cp_async_wait(STARLIGHT_PLACE)
{
    emulator::copy_wait(Groups, STARLIGHT_HERE);
}

// ---- tensor cores

template <int Count> void ldmatrix(uint32_t (&r)[Count], const void *row, STARLIGHT_PLACE)
{
    static_assert(Count == 1 || Count == 2 || Count == 4);
    emulator::load_matrices(r, Count, row, false, STARLIGHT_HERE);
}

template <int Count>
void ldmatrix_transposed(uint32_t (&r)[Count], const void *row, STARLIGHT_PLACE)
{
    static_assert(Count == 1 || Count == 2 || Count == 4);
    emulator::load_matrices(r, Count, row, true, STARLIGHT_HERE);
}

template <class T>
void mma_16x8x16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], STARLIGHT_PLACE)
{
    using emulator::Mma;
    static_assert(std::is_same_v<T, f16> || std::is_same_v<T, bf16>);
    constexpr Mma shape = std::is_same_v<T, f16> ? Mma::f16_k16 : Mma::bf16_k16;
    emulator::multiply_add(shape, d, a, b, STARLIGHT_HERE);
}

template <class T>
void mma_16x8x8(float (&d)[4], const uint32_t (&a)[2], const uint32_t (&b)[1], STARLIGHT_PLACE)
{
    using emulator::Mma;
    static_assert(std::is_same_v<T, f16> || std::is_same_v<T, bf16>);
    constexpr Mma shape = std::is_same_v<T, f16> ? Mma::f16_k8 : Mma::bf16_k8;
    emulator::multiply_add(shape, d, a, b, STARLIGHT_HERE);
}

inline void mma_16x8x8_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                            STARLIGHT_PLACE)
{
    emulator::multiply_add(emulator::Mma::tf32_k8, d, a, b, STARLIGHT_HERE);
}

inline void mma_16x8x32_s8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                           STARLIGHT_PLACE)
{
    emulator::multiply_add(emulator::Mma::s8_k32, d, a, b, STARLIGHT_HERE);
}

inline void mma_16x8x16_s8(int32_t (&d)[4], const uint32_t (&a)[2], const uint32_t (&b)[1],
                           STARLIGHT_PLACE)
{
    emulator::multiply_add(emulator::Mma::s8_k16, d, a, b, STARLIGHT_HERE);
}

// ---- the host's side

using Stream = emulator::Device *;

struct Launch {
    const char *name;
    dim3 grid, block;
    size_t shared_bytes;
    Stream stream;
};

struct Limits {
    int multiprocessors;
    size_t shared_bytes_per_block;
};

template <class... Parameters, class... Arguments>
void launch(const Launch &shape, void (*kernel)(Parameters...), const Arguments &...arguments)
{
    struct Call {
        void (*kernel)(Parameters...);
        std::tuple<Parameters...> arguments;
    };
    const Call call{kernel, {static_cast<Parameters>(arguments)...}};
    const auto invoke = [](const void *opaque) {
        const Call &call = *static_cast<const Call *>(opaque);
        std::apply(call.kernel, call.arguments);
    };
    const auto pieces = std::apply(
        [](const auto &...parameters) {
            return std::array<emulator::Argument, sizeof...(Parameters)>{
                {{&parameters, sizeof parameters}...}};
        },
        call.arguments);
    emulator::run(*shape.stream,
                  {shape.name,
                   {shape.grid.x, shape.grid.y, shape.grid.z},
                   {shape.block.x, shape.block.y, shape.block.z},
                   shape.shared_bytes,
                   reinterpret_cast<const void *>(kernel),
                   pieces},
                  invoke, &call);
}

inline void set_zero(void *pointer, size_t bytes, Stream stream)
{
    emulator::zero_memory(*stream, pointer, bytes);
}

inline Limits limits(Stream stream)
{
    return {emulator::multiprocessors(*stream), emulator::shared_bytes_per_block(*stream)};
}

} // namespace starlight::cuda

#undef STARLIGHT_PLACE
#undef STARLIGHT_HERE

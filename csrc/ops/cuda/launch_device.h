// launch.h for nvcc and NVRTC: inline PTX of sm_80 and later.
#pragma once

#define SHARED(type, name, shape) __shared__ alignas(16) type name shape

namespace starlight::cuda
{

STARLIGHT_DEVICE unsigned char *dynamic_shared()
{
    extern __shared__ __align__(128) unsigned char starlight_dynamic_shared[];
    return starlight_dynamic_shared;
}

STARLIGHT_DEVICE uint32_t shared_address(const void *pointer)
{
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// ---- numbers

STARLIGHT_DEVICE float to_float(float value)
{
    return value;
}

STARLIGHT_DEVICE float to_float(f16 value)
{
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
    return result;
}

STARLIGHT_DEVICE float to_float(bf16 value)
{
    return __uint_as_float(static_cast<uint32_t>(value.bits) << 16);
}

template <class T> STARLIGHT_DEVICE T from_float(float value);

template <> STARLIGHT_DEVICE float from_float<float>(float value)
{
    return value;
}

template <> STARLIGHT_DEVICE f16 from_float<f16>(float value)
{
    f16 result;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
    return result;
}

template <> STARLIGHT_DEVICE bf16 from_float<bf16>(float value)
{
    bf16 result;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
    return result;
}

template <class T> STARLIGHT_DEVICE uint32_t pack(float low, float high);

template <> STARLIGHT_DEVICE uint32_t pack<f16>(float low, float high)
{
    uint32_t result;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
    return result;
}

template <> STARLIGHT_DEVICE uint32_t pack<bf16>(float low, float high)
{
    uint32_t result;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
    return result;
}

template <class T> STARLIGHT_DEVICE float2 unpack(uint32_t pair)
{
    return {to_float(T{static_cast<uint16_t>(pair)}),
            to_float(T{static_cast<uint16_t>(pair >> 16)})};
}

STARLIGHT_DEVICE uint32_t to_tf32(float value)
{
    uint32_t result;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(result) : "f"(value));
    return result;
}

// ---- memory

template <int Bytes> struct WordOf;
template <> struct WordOf<1> {
    using type = unsigned char;
};
template <> struct WordOf<2> {
    using type = unsigned short;
};
template <> struct WordOf<4> {
    using type = unsigned int;
};
template <> struct WordOf<8> {
    using type = uint2;
};
template <> struct WordOf<16> {
    using type = uint4;
};

// What one instruction moves.
template <class V> using Word = typename WordOf<sizeof(V)>::type;

template <class To, class From> STARLIGHT_DEVICE To same_bits(const From &from)
{
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

template <class V> STARLIGHT_DEVICE V ld(const void *pointer)
{
    return same_bits<V>(*static_cast<const Word<V> *>(pointer));
}

template <class V> STARLIGHT_DEVICE V ld_const(const void *pointer)
{
    return same_bits<V>(__ldg(static_cast<const Word<V> *>(pointer)));
}

template <class V> STARLIGHT_DEVICE V ld_if(const void *pointer, bool condition)
{
    return condition ? ld<V>(pointer) : V{};
}

template <class V> STARLIGHT_DEVICE V ld_const_if(const void *pointer, bool condition)
{
    return condition ? ld_const<V>(pointer) : V{};
}

template <class V> STARLIGHT_DEVICE void st(void *pointer, const V &value)
{
    *static_cast<Word<V> *>(pointer) = same_bits<Word<V>>(value);
}

template <class V> STARLIGHT_DEVICE void st_if(void *pointer, const V &value, bool condition)
{
    if (condition) st(pointer, value);
}

template <int Bytes>
STARLIGHT_DEVICE void cp_async(void *shared, const void *global, bool condition = true)
{
    static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16);
    const uint32_t read_bytes = condition ? Bytes : 0; // the rest is filled with zeros
    if constexpr (Bytes == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
                     "l"(global), "r"(read_bytes)
                     : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(shared)),
                     "l"(global), "n"(Bytes), "r"(read_bytes)
                     : "memory");
}

STARLIGHT_DEVICE void cp_async16(void *shared, const void *global, bool condition = true)
{
    cp_async<16>(shared, global, condition);
}

STARLIGHT_DEVICE void cp_async_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int Groups> STARLIGHT_DEVICE void cp_async_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(Groups) : "memory");
}

// ---- tensor cores

STARLIGHT_DEVICE void ldmatrix(uint32_t (&r)[1], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
                 : "=r"(r[0])
                 : "r"(shared_address(row))
                 : "memory");
}

STARLIGHT_DEVICE void ldmatrix(uint32_t (&r)[2], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}

STARLIGHT_DEVICE void ldmatrix(uint32_t (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

STARLIGHT_DEVICE void ldmatrix_transposed(uint32_t (&r)[1], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                 : "=r"(r[0])
                 : "r"(shared_address(row))
                 : "memory");
}

STARLIGHT_DEVICE void ldmatrix_transposed(uint32_t (&r)[2], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}

STARLIGHT_DEVICE void ldmatrix_transposed(uint32_t (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// D: "f" for float, "r" for int32_t accumulators.
#define STARLIGHT_MMA_A4(shape, types, D)                                                          \
    asm volatile("mma.sync.aligned." shape ".row.col." types                                       \
                 " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                \
                 : "+" D(d[0]), "+" D(d[1]), "+" D(d[2]), "+" D(d[3])                              \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
#define STARLIGHT_MMA_A2(shape, types, D)                                                          \
    asm volatile("mma.sync.aligned." shape ".row.col." types                                       \
                 " {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"                            \
                 : "+" D(d[0]), "+" D(d[1]), "+" D(d[2]), "+" D(d[3])                              \
                 : "r"(a[0]), "r"(a[1]), "r"(b[0]))

template <class T>
STARLIGHT_DEVICE void mma_16x8x16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);

template <>
STARLIGHT_DEVICE void mma_16x8x16<f16>(float (&d)[4], const uint32_t (&a)[4],
                                       const uint32_t (&b)[2])
{
    STARLIGHT_MMA_A4("m16n8k16", "f32.f16.f16.f32", "f");
}

template <>
STARLIGHT_DEVICE void mma_16x8x16<bf16>(float (&d)[4], const uint32_t (&a)[4],
                                        const uint32_t (&b)[2])
{
    STARLIGHT_MMA_A4("m16n8k16", "f32.bf16.bf16.f32", "f");
}

template <class T>
STARLIGHT_DEVICE void mma_16x8x8(float (&d)[4], const uint32_t (&a)[2], const uint32_t (&b)[1]);

template <>
STARLIGHT_DEVICE void mma_16x8x8<f16>(float (&d)[4], const uint32_t (&a)[2], const uint32_t (&b)[1])
{
    STARLIGHT_MMA_A2("m16n8k8", "f32.f16.f16.f32", "f");
}

template <>
STARLIGHT_DEVICE void mma_16x8x8<bf16>(float (&d)[4], const uint32_t (&a)[2],
                                       const uint32_t (&b)[1])
{
    STARLIGHT_MMA_A2("m16n8k8", "f32.bf16.bf16.f32", "f");
}

STARLIGHT_DEVICE void mma_16x8x8_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    STARLIGHT_MMA_A4("m16n8k8", "f32.tf32.tf32.f32", "f");
}

STARLIGHT_DEVICE void mma_16x8x32_s8(int32_t (&d)[4], const uint32_t (&a)[4],
                                     const uint32_t (&b)[2])
{
    STARLIGHT_MMA_A4("m16n8k32", "s32.s8.s8.s32", "r");
}

STARLIGHT_DEVICE void mma_16x8x16_s8(int32_t (&d)[4], const uint32_t (&a)[2],
                                     const uint32_t (&b)[1])
{
    STARLIGHT_MMA_A2("m16n8k16", "s32.s8.s8.s32", "r");
}

#undef STARLIGHT_MMA_A4
#undef STARLIGHT_MMA_A2

} // namespace starlight::cuda

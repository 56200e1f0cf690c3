// Operations of a whole warp, done when the last of its lanes arrives.
#include <bit>
#include <cstring>

#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "fragments.h"
#include "machine.h"

namespace starlight::emulator
{

namespace
{

struct VoteCall {
    Vote kind;
    bool predicate;
    uint32_t result;
};

struct ShuffleCall {
    Shuffle kind;
    uint64_t bits;
    int argument, width;
    uint64_t result;
};

struct MatricesCall {
    uint32_t *r;
    int count;
    const void *row;
    bool transposed;
};

struct MmaCall {
    Mma shape;
    void *d;
    const uint32_t *a, *b;
};

template <class Call> void meet(Collective collective, uint32_t mask, Call &call, Place place)
{
    Thread &thread = current_thread();
    thread.collective = collective;
    thread.mask = mask;
    thread.arguments = &call;
    thread.place = place;
    machine.wait_for_warp(thread);
}

template <class Call> Call &call_of(const Warp &warp, unsigned lane)
{
    return *static_cast<Call *>(warp.threads[lane].arguments);
}

// fn(lane) for each lane of the mask.
template <class Function> void for_each_lane(uint32_t mask, Function fn)
{
    for (; mask != 0; mask &= mask - 1)
        fn(static_cast<unsigned>(std::countr_zero(mask)));
}

// ---- votes and shuffles

void vote(Warp &warp, uint32_t mask)
{
    uint32_t ballot = 0;
    for_each_lane(mask, [&](unsigned lane) {
        if (call_of<VoteCall>(warp, lane).predicate) ballot |= 1u << lane;
    });
    for_each_lane(mask, [&](unsigned lane) {
        VoteCall &call = call_of<VoteCall>(warp, lane);
        call.result = call.kind == Vote::ballot ? ballot
                      : call.kind == Vote::any  ? ballot != 0
                                                : ballot == mask;
    });
    machine.report->votes++;
}

// The lane that a lane reads, or itself where that lies outside of its segment.
unsigned source_lane(unsigned lane, const ShuffleCall &call)
{
    const int width = call.width, own = static_cast<int>(lane);
    const int first = own / width * width, last = first + width - 1, by = call.argument;
    int source = own;
    switch (call.kind) {
    case Shuffle::index: return static_cast<unsigned>(first + (by & (width - 1)));
    case Shuffle::exclusive_or: source = own ^ by; break;
    case Shuffle::up: source = own - by; break;
    case Shuffle::down: source = own + by; break;
    }
    const bool below = call.kind == Shuffle::up && source < first;
    return static_cast<unsigned>(below || source > last ? own : source);
}

void exchange(Warp &warp, uint32_t mask)
{
    for_each_lane(mask, [&](unsigned lane) {
        ShuffleCall &call = call_of<ShuffleCall>(warp, lane);
        const unsigned source = source_lane(lane, call);
        if ((mask >> source & 1) == 0)
            machine.fault("warp",
                          "a shuffle must read lanes that take part, got lane " +
                              std::to_string(source) + " for lane " + std::to_string(lane),
                          warp.threads[lane].place);
        call.result = call_of<ShuffleCall>(warp, source).bits;
    });
    machine.report->shuffles++;
}

// ---- matrices

void require_whole(const Warp &warp, uint32_t mask, const char *operation)
{
    if (mask != 0xffffffff)
        machine.fault("warp", std::string(operation) + " must be called by all 32 lanes of a warp",
                      warp.threads[std::countr_zero(mask)].place);
}

void load_rows(Warp &warp, uint32_t mask)
{
    require_whole(warp, mask, "ldmatrix");
    const MatricesCall &first = call_of<MatricesCall>(warp, 0);
    const Place place = warp.threads[0].place;
    const Now now = machine.now_of(warp); // every lane gets of every row
    for (int matrix = 0; matrix < first.count; matrix++) {
        std::array<uint64_t, 8> rows;
        uint16_t values[8][8];
        for (unsigned row = 0; row < 8; row++) {
            const unsigned lane = static_cast<unsigned>(8 * matrix) + row;
            const auto address = reinterpret_cast<uint64_t>(call_of<MatricesCall>(warp, lane).row);
            current = &warp.threads[lane]; // a fault is this lane's
            if (!in_address_space(address) || Device::slot_of(address) != 0)
                machine.fault("out_of_bounds",
                              "ldmatrix must read shared memory, got " + describe_address(address),
                              place);
            if (address % 16 != 0)
                machine.fault("misaligned",
                              describe_address(address) + ": must be aligned to 16 bytes", place);
            const uint64_t offset = address - address_space;
            machine.shared.read<16>(offset, now, place);
            std::memcpy(values[row], machine.shared.bytes(offset), 16);
            rows[row] = address;
        }
        machine.log.add_matrix(place, rows);
        for (unsigned lane = 0; lane < WARP_LANES; lane++) {
            const unsigned major = lane / 4, minor = 2 * (lane % 4);
            const uint32_t low = first.transposed ? values[minor][major] : values[major][minor];
            const uint32_t high =
                first.transposed ? values[minor + 1][major] : values[major][minor + 1];
            call_of<MatricesCall>(warp, lane).r[matrix] = low | high << 16;
        }
    }
}

// ---- multiply-add

constexpr int M = 16, N = 8;

void widen_f16(const uint16_t *from, float *to, int count)
{
#if defined(__F16C__)
    for (int index = 0; index < count; index += 8) {
        const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i *>(from + index));
        _mm256_storeu_ps(to + index, _mm256_cvtph_ps(bits));
    }
#else
    for (int index = 0; index < count; index++)
        to[index] = f16_to_float(from[index]);
#endif
}

void widen(Mma shape, const uint16_t *from, float *to, int count)
{
    if (shape == Mma::f16_k16 || shape == Mma::f16_k8) return widen_f16(from, to, count);
    for (int index = 0; index < count; index++)
        to[index] = std::bit_cast<float>(static_cast<uint32_t>(from[index]) << 16);
}

// Values of A as [M][K] and of B as [N][K], from the registers of all lanes. Where a register
// goes is the same for all warps, so it is worked out once.
template <int PACK, int K, class Value>
void gather(const Warp &warp, Value (&a)[M * K], Value (&b)[N * K])
{
    constexpr int B_REGISTERS = K / (4 * PACK), A_REGISTERS = 2 * B_REGISTERS;
    static_assert(sizeof(Value) * PACK == 4);
    for (int lane = 0; lane < static_cast<int>(WARP_LANES); lane++) {
        const MmaCall &call = call_of<MmaCall>(warp, static_cast<unsigned>(lane));
        for (int r = 0; r < A_REGISTERS; r++) {
            const Cell cell = a_cell<PACK>(lane, r);
            std::memcpy(&a[cell.row * K + cell.column], &call.a[r], 4);
        }
        for (int r = 0; r < B_REGISTERS; r++) {
            const Cell cell = b_cell<PACK>(lane, r);
            std::memcpy(&b[cell.column * K + cell.row], &call.b[r], 4);
        }
    }
}

template <class Sum, class Function> void for_each_sum(const Warp &warp, Function fn)
{
    for (int lane = 0; lane < static_cast<int>(WARP_LANES); lane++) {
        const MmaCall &call = call_of<MmaCall>(warp, static_cast<unsigned>(lane));
        for (int r = 0; r < 4; r++)
            fn(static_cast<Sum *>(call.d)[r], d_cell(lane, r));
    }
}

// d += a b in float: products exact, summed along k, one rounding each. The order of a real tensor
// core is not specified.
template <int K> void multiply_floats(const Warp &warp, const float (&a)[M * K], const float *b)
{
    float d[M][N], columns[K][N];
    for_each_sum<float>(warp, [&](float &sum, Cell cell) { d[cell.row][cell.column] = sum; });
    for (int k = 0; k < K; k++)
        for (int n = 0; n < N; n++)
            columns[k][n] = b[n * K + k];
    for (int m = 0; m < M; m++) {
        float sums[N];
        std::memcpy(sums, d[m], sizeof sums);
        for (int k = 0; k < K; k++)
            for (int n = 0; n < N; n++)
                sums[n] += a[m * K + k] * columns[k][n];
        std::memcpy(d[m], sums, sizeof sums);
    }
    for_each_sum<float>(warp, [&](float &sum, Cell cell) { sum = d[cell.row][cell.column]; });
}

template <int K> void multiply_halves(Mma shape, const Warp &warp)
{
    uint16_t a_bits[M * K], b_bits[N * K];
    float a[M * K], b[N * K];
    gather<2, K>(warp, a_bits, b_bits);
    widen(shape, a_bits, a, M * K);
    widen(shape, b_bits, b, N * K);
    multiply_floats<K>(warp, a, b);
}

void multiply_tf32(const Warp &warp)
{
    constexpr int K = 8;
    constexpr uint32_t SEEN = ~0x1fffu; // a tensor core reads 10 bits of the mantissa
    uint32_t a_bits[M * K], b_bits[N * K];
    float a[M * K], b[N * K];
    gather<1, K>(warp, a_bits, b_bits);
    for (int index = 0; index < M * K; index++)
        a[index] = std::bit_cast<float>(a_bits[index] & SEEN);
    for (int index = 0; index < N * K; index++)
        b[index] = std::bit_cast<float>(b_bits[index] & SEEN);
    multiply_floats<K>(warp, a, b);
}

template <int K> void multiply_bytes(const Warp &warp)
{
    int8_t a[M * K], b[N * K];
    gather<4, K>(warp, a, b);
    int32_t products[M][N];
    for (int m = 0; m < M; m++)
        for (int n = 0; n < N; n++) {
            int32_t sum = 0;
            for (int k = 0; k < K; k++)
                sum += a[m * K + k] * b[n * K + k];
            products[m][n] = sum;
        }
    for_each_sum<uint32_t>(warp, [&](uint32_t &sum, Cell cell) { // wraps
        sum += static_cast<uint32_t>(products[cell.row][cell.column]);
    });
}

void multiply(Warp &warp, uint32_t mask)
{
    require_whole(warp, mask, "mma");
    const Mma shape = call_of<MmaCall>(warp, 0).shape;
    switch (shape) {
    case Mma::f16_k16:
    case Mma::bf16_k16: multiply_halves<16>(shape, warp); break;
    case Mma::f16_k8:
    case Mma::bf16_k8: multiply_halves<8>(shape, warp); break;
    case Mma::tf32_k8: multiply_tf32(warp); break;
    case Mma::s8_k32: multiply_bytes<32>(warp); break;
    case Mma::s8_k16: multiply_bytes<16>(warp); break;
    }
    machine.report->mma[static_cast<size_t>(shape)]++;
}

constexpr uint32_t ALL_LANES = 0xffffffff;

} // namespace

void execute(Warp &warp, Collective collective, uint32_t mask)
{
    Position *arrived = current;
    switch (collective) {
    case Collective::barrier:
        // Of a part of the warp: those lanes meet, but their accesses count as unordered.
        if (mask == (warp.exists & ~warp.exited)) machine.pass_warp_barrier(warp);
        break;
    case Collective::vote: vote(warp, mask); break;
    case Collective::shuffle: exchange(warp, mask); break;
    case Collective::matrices: load_rows(warp, mask); break;
    case Collective::mma: multiply(warp, mask); break;
    }
    current = arrived;
}

// ---- what a lane calls

int block_barrier(Vote kind, bool predicate, Place place)
{
    Thread &thread = current_thread();
    thread.vote = kind;
    thread.predicate = predicate;
    thread.place = place;
    return machine.wait_for_block(thread);
}

void warp_barrier(uint32_t mask, Place place)
{
    int nothing = 0;
    meet(Collective::barrier, mask, nothing, place);
}

uint32_t warp_vote(Vote kind, uint32_t mask, bool predicate, Place place)
{
    VoteCall call{kind, predicate, 0};
    meet(Collective::vote, mask, call, place);
    return call.result;
}

uint64_t shuffle(Shuffle kind, uint32_t mask, uint64_t bits, int argument, int width, Place place)
{
    ShuffleCall call{kind, bits, argument, width, 0};
    if (width < 1 || width > 32 || std::popcount(static_cast<unsigned>(width)) != 1)
        machine.fault("warp",
                      "a shuffle's width must be a power of two up to 32, got " +
                          std::to_string(width),
                      place);
    meet(Collective::shuffle, mask, call, place);
    return call.result;
}

void load_matrices(uint32_t *r, int count, const void *row, bool transposed, Place place)
{
    MatricesCall call{r, count, row, transposed};
    meet(Collective::matrices, ALL_LANES, call, place);
}

void multiply_add(Mma shape, void *d, const uint32_t *a, const uint32_t *b, Place place)
{
    MmaCall call{shape, d, a, b};
    meet(Collective::mma, ALL_LANES, call, place);
}

} // namespace starlight::emulator

// Launches of kernels.cuh, for ctypes.
#include "session.h"

#include "kernels.cuh"

using namespace kernels;
using starlight::emulator::attempt;
using starlight::emulator::Session;
using starlight::emulator::stream_of;

namespace
{

constexpr unsigned WARP = 32;

// `kernel` on one block of `threads`.
template <class... Parameters, class... Arguments>
int on_block(Session *session, const char *name, unsigned threads, size_t shared_bytes,
             void (*kernel)(Parameters...), Arguments... arguments)
{
    return attempt(session, [&] {
        launch({name, {1}, {threads}, shared_bytes, stream_of(session)}, kernel, arguments...);
    });
}

template <class V> int copy_all(Session *session, const void *x, void *out, int64_t count)
{
    return attempt(session, [&] {
        const unsigned blocks = static_cast<unsigned>((count + 63) / 64);
        launch({"copy", {blocks}, {64}, 0, stream_of(session)}, copy<V>, static_cast<const V *>(x),
               static_cast<V *>(out), count);
    });
}

} // namespace

extern "C" {

int copy_16(Session *session, const void *x, void *out, int64_t count)
{
    return copy_all<uint4>(session, x, out, count);
}

int copy_2(Session *session, const void *x, void *out, int64_t count)
{
    return copy_all<uint16_t>(session, x, out, count);
}

int gather_strided(Session *session, const float *x, float *out, int64_t stride)
{
    return on_block(session, "gather", WARP, 0, gather, x, out, stride);
}

int rows_of_pitch(Session *session, float *out, int64_t pitch)
{
    return on_block(session, "shared_rows", WARP, static_cast<size_t>(32 * pitch) * 4, shared_rows,
                    out, pitch);
}

int words_of_stride(Session *session, float *out, int64_t stride)
{
    return on_block(session, "shared_words", WARP, 0, shared_words, out, stride);
}

int all_indices(Session *session, int *out)
{
    return attempt(session, [&] {
        launch({"indices", {2, 3, 2}, {4, 5, 2}, 0, stream_of(session)}, indices, out);
    });
}

int sum_blocks(Session *session, const float *x, float *out, int64_t blocks)
{
    return attempt(session, [&] {
        launch({"block_sum", {static_cast<unsigned>(blocks)}, {128}, 0, stream_of(session)},
               block_sum<128>, x, out);
    });
}

int vote_in_block(Session *session, const int *x, int *out)
{
    return on_block(session, "block_votes", 96, 0, block_votes, x, out);
}

int count_bins(Session *session, const int *x, int64_t count, unsigned *bins)
{
    return attempt(session, [&] {
        set_zero(bins, 16 * sizeof *bins, stream_of(session));
        launch({"histogram", {2}, {64}, 0, stream_of(session)}, histogram, x, count, bins);
    });
}

int shuffle_all(Session *session, const int *x, int *out)
{
    return on_block(session, "shuffles", WARP, 0, shuffles, x, out);
}

int vote_in_warp(Session *session, const int *x, unsigned *out)
{
    return on_block(session, "warp_votes", WARP, 0, warp_votes, x, out);
}

int sum_pipeline(Session *session, const float *x, float *out, int64_t tiles)
{
    return on_block(session, "pipeline", WARP, 0, pipeline, x, out, tiles);
}

int load_tiles(Session *session, const uint16_t *x, uint32_t *out)
{
    return on_block(session, "matrices", WARP, 0, matrices, x, out);
}

int multiply_f16_k16(Session *session, const uint32_t *a, const uint32_t *b, float *d)
{
    return on_block(session, "mma", WARP, 0, mma_k16<f16>, a, b, d);
}

int multiply_bf16_k16(Session *session, const uint32_t *a, const uint32_t *b, float *d)
{
    return on_block(session, "mma", WARP, 0, mma_k16<bf16>, a, b, d);
}

int multiply_f16_k8(Session *session, const uint32_t *a, const uint32_t *b, float *d)
{
    return on_block(session, "mma", WARP, 0, mma_k8<f16>, a, b, d);
}

int multiply_bf16_k8(Session *session, const uint32_t *a, const uint32_t *b, float *d)
{
    return on_block(session, "mma", WARP, 0, mma_k8<bf16>, a, b, d);
}

int multiply_tf32_k8(Session *session, const uint32_t *a, const uint32_t *b, float *d)
{
    return on_block(session, "mma", WARP, 0, mma_tf32, a, b, d);
}

int multiply_s8_k32(Session *session, const uint32_t *a, const uint32_t *b, int32_t *d)
{
    return on_block(session, "mma", WARP, 0, mma_s8_k32, a, b, d);
}

int multiply_s8_k16(Session *session, const uint32_t *a, const uint32_t *b, int32_t *d)
{
    return on_block(session, "mma", WARP, 0, mma_s8_k16, a, b, d);
}

int convert_f16(Session *session, const float *x, f16 *narrow, float *wide, int64_t count)
{
    return on_block(session, "convert", 64, 0, convert<f16>, x, narrow, wide, count);
}

int convert_bf16(Session *session, const float *x, bf16 *narrow, float *wide, int64_t count)
{
    return on_block(session, "convert", 64, 0, convert<bf16>, x, narrow, wide, count);
}

int convert_tf32(Session *session, const float *x, uint32_t *out, int64_t count)
{
    return on_block(session, "to_tf32_bits", 64, 0, to_tf32_bits, x, out, count);
}

int judge_accesses(Session *session, const int *program, const int *syncs, int64_t steps,
                   int *cells, int64_t blocks, int64_t in_shared)
{
    return attempt(session, [&] {
        launch({"accesses", {static_cast<unsigned>(blocks)}, {64}, 0, stream_of(session)},
               in_shared != 0 ? accesses<true> : accesses<false>, program, syncs, steps, cells);
    });
}

} // extern "C"

// What every kernel of csrc/ops shares: element types, instruction sets, images, the thread pool.
// Torch-free: raw pointers in, raw pointers out.
#pragma once

#include <cstddef>
#include <cstdint>

namespace starlight::ops
{

// Of activations. Parameters (weights, biases) and their gradients are double with f64, else float.
// bf16 is read and written; all arithmetic between is float.
enum class Element { f32, bf16, f64 };

// f64 always runs portable.
enum class Isa { portable, avx2, avx512 };

Isa best_isa(); // the widest that this processor and its operating system run
bool isa_runs(Isa isa);
bool bf16_dots_run(); // whether it multiplies pairs of bfloat16, beside avx512

// Activations [images, height, width, channels], channels side by side. Strides count elements.
struct ConstImage {
    const void *data;
    int64_t image_stride, row_stride, pixel_stride;
};

struct Image {
    void *data;
    int64_t image_stride, row_stride, pixel_stride;
};

// run(context, work, job) calls work(job, worker) once for each worker in 0 .. workers - 1, on
// threads of its choice, and returns when all have returned. A forward result is the same bits for
// any number of workers; gradients depend on that number by rounding, and never on which thread
// does what.
struct Pool {
    int workers;
    void (*run)(void *context, void (*work)(void *job, int worker), void *job);
    void *context;
};

// Of `packed` and `workspace` memory.
inline constexpr size_t alignment_bytes = 64;

} // namespace starlight::ops

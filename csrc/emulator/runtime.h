// What a kernel compiled for the host calls: the machine's side of emulated_launch.h. Torch-free,
// and without a word of CUDA; every function acts for the thread that `current` names.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>

namespace starlight::emulator
{

struct Index {
    unsigned x, y, z;
};

// Where a kernel calls: counters and messages go by it.
struct Place {
    const char *file;
    int line;
};

// What a thread asks of its own position. The scheduler sets it before a thread goes on.
struct Position {
    Index thread, block, block_size, grid_size;
};

extern Position *current;

// Why a launch was ended. `kind` is one word of docs/EMULATOR.md's table.
class Fault : public std::runtime_error
{
public:
    Fault(const char *kind, const std::string &message) : std::runtime_error(message), kind(kind) {}

    const char *kind;
};

// ---- memory; Bytes is 1, 2, 4, 8 or 16

template <int Bytes> void load(void *to, const void *from, bool constant, Place place);
template <int Bytes> void store(void *to, const void *from, Place place);
// A lane that takes part in a load or store without condition.
template <int Bytes> void skip_load(Place place);
template <int Bytes> void skip_store(Place place);

enum class AtomicOperation { add, maximum, minimum, exchange_if_equal };
// T: int32_t, uint32_t, float. Returns the value before.
template <class T> T atomic(T *target, AtomicOperation operation, T value, T expected, Place place);

// Bytes is 4, 8 or 16.
template <int Bytes> void copy_async(void *shared, const void *global, bool condition, Place place);
void copy_commit();
void copy_wait(unsigned groups, Place place);

// One per static shared array of a kernel, a static of the function that declares it.
struct SharedArray {
    const char *name;
    size_t bytes;
    uint64_t launch = 0; // that gave the address
    void *address = nullptr;
};

void *static_shared(SharedArray &array);
void *dynamic_shared_memory();

// ---- the block and the warp

enum class Vote { none, any, all, count, ballot };
int block_barrier(Vote vote, bool predicate, Place place);
void warp_barrier(uint32_t mask, Place place);
uint32_t warp_vote(Vote vote, uint32_t mask, bool predicate, Place place);

enum class Shuffle { index, exclusive_or, up, down };
uint64_t shuffle(Shuffle kind, uint32_t mask, uint64_t bits, int argument, int width, Place place);

// `r` has `count` registers: 1, 2 or 4.
void load_matrices(uint32_t *r, int count, const void *row, bool transposed, Place place);

enum class Mma { f16_k16, bf16_k16, f16_k8, bf16_k8, tf32_k8, s8_k32, s8_k16 };
// d[4] of float or int32_t, a and b as the shape has them: d += a b.
void multiply_add(Mma shape, void *d, const uint32_t *a, const uint32_t *b, Place place);

// ---- numbers

float f16_to_float(uint16_t bits);
uint16_t float_to_f16(float value);
uint16_t float_to_bf16(float value);

// ---- the host's side

class Device;

// A kernel's parameter, as it is copied to a device.
struct Argument {
    const void *data;
    size_t bytes;
};

struct LaunchShape {
    const char *name;
    Index grid, block;
    size_t shared_bytes;
    const void *kernel; // its address, by which it is named
    std::span<const Argument> arguments;
};

// Runs invoke(call) once per thread, or only tells what would run. Throws Fault.
void run(Device &device, const LaunchShape &shape, void (*invoke)(const void *call),
         const void *call);
void zero_memory(Device &device, void *address, size_t bytes);
int multiprocessors(const Device &device);
size_t shared_bytes_per_block(const Device &device);

} // namespace starlight::emulator

// Launches of faults.cuh, for ctypes: all have one form, and two blocks where blocks are the
// matter.
#include "session.h"

#include "faults.cuh"

using namespace faults;
using starlight::emulator::attempt;
using starlight::emulator::Session;
using starlight::emulator::stream_of;

#define FAULT(name, blocks)                                                                        \
    extern "C" int fault_##name(Session *session, const float *x, float *out, int64_t right)       \
    {                                                                                              \
        return attempt(session, [&] {                                                              \
            launch({#name, {blocks}, {THREADS}, THREADS * sizeof(float), stream_of(session)},      \
                   name, x, out, right != 0);                                                      \
        });                                                                                        \
    }

FAULT(barrier_in_half, 1)
FAULT(barrier_after_return, 1)
FAULT(barrier_in_both_arms, 1)
FAULT(barrier_too_often, 1)
FAULT(shuffle_in_half, 1)
FAULT(shuffle_from_outside, 1)
FAULT(mask_without_caller, 1)
FAULT(mma_in_half, 1)
FAULT(past_the_end, 1)
FAULT(before_the_start, 1)
FAULT(last_bytes_past_the_end, 1)
FAULT(overflown_index, 1)
FAULT(past_a_static_array, 1)
FAULT(past_dynamic_memory, 1)
FAULT(unwritten_shared, 1)
FAULT(unwritten_global, 1)
FAULT(copy_without_wait, 1)
FAULT(copy_waits_for_another, 1)
FAULT(copy_without_commit, 1)
FAULT(wait_without_barrier, 1)
FAULT(copy_over_readers, 1)
FAULT(copy_never_waited_for, 1)
FAULT(read_without_barrier, 1)
FAULT(write_without_barrier, 1)
FAULT(two_writers, 1)
FAULT(shuffle_as_fence, 1)
FAULT(ldmatrix_without_barrier, 1)
FAULT(syncwarp_between_warps, 1)
FAULT(global_without_barrier, 1)
FAULT(atomic_and_plain, 1)
FAULT(blocks_write_one_place, 2)
FAULT(halo_in_place, 2)
FAULT(misaligned_load, 1)
FAULT(misaligned_store, 1)
FAULT(misaligned_copy, 1)
FAULT(misaligned_matrix, 1)
FAULT(write_to_input, 1)
FAULT(constant_that_changes, 1)
FAULT(plain_global_read, 1)
FAULT(plain_shared_write, 1)
FAULT(deep_stack, 1)

// Refused before any thread runs.
extern "C" int fault_launch_shape(Session *session, int64_t threads, int64_t shared_bytes)
{
    return attempt(session, [&] {
        launch({"launch_shape",
                {1},
                {static_cast<unsigned>(threads)},
                static_cast<size_t>(shared_bytes),
                stream_of(session)},
               plain_shared_write, nullptr, nullptr, true);
    });
}

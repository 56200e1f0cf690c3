// Memory of results and workspaces, kept from call to call: memory fresh from the system costs a
// page fault for every 4 KB, on large images as much as the arithmetic.
#pragma once

#include <cstddef>
#include <cstdint>

#include <c10/core/Allocator.h>

namespace starlight::ops
{

// Blocks of 64 KB and more that are given back are kept for the next call that wants about their
// size, up to a limit in bytes; beyond it those unused for longest go back to the system. Any
// thread may allocate and give back. Live until the process ends.
c10::Allocator *kept_memory();

int64_t kept_bytes(); // held for later calls; what tensors use is not counted
void release_kept();
// At first 1 GiB, or STARLIGHT_KEPT_MB of the environment; 0 keeps nothing.
void set_kept_limit(int64_t bytes);

} // namespace starlight::ops

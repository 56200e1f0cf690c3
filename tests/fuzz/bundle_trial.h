/* One trial of a bundle: open it, and when it is lawful run, trace and self-test it. */
#ifndef BUNDLE_TRIAL_H
#define BUNDLE_TRIAL_H

#include "starlight_runtime.h"

/* splitmix64 over one state. */
void seed_draws(uint64_t seed);
uint64_t draw(uint64_t bound);

void *allocate(size_t bytes); /* exits when there is none */

/* How often each status was met so far. */
extern unsigned met[SL_STATUS_COUNT];

/* What sl_open said of a copy that ends its allocation, at an odd address. A lawful bundle runs on
 * an image of a drawn size, traced, by its plan too (aborts when that gives another image), and one
 * in four tests itself; a compressed one is decompressed, and what comes out is opened. */
sl_status try_bundle(const uint8_t *data, size_t size);

#endif

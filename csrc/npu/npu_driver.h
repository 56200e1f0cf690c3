/* The driver of the reference chip's engine: a hook (starlight_hooks.h) that programs a layer from
 * its record into the registers, starts it and waits. C99; nothing is allocated.
 *
 *     static const npu_bus BUS = {my_read, my_write, my_address, NULL};
 *     static npu_driver driver;
 *     sl_hooks hooks;
 *     if (npu_open(&driver, &BUS, 1000000) == 0) sl_attach(&model, npu_hooks(&driver, &hooks));
 *
 * A layer that the engine refuses, or that it does not finish in time, is declined: the runtime
 * does it, with the same bits. */
#ifndef NPU_DRIVER_H
#define NPU_DRIVER_H

#include "starlight_hooks.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How a program reaches the engine. */
typedef struct npu_bus {
    uint32_t (*read)(void *context, uint32_t offset);
    void (*write)(void *context, uint32_t offset, uint32_t value);
    /* The address at which the engine finds a byte of the arena, the bundle or an image. Here a
     * system with caches writes them back. NULL: the CPU's own address. */
    uint64_t (*address)(void *context, const void *memory);
    void *context;
} npu_bus;

typedef struct npu_driver {
    const npu_bus *bus;
    uint32_t patience; /* reads of STATUS before a layer is given up */
    uint32_t done;     /* layers that the engine has done */
    uint32_t declined; /* layers that went back to the runtime */
    int dead;          /* it did not finish a layer: never asked again */
} npu_driver;

/* 0, or 1 when no engine with this map answers. `bus` must outlive the driver. */
int npu_open(npu_driver *driver, const npu_bus *bus, uint32_t patience);

/* Fill `hooks` with the driver for every operation; returns it. */
const sl_hooks *npu_hooks(npu_driver *driver, sl_hooks *hooks);

#ifdef __cplusplus
}
#endif

#endif

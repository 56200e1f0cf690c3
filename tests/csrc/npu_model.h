/* The reference chip's engine as software behind its registers. It knows a layer from the register
 * file and the memory at the addresses there, from nothing else. */
#ifndef NPU_MODEL_H
#define NPU_MODEL_H

#include <stdint.h>

#include "npu_registers.h"

typedef struct npu_model {
    uint32_t words[NPU_BYTES / 4];
    uint32_t written[NPU_BYTES / 4]; /* how often each register was written */
    uint32_t latency;                /* reads of STATUS that a layer takes */
    uint32_t left;
    uint32_t known_ops; /* bit op: the engine can do it; others end in ERROR */
    uint32_t hangs_at;  /* the layer, counted from 1, that never ends; 0: none */
    uint32_t started;
    uint32_t misuse; /* writes that the map does not allow */
} npu_model;

void npu_model_reset(npu_model *engine);
uint32_t npu_model_read(void *engine, uint32_t offset);
void npu_model_write(void *engine, uint32_t offset, uint32_t value);

#endif

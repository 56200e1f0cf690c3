/* The stages of sl_open. Each relies on what the earlier ones have checked. */
#ifndef SL_OPEN_H
#define SL_OPEN_H

#include "starlight_runtime.h"

/* Header, table, CRCs, padding, trailer; fills the model's sections, MODL and CHIP. */
sl_status sl_read_container(sl_model *model, const uint8_t *data, size_t size);

/* Every record by itself and against its neighbours: ranges, sizes, views, names. */
sl_status sl_check_records(sl_model *model);

/* Weights and channels of every layer: shifts, lanes, CRC, and the proof of the accumulator. */
sl_status sl_check_numbers(sl_model *model);

/* The address plan, lifetimes, and that everything is written once, before it is read. */
sl_status sl_check_dataflow(sl_model *model);

/* The stripe plan, when there is one: sizes, spills, and that every group reads what it wrote. */
sl_status sl_check_plan(sl_model *model);

static inline int sl_all_zero(const uint8_t *bytes, size_t count)
{
    size_t i;
    for (i = 0; i < count; i++)
        if (bytes[i] != 0) return 0;
    return 1;
}

/* `value` rounded up to a multiple of a section's alignment; value below 2^63. */
static inline uint64_t sl_align_section(uint64_t value)
{
    return (value + SL_SECTION_ALIGNMENT - 1) / SL_SECTION_ALIGNMENT * SL_SECTION_ALIGNMENT;
}

#endif

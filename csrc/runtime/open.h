/* The stages of sl_open. Each relies on what the earlier ones have checked. */
#ifndef SL_OPEN_H
#define SL_OPEN_H

#include "starlight_runtime.h"

/* Header, table, CRCs, padding, trailer; fills the model's sections, MODL and CHIP. `packed`: takes
 * the compressed weights that stand in the place of WGHT; NULL where they are refused. */
sl_status sl_read_container(sl_model *model, const uint8_t *data, size_t size, sl_span *packed);

/* Every record by itself and against its neighbours: ranges, sizes, views, names. */
sl_status sl_check_records(sl_model *model);

/* Weights and channels of every layer: shifts, lanes, CRC, and the proof of the accumulator. */
sl_status sl_check_numbers(sl_model *model);

/* The address plan, lifetimes, and that everything is written once, before it is read. */
sl_status sl_check_dataflow(sl_model *model);

/* Widths of a record's fields in bytes, a digit each; single bytes behind the last wider field may
 * be left out. They stand beside the structs of bundle_format.h. */
#define SL_HEADER_FIELDS                                                                           \
    "1111111122228444888"                                                                          \
    "4"
#define SL_SECTION_FIELDS                                                                          \
    "1111488"                                                                                      \
    "44"
#define SL_MODEL_FIELDS "444444411118"
#define SL_CHIP_FIELDS "4444444"
#define SL_BUFFER_FIELDS                                                                           \
    "42111124422"                                                                                  \
    "44"
#define SL_VIEW_FIELDS "22224112"
#define SL_LAYER_FIELDS                                                                            \
    "4111111114" SL_VIEW_FIELDS SL_VIEW_FIELDS SL_VIEW_FIELDS "44884"                              \
    "48"
#define SL_CHANNEL_FIELDS "4"
#define SL_MULTIPLIER_FIELDS "44"
#define SL_PACKED_WEIGHTS_FIELDS "422"
#define SL_STREAM_FIELDS "84"
#define SL_VECTORS_FIELDS "4444"
#define SL_PLAN_FIELDS "4444444"
#define SL_PLAN_GROUP_FIELDS "4444444"
#define SL_PLAN_WINDOW_FIELDS "44444444"
#define SL_PLAN_ITEM_FIELDS "444444444444"
#define SL_PLAN_SPILL_FIELDS "444444"

/* Copy the record of `size` little-endian bytes at `bytes`, fields in the host's byte order. */
void sl_decode(void *record, const void *bytes, size_t size, const char *widths);

/* The little-endian number at any address. */
uint32_t sl_load_u32(const uint8_t *bytes);
/* Weights out of their Golomb-Rice codes: 0 when k is out of range, a code is too long, or the
 * stream ends before or behind them. */
int sl_decode_rice(const uint8_t *stream, size_t bytes, uint32_t k, int8_t *weights, size_t count);

/* The stripe plan, when there is one: sizes, spills, and that every group reads what it wrote. */
sl_status sl_check_plan(sl_model *model);

static inline int sl_multiplies(const sl_model *model)
{
    return model->model.arithmetic == SL_ARITHMETIC_MULTIPLIER;
}

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

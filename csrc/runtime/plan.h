/* The records of an opened stripe plan; section PLAN of docs/FORMAT.md. */
#ifndef SL_PLAN_H
#define SL_PLAN_H

#include "starlight_runtime.h"

sl_plan_record sl_plan(const sl_model *model);
sl_plan_group_record sl_plan_group(const sl_model *model, uint32_t index);
sl_plan_window_record sl_plan_window(const sl_model *model, uint32_t index);
sl_plan_item_record sl_plan_item(const sl_model *model, uint32_t index);
sl_plan_spill_record sl_plan_spill(const sl_model *model, uint32_t index);

/* Offsets of both ends of a region, of rows or of columns. */
typedef struct sl_span_offsets {
    int64_t first, end;
} sl_span_offsets;

/* Level of what an item writes; 0 for the tail. */
uint32_t sl_plan_level(const sl_model *model, const sl_plan_group_record *group,
                       const sl_plan_item_record *item);

#endif

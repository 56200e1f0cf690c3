#include <string.h>

#include "open.h"

uint32_t sl_api_version(void)
{
    return SL_API_VERSION;
}

sl_status sl_open(sl_model *model, const void *data, size_t size)
{
    sl_status status;

    if (model == NULL || data == NULL) return SL_NULL_ARGUMENT;
    memset(model, 0, sizeof *model);
    if ((status = sl_read_container(model, (const uint8_t *)data, size, NULL)) != SL_OK)
        return status;
    if ((status = sl_check_records(model)) != SL_OK) return status;
    if ((status = sl_check_numbers(model)) != SL_OK) return status;
    if ((status = sl_check_dataflow(model)) != SL_OK) return status;
    return sl_check_plan(model);
}

sl_layer_record sl_layer(const sl_model *model, uint32_t index)
{
    sl_layer_record record;
    sl_decode(&record, model->layers.data + (size_t)index * sizeof record, sizeof record,
              SL_LAYER_FIELDS);
    return record;
}

sl_buffer_record sl_buffer(const sl_model *model, uint32_t index)
{
    sl_buffer_record record;
    sl_decode(&record, model->buffers.data + (size_t)index * sizeof record, sizeof record,
              SL_BUFFER_FIELDS);
    return record;
}

sl_channel_record sl_channel(const sl_model *model, uint32_t index)
{
    sl_channel_record record;
    sl_decode(&record, model->channels.data + (size_t)index * sizeof record, sizeof record,
              SL_CHANNEL_FIELDS);
    return record;
}

sl_multiplier_record sl_multiplier(const sl_model *model, uint32_t index)
{
    sl_multiplier_record record;
    sl_decode(&record, model->multipliers.data + (size_t)index * sizeof record, sizeof record,
              SL_MULTIPLIER_FIELDS);
    return record;
}

sl_vectors_record sl_vectors(const sl_model *model)
{
    sl_vectors_record record;
    sl_decode(&record, model->vectors.data, sizeof record, SL_VECTORS_FIELDS);
    return record;
}

const char *sl_name(const sl_model *model, uint32_t name)
{
    return (const char *)model->strings.data + name;
}

/* Where a map's values lie, and from accumulators to values, of any width and arithmetic. Layers of
 * 8 bits in dyadic arithmetic have a shorter way of their own. */
#include "intmath.h"
#include "layer_job.h"

void sl_place_map(sl_map *map, int8_t *address, const sl_buffer_record *buffer, uint32_t stride,
                  uint32_t first, uint32_t channels)
{
    map->value_bytes = buffer->bits / 8u;
    map->data = address + (size_t)first * map->value_bytes;
    map->channels = channels;
    map->pixel_stride = stride;
    map->pixel_bytes = (size_t)stride * map->value_bytes;
}

void sl_choose_arithmetic(sl_job *job)
{
    const int wide = job->output.value_bytes == 2;

    job->multiplies = job->frame->model->model.arithmetic == SL_ARITHMETIC_MULTIPLIER;
    job->wide = job->multiplies || wide || job->join.value_bytes == 2;
    job->high = wide ? SL_WIDE_ACTIVATION_MAX : SL_ACTIVATION_MAX;
    job->low = wide ? SL_WIDE_ACTIVATION_MIN : SL_ACTIVATION_MIN;
    if ((job->layer.flags & SL_LAYER_RELU) != 0) job->low = 0;
}

int32_t sl_requantised(const sl_job *job, const sl_lanes *lanes, uint32_t lane, int32_t acc,
                       int32_t q)
{
    if (job->multiplies)
        return (int32_t)sl_clamp64(sl_rounded_product(acc, lanes->multiplier[lane], q,
                                                      lanes->join_multiplier[lane],
                                                      lanes->shift[lane]),
                                   job->low, job->high);
    return sl_clamp(sl_rounded_shift(sl_join(acc, q, lanes->join_shift[lane]), lanes->shift[lane]),
                    job->low, job->high);
}

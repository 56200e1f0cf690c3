#include <string.h>

#include "layer_job.h"
#include "starlight_hooks.h"

sl_status sl_attach(sl_model *model, const sl_hooks *hooks)
{
    if (model == NULL) return SL_NULL_ARGUMENT;
    model->hooks = hooks;
    return SL_OK;
}

static sl_tensor tensor_of(const sl_map *map)
{
    sl_tensor tensor;

    tensor.data = map->data;
    tensor.height = map->height;
    tensor.width = map->width;
    tensor.channels = map->channels;
    tensor.channel_offset = map->channel_offset;
    tensor.pixel_stride = map->pixel_stride;
    tensor.rows = map->rows;
    tensor.columns = map->columns;
    tensor.left = map->left;
    tensor.value_bytes = map->value_bytes;
    return tensor;
}

/* The job's region in pixels of what it writes. */
static sl_region written(const sl_job *job)
{
    const uint32_t spread = job->layer.op == SL_OP_UP ? 2 : 1;
    sl_region region = job->region;

    region.top *= spread;
    region.bottom *= spread;
    region.left *= spread;
    region.right *= spread;
    return region;
}

int sl_offer(const sl_job *job)
{
    const sl_frame *frame = job->frame;
    const sl_hooks *hooks = frame->model->hooks;
    sl_hook_job offered;
    sl_hook hook;

    if (hooks == NULL) return 0;
    hook = job->tile ? hooks->tiles[job->layer.op] : hooks->ops[job->layer.op];
    if (hook == NULL) return 0;
    if (job->region.top >= job->region.bottom || job->region.left >= job->region.right) return 0;
    if (!hooks->wide && (job->wide || job->input.value_bytes == 2)) return 0;
    if (job->layer.op == SL_OP_TAIL && (frame->rgb_out == NULL || frame->trace != NULL)) return 0;
    memset(&offered, 0, sizeof offered);
    offered.model = frame->model;
    offered.index = job->index;
    offered.layer = job->layer;
    offered.weights = job->weights;
    offered.channels =
        frame->model->channels.data + (size_t)job->layer.channel_row * sizeof(sl_channel_record);
    if (job->multiplies)
        offered.multipliers = frame->model->multipliers.data +
                              (size_t)job->layer.channel_row * sizeof(sl_multiplier_record);
    offered.input = tensor_of(&job->input);
    offered.join = tensor_of(&job->join);
    offered.output = tensor_of(&job->output);
    offered.region = written(job);
    offered.image = frame->rgb_in;
    offered.image_stride = frame->in_stride;
    offered.image_height = frame->height;
    offered.image_width = frame->width;
    if (job->layer.op == SL_OP_TAIL) {
        offered.result = frame->rgb_out;
        offered.result_stride = frame->out_stride;
    }
    return hook(hooks->context, &offered) == SL_HOOK_DONE;
}

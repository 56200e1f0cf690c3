/* The records, each by itself and against its neighbours. */
#include <string.h>

#include "contract_constants.h"
#include "open.h"

typedef struct op_rule {
    uint8_t kernel, stride;
    int level_step;  /* level of the output less that of the input */
    uint32_t spread; /* accumulators per value of the output view's channels */
} op_rule;

/* By op id; a kernel of 0 marks an unknown id. */
static const op_rule RULES[] = {
    {0, 0, 0, 0}, {3, 1, 0, 1}, {3, 2, 1, 1}, {1, 1, 0, 1}, {1, 1, -1, 4}, {3, 1, 0, 1},
};

/* The layout of a layer's weights and channels, which follows from the layers before it. */
typedef struct cursor {
    uint64_t weight_end;
    uint32_t channel_row;
} cursor;

static int is_layout(uint32_t value)
{
    return value >= 1 && value <= SL_SECTION_ALIGNMENT && (value & (value - 1)) == 0;
}

static int is_name(const sl_model *model, uint32_t name)
{
    return name >= 1 && name < model->strings.bytes;
}

static sl_status check_strings(const sl_model *model)
{
    const sl_span strings = model->strings;
    if (strings.bytes == 0 || strings.data[0] != 0 || strings.data[strings.bytes - 1] != 0 ||
        !is_name(model, model->model.name) || !is_name(model, model->chip.name))
        return SL_BAD_STRINGS;
    return SL_OK;
}

static sl_status check_chip(const sl_chip_record *chip)
{
    if (!is_layout(chip->channel_block) || !is_layout(chip->alignment) ||
        chip->accumulator_bits < 16 || chip->accumulator_bits > 64 || chip->max_width == 0 ||
        chip->max_height == 0 || !sl_all_zero(chip->zero, sizeof chip->zero))
        return SL_BAD_CHIP;
    return SL_OK;
}

/* Bits of values and of weights: SL_RESERVED_FEATURE in a format before they came. */
static sl_status check_bits(const sl_model *model, uint32_t activation_bits, uint32_t weight_bits,
                            sl_status otherwise)
{
    if (model->format_major < 2 &&
        (activation_bits == SL_WIDE_ACTIVATION_BITS || weight_bits == SL_WEIGHT_BITS_MIN))
        return SL_RESERVED_FEATURE;
    if (activation_bits == SL_ACTIVATION_BITS && weight_bits == SL_WEIGHT_BITS) return SL_OK;
    return model->format_major >= 2 &&
                   (activation_bits == SL_ACTIVATION_BITS ||
                    activation_bits == SL_WIDE_ACTIVATION_BITS) &&
                   weight_bits >= SL_WEIGHT_BITS_MIN && weight_bits <= SL_WEIGHT_BITS
               ? SL_OK
               : otherwise;
}

static sl_status check_arithmetic(const sl_model *model)
{
    const int given = model->multipliers.data != NULL;

    if (!sl_multiplies(model))
        return model->model.arithmetic == SL_ARITHMETIC_DYADIC && !given ? SL_OK : SL_BAD_MODEL;
    if (model->format_major < 2) return SL_RESERVED_FEATURE;
    if (!given) return SL_MISSING_SECTION;
    return model->multipliers.bytes ==
                   model->model.channel_count * (uint64_t)sizeof(sl_multiplier_record)
               ? SL_OK
               : SL_BAD_MODEL;
}

static sl_status check_model(const sl_model *opened)
{
    const sl_model_record *model = &opened->model;
    sl_status status = check_arithmetic(opened);

    if (status != SL_OK) return status;
    status = check_bits(opened, model->activation_bits, model->weight_bits, SL_BAD_MODEL);
    if (status != SL_OK) return status;
    if (model->levels < 1 || model->levels > SL_LEVELS_MAX || model->layer_count < 1 ||
        model->layer_count > SL_ROWS_MAX || model->buffer_count < 1 ||
        model->buffer_count > SL_ROWS_MAX || model->zero0 != 0 ||
        !sl_all_zero(model->zero1, sizeof model->zero1))
        return SL_BAD_MODEL;
    if (opened->buffers.bytes != model->buffer_count * (uint64_t)sizeof(sl_buffer_record) ||
        opened->layers.bytes != model->layer_count * (uint64_t)sizeof(sl_layer_record) ||
        opened->channels.bytes != model->channel_count * (uint64_t)sizeof(sl_channel_record) ||
        opened->weights.bytes != model->weight_bytes)
        return SL_BAD_MODEL;
    if (model->channel_block != opened->chip.channel_block) return SL_BAD_CHIP;
    if (model->arena_bytes_per_cell % opened->chip.alignment != 0) return SL_BUFFER_OUTSIDE_ARENA;
    return SL_OK;
}

static int is_image(const sl_model *model, const sl_buffer_record *buffer)
{
    return buffer->channels == SL_IMAGE_CHANNELS && buffer->level == 0 &&
           buffer->exponent == (sl_multiplies(model) ? 0 : SL_IMAGE_EXPONENT) &&
           buffer->bits == SL_ACTIVATION_BITS && buffer->address_per_cell == 0 &&
           buffer->first_layer == 0 && buffer->last_layer == model->model.layer_count - 1;
}

static int exponent_agrees(const sl_model *model, const sl_buffer_record *buffer)
{
    const int highest = buffer->bits == SL_ACTIVATION_BITS ? SL_ACTIVATION_EXPONENT_MAX
                                                           : SL_WIDE_ACTIVATION_EXPONENT_MAX;
    if (sl_multiplies(model)) return buffer->exponent == 0;
    return buffer->exponent >= SL_ACTIVATION_EXPONENT_MIN && buffer->exponent <= highest;
}

static sl_status check_buffer(const sl_model *model, const sl_buffer_record *buffer)
{
    const uint32_t levels = model->model.levels;
    const uint32_t value_bytes = buffer->bits / 8u;
    const sl_status status = check_bits(model, buffer->bits, SL_WEIGHT_BITS, SL_BAD_BUFFER);

    if (status != SL_OK) return status;
    if (!is_name(model, buffer->name) || buffer->channels == 0 || buffer->level > levels ||
        !exponent_agrees(model, buffer) || model->chip.alignment % value_bytes != 0 ||
        buffer->kind > SL_BUFFER_IMAGE || buffer->zero0 != 0 || buffer->zero1 != 0 ||
        buffer->zero2 != 0 ||
        buffer->bytes_per_cell != buffer->channels * value_bytes << (2 * (levels - buffer->level)))
        return SL_BAD_BUFFER;
    if (buffer->kind == SL_BUFFER_IMAGE && !is_image(model, buffer)) return SL_BAD_BUFFER;
    return SL_OK;
}

static sl_status check_buffers(sl_model *model)
{
    uint32_t images = 0;
    uint8_t widest = 0;
    uint32_t i;

    for (i = 0; i < model->model.buffer_count; i++) {
        const sl_buffer_record buffer = sl_buffer(model, i);
        const sl_status status = check_buffer(model, &buffer);
        model->fault = i;
        if (status != SL_OK) return status;
        if (buffer.kind == SL_BUFFER_IMAGE) images++;
        if (buffer.bits > widest) widest = buffer.bits;
    }
    if (images != 1) return SL_BAD_BUFFER;
    return widest == model->model.activation_bits ? SL_OK : SL_BAD_MODEL;
}

static int view_agrees(const sl_model *model, const sl_view_record *view)
{
    sl_buffer_record buffer;

    if (view->buffer >= model->model.buffer_count) return 0;
    buffer = sl_buffer(model, view->buffer);
    return view->channels >= 1 && view->channel_offset + view->channels <= buffer.channels &&
           view->pixel_stride == buffer.channels &&
           view->address_per_cell == buffer.address_per_cell && view->level == buffer.level &&
           view->exponent == buffer.exponent && view->zero == 0;
}

/* An output or join: all zero when its flag is not set, else of the level and channels asked. */
static int written_view_agrees(const sl_model *model, const sl_view_record *view, int present,
                               int level, uint32_t channels)
{
    static const sl_view_record NONE = {0, 0, 0, 0, 0, 0, 0, 0};

    if (!present) return memcmp(view, &NONE, sizeof NONE) == 0;
    return view_agrees(model, view) && view->level == level && view->channels == channels;
}

static sl_status check_views(const sl_model *model, const sl_layer_record *layer,
                             const op_rule *rule)
{
    const int level = layer->input.level + rule->level_step;
    const uint32_t channels = layer->out_channels / rule->spread;

    if (!view_agrees(model, &layer->input) || layer->input.channels != layer->in_channels ||
        !written_view_agrees(model, &layer->output, layer->flags & SL_LAYER_OUTPUT, level,
                             channels) ||
        !written_view_agrees(model, &layer->join, layer->flags & SL_LAYER_JOIN, level, channels))
        return SL_BAD_VIEW;
    return SL_OK;
}

/* Bounds that keep every size below 2^63: out_channels < 2^18, in_channels < 2^16. */
static int sizes_agree(const sl_model *model, const sl_layer_record *layer, const cursor *next)
{
    const uint64_t block = model->model.channel_block;
    const uint64_t taps = (uint64_t)layer->kernel * layer->kernel * layer->in_channels;
    const uint64_t blocks = (layer->out_channels + block - 1) / block;
    const uint32_t out_level = (uint32_t)layer->input.level + layer->stride - 1u;
    const uint64_t positions = UINT64_C(1) << (2 * (model->model.levels - out_level));

    return layer->weight_offset == sl_align_section(next->weight_end) &&
           layer->weight_bytes == blocks * block * taps &&
           layer->weight_offset + layer->weight_bytes <= model->weights.bytes &&
           layer->channel_row == next->channel_row &&
           layer->out_channels <= model->model.channel_count - next->channel_row &&
           layer->macs_per_cell == positions * layer->out_channels * taps;
}

static sl_status check_layer(const sl_model *model, const sl_layer_record *layer, int last,
                             cursor *next)
{
    const uint8_t known = SL_LAYER_RELU | SL_LAYER_JOIN | SL_LAYER_OUTPUT;
    const op_rule *rule;
    sl_status status = check_bits(model, layer->activation_bits, layer->weight_bits, SL_BAD_LAYER);

    if (status != SL_OK) return status;
    if (layer->op >= sizeof RULES / sizeof RULES[0] || RULES[layer->op].kernel == 0)
        return SL_BAD_LAYER;
    rule = &RULES[layer->op];
    if (!is_name(model, layer->name) || layer->kernel != rule->kernel ||
        layer->stride != rule->stride || (layer->flags & ~known) != 0 || layer->out_channels == 0 ||
        layer->out_channels > 4 * 65535u || layer->out_channels % rule->spread != 0 ||
        layer->zero0 != 0 || layer->zero1 != 0 || !sl_all_zero(layer->zero2, sizeof layer->zero2))
        return SL_BAD_LAYER;
    if (last != (layer->op == SL_OP_TAIL)) return SL_BAD_LAYER;
    if (last &&
        (layer->flags != 0 || layer->out_channels != SL_IMAGE_CHANNELS || layer->input.level != 0))
        return SL_BAD_LAYER;
    if (!last && (layer->flags & SL_LAYER_OUTPUT) == 0) return SL_BAD_LAYER;
    if ((status = check_views(model, layer, rule)) != SL_OK) return status;
    if (layer->activation_bits != sl_buffer(model, layer->input.buffer).bits ||
        !sizes_agree(model, layer, next))
        return SL_BAD_LAYER;
    next->weight_end = layer->weight_offset + layer->weight_bytes;
    next->channel_row += layer->out_channels;
    return SL_OK;
}

static sl_status check_layers(sl_model *model)
{
    cursor next = {0, 0};
    uint8_t widest = 0;
    uint32_t i;

    for (i = 0; i < model->model.layer_count; i++) {
        const sl_layer_record layer = sl_layer(model, i);
        const int last = i == model->model.layer_count - 1;
        const sl_status status = check_layer(model, &layer, last, &next);
        model->fault = i;
        if (status != SL_OK) return status;
        if (layer.weight_bits > widest) widest = layer.weight_bits;
    }
    if (widest != model->model.weight_bits) return SL_BAD_MODEL;
    if (next.weight_end != model->weights.bytes || next.channel_row != model->model.channel_count)
        return SL_BAD_LAYER;
    return SL_OK;
}

static sl_status check_vectors(const sl_model *model)
{
    sl_vectors_record vectors;
    uint64_t frame;

    if (model->vectors.bytes < sizeof vectors) return SL_BAD_VECTORS;
    vectors = sl_vectors(model);
    if (vectors.zero != 0 || vectors.layer_count != model->model.layer_count ||
        vectors.width == 0 || vectors.width > SL_FRAME_MAX || vectors.height == 0 ||
        vectors.height > SL_FRAME_MAX || vectors.width > model->chip.max_width ||
        vectors.height > model->chip.max_height)
        return SL_BAD_VECTORS;
    frame = (uint64_t)vectors.width * vectors.height * SL_IMAGE_CHANNELS;
    if (model->vectors.bytes !=
        sizeof vectors + sizeof(uint32_t) * (uint64_t)vectors.layer_count + 2 * frame)
        return SL_BAD_VECTORS;
    return SL_OK;
}

sl_status sl_check_records(sl_model *model)
{
    sl_status status;

    if ((status = check_chip(&model->chip)) != SL_OK) return status;
    if ((status = check_model(model)) != SL_OK) return status;
    if ((status = check_strings(model)) != SL_OK) return status;
    if ((status = check_buffers(model)) != SL_OK) return status;
    if ((status = check_layers(model)) != SL_OK) return status;
    model->fault = 0;
    return check_vectors(model);
}

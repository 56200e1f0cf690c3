/* Weights and channels: shifts that follow from the exponents, and the proof, from the weights as
 * they are, that no order of summation can leave the accumulator:
 * m_x sum|q_w| + |b| + m_r 2^j (when something joins) + 2^(s-1) <= 2^31 - 1,
 * m being 128 or, of 16 bits, 32768. With multipliers the join and the half come after the
 * accumulator, in 64 bits, and the ranges of their factors are proof enough (sl_rounded_product).
 */
#include "intmath.h"
#include "open.h"

/* Largest |q| of a view's values. */
static uint64_t magnitude(const sl_model *model, const sl_view_record *view)
{
    return UINT64_C(1) << (sl_buffer(model, view->buffer).bits - 1u);
}

/* Row `row` of MULT; what CHAN says of shifts and exponents is 0. */
static int multiplier_agrees(const sl_model *model, const sl_layer_record *layer,
                             const sl_channel_record *channel, uint32_t row)
{
    const sl_multiplier_record record = sl_multiplier(model, row);
    const int joins = (layer->flags & SL_LAYER_JOIN) != 0;

    return record.multiplier <= SL_MULTIPLIER_MAX &&
           record.join_multiplier <= (joins ? (uint32_t)SL_MULTIPLIER_MAX : 0u) &&
           record.shift >= SL_MULTIPLIER_SHIFT_MIN && record.shift <= SL_MULTIPLIER_SHIFT_MAX &&
           sl_all_zero(record.zero, sizeof record.zero) && channel->shift == 0 &&
           channel->join_shift == 0 && channel->weight_exponent == 0 && channel->zero == 0;
}

static int channel_agrees(const sl_layer_record *layer, const sl_channel_record *channel)
{
    const int tail = layer->op == SL_OP_TAIL;
    const int joins = (layer->flags & SL_LAYER_JOIN) != 0;
    const int acc_exponent = layer->input.exponent + channel->weight_exponent;
    const int out_exponent = tail ? SL_IMAGE_EXPONENT : layer->output.exponent;
    const int join_shift = joins ? acc_exponent - layer->join.exponent : 0;

    return channel->weight_exponent <= SL_WEIGHT_EXPONENT_MAX && channel->shift >= SL_SHIFT_MIN &&
           channel->shift <= SL_SHIFT_MAX && channel->join_shift <= SL_JOIN_SHIFT_MAX &&
           channel->shift == acc_exponent - out_exponent && channel->join_shift == join_shift &&
           channel->zero == 0;
}

static uint64_t accumulator_bound(const sl_model *model, const sl_layer_record *layer,
                                  const sl_channel_record *channel, uint64_t weight_sum)
{
    const int64_t bias = channel->bias;
    uint64_t bound =
        magnitude(model, &layer->input) * weight_sum + (uint64_t)(bias < 0 ? -bias : bias);

    if (sl_multiplies(model)) return bound;
    if ((layer->flags & SL_LAYER_JOIN) != 0)
        bound += magnitude(model, &layer->join) << channel->join_shift;
    return bound + (UINT64_C(1) << (channel->shift - 1));
}

/* Add up |q_w| of each lane of one block; refuse what is beyond `largest`. */
static int sum_block(const uint8_t *weights, uint64_t taps, uint32_t block, uint32_t largest,
                     uint64_t *sums)
{
    uint32_t lane;
    uint64_t tap;

    for (lane = 0; lane < block; lane++)
        sums[lane] = 0;
    for (tap = 0; tap < taps; tap++)
        for (lane = 0; lane < block; lane++) {
            const uint8_t byte = weights[(size_t)(tap * block + lane)];
            const uint32_t size = byte < 0x80 ? byte : 256u - byte;
            if (size > largest) return 0;
            sums[lane] += size;
        }
    return 1;
}

static uint32_t bits_of(uint64_t bound)
{
    uint32_t bits = 1;
    for (; bound != 0; bound >>= 1)
        bits++;
    return bits;
}

static sl_status check_layer(const sl_model *model, const sl_layer_record *layer)
{
    const uint32_t block = model->model.channel_block;
    const uint64_t taps = (uint64_t)layer->kernel * layer->kernel * layer->in_channels;
    const uint8_t *weights = model->weights.data + (size_t)layer->weight_offset;
    uint64_t sums[SL_CHANNEL_BLOCK_MAX];
    uint64_t worst = 0;
    uint32_t first, lane;

    if (layer->weight_crc32 != sl_crc32(0, weights, (size_t)layer->weight_bytes))
        return SL_BAD_WEIGHTS;
    for (first = 0; first < layer->out_channels; first += block) {
        if (!sum_block(weights + (size_t)(first * taps), taps, block,
                       (UINT32_C(1) << (layer->weight_bits - 1u)) - 1u, sums))
            return SL_BAD_WEIGHTS;
        for (lane = 0; lane < block; lane++) {
            if (first + lane < layer->out_channels) {
                const uint32_t row = layer->channel_row + first + lane;
                const sl_channel_record channel = sl_channel(model, row);
                uint64_t bound;
                if (!(sl_multiplies(model) ? multiplier_agrees(model, layer, &channel, row)
                                           : channel_agrees(layer, &channel)))
                    return SL_BAD_CHANNEL;
                bound = accumulator_bound(model, layer, &channel, sums[lane]);
                if (bound > worst) worst = bound;
            } else if (sums[lane] != 0) {
                return SL_BAD_WEIGHTS;
            }
        }
    }
    if (worst > SL_ACCUMULATOR_MAX || bits_of(worst) != layer->accumulator_bits ||
        layer->accumulator_bits > model->chip.accumulator_bits)
        return SL_BAD_ACCUMULATOR;
    return SL_OK;
}

sl_status sl_check_numbers(sl_model *model)
{
    uint64_t end = 0;
    uint32_t i;

    for (i = 0; i < model->model.layer_count; i++) {
        const sl_layer_record layer = sl_layer(model, i);
        sl_status status;

        model->fault = i;
        if (!sl_all_zero(model->weights.data + (size_t)end, (size_t)(layer.weight_offset - end)))
            return SL_BAD_WEIGHTS;
        if ((status = check_layer(model, &layer)) != SL_OK) return status;
        end = layer.weight_offset + layer.weight_bytes;
    }
    model->fault = 0;
    return SL_OK;
}

/* CONV3X3, CONV3X3_STRIDE2 and CONV1X1: a map to a map, with an optional join and ReLU. */
#include "intmath.h"
#include "layer_job.h"

/* Of 8 bits and in dyadic arithmetic. */
static void store_narrow(const sl_job *job, const sl_lanes *lanes, sl_tile *tile)
{
    const int joins = (job->layer.flags & SL_LAYER_JOIN) != 0;
    const int relu = (job->layer.flags & SL_LAYER_RELU) != 0;
    int8_t made[SL_IMAGE_CHANNELS];
    uint32_t p, lane;

    for (p = 0; p < tile->pixels; p++) {
        int8_t *out = sl_at(&job->output, tile->y, tile->x + p) + lanes->first;
        int32_t *acc = tile->acc + p * job->block;

        if (joins) {
            const int8_t *q = sl_pixel(job->frame, &job->join, tile->y, tile->x + p, made);
            for (lane = 0; lane < lanes->count; lane++)
                acc[lane] = sl_join(acc[lane], q[lanes->first + lane], lanes->join_shift[lane]);
        }
        for (lane = 0; lane < lanes->count; lane++)
            out[lane] = relu ? sl_requantise_relu(acc[lane], lanes->shift[lane])
                             : sl_requantise(acc[lane], lanes->shift[lane]);
    }
}

static void store_wide(const sl_job *job, const sl_lanes *lanes, const sl_tile *tile)
{
    const int joins = (job->layer.flags & SL_LAYER_JOIN) != 0;
    int8_t made[SL_IMAGE_CHANNELS];
    const int8_t *joined = NULL;
    uint32_t p, lane;

    for (p = 0; p < tile->pixels; p++) {
        int8_t *out = sl_at(&job->output, tile->y, tile->x + p);
        const int32_t *acc = tile->acc + p * job->block;

        if (joins) joined = sl_pixel(job->frame, &job->join, tile->y, tile->x + p, made);
        for (lane = 0; lane < lanes->count; lane++) {
            const uint32_t c = lanes->first + lane;
            const int32_t q = joins ? sl_value(&job->join, joined, c) : 0;
            sl_put(&job->output, out, c, sl_requantised(job, lanes, lane, acc[lane], q));
        }
    }
}

void sl_conv(const sl_job *job)
{
    sl_lanes lanes;
    sl_tile tile;
    uint32_t first;

    for (tile.y = job->region.top; tile.y < job->region.bottom; tile.y++)
        for (first = 0; first < job->layer.out_channels; first += job->block) {
            sl_load_lanes(job, first, &lanes);
            for (tile.x = job->region.left; tile.x < job->region.right; tile.x += tile.pixels) {
                sl_accumulate(job, &lanes, &tile);
                if (job->wide)
                    store_wide(job, &lanes, &tile);
                else
                    store_narrow(job, &lanes, &tile);
            }
        }
}

/* UP: 1x1 to 4C channels, skip join, requantisation, pixel shuffle. Channel 4c + 2dy + dx of pixel
 * (y, x) is channel c of pixel (2y + dy, 2x + dx), in the skip as in the output. */
#include "intmath.h"
#include "layer_job.h"

/* The first lane of a block whose channel is 4c + quarter. */
static uint32_t first_lane(const sl_lanes *lanes, uint32_t quarter)
{
    return (quarter + 4 - lanes->first % 4) % 4;
}

/* One quarter, the channels of (dy, dx), of one pixel, of 8 bits and in dyadic arithmetic. */
static void store_narrow(const sl_job *job, const sl_lanes *lanes, const int32_t *acc, uint32_t y,
                         uint32_t x, uint32_t quarter)
{
    const int joins = (job->layer.flags & SL_LAYER_JOIN) != 0;
    const int relu = (job->layer.flags & SL_LAYER_RELU) != 0;
    int8_t made[SL_IMAGE_CHANNELS];
    const int8_t *skip = joins ? sl_pixel(job->frame, &job->join, y, x, made) : NULL;
    int8_t *out = sl_at(&job->output, y, x);
    uint32_t lane = first_lane(lanes, quarter);

    for (; lane < lanes->count; lane += 4) {
        const uint32_t c = (lanes->first + lane) / 4;
        const int32_t sum =
            joins ? sl_join(acc[lane], skip[c], lanes->join_shift[lane]) : acc[lane];
        out[c] = relu ? sl_requantise_relu(sum, lanes->shift[lane])
                      : sl_requantise(sum, lanes->shift[lane]);
    }
}

static void store_wide(const sl_job *job, const sl_lanes *lanes, const int32_t *acc, uint32_t y,
                       uint32_t x, uint32_t quarter)
{
    const int joins = (job->layer.flags & SL_LAYER_JOIN) != 0;
    int8_t made[SL_IMAGE_CHANNELS];
    const int8_t *skip = joins ? sl_pixel(job->frame, &job->join, y, x, made) : NULL;
    int8_t *out = sl_at(&job->output, y, x);
    uint32_t lane = first_lane(lanes, quarter);

    for (; lane < lanes->count; lane += 4) {
        const uint32_t c = (lanes->first + lane) / 4;
        const int32_t q = joins ? sl_value(&job->join, skip, c) : 0;
        sl_put(&job->output, out, c, sl_requantised(job, lanes, lane, acc[lane], q));
    }
}

void sl_up(const sl_job *job)
{
    sl_lanes lanes;
    sl_tile tile;
    uint32_t first, p, quarter;

    for (tile.y = job->region.top; tile.y < job->region.bottom; tile.y++)
        for (first = 0; first < job->layer.out_channels; first += job->block) {
            sl_load_lanes(job, first, &lanes);
            for (tile.x = job->region.left; tile.x < job->region.right; tile.x += tile.pixels) {
                sl_accumulate(job, &lanes, &tile);
                for (p = 0; p < tile.pixels; p++)
                    for (quarter = 0; quarter < 4; quarter++) {
                        const int32_t *acc = tile.acc + p * job->block;
                        const uint32_t y = 2 * tile.y + quarter / 2;
                        const uint32_t x = 2 * (tile.x + p) + quarter % 2;
                        if (job->wide)
                            store_wide(job, &lanes, acc, y, x, quarter);
                        else
                            store_narrow(job, &lanes, acc, y, x, quarter);
                    }
            }
        }
}

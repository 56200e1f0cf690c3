#include "contract_constants.h"
#include "open.h"

#define LARGEST (2u * SL_WEIGHT_MAX) /* of a mapped weight */

typedef struct bit_reader {
    const uint8_t *bytes;
    uint64_t bits, at;
} bit_reader;

/* The next bit, or -1 behind the last one. */
static int next_bit(bit_reader *from)
{
    uint64_t at = from->at;

    if (at >= from->bits) return -1;
    from->at = at + 1;
    return from->bytes[(size_t)(at / 8)] >> (7 - at % 8) & 1;
}

static int read_weight(bit_reader *from, uint32_t k, int8_t *weight)
{
    uint32_t mapped = 0, i;
    int bit;

    while ((bit = next_bit(from)) == 1)
        if (++mapped > LARGEST >> k) return 0;
    for (i = 0; i < k && bit >= 0; i++) {
        bit = next_bit(from);
        mapped = 2 * mapped + (bit == 1);
    }
    if (bit < 0 || mapped > LARGEST) return 0;
    *weight = (int8_t)(mapped % 2 == 0 ? (int32_t)(mapped / 2) : -(int32_t)(mapped / 2) - 1);
    return 1;
}

int sl_decode_rice(const uint8_t *stream, size_t bytes, uint32_t k, int8_t *weights, size_t count)
{
    bit_reader from;
    size_t i;

    if (k > SL_RICE_PARAMETER_MAX) return 0;
    from.bytes = stream;
    from.bits = 8 * (uint64_t)bytes;
    from.at = 0;
    for (i = 0; i < count; i++)
        if (!read_weight(&from, k, weights + i)) return 0;
    if (from.bits - from.at >= 8) return 0;
    while (from.at < from.bits)
        if (next_bit(&from) != 0) return 0;
    return 1;
}

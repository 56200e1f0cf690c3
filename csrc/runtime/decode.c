#include <string.h>

#include "open.h"

static int host_is_little_endian(void)
{
    const uint16_t one = 1;
    uint8_t first;
    memcpy(&first, &one, sizeof first);
    return first == 1;
}

void sl_decode(void *record, const void *bytes, size_t size, const char *widths)
{
    uint8_t *field = (uint8_t *)record;

    memcpy(record, bytes, size);
    if (host_is_little_endian()) return;
    for (; *widths != '\0'; widths++) {
        const size_t width = (size_t)(*widths - '0');
        size_t i;
        for (i = 0; i < width / 2; i++) {
            const uint8_t byte = field[i];
            field[i] = field[width - 1 - i];
            field[width - 1 - i] = byte;
        }
        field += width;
    }
}

uint32_t sl_load_u32(const uint8_t *bytes)
{
    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

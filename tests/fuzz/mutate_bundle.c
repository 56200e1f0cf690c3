/* Damage a bundle in memory, thousands of ways, and give each to the runtime. Run under sanitizers.
 *
 *     mutate_bundle flip BUNDLE               every bit of the file, one at a time
 *     mutate_bundle cut BUNDLE                the file cut at every length
 *     mutate_bundle forge BUNDLE SEED COUNT   bytes changed at random under right CRCs
 *
 * Flipped and cut bundles must be refused: exit code 2 when one is not. Forged ones may be lawful;
 * those are run, traced and self-tested. Prints how often each status was met, one a line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bundle_forge.h"
#include "bundle_trial.h"

static int flip_all(uint8_t *data, size_t size)
{
    size_t bit;
    int accepted = 0;
    for (bit = 0; bit < 8 * size; bit++) {
        data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        accepted |= try_bundle(data, size) == SL_OK;
        data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    return accepted;
}

static int cut_all(const uint8_t *data, size_t size)
{
    size_t length;
    int accepted = 0;
    for (length = 0; length < size; length++)
        accepted |= try_bundle(data, length) == SL_OK;
    return accepted;
}

static void forge(const uint8_t *original, size_t size, unsigned count)
{
    uint8_t *data = (uint8_t *)allocate(size);
    for (; count > 0; count--) {
        unsigned changes = 1 + (unsigned)draw(3);
        memcpy(data, original, size);
        while (changes-- > 0)
            change_byte(data, original, size);
        seal(data, size);
        (void)try_bundle(data, size);
    }
    free(data);
}

int main(int argc, char **argv)
{
    FILE *file = argc < 3 ? NULL : fopen(argv[2], "rb");
    uint8_t *data = (uint8_t *)allocate(1u << 20);
    size_t size;
    int accepted = 0, i;

    if (file == NULL) return 1;
    size = fread(data, 1, 1u << 20, file);
    (void)fclose(file);
    if (strcmp(argv[1], "flip") == 0)
        accepted = flip_all(data, size);
    else if (strcmp(argv[1], "cut") == 0)
        accepted = cut_all(data, size);
    else if (strcmp(argv[1], "forge") == 0 && argc == 5) {
        seed_draws(strtoull(argv[3], NULL, 10));
        forge(data, size, (unsigned)strtoul(argv[4], NULL, 10));
    } else
        return 1;
    for (i = 0; i < SL_STATUS_COUNT; i++)
        (void)printf("%u\n", met[i]);
    free(data);
    return accepted ? 2 : 0;
}

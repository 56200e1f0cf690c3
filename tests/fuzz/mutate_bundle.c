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

#include "starlight_runtime.h"

#define ARENA_MAX (1u << 20)

static unsigned met[SL_STATUS_COUNT];
static uint64_t state;

/* splitmix64 */
static uint64_t draw(uint64_t bound)
{
    uint64_t z = state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return (z ^ (z >> 31)) % bound;
}

static void *allocate(size_t bytes)
{
    void *memory = malloc(bytes == 0 ? 1 : bytes);
    if (memory == NULL) exit(3);
    return memory;
}

/* Open a copy whose last byte ends its allocation, at an odd address. */
static sl_status open_copy(const uint8_t *data, size_t size, sl_model *model, uint8_t **block)
{
    sl_status status;
    *block = (uint8_t *)allocate(size + 1);
    memcpy(*block + 1, data, size);
    status = sl_open(model, *block + 1, size);
    met[status]++;
    return status;
}

/* Read every byte that the trace offers. */
static void read_piece(void *context, const sl_trace *piece)
{
    uint32_t *crc = (uint32_t *)context;
    uint32_t p;
    for (p = 0; p < piece->pixels; p++)
        *crc = sl_crc32(*crc, piece->values + p * piece->pixel_stride, piece->channels);
}

static void run_model(const sl_model *model)
{
    const uint32_t width = 1 + (uint32_t)draw(20), height = 1 + (uint32_t)draw(20);
    const size_t stride = (size_t)width * 3, size = stride * height;
    uint8_t *in, *out;
    uint32_t crc = 0;
    size_t need, i;
    void *arena;

    if (sl_arena_bytes(model, width, height, &need) != SL_OK || need > ARENA_MAX) return;
    in = (uint8_t *)allocate(size);
    out = (uint8_t *)allocate(size);
    for (i = 0; i < size; i++)
        in[i] = (uint8_t)draw(256);
    if (posix_memalign(&arena, SL_SECTION_ALIGNMENT, need) != 0) exit(3);
    met[sl_run(model, in, stride, out, stride, width, height, arena, need, read_piece, &crc)]++;
    free(arena);
    free(out);
    free(in);
}

static void test_model(const sl_model *model)
{
    const sl_vectors_record vectors = sl_vectors(model);
    size_t need;
    void *arena;

    if (sl_arena_bytes(model, vectors.width, vectors.height, &need) != SL_OK || need > ARENA_MAX)
        return;
    if (posix_memalign(&arena, SL_SECTION_ALIGNMENT, need) != 0) exit(3);
    met[sl_self_test(model, arena, need, NULL)]++;
    free(arena);
}

static int try_bundle(const uint8_t *data, size_t size)
{
    sl_model model;
    uint8_t *block;
    const sl_status status = open_copy(data, size, &model, &block);

    if (status == SL_OK) {
        run_model(&model);
        if (draw(4) == 0) test_model(&model);
    }
    free(block);
    return status == SL_OK;
}

static int flip_all(uint8_t *data, size_t size)
{
    size_t bit;
    int accepted = 0;
    for (bit = 0; bit < 8 * size; bit++) {
        data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        accepted |= try_bundle(data, size);
        data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    return accepted;
}

static int cut_all(const uint8_t *data, size_t size)
{
    size_t length;
    int accepted = 0;
    for (length = 0; length < size; length++)
        accepted |= try_bundle(data, length);
    return accepted;
}

/* Let a view say of its buffer what the buffer says of itself, so that the lie goes deeper. */
static void agree(const uint8_t *buffers, uint64_t count, sl_view_record *view)
{
    sl_buffer_record buffer;

    if (view->channels == 0 || view->buffer >= count) return;
    memcpy(&buffer, buffers + view->buffer * sizeof buffer, sizeof buffer);
    view->pixel_stride = buffer.channels;
    view->address_per_cell = buffer.address_per_cell;
    view->level = buffer.level;
    view->exponent = buffer.exponent;
}

/* Make CRCs right again as far as the damaged places allow: weights, sections, table, header. */
static void seal(uint8_t *data, size_t size)
{
    const uint64_t room = size - sizeof(sl_trailer_record);
    const int deep = draw(2) == 0;
    sl_section_record buffers, layers, weights, section;
    sl_header_record header;
    sl_layer_record layer;
    uint32_t crc, i;
    size_t place;

    memset(&buffers, 0, sizeof buffers);
    memset(&layers, 0, sizeof layers);
    memset(&weights, 0, sizeof weights);
    memcpy(&header, data, sizeof header);
    if (header.section_count > 16) header.section_count = 9;
    for (i = 0; i < header.section_count; i++) {
        memcpy(&section, data + 64 + i * sizeof section, sizeof section);
        if (section.offset > room || section.bytes > room - section.offset) continue;
        if (memcmp(section.kind, SL_KIND_BUFFERS, SL_KIND_BYTES) == 0) buffers = section;
        if (memcmp(section.kind, SL_KIND_LAYERS, SL_KIND_BYTES) == 0) layers = section;
        if (memcmp(section.kind, SL_KIND_WEIGHTS, SL_KIND_BYTES) == 0) weights = section;
    }
    for (i = 0; i < layers.bytes / sizeof layer; i++) {
        place = (size_t)layers.offset + i * sizeof layer;
        memcpy(&layer, data + place, sizeof layer);
        if (deep) {
            const uint64_t count = buffers.bytes / sizeof(sl_buffer_record);
            agree(data + buffers.offset, count, &layer.input);
            agree(data + buffers.offset, count, &layer.output);
            agree(data + buffers.offset, count, &layer.join);
        }
        if (layer.weight_offset <= weights.bytes &&
            layer.weight_bytes <= weights.bytes - layer.weight_offset)
            layer.weight_crc32 = sl_crc32(0, data + weights.offset + layer.weight_offset,
                                          (size_t)layer.weight_bytes);
        memcpy(data + place, &layer, sizeof layer);
    }
    for (i = 0; i < header.section_count; i++) {
        place = 64 + i * sizeof section;
        memcpy(&section, data + place, sizeof section);
        if (section.offset > room || section.bytes > room - section.offset) continue;
        section.crc32 = sl_crc32(0, data + section.offset, (size_t)section.bytes);
        memcpy(data + place, &section, sizeof section);
    }
    memcpy(&header, data, sizeof header);
    if (header.section_count <= 16) {
        crc = sl_crc32(0, data + 64, header.section_count * sizeof section);
        memcpy(data + offsetof(sl_header_record, table_crc32), &crc, sizeof crc);
    }
    crc = sl_crc32(0, data, offsetof(sl_header_record, header_crc32));
    memcpy(data + offsetof(sl_header_record, header_crc32), &crc, sizeof crc);
    crc = sl_crc32(0, data + room, offsetof(sl_trailer_record, crc32));
    memcpy(data + room + offsetof(sl_trailer_record, crc32), &crc, sizeof crc);
}

/* One place of a section drawn at random (so that short tables are met as often as long ones), or
 * of the header and the table. */
static size_t draw_place(const uint8_t *data, size_t size)
{
    sl_header_record header;
    sl_section_record section;

    memcpy(&header, data, sizeof header);
    if (draw(16) == 0) return (size_t)draw(64 + header.section_count * sizeof section);
    memcpy(&section, data + 64 + draw(header.section_count) * sizeof section, sizeof section);
    if (section.bytes == 0 || section.offset + section.bytes > size) return (size_t)draw(size);
    return (size_t)(section.offset + draw(section.bytes));
}

static void change(uint8_t *data, const uint8_t *original, size_t size)
{
    static const uint8_t ENDS[] = {0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF};
    const size_t at = draw_place(original, size);

    switch (draw(4)) {
    case 0: data[at] = ENDS[draw(sizeof ENDS)]; break;
    case 1: data[at] = (uint8_t)(data[at] ^ (1u << draw(8))); break;
    case 2: data[at] = (uint8_t)(data[at] + 1 + 254 * draw(2)); break; /* one up or down */
    default: data[at] = original[draw_place(original, size)]; break;
    }
}

static void forge(const uint8_t *original, size_t size, unsigned count)
{
    uint8_t *data = (uint8_t *)allocate(size);
    for (; count > 0; count--) {
        unsigned changes = 1 + (unsigned)draw(3);
        memcpy(data, original, size);
        while (changes-- > 0)
            change(data, original, size);
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
        state = strtoull(argv[3], NULL, 10);
        forge(data, size, (unsigned)strtoul(argv[4], NULL, 10));
    } else
        return 1;
    for (i = 0; i < SL_STATUS_COUNT; i++)
        (void)printf("%u\n", met[i]);
    free(data);
    return accepted ? 2 : 0;
}

/* sl_decompress: a bundle with compressed weights (section WRIC) -> the plain bundle, byte for
 * byte. The container is that of the plain one, but for WRIC in the place of WGHT. */
#include <string.h>

#include "layer_job.h"
#include "open.h"

/* A compressed bundle whose container holds, and the size of what it stands for. */
typedef struct package {
    sl_model model; /* the sections; WGHT is missing */
    sl_span packed; /* WRIC */
    const uint8_t *data;
    sl_header_record header;
    sl_packed_weights_record head;
    uint64_t plain_bytes;
} package;

static void put_u32(uint8_t *to, uint32_t value)
{
    uint32_t i;
    for (i = 0; i < 4; i++)
        to[i] = (uint8_t)(value >> 8 * i & 0xFFu);
}

static void put_u64(uint8_t *to, uint64_t value)
{
    put_u32(to, (uint32_t)(value & UINT32_MAX));
    put_u32(to + 4, (uint32_t)(value >> 32));
}

static sl_stream_record stream_of(const package *from, uint32_t layer)
{
    sl_stream_record record;
    sl_decode(&record, from->packed.data + sizeof from->head + (size_t)layer * sizeof record,
              sizeof record, SL_STREAM_FIELDS);
    return record;
}

/* Streams one behind the other, each long enough for the weights of its layer, which fill WGHT. */
static int streams_agree(const package *from)
{
    const uint32_t layers = from->model.model.layer_count;
    uint64_t end = sizeof from->head + (uint64_t)layers * sizeof(sl_stream_record);
    uint64_t weights_end = 0;
    uint32_t i;

    if (from->head.layer_count != layers || end > from->packed.bytes ||
        !sl_all_zero(from->head.zero, sizeof from->head.zero) || from->head.plain_major < 1 ||
        from->head.plain_major > SL_FORMAT_MAJOR)
        return 0;
    for (i = 0; i < layers; i++) {
        const sl_stream_record stream = stream_of(from, i);
        const sl_layer_record layer = sl_layer(&from->model, i);
        const uint64_t start = sl_align_section(end);

        if (stream.offset != start || start > from->packed.bytes ||
            stream.bytes > from->packed.bytes - start ||
            !sl_all_zero(stream.zero, sizeof stream.zero) || stream.k > SL_RICE_PARAMETER_MAX ||
            !sl_all_zero(from->packed.data + end, (size_t)(start - end)) ||
            layer.weight_offset != sl_align_section(weights_end) ||
            layer.weight_bytes > UINT64_C(8) * stream.bytes / (stream.k + 1u))
            return 0;
        end = start + stream.bytes;
        weights_end = layer.weight_offset + layer.weight_bytes;
    }
    return end == from->packed.bytes && weights_end == from->model.model.weight_bytes;
}

static sl_section_record section_of(const package *from, uint32_t index)
{
    sl_section_record section;
    sl_decode(&section, from->data + SL_SECTION_ALIGNMENT + (size_t)index * sizeof section,
              sizeof section, SL_SECTION_FIELDS);
    return section;
}

static int is_packed(const sl_section_record *section)
{
    return memcmp(section->kind, SL_KIND_PACKED_WEIGHTS, SL_KIND_BYTES) == 0;
}

static uint64_t table_end(const package *from)
{
    return SL_SECTION_ALIGNMENT + from->header.section_count * (uint64_t)sizeof(sl_section_record);
}

static uint64_t plain_bytes(const package *from)
{
    uint64_t end = table_end(from);
    uint32_t i;

    for (i = 0; i < from->header.section_count; i++) {
        const sl_section_record section = section_of(from, i);
        end = sl_align_section(end) +
              (is_packed(&section) ? from->model.model.weight_bytes : section.bytes);
    }
    return sl_align_section(end) + sizeof(sl_trailer_record);
}

static sl_status open_package(package *from, const uint8_t *data, size_t size)
{
    const uint32_t *layers = &from->model.model.layer_count;
    sl_status status;

    memset(from, 0, sizeof *from);
    status = sl_read_container(&from->model, data, size, &from->packed);
    if (status != SL_OK) return status;
    from->data = data;
    sl_decode(&from->header, data, sizeof from->header, SL_HEADER_FIELDS);
    if (*layers > SL_ROWS_MAX ||
        from->model.layers.bytes != *layers * (uint64_t)sizeof(sl_layer_record))
        return SL_BAD_LAYER;
    if (from->packed.bytes < sizeof from->head) return SL_BAD_COMPRESSION;
    sl_decode(&from->head, from->packed.data, sizeof from->head, SL_PACKED_WEIGHTS_FIELDS);
    if (!streams_agree(from)) return SL_BAD_COMPRESSION;
    from->plain_bytes = plain_bytes(from);
    return SL_OK;
}

/* WGHT at `to`, whose bytes are zero. */
static sl_status put_weights(const package *from, uint8_t *to)
{
    uint32_t i;

    for (i = 0; i < from->model.model.layer_count; i++) {
        const sl_stream_record stream = stream_of(from, i);
        const sl_layer_record layer = sl_layer(&from->model, i);
        const size_t count = (size_t)layer.weight_bytes;
        uint8_t *weights = to + (size_t)layer.weight_offset;

        if (!sl_decode_rice(from->packed.data + (size_t)stream.offset, stream.bytes, stream.k,
                            (int8_t *)weights, count))
            return SL_BAD_COMPRESSION;
        if (sl_crc32(0, weights, count) != layer.weight_crc32) return SL_BAD_WEIGHTS;
    }
    return SL_OK;
}

static sl_status put_sections(const package *from, uint8_t *out)
{
    uint64_t end = table_end(from);
    uint32_t i;

    for (i = 0; i < from->header.section_count; i++) {
        const sl_section_record section = section_of(from, i);
        uint8_t *entry = out + SL_SECTION_ALIGNMENT + (size_t)i * sizeof section;
        const uint64_t start = sl_align_section(end);
        uint64_t bytes = section.bytes;
        sl_status status;

        memcpy(entry, from->data + (entry - out), sizeof section);
        put_u64(entry + offsetof(sl_section_record, offset), start);
        if (is_packed(&section)) {
            bytes = from->model.model.weight_bytes;
            if ((status = put_weights(from, out + (size_t)start)) != SL_OK) return status;
            memcpy(entry, SL_KIND_WEIGHTS, SL_KIND_BYTES);
            put_u64(entry + offsetof(sl_section_record, bytes), bytes);
            put_u32(entry + offsetof(sl_section_record, crc32),
                    sl_crc32(0, out + (size_t)start, (size_t)bytes));
        } else {
            memcpy(out + (size_t)start, from->data + (size_t)section.offset, (size_t)bytes);
        }
        end = start + bytes;
    }
    return SL_OK;
}

static void put_header(const package *from, uint8_t *out)
{
    const uint32_t major = from->head.plain_major, minor = from->head.plain_minor;

    memcpy(out, from->data, sizeof from->header);
    put_u32(out + offsetof(sl_header_record, format_major), major | minor << 16);
    put_u64(out + offsetof(sl_header_record, file_bytes), from->plain_bytes);
    put_u32(
        out + offsetof(sl_header_record, table_crc32),
        sl_crc32(0, out + SL_SECTION_ALIGNMENT, (size_t)(table_end(from) - SL_SECTION_ALIGNMENT)));
    put_u32(out + offsetof(sl_header_record, header_crc32),
            sl_crc32(0, out, offsetof(sl_header_record, header_crc32)));
}

static void put_trailer(const package *from, uint8_t *out)
{
    uint8_t *trailer = out + (size_t)from->plain_bytes - sizeof(sl_trailer_record);

    memcpy(trailer, from->head.plain_sha256, sizeof from->head.plain_sha256);
    put_u32(trailer + offsetof(sl_trailer_record, crc32),
            sl_crc32(0, trailer, offsetof(sl_trailer_record, crc32)));
}

sl_status sl_decompress(const void *packed, size_t bytes, void *out, size_t capacity,
                        size_t *written)
{
    package from;
    sl_status status;

    if (packed == NULL || written == NULL || (out == NULL && capacity > 0)) return SL_NULL_ARGUMENT;
    *written = 0;
    if ((status = open_package(&from, (const uint8_t *)packed, bytes)) != SL_OK) return status;
    if (from.plain_bytes > SIZE_MAX) return SL_OUTPUT_TOO_SMALL;
    *written = (size_t)from.plain_bytes;
    if (capacity < from.plain_bytes) return SL_OUTPUT_TOO_SMALL;
    if (sl_overlap(packed, bytes, out, *written)) return SL_MEMORY_OVERLAPS;
    memset(out, 0, *written);
    if ((status = put_sections(&from, (uint8_t *)out)) != SL_OK) return status;
    put_header(&from, (uint8_t *)out);
    put_trailer(&from, (uint8_t *)out);
    return SL_OK;
}

/* Every field is read by copying: the host is little-endian, as the file is. */
#include "bundle_forge.h"

#include <stdlib.h>
#include <string.h>

#include "bundle_trial.h"
#include "open.h"

#define SECTIONS_MAX 16

/* Sections that deeper lies go through; empty where there is none. */
typedef struct tables {
    sl_section_record model, buffers, layers, weights, packed;
} tables;

static void take_table(sl_section_record *table, const sl_section_record *section, const char *kind)
{
    if (memcmp(section->kind, kind, SL_KIND_BYTES) == 0) *table = *section;
}

/* Let a buffer be as large as its bits and channels ask, and the model and every layer state the
 * bits that are there. */
static void agree_on_bits(uint8_t *data, const tables *at)
{
    sl_model_record model;
    sl_buffer_record buffer;
    sl_layer_record layer;
    uint32_t i;

    if (at->model.bytes < sizeof model) return;
    memcpy(&model, data + at->model.offset, sizeof model);
    model.activation_bits = model.weight_bits = 0;
    for (i = 0; i < at->buffers.bytes / sizeof buffer; i++) {
        uint8_t *place = data + at->buffers.offset + i * sizeof buffer;
        memcpy(&buffer, place, sizeof buffer);
        if (buffer.bits > model.activation_bits) model.activation_bits = buffer.bits;
        if (buffer.level <= model.levels && model.levels <= 6)
            buffer.bytes_per_cell = buffer.bits / 8u * buffer.channels
                                    << 2 * (model.levels - buffer.level);
        memcpy(place, &buffer, sizeof buffer);
    }
    for (i = 0; i < at->layers.bytes / sizeof layer; i++) {
        uint8_t *place = data + at->layers.offset + i * sizeof layer;
        memcpy(&layer, place, sizeof layer);
        if (layer.weight_bits > model.weight_bits) model.weight_bits = layer.weight_bits;
        if (layer.input.buffer < at->buffers.bytes / sizeof buffer) {
            memcpy(&buffer, data + at->buffers.offset + layer.input.buffer * sizeof buffer,
                   sizeof buffer);
            layer.activation_bits = buffer.bits;
        }
        memcpy(place, &layer, sizeof layer);
    }
    memcpy(data + at->model.offset, &model, sizeof model);
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

/* The CRC that a layer's weights have when they are decoded; `crc` where they are not. */
static uint32_t decoded_crc(const uint8_t *streams, uint64_t bytes, uint32_t index, uint64_t count,
                            uint32_t crc)
{
    const uint64_t place = sizeof(sl_packed_weights_record) + index * sizeof(sl_stream_record);
    sl_stream_record stream;
    int8_t *weights;

    if (place + sizeof stream > bytes) return crc;
    memcpy(&stream, streams + place, sizeof stream);
    if (stream.offset > bytes || stream.bytes > bytes - stream.offset ||
        count > UINT64_C(8) * stream.bytes)
        return crc;
    weights = (int8_t *)allocate((size_t)count);
    if (sl_decode_rice(streams + stream.offset, stream.bytes, stream.k, weights, (size_t)count))
        crc = sl_crc32(0, weights, (size_t)count);
    free(weights);
    return crc;
}

void seal(uint8_t *data, size_t size)
{
    const uint64_t room = size - sizeof(sl_trailer_record);
    const int deep = draw(2) == 0;
    sl_section_record section;
    tables at;
    sl_header_record header;
    sl_layer_record layer;
    uint32_t crc, i;
    size_t place;

    memset(&at, 0, sizeof at);
    memcpy(&header, data, sizeof header);
    if (header.section_count > 16) header.section_count = 9;
    for (i = 0; i < header.section_count; i++) {
        memcpy(&section, data + 64 + i * sizeof section, sizeof section);
        if (section.offset > room || section.bytes > room - section.offset) continue;
        take_table(&at.model, &section, SL_KIND_MODEL);
        take_table(&at.buffers, &section, SL_KIND_BUFFERS);
        take_table(&at.layers, &section, SL_KIND_LAYERS);
        take_table(&at.weights, &section, SL_KIND_WEIGHTS);
        take_table(&at.packed, &section, SL_KIND_PACKED_WEIGHTS);
    }
    if (deep) agree_on_bits(data, &at);
    for (i = 0; i < at.layers.bytes / sizeof layer; i++) {
        place = (size_t)at.layers.offset + i * sizeof layer;
        memcpy(&layer, data + place, sizeof layer);
        if (deep) {
            const uint64_t count = at.buffers.bytes / sizeof(sl_buffer_record);
            agree(data + at.buffers.offset, count, &layer.input);
            agree(data + at.buffers.offset, count, &layer.output);
            agree(data + at.buffers.offset, count, &layer.join);
        }
        if (layer.weight_offset <= at.weights.bytes &&
            layer.weight_bytes <= at.weights.bytes - layer.weight_offset)
            layer.weight_crc32 = sl_crc32(0, data + at.weights.offset + layer.weight_offset,
                                          (size_t)layer.weight_bytes);
        layer.weight_crc32 = decoded_crc(data + at.packed.offset, at.packed.bytes, i,
                                         layer.weight_bytes, layer.weight_crc32);
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
    if (section.bytes == 0 || section.offset > size || section.bytes > size - section.offset)
        return (size_t)draw(size);
    return (size_t)(section.offset + draw(section.bytes));
}

void change_byte(uint8_t *data, const uint8_t *original, size_t size)
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

typedef struct part {
    sl_section_record entry;
    uint8_t *content;
} part;

/* Copies of the sections; 0 when the table or a section leaves the file. */
static uint32_t take_parts(const uint8_t *data, size_t size, part parts[SECTIONS_MAX + 1])
{
    sl_header_record header;
    uint32_t i;

    memcpy(&header, data, sizeof header);
    if (header.section_count > SECTIONS_MAX ||
        64 + header.section_count * sizeof(sl_section_record) > size)
        return 0;
    for (i = 0; i < header.section_count; i++) {
        sl_section_record *entry = &parts[i].entry;
        memcpy(entry, data + 64 + i * sizeof *entry, sizeof *entry);
        if (entry->offset > size || entry->bytes > size - entry->offset) break;
        parts[i].content = (uint8_t *)allocate((size_t)entry->bytes);
        memcpy(parts[i].content, data + entry->offset, (size_t)entry->bytes);
    }
    if (i == header.section_count) return i;
    while (i-- > 0)
        free(parts[i].content);
    return 0;
}

static size_t align_section(size_t size)
{
    return (size + 63) / 64 * 64;
}

/* Header, table and sections one behind the other; 0 when they do not fit. */
static size_t put_parts(uint8_t *data, size_t room, part *parts, uint32_t count)
{
    size_t end = 64 + count * sizeof(sl_section_record);
    sl_header_record header;
    uint32_t i;

    for (i = 0; i < count; i++) {
        parts[i].entry.offset = align_section(end);
        end = (size_t)(parts[i].entry.offset + parts[i].entry.bytes);
    }
    end = align_section(end) + sizeof(sl_trailer_record);
    if (end > room) return 0;
    memset(data + 64, 0, end - 64);
    memcpy(&header, data, sizeof header);
    header.file_bytes = end;
    header.section_count = count;
    memcpy(data, &header, sizeof header);
    for (i = 0; i < count; i++) {
        memcpy(data + 64 + i * sizeof parts[i].entry, &parts[i].entry, sizeof parts[i].entry);
        memcpy(data + parts[i].entry.offset, parts[i].content, (size_t)parts[i].entry.bytes);
    }
    return end;
}

size_t change_sections(uint8_t *data, size_t size, size_t room,
                       size_t (*resize)(uint8_t *content, size_t bytes, size_t room))
{
    part parts[SECTIONS_MAX + 1];
    uint32_t count = take_parts(data, size, parts), at, other, i;
    part taken;

    if (count == 0) return 0;
    at = (uint32_t)draw(count);
    other = (uint32_t)draw(count);
    taken = parts[at];
    switch (draw(8)) {
    case 0: /* out */
        free(taken.content);
        parts[at] = parts[--count];
        break;
    case 1: /* doubled, under a name that may be new */
        parts[count] = taken;
        parts[count].content = (uint8_t *)allocate((size_t)taken.entry.bytes);
        memcpy(parts[count].content, taken.content, (size_t)taken.entry.bytes);
        parts[count].entry.kind[3] = (char)(parts[count].entry.kind[3] + (char)draw(2));
        parts[count].entry.flags = (uint32_t)draw(2);
        count++;
        break;
    case 2: /* elsewhere */
        parts[at] = parts[other];
        parts[other] = taken;
        break;
    default: { /* with other bytes, more or fewer */
        const size_t bytes = (size_t)taken.entry.bytes, limit = bytes + 256;
        uint8_t *content = (uint8_t *)allocate(limit);
        memcpy(content, taken.content, bytes);
        parts[at].entry.bytes = resize(content, bytes, limit);
        parts[at].content = content;
        free(taken.content);
        break;
    }
    }
    size = put_parts(data, room, parts, count);
    for (i = 0; i < count; i++)
        free(parts[i].content);
    if (size != 0) seal(data, size);
    return size;
}

/* The container: which bytes are which section, and that not one of them has changed. */
#include <string.h>

#include "contract_constants.h"
#include "open.h"

/* Those before MULTIPLIERS must be there, those before META may not be skipped. */
enum {
    MODEL,
    CHIP,
    STRINGS,
    BUFFERS,
    LAYERS,
    CHANNELS,
    WEIGHTS,
    VECTORS,
    MULTIPLIERS,
    PACKED,
    META,
    PLAN,
    KINDS
};

static const char KIND_NAMES[KINDS][SL_KIND_BYTES + 1] = {
    SL_KIND_MODEL,       SL_KIND_CHIP,           SL_KIND_STRINGS, SL_KIND_BUFFERS,
    SL_KIND_LAYERS,      SL_KIND_CHANNELS,       SL_KIND_WEIGHTS, SL_KIND_VECTORS,
    SL_KIND_MULTIPLIERS, SL_KIND_PACKED_WEIGHTS, SL_KIND_META,    SL_KIND_PLAN};

/* The kind, as far as a file of this format knows it. */
static int kind_of(const char kind[SL_KIND_BYTES], uint32_t format_major)
{
    int i;
    for (i = 0; i < KINDS; i++)
        if (memcmp(kind, KIND_NAMES[i], SL_KIND_BYTES) == 0)
            return i >= MULTIPLIERS && i < META && format_major < 2 ? KINDS : i;
    return KINDS;
}

static sl_status check_header(const sl_header_record *header, const uint8_t *data, size_t size)
{
    const uint64_t table_end =
        SL_SECTION_ALIGNMENT + (uint64_t)header->section_count * sizeof(sl_section_record);

    if (header->format_major < SL_FORMAT_MAJOR_FIRST || header->format_major > SL_FORMAT_MAJOR)
        return SL_BAD_FORMAT_VERSION;
    if (header->header_crc32 != sl_crc32(0, data, offsetof(sl_header_record, header_crc32)))
        return SL_BAD_HEADER_CRC;
    if (header->arithmetic_version != SL_ARITHMETIC_VERSION) return SL_BAD_ARITHMETIC_VERSION;
    if (header->zero0 != 0 || !sl_all_zero(header->zero1, sizeof header->zero1) ||
        header->table_offset != SL_SECTION_ALIGNMENT)
        return SL_BAD_HEADER;
    if (size < header->file_bytes) return SL_TRUNCATED;
    if (size != header->file_bytes || size % SL_SECTION_ALIGNMENT != 0) return SL_BAD_SIZE;
    if (sl_align_section(table_end) + sizeof(sl_trailer_record) > size) return SL_BAD_TABLE;
    if (header->table_crc32 !=
        sl_crc32(0, data + SL_SECTION_ALIGNMENT, (size_t)(table_end - SL_SECTION_ALIGNMENT)))
        return SL_BAD_TABLE_CRC;
    return SL_OK;
}

static sl_status check_trailer(const uint8_t *data, size_t size)
{
    const uint8_t *place = data + size - sizeof(sl_trailer_record);
    const size_t zeros = offsetof(sl_trailer_record, zero);
    const size_t crc = offsetof(sl_trailer_record, crc32);

    if (sl_load_u32(place + crc) != sl_crc32(0, place, crc) ||
        !sl_all_zero(place + zeros, crc - zeros))
        return SL_BAD_TRAILER;
    return SL_OK;
}

/* Check the entry of a section that must start at *end, and move *end behind it. */
static sl_status check_section(const sl_section_record *section, const uint8_t *data, size_t size,
                               uint64_t *end)
{
    const uint64_t limit = size - sizeof(sl_trailer_record);
    const uint64_t start = sl_align_section(*end);

    if ((section->flags & ~SL_SECTION_REQUIRED) != 0 || section->zero != 0 ||
        section->offset != start || start > limit || section->bytes > limit - start)
        return SL_BAD_TABLE;
    if (!sl_all_zero(data + *end, (size_t)(start - *end))) return SL_BAD_PADDING;
    if (section->crc32 != sl_crc32(0, data + start, (size_t)section->bytes))
        return SL_BAD_SECTION_CRC;
    *end = start + section->bytes;
    return SL_OK;
}

static sl_status keep_sections(sl_model *model, const sl_span found[KINDS], sl_span *packed)
{
    int i;

    if (packed == NULL && found[PACKED].data != NULL) return SL_COMPRESSED;
    for (i = 0; i < MULTIPLIERS; i++) {
        const int kind = i == WEIGHTS && packed != NULL ? PACKED : i;
        model->fault = (uint32_t)kind;
        if (found[kind].data == NULL) return SL_MISSING_SECTION;
    }
    if (packed != NULL) {
        if (found[WEIGHTS].data != NULL) return SL_DUPLICATE_SECTION;
        *packed = found[PACKED];
    }
    model->fault = 0;
    if (found[MODEL].bytes != sizeof model->model) return SL_BAD_MODEL;
    if (found[CHIP].bytes != sizeof model->chip) return SL_BAD_CHIP;
    sl_decode(&model->model, found[MODEL].data, sizeof model->model, SL_MODEL_FIELDS);
    sl_decode(&model->chip, found[CHIP].data, sizeof model->chip, SL_CHIP_FIELDS);
    model->strings = found[STRINGS];
    model->buffers = found[BUFFERS];
    model->layers = found[LAYERS];
    model->channels = found[CHANNELS];
    model->weights = found[WEIGHTS];
    model->vectors = found[VECTORS];
    model->multipliers = found[MULTIPLIERS];
    model->plan = found[PLAN];
    return SL_OK;
}

sl_status sl_read_container(sl_model *model, const uint8_t *data, size_t size, sl_span *packed)
{
    static const uint8_t MAGIC[] = SL_MAGIC_BYTES;
    sl_span found[KINDS];
    sl_header_record header;
    sl_status status;
    uint64_t end;
    uint32_t i;

    memset(found, 0, sizeof found);
    if (size < sizeof header) return SL_TRUNCATED;
    sl_decode(&header, data, sizeof header, SL_HEADER_FIELDS);
    if (memcmp(header.magic, MAGIC, sizeof MAGIC) != 0) return SL_BAD_MAGIC;
    if ((status = check_header(&header, data, size)) != SL_OK) return status;
    model->format_major = header.format_major;

    end = SL_SECTION_ALIGNMENT + (uint64_t)header.section_count * sizeof(sl_section_record);
    for (i = 0; i < header.section_count; i++) {
        sl_section_record section;
        int kind;

        model->fault = i;
        sl_decode(&section, data + SL_SECTION_ALIGNMENT + (size_t)i * sizeof section,
                  sizeof section, SL_SECTION_FIELDS);
        if ((status = check_section(&section, data, size, &end)) != SL_OK) return status;
        kind = kind_of(section.kind, header.format_major);
        if (kind == KINDS) {
            if ((section.flags & SL_SECTION_REQUIRED) != 0) return SL_UNKNOWN_REQUIRED_SECTION;
            continue;
        }
        if (found[kind].data != NULL) return SL_DUPLICATE_SECTION;
        if (section.flags != (kind >= META ? 0 : SL_SECTION_REQUIRED)) return SL_BAD_TABLE;
        found[kind].data = data + (size_t)section.offset;
        found[kind].bytes = (size_t)section.bytes;
    }
    model->fault = header.section_count;
    if (sl_align_section(end) != size - sizeof(sl_trailer_record)) return SL_BAD_TABLE;
    if (!sl_all_zero(data + (size_t)end, size - sizeof(sl_trailer_record) - (size_t)end))
        return SL_BAD_PADDING;
    if ((status = check_trailer(data, size)) != SL_OK) return status;
    return keep_sections(model, found, packed);
}

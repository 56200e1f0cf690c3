/* Records of the bundle container, formats 1 and 2 (docs/FORMAT.md). C99 and C++17, header only.
 *
 * Every field lies at its natural alignment, so the structs carry no hidden padding; the assertions
 * below hold each size and offset. The file is little-endian; a reader copies a record out of it,
 * so a bundle may lie at any address and no aliasing rule is bent, and a big-endian host then turns
 * the bytes of each field (sl_decode of csrc/runtime/open.h).
 */
#ifndef SL_BUNDLE_FORMAT_H
#define SL_BUNDLE_FORMAT_H

#include <stddef.h>
#include <stdint.h>

/* "SLB\r\n^Z\n\0": a text-mode transfer or a cut at the first line shows at once. */
#define SL_MAGIC_BYTES {0x53, 0x4C, 0x42, 0x0D, 0x0A, 0x1A, 0x0A, 0x00}
#define SL_FORMAT_MAJOR 2 /* the newest; adds 16-bit buffers, narrow weights and MULT */
#define SL_FORMAT_MAJOR_FIRST 1
#define SL_FORMAT_MINOR 1 /* of format 1 */
#define SL_SECTION_ALIGNMENT 64
#define SL_CHANNEL_BLOCK_MAX 64
#define SL_RICE_PARAMETER_MAX 7u
#define SL_ROWS_MAX 4096 /* buffers, and layers: a reader compares each with each */

/* Section kinds: four characters, as they stand in the file. */
#define SL_KIND_BYTES 4
#define SL_KIND_MODEL "MODL"
#define SL_KIND_CHIP "CHIP"
#define SL_KIND_STRINGS "STRS"
#define SL_KIND_BUFFERS "BUFS"
#define SL_KIND_LAYERS "LAYR"
#define SL_KIND_CHANNELS "CHAN"
#define SL_KIND_WEIGHTS "WGHT"
#define SL_KIND_VECTORS "VECT"
#define SL_KIND_MULTIPLIERS "MULT"    /* since 2; required in multiplier arithmetic, else absent */
#define SL_KIND_PACKED_WEIGHTS "WRIC" /* since 2; in the place of WGHT */
#define SL_KIND_META "META"
#define SL_KIND_PLAN "PLAN"

#define SL_SECTION_REQUIRED 1u /* sl_section_record.flags */

#define SL_ARITHMETIC_DYADIC 1u     /* sl_model_record.arithmetic */
#define SL_ARITHMETIC_MULTIPLIER 2u /* since 2 */

#define SL_BUFFER_ACTIVATION 0u /* sl_buffer_record.kind */
#define SL_BUFFER_IMAGE 1u      /* the padded input as pixel - 128; it has no address */

#define SL_LAYER_RELU 1u   /* sl_layer_record.flags */
#define SL_LAYER_JOIN 2u   /* the view `join` is added into the accumulator */
#define SL_LAYER_OUTPUT 4u /* the view `output` is written; a tail has none */

#define SL_PLAN_NONE 0xFFFFFFFFu /* no layer (a load), window, spill or address */
#define SL_PLAN_KEEP 1u          /* sl_plan_window_record.flags: rows outlive a step */

typedef struct sl_header_record { /* at offset 0 of the file */
    uint8_t magic[8];
    uint16_t format_major;
    uint16_t format_minor;
    uint16_t arithmetic_version;
    uint16_t zero0;
    uint64_t file_bytes;
    uint32_t section_count;
    uint32_t table_offset; /* 64 */
    uint32_t table_crc32;
    uint8_t zero1[24];
    uint32_t header_crc32; /* of bytes 0..59 */
} sl_header_record;

typedef struct sl_section_record { /* one entry of the section table */
    char kind[SL_KIND_BYTES];
    uint32_t flags;
    uint64_t offset; /* from the start of the file, a multiple of 64 */
    uint64_t bytes;  /* without the padding */
    uint32_t crc32;
    uint32_t zero;
} sl_section_record;

typedef struct sl_trailer_record { /* the last 64 bytes of the file */
    uint8_t sha256[32];            /* of everything before the trailer */
    uint8_t zero[28];
    uint32_t crc32; /* of the trailer's first 60 bytes */
} sl_trailer_record;

typedef struct sl_model_record { /* MODL: one */
    uint32_t levels;
    uint32_t buffer_count;
    uint32_t layer_count;
    uint32_t channel_count; /* rows of CHAN */
    uint32_t channel_block; /* lanes of a weight block */
    uint32_t arena_bytes_per_cell;
    uint32_t name; /* offset in STRS, here and below */
    uint8_t arithmetic;
    uint8_t activation_bits;
    uint8_t weight_bits;
    uint8_t zero0;
    uint64_t weight_bytes; /* size of WGHT */
    uint8_t zero1[24];
} sl_model_record;

typedef struct sl_chip_record { /* CHIP: one */
    uint32_t name;
    uint32_t channel_block;
    uint32_t alignment; /* of every address in the arena, and of the arena */
    uint32_t accumulator_bits;
    uint32_t max_width;
    uint32_t max_height;
    uint32_t capability_crc32;
    uint8_t zero[36];
} sl_chip_record;

typedef struct sl_buffer_record { /* BUFS: buffer_count of them */
    uint32_t name;
    uint16_t channels;
    uint8_t level;
    int8_t exponent;
    uint8_t bits;
    uint8_t kind;
    uint16_t zero0;
    uint32_t address_per_cell;
    uint32_t bytes_per_cell;
    uint16_t first_layer; /* the first writer */
    uint16_t last_layer;  /* the last reader */
    uint32_t zero1;
    uint32_t zero2;
} sl_buffer_record;

/* Channels [channel_offset, channel_offset + channels) of a buffer. Value c of pixel (y, x) lies at
 * address_per_cell * cells + bits / 8 * ((y * width + x) * pixel_stride + channel_offset + c); 16
 * bits are two's complement in two little-endian bytes. */
typedef struct sl_view_record {
    uint16_t buffer;
    uint16_t channel_offset;
    uint16_t channels;
    uint16_t pixel_stride; /* channels of the buffer */
    uint32_t address_per_cell;
    uint8_t level;
    int8_t exponent;
    uint16_t zero;
} sl_view_record;

typedef struct sl_layer_record { /* LAYR: layer_count of them */
    uint32_t name;
    uint8_t op;
    uint8_t flags;
    uint8_t activation_bits;
    uint8_t weight_bits;
    uint8_t kernel;
    uint8_t stride;
    uint8_t accumulator_bits; /* the least width proven to hold every sum */
    uint8_t zero0;
    uint32_t zero1;
    sl_view_record input;
    sl_view_record output;
    sl_view_record join;
    uint32_t out_channels;
    uint32_t in_channels;
    uint64_t weight_offset; /* in WGHT, a multiple of 64 */
    uint64_t weight_bytes;
    uint32_t channel_row; /* first row in CHAN */
    uint32_t weight_crc32;
    uint64_t macs_per_cell;
    uint8_t zero2[24];
} sl_layer_record;

typedef struct sl_channel_record { /* CHAN: one per output channel, in layer order */
    int32_t bias;
    uint8_t shift;
    uint8_t join_shift;
    uint8_t weight_exponent;
    uint8_t zero;
} sl_channel_record;

/* MULT: one per output channel, in CHAN's order; CHAN's shifts and exponents are 0 then */
typedef struct sl_multiplier_record {
    uint32_t multiplier;
    uint32_t join_multiplier;
    uint8_t shift;
    uint8_t zero[7];
} sl_multiplier_record;

/* WRIC: one, then a sl_stream_record per layer, then the streams, each at a multiple of 64 */
typedef struct sl_packed_weights_record {
    uint32_t layer_count;
    uint16_t plain_major; /* format version of the plain bundle */
    uint16_t plain_minor;
    uint8_t plain_sha256[32]; /* its trailer's */
    uint8_t zero[24];
} sl_packed_weights_record;

/* a layer's weights as Golomb-Rice codes */
typedef struct sl_stream_record {
    uint64_t offset; /* in WRIC */
    uint32_t bytes;
    uint8_t k;
    uint8_t zero[3];
} sl_stream_record;

/* VECT: this head; u32 layer_crc32[layer_count]; u8 input[H][W][3]; u8 output[H][W][3]. */
typedef struct sl_vectors_record {
    uint32_t width;
    uint32_t height;
    uint32_t layer_count;
    uint32_t zero;
} sl_vectors_record;

/* PLAN: one, then groups, windows, items and spills in this order */
typedef struct sl_plan_record {
    uint32_t alignment;
    uint32_t sram_bytes;
    uint32_t dram_bytes_per_cell;
    uint32_t group_count;
    uint32_t window_count;
    uint32_t item_count;
    uint32_t spill_count;
    uint8_t zero[36];
} sl_plan_record;

/* layers that run tile by tile */
typedef struct sl_plan_group_record {
    uint32_t first_window;
    uint32_t window_count;
    uint32_t first_item;
    uint32_t item_count;
    uint32_t tile_height;
    uint32_t tile_width;
    uint32_t prologue;
    uint8_t zero[4];
} sl_plan_group_record;

/* SRAM of a buffer's channels in one group: a ring of rows */
typedef struct sl_plan_window_record {
    uint32_t buffer;
    uint32_t channel_offset;
    uint32_t channels;
    uint32_t flags;
    int32_t left;
    uint32_t rows;
    uint32_t columns;
    uint32_t address;
} sl_plan_window_record;

/* a layer or a load of a group */
typedef struct sl_plan_item_record {
    uint32_t layer;
    uint32_t input;
    uint32_t join;
    uint32_t output;
    uint32_t spill;
    uint32_t channel_offset;
    uint32_t channels;
    int32_t top;
    int32_t bottom;
    int32_t left;
    int32_t right;
    uint32_t weight_address;
    uint8_t zero[16];
} sl_plan_item_record;

/* a tensor in DRAM between groups */
typedef struct sl_plan_spill_record {
    uint32_t buffer;
    uint32_t channel_offset;
    uint32_t channels;
    uint32_t address_per_cell;
    uint32_t first_group;
    uint32_t last_group;
    uint8_t zero[8];
} sl_plan_spill_record;

/* C99 has no static_assert: an array of negative size stops any compiler. */
#define SL_ASSERT_SIZE(type, size) typedef char type##_is_##size[sizeof(type) == (size) ? 1 : -1]
#define SL_ASSERT_OFFSET(type, field, offset)                                                      \
    typedef char type##_##field##_at_##offset[offsetof(type, field) == (offset) ? 1 : -1]

SL_ASSERT_SIZE(sl_header_record, 64);
SL_ASSERT_OFFSET(sl_header_record, magic, 0);
SL_ASSERT_OFFSET(sl_header_record, format_major, 8);
SL_ASSERT_OFFSET(sl_header_record, format_minor, 10);
SL_ASSERT_OFFSET(sl_header_record, arithmetic_version, 12);
SL_ASSERT_OFFSET(sl_header_record, zero0, 14);
SL_ASSERT_OFFSET(sl_header_record, file_bytes, 16);
SL_ASSERT_OFFSET(sl_header_record, section_count, 24);
SL_ASSERT_OFFSET(sl_header_record, table_offset, 28);
SL_ASSERT_OFFSET(sl_header_record, table_crc32, 32);
SL_ASSERT_OFFSET(sl_header_record, zero1, 36);
SL_ASSERT_OFFSET(sl_header_record, header_crc32, 60);

SL_ASSERT_SIZE(sl_section_record, 32);
SL_ASSERT_OFFSET(sl_section_record, kind, 0);
SL_ASSERT_OFFSET(sl_section_record, flags, 4);
SL_ASSERT_OFFSET(sl_section_record, offset, 8);
SL_ASSERT_OFFSET(sl_section_record, bytes, 16);
SL_ASSERT_OFFSET(sl_section_record, crc32, 24);
SL_ASSERT_OFFSET(sl_section_record, zero, 28);

SL_ASSERT_SIZE(sl_trailer_record, 64);
SL_ASSERT_OFFSET(sl_trailer_record, sha256, 0);
SL_ASSERT_OFFSET(sl_trailer_record, zero, 32);
SL_ASSERT_OFFSET(sl_trailer_record, crc32, 60);

SL_ASSERT_SIZE(sl_model_record, 64);
SL_ASSERT_OFFSET(sl_model_record, levels, 0);
SL_ASSERT_OFFSET(sl_model_record, buffer_count, 4);
SL_ASSERT_OFFSET(sl_model_record, layer_count, 8);
SL_ASSERT_OFFSET(sl_model_record, channel_count, 12);
SL_ASSERT_OFFSET(sl_model_record, channel_block, 16);
SL_ASSERT_OFFSET(sl_model_record, arena_bytes_per_cell, 20);
SL_ASSERT_OFFSET(sl_model_record, name, 24);
SL_ASSERT_OFFSET(sl_model_record, arithmetic, 28);
SL_ASSERT_OFFSET(sl_model_record, activation_bits, 29);
SL_ASSERT_OFFSET(sl_model_record, weight_bits, 30);
SL_ASSERT_OFFSET(sl_model_record, zero0, 31);
SL_ASSERT_OFFSET(sl_model_record, weight_bytes, 32);
SL_ASSERT_OFFSET(sl_model_record, zero1, 40);

SL_ASSERT_SIZE(sl_chip_record, 64);
SL_ASSERT_OFFSET(sl_chip_record, name, 0);
SL_ASSERT_OFFSET(sl_chip_record, channel_block, 4);
SL_ASSERT_OFFSET(sl_chip_record, alignment, 8);
SL_ASSERT_OFFSET(sl_chip_record, accumulator_bits, 12);
SL_ASSERT_OFFSET(sl_chip_record, max_width, 16);
SL_ASSERT_OFFSET(sl_chip_record, max_height, 20);
SL_ASSERT_OFFSET(sl_chip_record, capability_crc32, 24);
SL_ASSERT_OFFSET(sl_chip_record, zero, 28);

SL_ASSERT_SIZE(sl_buffer_record, 32);
SL_ASSERT_OFFSET(sl_buffer_record, name, 0);
SL_ASSERT_OFFSET(sl_buffer_record, channels, 4);
SL_ASSERT_OFFSET(sl_buffer_record, level, 6);
SL_ASSERT_OFFSET(sl_buffer_record, exponent, 7);
SL_ASSERT_OFFSET(sl_buffer_record, bits, 8);
SL_ASSERT_OFFSET(sl_buffer_record, kind, 9);
SL_ASSERT_OFFSET(sl_buffer_record, zero0, 10);
SL_ASSERT_OFFSET(sl_buffer_record, address_per_cell, 12);
SL_ASSERT_OFFSET(sl_buffer_record, bytes_per_cell, 16);
SL_ASSERT_OFFSET(sl_buffer_record, first_layer, 20);
SL_ASSERT_OFFSET(sl_buffer_record, last_layer, 22);
SL_ASSERT_OFFSET(sl_buffer_record, zero1, 24);
SL_ASSERT_OFFSET(sl_buffer_record, zero2, 28);

SL_ASSERT_SIZE(sl_view_record, 16);
SL_ASSERT_OFFSET(sl_view_record, buffer, 0);
SL_ASSERT_OFFSET(sl_view_record, channel_offset, 2);
SL_ASSERT_OFFSET(sl_view_record, channels, 4);
SL_ASSERT_OFFSET(sl_view_record, pixel_stride, 6);
SL_ASSERT_OFFSET(sl_view_record, address_per_cell, 8);
SL_ASSERT_OFFSET(sl_view_record, level, 12);
SL_ASSERT_OFFSET(sl_view_record, exponent, 13);
SL_ASSERT_OFFSET(sl_view_record, zero, 14);

SL_ASSERT_SIZE(sl_layer_record, 128);
SL_ASSERT_OFFSET(sl_layer_record, name, 0);
SL_ASSERT_OFFSET(sl_layer_record, op, 4);
SL_ASSERT_OFFSET(sl_layer_record, flags, 5);
SL_ASSERT_OFFSET(sl_layer_record, activation_bits, 6);
SL_ASSERT_OFFSET(sl_layer_record, weight_bits, 7);
SL_ASSERT_OFFSET(sl_layer_record, kernel, 8);
SL_ASSERT_OFFSET(sl_layer_record, stride, 9);
SL_ASSERT_OFFSET(sl_layer_record, accumulator_bits, 10);
SL_ASSERT_OFFSET(sl_layer_record, zero0, 11);
SL_ASSERT_OFFSET(sl_layer_record, zero1, 12);
SL_ASSERT_OFFSET(sl_layer_record, input, 16);
SL_ASSERT_OFFSET(sl_layer_record, output, 32);
SL_ASSERT_OFFSET(sl_layer_record, join, 48);
SL_ASSERT_OFFSET(sl_layer_record, out_channels, 64);
SL_ASSERT_OFFSET(sl_layer_record, in_channels, 68);
SL_ASSERT_OFFSET(sl_layer_record, weight_offset, 72);
SL_ASSERT_OFFSET(sl_layer_record, weight_bytes, 80);
SL_ASSERT_OFFSET(sl_layer_record, channel_row, 88);
SL_ASSERT_OFFSET(sl_layer_record, weight_crc32, 92);
SL_ASSERT_OFFSET(sl_layer_record, macs_per_cell, 96);
SL_ASSERT_OFFSET(sl_layer_record, zero2, 104);

SL_ASSERT_SIZE(sl_channel_record, 8);
SL_ASSERT_OFFSET(sl_channel_record, bias, 0);
SL_ASSERT_OFFSET(sl_channel_record, shift, 4);
SL_ASSERT_OFFSET(sl_channel_record, join_shift, 5);
SL_ASSERT_OFFSET(sl_channel_record, weight_exponent, 6);
SL_ASSERT_OFFSET(sl_channel_record, zero, 7);

SL_ASSERT_SIZE(sl_multiplier_record, 16);
SL_ASSERT_OFFSET(sl_multiplier_record, multiplier, 0);
SL_ASSERT_OFFSET(sl_multiplier_record, join_multiplier, 4);
SL_ASSERT_OFFSET(sl_multiplier_record, shift, 8);
SL_ASSERT_OFFSET(sl_multiplier_record, zero, 9);

SL_ASSERT_SIZE(sl_packed_weights_record, 64);
SL_ASSERT_OFFSET(sl_packed_weights_record, layer_count, 0);
SL_ASSERT_OFFSET(sl_packed_weights_record, plain_major, 4);
SL_ASSERT_OFFSET(sl_packed_weights_record, plain_minor, 6);
SL_ASSERT_OFFSET(sl_packed_weights_record, plain_sha256, 8);
SL_ASSERT_OFFSET(sl_packed_weights_record, zero, 40);

SL_ASSERT_SIZE(sl_stream_record, 16);
SL_ASSERT_OFFSET(sl_stream_record, offset, 0);
SL_ASSERT_OFFSET(sl_stream_record, bytes, 8);
SL_ASSERT_OFFSET(sl_stream_record, k, 12);
SL_ASSERT_OFFSET(sl_stream_record, zero, 13);

SL_ASSERT_SIZE(sl_vectors_record, 16);
SL_ASSERT_OFFSET(sl_vectors_record, width, 0);
SL_ASSERT_OFFSET(sl_vectors_record, height, 4);
SL_ASSERT_OFFSET(sl_vectors_record, layer_count, 8);
SL_ASSERT_OFFSET(sl_vectors_record, zero, 12);

SL_ASSERT_SIZE(sl_plan_record, 64);
SL_ASSERT_OFFSET(sl_plan_record, alignment, 0);
SL_ASSERT_OFFSET(sl_plan_record, sram_bytes, 4);
SL_ASSERT_OFFSET(sl_plan_record, dram_bytes_per_cell, 8);
SL_ASSERT_OFFSET(sl_plan_record, group_count, 12);
SL_ASSERT_OFFSET(sl_plan_record, window_count, 16);
SL_ASSERT_OFFSET(sl_plan_record, item_count, 20);
SL_ASSERT_OFFSET(sl_plan_record, spill_count, 24);
SL_ASSERT_OFFSET(sl_plan_record, zero, 28);

SL_ASSERT_SIZE(sl_plan_group_record, 32);
SL_ASSERT_OFFSET(sl_plan_group_record, first_window, 0);
SL_ASSERT_OFFSET(sl_plan_group_record, window_count, 4);
SL_ASSERT_OFFSET(sl_plan_group_record, first_item, 8);
SL_ASSERT_OFFSET(sl_plan_group_record, item_count, 12);
SL_ASSERT_OFFSET(sl_plan_group_record, tile_height, 16);
SL_ASSERT_OFFSET(sl_plan_group_record, tile_width, 20);
SL_ASSERT_OFFSET(sl_plan_group_record, prologue, 24);
SL_ASSERT_OFFSET(sl_plan_group_record, zero, 28);

SL_ASSERT_SIZE(sl_plan_window_record, 32);
SL_ASSERT_OFFSET(sl_plan_window_record, buffer, 0);
SL_ASSERT_OFFSET(sl_plan_window_record, channel_offset, 4);
SL_ASSERT_OFFSET(sl_plan_window_record, channels, 8);
SL_ASSERT_OFFSET(sl_plan_window_record, flags, 12);
SL_ASSERT_OFFSET(sl_plan_window_record, left, 16);
SL_ASSERT_OFFSET(sl_plan_window_record, rows, 20);
SL_ASSERT_OFFSET(sl_plan_window_record, columns, 24);
SL_ASSERT_OFFSET(sl_plan_window_record, address, 28);

SL_ASSERT_SIZE(sl_plan_item_record, 64);
SL_ASSERT_OFFSET(sl_plan_item_record, layer, 0);
SL_ASSERT_OFFSET(sl_plan_item_record, input, 4);
SL_ASSERT_OFFSET(sl_plan_item_record, join, 8);
SL_ASSERT_OFFSET(sl_plan_item_record, output, 12);
SL_ASSERT_OFFSET(sl_plan_item_record, spill, 16);
SL_ASSERT_OFFSET(sl_plan_item_record, channel_offset, 20);
SL_ASSERT_OFFSET(sl_plan_item_record, channels, 24);
SL_ASSERT_OFFSET(sl_plan_item_record, top, 28);
SL_ASSERT_OFFSET(sl_plan_item_record, bottom, 32);
SL_ASSERT_OFFSET(sl_plan_item_record, left, 36);
SL_ASSERT_OFFSET(sl_plan_item_record, right, 40);
SL_ASSERT_OFFSET(sl_plan_item_record, weight_address, 44);
SL_ASSERT_OFFSET(sl_plan_item_record, zero, 48);

SL_ASSERT_SIZE(sl_plan_spill_record, 32);
SL_ASSERT_OFFSET(sl_plan_spill_record, buffer, 0);
SL_ASSERT_OFFSET(sl_plan_spill_record, channel_offset, 4);
SL_ASSERT_OFFSET(sl_plan_spill_record, channels, 8);
SL_ASSERT_OFFSET(sl_plan_spill_record, address_per_cell, 12);
SL_ASSERT_OFFSET(sl_plan_spill_record, first_group, 16);
SL_ASSERT_OFFSET(sl_plan_spill_record, last_group, 20);
SL_ASSERT_OFFSET(sl_plan_spill_record, zero, 24);

#endif

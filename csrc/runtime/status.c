#include "starlight_runtime.h"

const char *sl_status_text(sl_status status)
{
    switch (status) {
    case SL_OK: return "ok";
    case SL_NULL_ARGUMENT: return "an argument must not be NULL";
    case SL_TRUNCATED: return "bundle must hold as many bytes as its header states, it is cut";
    case SL_BAD_SIZE: return "bundle must end where its header states, in multiples of 64 bytes";
    case SL_BAD_MAGIC: return "bundle must begin with the magic of a starlight bundle";
    case SL_BAD_FORMAT_VERSION: return "format version must be one that this runtime reads";
    case SL_BAD_ARITHMETIC_VERSION: return "arithmetic version must be the runtime's own";
    case SL_BAD_HEADER_CRC: return "header must match its CRC-32";
    case SL_BAD_HEADER: return "header must have its table at 64 and reserved bytes of zero";
    case SL_BAD_TABLE_CRC: return "section table must match its CRC-32";
    case SL_BAD_TABLE: return "sections must follow each other at multiples of 64 within the file";
    case SL_UNKNOWN_REQUIRED_SECTION: return "a required section must be of a known kind";
    case SL_DUPLICATE_SECTION: return "a section kind must occur once";
    case SL_MISSING_SECTION: return "every required section must be there";
    case SL_BAD_SECTION_CRC: return "a section must match its CRC-32";
    case SL_BAD_PADDING: return "bytes between sections must be zero";
    case SL_BAD_TRAILER: return "trailer must match its CRC-32, with reserved bytes of zero";
    case SL_RESERVED_FEATURE:
        return "feature must be one of the bundle's format: 16-bit activations, 4-bit weights "
               "and the multiplier mode need format 2";
    case SL_BAD_MODEL: return "model record must be in range and agree with the section sizes";
    case SL_BAD_CHIP: return "chip record must be in range and agree with the model record";
    case SL_BAD_STRINGS: return "strings must begin and end with NUL and hold every name";
    case SL_BAD_BUFFER: return "a buffer record must be in range";
    case SL_BAD_LAYER: return "a layer record must be in range and agree with its operation";
    case SL_BAD_VIEW: return "a view must lie within its buffer and agree with it";
    case SL_BAD_CHANNEL: return "a channel's shifts must follow from the exponents, in range";
    case SL_BAD_WEIGHTS:
        return "weights must match their CRC-32, hold no -128, and be zero in "
               "unused lanes and padding";
    case SL_BAD_VECTORS: return "test vectors must agree with the model and the chip";
    case SL_BAD_ACCUMULATOR: return "every sum must fit the accumulator that the record states";
    case SL_BUFFER_OUTSIDE_ARENA: return "a buffer must lie aligned within the arena";
    case SL_BUFFERS_OVERLAP: return "buffers that live at the same time must not overlap";
    case SL_BAD_LIFETIME: return "a buffer's lifetime must span its first write to its last read";
    case SL_READ_BEFORE_WRITE: return "a layer must read only what an earlier layer wrote";
    case SL_WRITTEN_TWICE: return "a channel must be written by one layer";
    case SL_BAD_PLAN: return "stripe plan must agree in its sizes, spills and layers";
    case SL_BAD_PLAN_GROUP:
        return "a group of the stripe plan must read what it wrote, within its windows and apart";
    case SL_NO_PLAN: return "bundle must hold a stripe plan";
    case SL_IMAGE_EMPTY: return "image must be at least 1 x 1";
    case SL_IMAGE_TOO_LARGE: return "image must fit the chip's largest frame";
    case SL_BAD_STRIDE: return "a row stride must hold a row of pixels";
    case SL_ARENA_MISALIGNED: return "arena must be aligned as the chip asks";
    case SL_ARENA_TOO_SMALL: return "arena must hold the bytes that the image size asks";
    case SL_MEMORY_OVERLAPS: return "images and arena must not overlap";
    case SL_SELF_TEST_FAILED: return "every layer must reproduce the bundle's test vectors";
    case SL_COMPRESSED: return "weights must be plain: sl_decompress the bundle first";
    case SL_BAD_COMPRESSION:
        return "compressed weights must be streams that end with the last weight of each layer";
    case SL_OUTPUT_TOO_SMALL: return "memory must hold the bytes of the plain bundle";
    case SL_STATUS_COUNT: break;
    }
    return "unknown status";
}

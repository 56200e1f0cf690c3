// One row of one layer, for up to two vectors of 16 output channels: all arithmetic of the engine.
//
// An activation q is held as the byte q + 128. Channels lie in blocks of 16: a row of a map is
// [block][pixel][16], and pixel -1 and pixel W of a row hold 128, the padding's zero. So a dword is
// four channels of a pixel, neighbours are 16 bytes apart, and a vector of outputs is one store.
// Weights are zero for bytes of a dword that the layer's view does not have: these may hold
// anything, or be under another thread's pen.
//
// An activation of 16 bits is q itself, an int16 of the machine, and the padding's zero is 0. Its
// rows lie alike, every place twice as many bytes: a dword is two channels.
//
// Plain data and nothing of the standard library: this header is compiled for processors that the
// rest of the program does not ask for, and an inline function shared with it might be theirs.
#ifndef STARLIGHT_ENGINE_KERNELS_H
#define STARLIGHT_ENGINE_KERNELS_H

#include <stddef.h>
#include <stdint.h>

namespace starlight::engine
{

constexpr int LANES = 16;          // output channels of a vector, and bytes of a pixel in a block
constexpr int DOT = 4;             // input channels of a dword, of 8 bits
constexpr int ENTRY = LANES * DOT; // bytes of weights: a vector of outputs, a dword of inputs
constexpr int SLACK_PIXELS = 32;   // behind a row: blocks of pixels run over its end
constexpr uint8_t ZERO = 128;      // q = 0
constexpr int VECTORS_MAX = 2;

// What the accumulators of a vector begin with and how they end.
struct Lanes {
    int32_t bias[LANES]; // with the rounding half and the corrections for bytes that are q + 128
    int32_t shift[LANES];
    int32_t join_shift[LANES];
    uint16_t mask; // lanes that are stored
};

// The same for a row whose sums are kept: out = clamp(floor((sum * multiplier + q * join_multiplier
// + 2^(shift-1)) / 2^shift)), in 64 bits. Negative numbers are kept off the shift by 2^62, a
// multiple of 2^shift: `offset` is 2^62 + 2^(shift-1), `back` 2^(62-shift).
struct Scales {
    int32_t multiplier[LANES];
    int32_t join_multiplier[LANES];
    uint64_t offset[LANES];
    uint64_t shift[LANES];
    int64_t back[LANES];
};

enum class Epilogue {
    requantise, // out = sat8(max(acc >> shift, low)) + 128
    tail,       // out = sat_u8(join - (acc >> shift)), join a pixel of the image
};

struct Row {
    // [ky][dword of the input]: that dword of the pixel under the window's left column at output 0.
    const uint8_t *const *in;
    bool wide;   // inputs of 16 bits
    int entries; // kernel * dwords
    int taps;    // columns of the window: 1 or 3
    int stride;  // 1 or 2
    int vectors; // 1 or 2; 1 with `pairs`
    // Eight outputs in the lower or upper half of a block: lane 2o + i takes the dwords of parity
    // i, entries count pairs of dwords. taps 3, stride 1.
    bool pairs;
    const int8_t *weights; // [entries][taps][vectors][16 lanes][4 inputs, or 2 of int16]
    const Lanes *lanes;    // [vectors]
    // Not null: no epilogue, the sums go here, [pixels][vectors][16], for Kernels::finish.
    int32_t *sums;
    Epilogue epilogue;
    int32_t low;                      // 0 with ReLU, else -128
    const uint8_t *join[VECTORS_MAX]; // pixel 0 of the block that is added; null without a join
    uint8_t *out[VECTORS_MAX];        // pixel 0
    int step;                         // values from an output pixel to the next, as of join
    int pixels;                       // outputs; up to 8 more are written into the slack
};

// What a row needs beyond that when its sums are kept.
struct Ending {
    const Scales *scales; // [vectors]
    bool wide_join, wide_out;
    int32_t low, high; // of the clamp; the tail's is 0..255
};

struct Kernels {
    const char *name;
    int32_t input_offset; // what the dot product takes a byte to be, less q: 128, or 0
    bool pairs;           // whether `Row::pairs` is there
    void (*row)(const Row &row);
    void (*finish)(const Row &row, const Ending &ending); // of the sums of `row`
};

} // namespace starlight::engine

#endif

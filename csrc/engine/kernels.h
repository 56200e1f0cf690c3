// One row of one layer, for up to two vectors of 16 output channels: all arithmetic of the engine.
//
// An activation q is held as the byte q + 128. Channels lie in blocks of 16: a row of a map is
// [block][pixel][16], and pixel -1 and pixel W of a row hold 128, the padding's zero. So a dword is
// four channels of a pixel, neighbours are 16 bytes apart, and a vector of outputs is one store.
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
constexpr int DOT = 4;             // input channels of a dword
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

enum class Epilogue {
    requantise, // out = sat8(max(acc >> shift, low)) + 128
    tail,       // out = sat_u8(join - (acc >> shift)), join a pixel of the image
};

struct Row {
    // [ky][dword of the input]: that dword of the pixel under the window's left column at output 0.
    const uint8_t *const *in;
    int entries; // kernel * dwords
    int taps;    // columns of the window: 1 or 3
    int stride;  // 1 or 2
    int vectors; // 1 or 2; 1 with `pairs`
    // Eight outputs in the lower or upper half of a block: lane 2o + i takes the dwords of parity
    // i, entries count pairs of dwords. taps 3, stride 1.
    bool pairs;
    const int8_t *weights; // [entries][taps][vectors][16 lanes][4 inputs]
    const Lanes *lanes;    // [vectors]
    Epilogue epilogue;
    int32_t low;                      // 0 with ReLU, else -128
    const uint8_t *join[VECTORS_MAX]; // pixel 0 of the block that is added; null without a join
    uint8_t *out[VECTORS_MAX];        // pixel 0
    int step;                         // bytes from an output pixel to the next, as of join
    int pixels;                       // outputs; up to 8 more are written into the slack
};

struct Kernels {
    const char *name;
    int32_t input_offset; // what the dot product takes a byte to be, less q: 128, or 0
    bool pairs;           // whether `Row::pairs` is there
    void (*row)(const Row &row);
};

} // namespace starlight::engine

#endif

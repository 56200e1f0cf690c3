// The memory of runs on one image size: buffers of the frame, and what each thread works in.
#ifndef STARLIGHT_ENGINE_FRAME_H
#define STARLIGHT_ENGINE_FRAME_H

#include "plan.h"
#include "threads.h"

namespace starlight::engine
{

constexpr int RING_ROWS = 4; // of a dense block's member: t - 1 to t + 2

// Where a block of a row lies is base + (row & mask) * row_bytes + block * block_bytes; that points
// at pixel -1.
struct Rows {
    std::uint8_t *base;
    std::size_t row_bytes, block_bytes;
    unsigned mask;
    std::uint8_t *at(int block, int row) const
    {
        return base + (static_cast<unsigned>(row) & mask) * row_bytes +
               static_cast<std::size_t>(block) * block_bytes;
    }
};

struct Scratch {
    Aligned<std::uint8_t> image; // RING_ROWS rows of one block, and which rows they hold
    std::array<int, RING_ROWS> image_rows;
    Aligned<std::uint8_t> ring;          // rows of a dense block's members
    Aligned<std::uint8_t> join;          // a row of a joined view whose channels are moved
    Aligned<std::uint8_t> residual;      // a row of the tail's output
    Aligned<std::int32_t> sums;          // a row of a unit of a scaled layer
    Aligned<const std::uint8_t *> table; // Row::in, dword by dword
    Aligned<const std::uint8_t *> pairs; // every other one
};

struct Size {
    int width, height, threads;
    bool operator==(const Size &other) const
    {
        return width == other.width && height == other.height && threads == other.threads;
    }
};

class Frame
{
public:
    Frame(const Plan &plan, Size size);

    int width(int level) const { return padded_width_ >> level; }
    int height(int level) const { return padded_height_ >> level; }
    // Bytes of a row of one block, borders and slack with it.
    std::size_t block_bytes(int level, int value_bytes = 1) const;
    std::size_t bytes() const { return bytes_; }

    Size size;
    std::vector<Rows> buffers;                      // whole maps
    std::array<Aligned<std::uint8_t>, 2> zero_rows; // of values of one byte, of two
    std::vector<Scratch> scratch;                   // of each thread
    Threads threads;

private:
    template <class T> Aligned<T> take(std::size_t count);
    void place_buffers(const Plan &plan);
    void make_scratch(const Plan &plan, Scratch &scratch);

    int padded_width_, padded_height_;
    std::size_t bytes_ = 0;
    Aligned<std::uint8_t> memory_;
};

} // namespace starlight::engine

#endif

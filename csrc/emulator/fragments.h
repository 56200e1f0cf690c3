// How the lanes of a warp hold the matrices of mma: the PTX ISA's figures for m16n8k*, as formulas.
//
// D[16, 8] += A[16, K] B[K, 8]. With g = lane / 4 and t = lane % 4, a register holds `PACK` values
// that lie side by side along K (A, B), or one value (D):
//   A  register r: row g + 8 (r % 2),  k = PACK t + 4 PACK (r / 2)
//   B  register r: column g,           k = PACK t + 4 PACK r
//   D  register r: row g + 8 (r / 2),  column 2t + r % 2
// PACK is 1 (tf32), 2 (f16, bf16) or 4 (s8); K is 4 PACK times the registers of B.
#pragma once

namespace starlight::emulator
{

struct Cell {
    int row, column;
};

template <int PACK> constexpr Cell a_cell(int lane, int r)
{
    return {lane / 4 + 8 * (r % 2), PACK * (lane % 4) + 4 * PACK * (r / 2)};
}

template <int PACK> constexpr Cell b_cell(int lane, int r)
{
    return {PACK * (lane % 4) + 4 * PACK * r, lane / 4};
}

constexpr Cell d_cell(int lane, int r)
{
    return {lane / 4 + 8 * (r / 2), 2 * (lane % 4) + r % 2};
}

} // namespace starlight::emulator

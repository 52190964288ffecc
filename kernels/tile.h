// Where elements of tiles lie in LDS and in the registers of a wave: index arithmetic only, which
// tests/tile_indices.rs also compiles for the host and checks against the instruction sets' definitions.
//
// A tile has rows of f16 along K, in pieces of 16 bytes. Pieces are permuted within their row so that lanes that read
// the same piece of neighbouring rows, and lanes that write neighbouring pieces, meet all of LDS's banks once.
#pragma once
#ifndef INDEX
#include "common.h"
#define INDEX DEVICE
#endif

// Where piece `piece` of row `row` is, in pieces, in a tile whose rows have PIECES of them: 4, or a multiple of 8. 128
// bytes, all banks once, are two rows of four pieces or a part of a longer row.
template <u32 PIECES> INDEX u32 place(u32 row, u32 piece) {
    if (PIECES == 4)
        return row * PIECES + (piece ^ (row >> 1 & 3));
    return row * PIECES + (piece ^ (row & 7));
}

// Where the `index`-th of a tile's pieces goes when threads copy them in their order.
template <u32 PIECES> INDEX u32 copied_row(u32 index) { return index / PIECES; }
template <u32 PIECES> INDEX u32 copied_piece(u32 index) { return index % PIECES; }
// Where a thread's part `part` of `EACH` sixteens goes, half by half: threads in order have a row's sixteens, row by row.
template <u32 SIXTEENS, u32 EACH> INDEX u32 expanded_row(u32 thread) { return thread / (SIXTEENS / EACH); }
template <u32 SIXTEENS, u32 EACH> INDEX u32 expanded_sixteen(u32 thread, u32 part) {
    return thread % (SIXTEENS / EACH) * EACH + part;
}
INDEX u32 expanded_piece(u32 sixteen, u32 half) { return 2 * sixteen + half; }

// ---- NVIDIA: mma.m16n8k16 twice, operands by ldmatrix.x4 ----

// Lane l gives ldmatrix.x4 the address of row l % 8 of 8 × 8 matrix l / 8, which goes to register l / 8. The product's
// left operand wants rows 0 … 7 and 8 … 15 at the first 8 of K, then the same at the last 8:
INDEX u32 left_row(u32 lane) { return lane & 15; }
INDEX u32 left_piece(u32 lane) { return lane >> 4; }
// The right one, 16 columns of which lie in LDS as rows, is for two products whose pairs of registers are neighbours:
// columns 0 … 7 at the first and last 8 of K, then columns 8 … 15.
INDEX u32 right_row(u32 lane) { return (lane & 7) + (lane >> 4) * 8; }
INDEX u32 right_piece(u32 lane) { return lane >> 3 & 1; }
// The same from a tile whose rows are along K, transposed on the way.
INDEX u32 right_transposed_row(u32 lane) { return lane & 15; }
INDEX u32 right_transposed_piece(u32 lane) { return lane >> 4; }
// Row and column of element e of the eight sums that a lane has of 16 × 16.
INDEX u32 mma_row(u32 lane, u32 e) { return lane / 4 + (e & 2 ? 8 : 0); }
INDEX u32 mma_col(u32 lane, u32 e) { return lane % 4 * 2 + (e & 1) + (e & 4 ? 8 : 0); }

// ---- CDNA: mfma 32 × 32 × 8 twice; the 8 k of a lane's 16 bytes are those of both products, the same on both sides ----

INDEX u32 mfma32_row(u32 lane) { return lane & 31; }
INDEX u32 mfma32_piece(u32 lane) { return lane >> 5; }
// Row of element e of the sixteen sums that a lane has of 32 × 32; the column is lane % 32.
INDEX u32 mfma32_sum_row(u32 lane, u32 e) { return e / 4 * 8 + lane / 32 * 4 + e % 4; }

// One 16 × 16 × 16 product on the matrix cores, f16 operands and f32 sums: MFMA on CDNA, WMMA on RDNA3, mma.sync on
// NVIDIA. Both operands lie in LDS as 16 rows of 16 f16 along K, `stride` f16 apart, 16-byte aligned: d [i][j] +=
// Σ_k a [i][k] · b [j][k].
#pragma once
#include "common.h"

// f32 of the 256 sums that a lane holds.
CONSTANT u32 HELD = 256 / WAVE;

struct Accumulator {
    f32 v[HELD];
};

#if CDNA

// Lane l holds row l % 16 of an operand, four k from 4 (l / 16) on.
typedef f16x4 MatrixFragment;

DEVICE MatrixFragment matrix_load(const f16* tile, u32 stride, u32 lane) {
    return *(const f16x4*)(tile + lane % 16 * stride + lane / 16 * 4);
}
// Where element e of a lane's sums is.
DEVICE u32 matrix_row(u32 lane, u32 e) { return lane / 16 * 4 + e; }
DEVICE u32 matrix_col(u32 lane, u32) { return lane % 16; }

DEVICE void multiply(const MatrixFragment& a, const MatrixFragment& b, Accumulator& d) {
    f32x4 c = {d.v[0], d.v[1], d.v[2], d.v[3]};
    c = __builtin_amdgcn_mfma_f32_16x16x16f16(a, b, c, 0, 0, 0);
    for (u32 i = 0; i < 4; i++)
        d.v[i] = c[i];
}

#elif RDNA

// Lanes l and l + 16 both hold row l of an operand.
typedef f16x16 MatrixFragment;

DEVICE MatrixFragment matrix_load(const f16* tile, u32 stride, u32 lane) {
    const f16x8* row = (const f16x8*)(tile + lane % 16 * stride);
    f16x8 first = row[0], last = row[1];
    return __builtin_shufflevector(first, last, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
DEVICE u32 matrix_row(u32 lane, u32 e) { return 2 * e + lane / 16; }
DEVICE u32 matrix_col(u32 lane, u32) { return lane % 16; }

DEVICE void multiply(const MatrixFragment& a, const MatrixFragment& b, Accumulator& d) {
    f32x8 c = {d.v[0], d.v[1], d.v[2], d.v[3], d.v[4], d.v[5], d.v[6], d.v[7]};
    c = __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(a, b, c);
    for (u32 i = 0; i < 8; i++)
        d.v[i] = c[i];
}

#else

// Word h + 2 w of a lane: row l / 4 + 8 h, k = 2 (l % 4) + 8 w and the next.
struct MatrixFragment {
    u32 w[4];
};

DEVICE MatrixFragment matrix_load(const f16* tile, u32 stride, u32 lane) {
    MatrixFragment f;
    for (u32 h = 0; h < 2; h++)
        for (u32 w = 0; w < 2; w++)
            f.w[h + 2 * w] = *(const u32*)(tile + (lane / 4 + 8 * h) * stride + lane % 4 * 2 + 8 * w);
    return f;
}
// Elements 0 … 3 are columns 0 … 7, 4 … 7 columns 8 … 15: two products of 16 × 8 × 16.
DEVICE u32 matrix_row(u32 lane, u32 e) { return lane / 4 + (e & 2 ? 8 : 0); }
DEVICE u32 matrix_col(u32 lane, u32 e) { return lane % 4 * 2 + (e & 1) + (e & 4 ? 8 : 0); }

DEVICE void multiply(const MatrixFragment& a, const MatrixFragment& b, Accumulator& d) {
    for (u32 half = 0; half < 2; half++)
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(d.v[4 * half]), "+f"(d.v[4 * half + 1]), "+f"(d.v[4 * half + 2]), "+f"(d.v[4 * half + 3])
            : "r"(a.w[0]), "r"(a.w[1]), "r"(a.w[2]), "r"(a.w[3]), "r"(b.w[half]), "r"(b.w[half + 2]));
}

#endif

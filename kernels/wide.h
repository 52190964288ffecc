// Products of tiles whose pieces are permuted (tile.h): SPAN × SPAN sums over 16 of K at once. d [i][j] += Σ_k a [i][k] ·
// b [j][k], f16 operands and f32 sums. MFMA 32 × 32 × 8 on CDNA, WMMA on RDNA3, mma.sync fed by ldmatrix on NVIDIA.
#pragma once
#include "matrix.h"
#include "tile.h"

// Rows and columns of a product, and the sums of it that a lane holds.
CONSTANT u32 SPAN = WAVE == 64 ? 32 : 16;
CONSTANT u32 SUMS = SPAN * SPAN / WAVE;

#if CDNA

typedef f32 f32x16 __attribute__((ext_vector_type(16)));
typedef f16x8 Left;
typedef f16x8 Right;
typedef f32x16 Sums;

// 16 of K, the `step`-th, of rows `row` … of a tile with PIECES pieces a row.
template <u32 PIECES> DEVICE Left left(const f16* tile, u32 row, u32 step, u32 lane) {
    return *(const f16x8*)(tile + 8 * place<PIECES>(row + mfma32_row(lane), 2 * step + mfma32_piece(lane)));
}
template <u32 PIECES> DEVICE Right right(const f16* tile, u32 row, u32 step, u32 lane) {
    return left<PIECES>(tile, row, step, lane);
}
DEVICE void accumulate(const Left& a, const Right& b, Sums& d) {
    d = __builtin_amdgcn_mfma_f32_32x32x8f16(a.lo, b.lo, d, 0, 0, 0);
    d = __builtin_amdgcn_mfma_f32_32x32x8f16(a.hi, b.hi, d, 0, 0, 0);
}
// Where element e of a lane's sums is.
DEVICE u32 sum_row(u32 lane, u32 e) { return mfma32_sum_row(lane, e); }
DEVICE u32 sum_col(u32 lane, u32) { return lane % 32; }

#elif RDNA

typedef f16x16 Left;
typedef f16x16 Right;
typedef f32x8 Sums;

template <u32 PIECES> DEVICE Left left(const f16* tile, u32 row, u32 step, u32 lane) {
    row += lane % 16;
    f16x8 first = *(const f16x8*)(tile + 8 * place<PIECES>(row, 2 * step));
    f16x8 last = *(const f16x8*)(tile + 8 * place<PIECES>(row, 2 * step + 1));
    return __builtin_shufflevector(first, last, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
template <u32 PIECES> DEVICE Right right(const f16* tile, u32 row, u32 step, u32 lane) {
    return left<PIECES>(tile, row, step, lane);
}
DEVICE void accumulate(const Left& a, const Right& b, Sums& d) {
    d = __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(a, b, d);
}
DEVICE u32 sum_row(u32 lane, u32 e) { return matrix_row(lane, e); }
DEVICE u32 sum_col(u32 lane, u32 e) { return matrix_col(lane, e); }

#else

// Registers that the product takes as a group are neighbours here too, or each would be moved before it.
struct Left {
    u32 w[4];
};
struct Right {
    u32 w[4];
};
typedef f32x8 Sums;

template <u32 PIECES> DEVICE Left left(const f16* tile, u32 row, u32 step, u32 lane) {
    u32 at = place<PIECES>(row + left_row(lane), 2 * step + left_piece(lane));
    Left f;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(f.w[0]), "=r"(f.w[1]), "=r"(f.w[2]), "=r"(f.w[3])
                 : "r"(shared_address(tile + 8 * at))
                 : "memory");
    return f;
}
template <u32 PIECES> DEVICE Right right(const f16* tile, u32 row, u32 step, u32 lane) {
    u32 at = place<PIECES>(row + right_row(lane), 2 * step + right_piece(lane));
    Right f;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(f.w[0]), "=r"(f.w[1]), "=r"(f.w[2]), "=r"(f.w[3])
                 : "r"(shared_address(tile + 8 * at))
                 : "memory");
    return f;
}
// Of a tile whose rows are along K: 16 of them from `row` on, columns from 8 · `piece` on.
template <u32 PIECES> DEVICE Right right_transposed(const f16* tile, u32 row, u32 piece, u32 lane) {
    u32 at = place<PIECES>(row + right_transposed_row(lane), piece + right_transposed_piece(lane));
    Right f;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(f.w[0]), "=r"(f.w[1]), "=r"(f.w[2]), "=r"(f.w[3])
                 : "r"(shared_address(tile + 8 * at))
                 : "memory");
    return f;
}
// `d` is eight sums, as Sums or as an array.
template <class T> DEVICE void accumulate(const Left& a, const Right& b, T& d) {
#pragma unroll
    for (u32 half = 0; half < 2; half++)
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(d[4 * half]), "+f"(d[4 * half + 1]), "+f"(d[4 * half + 2]), "+f"(d[4 * half + 3])
            : "r"(a.w[0]), "r"(a.w[1]), "r"(a.w[2]), "r"(a.w[3]), "r"(b.w[2 * half]), "r"(b.w[2 * half + 1]));
}
DEVICE u32 sum_row(u32 lane, u32 e) { return mma_row(lane, e); }
DEVICE u32 sum_col(u32 lane, u32 e) { return mma_col(lane, e); }

#endif

// y [R, N] = x [R, K] · Wᵀ (+ residual): many rows, on the matrix cores, and as exact as one row is.
//
// A block of threads makes a tile of 64 × 64. Along K it walks blocks of 32, the length that shares a scale on both
// sides, and keeps scales out of the f16 operands:
//
// - Quantised activations are two exact planes, 128 · high and low. Quantised weights are small integers: a code less its
//   offset, times the K types' sub-block scale where the product fits eleven bits (all but Q6_K, whose halves of 16 are
//   scaled apart). Products of integers are exact, and their f32 sums nearly: below 2²⁴ for the 4 and 5-bit types,
//   rounded at 2⁻²⁴ for the others.
// - Floats are scaled by a power of two per row and block of 32, so that the largest is within 2¹⁴ … 2¹⁵, and split
//   into f16 parts: activations and f32 weights in two (22 bits), f16 and bf16 weights in one. What is lost is below
//   2⁻²² of a product, or 2⁻²⁸ of the block's largest, and operands are never subnormal where CDNA2 would flush them.
//
// Each block's sums are then multiplied by both scales into f32 totals: two operations a value and block.
#include "layout.h"
#include "matrix.h"
#include "step.h"

CONSTANT u32 TILE = 64;
CONSTANT u32 THREADS_GEMM = 256;
// f16 from row to row of a tile in LDS: 32 and padding that spreads rows over the banks and keeps them 16-byte aligned.
CONSTANT u32 STRIDE = 40;
// A wave's share of the tile: with 4 waves of 64 lanes 2 × 2 products of 16 × 16, with 8 of 32 lanes 1 × 2.
CONSTANT u32 FRAGMENTS_M = WAVE / 32;
CONSTANT u32 FRAGMENTS_N = 2;

template <u32 PLANES> struct Tile {
    f16 v[PLANES][TILE][STRIDE];
};

// Eight neighbouring elements into a plane of a tile.
DEVICE void put(f16 (&row)[STRIDE], u32 part, f16x8 v) { *(f16x8*)&row[8 * part] = v; }

// Signed bytes to f16, each times `factor`.
DEVICE f16x8 widened(u32x2 bytes, f32 factor) {
    f16x8 v;
#pragma unroll
    for (u32 i = 0; i < 8; i++)
        v[i] = (f16)((f32)(i8)(u8)(bytes[i / 4] >> (8 * (i % 4))) * factor);
    return v;
}

// Splits 8 of a block's 32 floats into PLANES f16 parts of x · 2^s, s such that the largest of the 32 fills f16's range;
// returns 2^−s. Four neighbouring lanes hold a block. All lanes call it, since it shuffles. A block with an infinity or
// NaN becomes NaN through its scale; one below 2⁻¹¹² becomes zero.
template <u32 PLANES> DEVICE f32 split(const f32 (&x)[8], f16x8 (&parts)[PLANES]) {
    u32 peak = 0;
    for (u32 i = 0; i < 8; i++)
        peak = maximum(peak, bits_of(x[i]) & 0x7fffffffu);
    peak = maximum(peak, shuffle_xor(peak, 1));
    peak = maximum(peak, shuffle_xor(peak, 2));
    u32 exponent = peak >> 23;
    bool blank = exponent < 15 || exponent == 255;
    f32 up = blank ? 0.0f : float_of((268 - exponent) << 23);
#pragma unroll
    for (u32 i = 0; i < 8; i++) {
        // Not a product with zero: infinity would make it NaN, which f16 integers below must not become.
        f32 rest = blank ? 0.0f : x[i] * up;
#pragma unroll
        for (u32 p = 0; p < PLANES; p++) {
            parts[p][i] = (f16)rest;
            rest -= (f32)parts[p][i];
        }
    }
    if (exponent == 255)
        return float_of(0x7fc00000u);
    return blank ? 0.0f : float_of((exponent - 14) << 23);
}

// The activations' side of a tile: two planes, and for each row the block's scale and what minima are multiplied by.
struct Activations {
    Tile<2> tile;
    f32 scale[TILE];
    f32 sums[2][TILE];
};

// Part `part` of block b of row r of x; rows that are not live become zeros.
template <class W> DEVICE void load_left(Activations& left, const void* x, u32 x_stride, u32 r, bool live, u32 k, u32 b, u32 part) {
    u32 row = thread_x() / 4;
    f16x8 planes[2] = {0, 0};
    f32 scale = 0.0f;
    if constexpr (W::FLOAT) {
        f32 v[8];
        const f32* from = row_of((const f32*)x, x_stride, r);
        for (u32 i = 0; i < 8; i += 4) {
            f32x4 four = live ? load4(from, b * 32 + part * 8 + i, k) : f32x4(0.0f);
            for (u32 j = 0; j < 4; j++)
                v[i + j] = four[j];
        }
        scale = split(v, planes);
    } else if (live) {
        const Block* block = row_of((const Block*)x, x_stride, r) + b;
        planes[0] = widened(((const u32x2*)block->high)[part], 128.0f);
        planes[1] = widened(((const u32x2*)block->low)[part], 1.0f);
        scale = block->scale;
    }
    put(left.tile.v[0][row], part, planes[0]);
    put(left.tile.v[1][row], part, planes[1]);
    if (part != 0)
        return;
    left.scale[row] = scale;
    if constexpr (!W::FLOAT)
        if constexpr (W::MINS) {
            const Block* block = row_of((const Block*)x, x_stride, r) + b;
            if (W::SUB == 16) {
                left.sums[0][row] = live ? scale * (f32)block->sums[0] : 0.0f;
                left.sums[1][row] = live ? scale * (f32)block->sums[1] : 0.0f;
            } else {
                left.sums[0][row] = live ? block->scaled_sum : 0.0f;
            }
        }
}

// What a type needs of its side of a tile.
template <class W> struct WeightsOf {
    CONSTANT u32 PLANES = 1;
    // Whether the halves of 16 have scales that cannot be folded into the codes.
    CONSTANT bool HALVES = W::SUB == 16 && W::HIGH == 2;
    CONSTANT bool MINS = W::MINS;
    // Terms of the minimum.
    CONSTANT u32 MIN_TERMS = W::MINS ? (W::SUB == 16 ? 2 : 1) : 0;
};
template <u32 KIND> struct WeightsOf<Float<KIND>> {
    CONSTANT u32 PLANES = Float<KIND>::NARROW ? 1 : 2;
    CONSTANT bool HALVES = false;
    CONSTANT bool MINS = false;
    CONSTANT u32 MIN_TERMS = 0;
};

// The weights' side: what a unit of each row's integers is worth, by halves, and its minimum.
template <class W> struct Weights {
    Tile<WeightsOf<W>::PLANES> tile;
    f32 scale[2][TILE];
    f32 min[2][TILE];
};

// Part `part` of block b of the weight row at `w`; null stands for a row of zeros.
template <class W> DEVICE void load_right(Weights<W>& right, const u8* w, const Planes& p, u32 k, u32 b, u32 part) {
    u32 row = thread_x() / 4;
    if constexpr (W::FLOAT) {
        f32 v[8];
        u32 i = b * 32 + part * 8;
        for (u32 j = 0; j < 8; j += W::LEN) {
            // A load that begins inside the row ends inside its padding.
            u32x4 load = 0;
            if (w && i + j < k)
                load = *(const u32x4*)(w + (i + j) * W::BYTES);
            for (u32 e = 0; e < W::LEN; e++)
                v[j + e] = i + j + e < k ? W::element(load, e) : 0.0f;
        }
        f16x8 planes[WeightsOf<W>::PLANES];
        f32 scale = split(v, planes);
        for (u32 plane = 0; plane < WeightsOf<W>::PLANES; plane++)
            put(right.tile.v[plane][row], part, planes[plane]);
        if (part == 0)
            right.scale[0][row] = scale;
    } else {
        f16x8 v = 0;
        f32 scale[2] = {0.0f, 0.0f}, min[2] = {0.0f, 0.0f};
        if (w) {
            u32x2 codes = W::eighth(w, p, b, part);
            f32 d = half_of(W::factor(w + p.d, b)), factor = 1.0f;
            u16 subs = W::SUB ? W::sub_bytes(w + p.scales, b) : 0;
            scale[0] = scale[1] = d;
            if (WeightsOf<W>::HALVES) {
                scale[0] = d * (f32)W::sub_scale(subs, 0);
                scale[1] = d * (f32)W::sub_scale(subs, 1);
            } else if (W::SUB == 16) {
                factor = (f32)W::sub_scale(subs, part / 2);
            } else if (W::SUB == 32) {
                factor = (f32)W::sub_scale(subs, 0);
            }
            // Codes are below 128 where there is an offset, so a byte less its offset does not borrow from the next.
#pragma unroll
            for (u32 i = 0; i < 8; i++) {
                i32 code = (i32)(i8)(u8)(codes[i / 4] >> (8 * (i % 4))) - W::OFFSET;
                v[i] = (f16)((f32)code * factor);
            }
            if (W::MINS) {
                f32 m = half_of(W::factor(w + p.m, b));
                u16 mins = W::SUB ? W::sub_bytes(w + p.mins, b) : 0;
                min[0] = W::SUB ? -m * (f32)(mins & 255) : m;
                min[1] = -m * (f32)(mins >> 8);
            }
        }
        put(right.tile.v[0][row], part, v);
        if (part == 0)
            for (u32 h = 0; h < 2; h++) {
                right.scale[h][row] = scale[h];
                right.min[h][row] = min[h];
            }
    }
}

// A block of threads: rows 64 block_y … of x and rows 64 block_x … of w. K is a multiple of 32 for quantised types.
template <class W>
DEVICE void gemm(const Step* step, const void* x, u32 x_stride, const u8* w, u32 w_stride, const f32* residual,
                 u32 res_stride, f32* y, u32 y_stride, u32 n, u32 k, u32 rows) {
    typedef WeightsOf<W> Of;
    SHARED static Activations left;
    SHARED static Weights<W> right;
    u32 live = live_rows(step, rows), r0 = block_y() * TILE, n0 = block_x() * TILE;
    // The whole block leaves, before its barriers.
    if (r0 >= live)
        return;
    u32 thread = thread_x(), lane = thread % WAVE, wave = thread / WAVE, row = thread / 4, part = thread % 4;
    u32 m_at = wave / 2 * (16 * FRAGMENTS_M), n_at = wave % 2 * (16 * FRAGMENTS_N);
    u32 blocks = (k + 31) / 32;
    Planes p = {};
    if constexpr (!W::FLOAT)
        p = W::planes(blocks);
    const u8* w_row = n0 + row < n ? row_of(w, w_stride, n0 + row) : nullptr;
    Accumulator total[FRAGMENTS_M][FRAGMENTS_N] = {};

    for (u32 b = 0; b < blocks; b++) {
        // Every wave has read the tiles that are about to be overwritten.
        if (b != 0)
            barrier();
        load_left<W>(left, x, x_stride, r0 + row, r0 + row < live, k, b, part);
        load_right<W>(right, w_row, p, k, b, part);
        // Both tiles are complete.
        barrier();
        Accumulator sums[FRAGMENTS_M][FRAGMENTS_N] = {};
#pragma unroll
        for (u32 h = 0; h < 2; h++) {
            MatrixFragment a[2][FRAGMENTS_M], c[Of::PLANES][FRAGMENTS_N];
#pragma unroll
            for (u32 plane = 0; plane < 2; plane++)
#pragma unroll
                for (u32 i = 0; i < FRAGMENTS_M; i++)
                    a[plane][i] = matrix_load(&left.tile.v[plane][m_at + 16 * i][16 * h], STRIDE, lane);
#pragma unroll
            for (u32 plane = 0; plane < Of::PLANES; plane++)
#pragma unroll
                for (u32 j = 0; j < FRAGMENTS_N; j++)
                    c[plane][j] = matrix_load(&right.tile.v[plane][n_at + 16 * j][16 * h], STRIDE, lane);
#pragma unroll
            for (u32 i = 0; i < FRAGMENTS_M; i++)
#pragma unroll
                for (u32 j = 0; j < FRAGMENTS_N; j++) {
                    Accumulator& sum = sums[i][j];
                    multiply(a[0][i], c[0][j], sum);
                    multiply(a[1][i], c[0][j], sum);
                    // The product of both second parts is below what is kept.
                    if (Of::PLANES == 2)
                        multiply(a[0][i], c[Of::PLANES - 1][j], sum);
                    if (!Of::HALVES && h == 0)
                        continue;
#pragma unroll
                    for (u32 e = 0; e < HELD; e++) {
                        u32 m = m_at + 16 * i + matrix_row(lane, e), col = n_at + 16 * j + matrix_col(lane, e);
                        // In this order no product of scales alone can overflow or vanish.
                        f32 scaled = sum.v[e] * left.scale[m];
                        f32 value = __builtin_fmaf(scaled, right.scale[h * Of::HALVES][col], total[i][j].v[e]);
                        if (Of::MIN_TERMS > 0)
                            value = __builtin_fmaf(left.sums[0][m], right.min[0][col], value);
                        if (Of::MIN_TERMS > 1)
                            value = __builtin_fmaf(left.sums[1][m], right.min[1][col], value);
                        total[i][j].v[e] = value;
                        sum.v[e] = 0.0f;
                    }
                }
        }
    }
#pragma unroll
    for (u32 i = 0; i < FRAGMENTS_M; i++)
#pragma unroll
        for (u32 j = 0; j < FRAGMENTS_N; j++)
#pragma unroll
            for (u32 e = 0; e < HELD; e++) {
                u32 r = r0 + m_at + 16 * i + matrix_row(lane, e), col = n0 + n_at + 16 * j + matrix_col(lane, e);
                if (r >= live || col >= n)
                    continue;
                f32 value = total[i][j].v[e];
                if (residual)
                    value += row_of(residual, res_stride, r)[col];
                row_of(y, y_stride, r)[col] = value;
            }
}

// x is blocks for quantised types, f32 for floats.
#define GEMM_KERNEL(name, Type)                                                                                        \
    GLOBAL THREADS_AT_MOST(THREADS_GEMM) void gemm_##name(const Step* step, const void* x, u32 x_stride, const u8* w,  \
                                                          u32 w_stride, const f32* residual, u32 res_stride, f32* y,   \
                                                          u32 y_stride, u32 n, u32 k, u32 rows) {                      \
        gemm<Type>(step, x, x_stride, w, w_stride, residual, res_stride, y, y_stride, n, k, rows);                     \
    }
EACH_QUANTIZED(GEMM_KERNEL)
EACH_FLOAT(GEMM_KERNEL)

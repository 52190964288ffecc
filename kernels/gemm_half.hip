// y [R, N] = x [R, K] · Wᵀ (+ residual) for long prompts: rows of f16 (half.h) times weights brought to f16, f32 sums.
//
// Four waves make a tile of 2 · FM · SPAN rows by 2 · FN · SPAN columns, each a quarter of it. Along K they walk DEPTH at
// a time through buffers in LDS:
//
// - NVIDIA: rows of x, and of f16 weights, go to LDS by asynchronous copies, STAGES − 1 tiles ahead. Quantised weights
//   are loaded into registers one tile ahead of their conversion, converted one tile ahead of their use, a part between
//   the products of each step, and stored to the other of two buffers.
// - AMD: both go through registers, loaded one tile ahead of their store and stored one tile ahead of their use.
//
// One barrier a tile: after it, tile t is complete and all are done with tile t − 1, whose buffers are then filled.
//
// Blocks that run together share columns: the tiles of all rows come first, so that a panel of weights is read from
// memory once and x stays in the second-level cache.
//
// What a wave does for a tile of 128 × 128 × 32 on gfx942, from the code object, and what follows for an MI300X (304
// units, 2.1 GHz, 1,307 TFLOP/s) if its vector instructions, at 4 cycles, never overlap with its own products, at 32, nor
// with the other block's on the unit (predicted, not measured; with full overlap LDS, 75 % busy, allows all of it):
//
//   |                        | Q4_0 | Q4_K | Q8_0 | F16 | Q6_K |
//   | v_mfma_f32_32x32x8_f16 |   16 |   16 |   16 |  16 |   16 |
//   | ds_read_b128, ds_write_b128 | 8, 4 | 8, 4 | 8, 4 | 8, 4 | 8, 4 |
//   | other vector ALU       |   50 |   60 |   47 |  29 |   70 |
//   | TFLOP/s at least       |  940 |  890 |  956 | 1066 |  845 |
//
// On sm_90 a tile of 128 × 128 × 64 is 128 HMMA.16816 and 32 LDSM a warp, in a loop of 276 instructions for F16 and of
// about 450 for the quantised types; 255 registers at most, so that two blocks share an SM.
//
// What is rounded: x and w to 11 bits each. Rows past the live ones repeat the last, columns past N the last column, and
// neither is stored. x is padded with zeros to 64 columns, so that weights past K only have to be numbers.
#include "half.h"
#include "sixteen.h"
#include "step.h"
#include "wide.h"

#if NVIDIA
#define NVIDIA_ONLY(here, elsewhere) (here)
#else
#define NVIDIA_ONLY(here, elsewhere) (elsewhere)
#endif
#if RDNA
#define RDNA_ONLY(here, elsewhere) (here)
#else
#define RDNA_ONLY(here, elsewhere) (elsewhere)
#endif
#define DEVICE_MEMBER inline __attribute__((device, always_inline))

CONSTANT u32 DEPTH = NVIDIA_ONLY(64, 32);
CONSTANT u32 STEPS = DEPTH / 16;
CONSTANT u32 PIECES_DEEP = DEPTH / 8;
CONSTANT u32 THREADS_HALF = 4 * WAVE;
// Tiles of x that are in LDS or on their way: asynchronous copies need a third.
CONSTANT u32 STAGES = NVIDIA_ONLY(3, 2);
extern SHARED __attribute__((aligned(16))) u32x4 staged[];

// One of the matrices that a launch multiplies with: W [n, K] and y [R, n].
struct Product {
    const u8* w;
    f32* y;
    u32 y_stride, n;
};

// Rows `row` … of f16 rows into a tile [ROWS][DEPTH], columns k0 …, as asynchronous copies (NVIDIA) or through registers.
// `last` is the last row that there is, `end` the bytes of a row that may be read; past them are zeros.
template <u32 ROWS> struct Rows {
    CONSTANT u32 EACH = ROWS * PIECES_DEEP / THREADS_HALF;
    static_assert(EACH * THREADS_HALF == ROWS * PIECES_DEEP, "threads have whole pieces");

#if NVIDIA
    MEMBER void copy(f16* tile, const u8* base, u32 stride, u32 row, u32 last, u32 k0, u32 end) {
#pragma unroll
        for (u32 i = 0; i < EACH; i++) {
            u32 index = thread_x() + i * THREADS_HALF;
            u32 r = copied_row<PIECES_DEEP>(index), piece = copied_piece<PIECES_DEEP>(index);
            u32 at = (k0 + piece * 8) * 2, live = at < end ? 16 : 0;
            // A copy of no bytes writes zeros; it is still given an address that exists.
            const u8* from = row_of(base, stride, minimum(row + r, last)) + (live ? at : 0);
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                         :
                         : "r"(shared_address(tile + 8 * place<PIECES_DEEP>(r, piece))),
                           "l"((const __attribute__((address_space(1))) void*)from), "r"(live)
                         : "memory");
        }
    }
#else
    u32x4 held[EACH];

    DEVICE_MEMBER void load(const u8* base, u32 stride, u32 row, u32 last, u32 k0) {
#pragma unroll
        for (u32 i = 0; i < EACH; i++) {
            u32 index = thread_x() + i * THREADS_HALF;
            u32 r = copied_row<PIECES_DEEP>(index), piece = copied_piece<PIECES_DEEP>(index);
            held[i] = *(const u32x4*)(row_of(base, stride, minimum(row + r, last)) + (k0 + piece * 8) * 2);
        }
    }
    DEVICE_MEMBER void store(f16* tile) const {
#pragma unroll
        for (u32 i = 0; i < EACH; i++) {
            u32 index = thread_x() + i * THREADS_HALF;
            u32 r = copied_row<PIECES_DEEP>(index), piece = copied_piece<PIECES_DEEP>(index);
            *(u32x4*)(tile + 8 * place<PIECES_DEEP>(r, piece)) = held[i];
        }
    }
#endif
};

// Weights into a tile [COLS][DEPTH] through registers: a thread has EACH sixteens of one row.
template <class W, u32 COLS> struct Columns {
    CONSTANT u32 EACH = COLS * DEPTH / 16 / THREADS_HALF;
    static_assert(EACH > 0 && EACH * (THREADS_HALF / COLS) == STEPS, "threads have whole sixteens of a row");

    const u8* w;
    Planes planes;
    u32 k, row, first;
    Sixteen<W> held[EACH];

    DEVICE_MEMBER void open(const u8* base, u32 stride, u32 column, u32 n, u32 k_) {
        k = k_;
        row = expanded_row<STEPS, EACH>(thread_x());
        first = expanded_sixteen<STEPS, EACH>(thread_x(), 0);
        w = row_of(base, stride, minimum(column + row, n - 1));
        planes = {};
        if constexpr (!W::FLOAT)
            planes = W::planes((k + 31) / 32);
    }
    // Part `part` of tile `t`. Past the row's end floats are zeros, and blocks the last: x is zero there. Rows of K types
    // are whole tiles.
    DEVICE_MEMBER void load(u32 t, u32 part) {
        u32 index = t * STEPS + first + part;
        if constexpr (W::FLOAT) {
            held[part] = load_sixteen<W>(w, k, index);
        } else {
            // Both halves of a block by one expression, so that what they share is loaded once.
            u32 block = index / 2;
            if (W::SUB == 0)
                block = minimum(block, k / 32 - 1);
            held[part] = load_sixteen<W>(w, planes, block * 2 + index % 2);
        }
    }
    DEVICE_MEMBER void store(f16* tile, u32 part) const {
        f16x8 out[2];
        u32 index = first + part;
        expand(held[part], index % 2, out);
        for (u32 i = 0; i < 2; i++)
            *(f16x8*)(tile + 8 * place<PIECES_DEEP>(row, expanded_piece(index, i))) = out[i];
    }
    // What is stored between the products of step `step`: a fair share of the parts, and once both parts of a block are,
    // the next tile's are loaded into their registers.
    DEVICE_MEMBER void advance(f16* tile, u32 step, u32 next) {
#pragma unroll
        for (u32 part = 0; part < EACH; part++)
            if (part * STEPS / EACH == step)
                store(tile, part);
#pragma unroll
        for (u32 part = 0; part < EACH; part++)
            if ((EACH == 1 ? part : part | 1) * STEPS / EACH == step)
                load(next, part);
    }
};

// Sums that neighbour each other in a lane's columns, and are stored together.
CONSTANT u32 TOGETHER = NVIDIA_ONLY(2, 1);

// Element e of the sums, and on NVIDIA the next, to columns `col` … of a row of n; `col` is even there.
DEVICE void put_sums(const Sums& sums, u32 e, f32 factor, f32* y, const f32* residual, u32 col, u32 n) {
#if NVIDIA
    typedef f32 f32x2 __attribute__((ext_vector_type(2)));
    if (col + 1 < n) {
        f32x2 v = {sums[e] * factor, sums[e + 1] * factor};
        if (residual)
            v += *(const f32x2*)(residual + col);
        *(f32x2*)(y + col) = v;
        return;
    }
#endif
    if (col < n)
        y[col] = sums[e] * factor + (residual ? residual[col] : 0.0f);
}

// The tile of rows `row0` … and columns `column0` … by the block's threads, which all have these.
template <class W, u32 FM, u32 FN>
DEVICE void tile_product(const u8* x, u32 x_stride, const Product& p, u32 w_stride, const f32* residual, u32 res_stride,
                         u32 k, u32 live, u32 row0, u32 column0) {
    constexpr u32 BM = 2 * FM * SPAN, BN = 2 * FN * SPAN;
    // Weights that are copied as they are.
    constexpr bool COPIED = NVIDIA_ONLY(W::FLOAT && UP<W> == 1.0f, false);
    constexpr u32 W_BUFFERS = COPIED ? STAGES : 2;
    // Operands of a step are loaded during the step before where registers allow it.
    constexpr u32 LEFTS = RDNA_ONLY(1, 2), RIGHTS = RDNA_ONLY(1, 2);
    f16* x_tiles = (f16*)staged;
    f16* w_tiles = x_tiles + STAGES * BM * DEPTH;
    u32 lane = thread_x() % WAVE, wave = thread_x() / WAVE;
    u32 m_at = wave / 2 * (FM * SPAN), n_at = wave % 2 * (FN * SPAN);
    u32 tiles = (k + DEPTH - 1) / DEPTH;

    Sums sums[FM][FN] = {};
    Columns<W, BN> columns;
    if constexpr (!COPIED)
        columns.open(p.w, w_stride, column0, p.n, k);

#if NVIDIA
    u32 x_end = half_columns(k) * 2, w_end = (k * 2 + 15) & ~15u;
    auto fetch = [&](u32 t) {
        if (t < tiles) {
            Rows<BM>::copy(x_tiles + t % STAGES * (BM * DEPTH), x, x_stride, row0, live - 1, t * DEPTH, x_end);
            if constexpr (COPIED)
                Rows<BN>::copy(w_tiles + t % STAGES * (BN * DEPTH), p.w, w_stride, column0, p.n - 1, t * DEPTH, w_end);
        }
        // A group a tile, also where there is none, so that counting groups is counting tiles.
        asm volatile("cp.async.commit_group;" ::: "memory");
    };
#pragma unroll
    for (u32 t = 0; t < STAGES - 1; t++)
        fetch(t);
#else
    Rows<BM> held;
    held.load(x, x_stride, row0, live - 1, 0);
    held.store(x_tiles);
    held.load(x, x_stride, row0, live - 1, tiles > 1 ? DEPTH : 0);
#endif
    if constexpr (!COPIED) {
#pragma unroll
        for (u32 part = 0; part < Columns<W, BN>::EACH; part++)
            columns.load(0, part);
#pragma unroll
        for (u32 part = 0; part < Columns<W, BN>::EACH; part++)
            columns.store(w_tiles, part);
#pragma unroll
        for (u32 part = 0; part < Columns<W, BN>::EACH; part++)
            columns.load(tiles > 1 ? 1 : 0, part);
    }

    for (u32 t = 0; t < tiles; t++) {
#if NVIDIA
        // All but the newest STAGES − 2 groups have arrived, tile t among them.
        asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 2) : "memory");
#endif
        // Tile t is complete, and everyone is done with tile t − 1.
        barrier();
        const f16* x_tile = x_tiles + t % STAGES * (BM * DEPTH);
        const f16* w_tile = w_tiles + t % W_BUFFERS * (BN * DEPTH);
        // Past the last tile the last is loaded and stored again, for nobody.
        f16* w_next = w_tiles + (t + 1) % W_BUFFERS * (BN * DEPTH);
        u32 ahead = minimum(t + 2, tiles - 1);
        Left a[LEFTS][FM];
        Right b[RIGHTS][FN];
        auto load_left = [&](u32 s) {
#pragma unroll
            for (u32 i = 0; i < FM; i++)
                a[s % LEFTS][i] = left<PIECES_DEEP>(x_tile, m_at + i * SPAN, s, lane);
        };
        auto load_right = [&](u32 s, u32 j) {
            b[s % RIGHTS][j] = right<PIECES_DEEP>(w_tile, n_at + j * SPAN, s, lane);
        };
        if (LEFTS > 1)
            load_left(0);
#pragma unroll
        for (u32 j = 0; j < FN; j++)
            if (RIGHTS > 1)
                load_right(0, j);
#if NVIDIA
        // Behind the first operands, so that products are not kept waiting for addresses.
        fetch(t + STAGES - 1);
#endif
#pragma unroll
        for (u32 s = 0; s < STEPS; s++) {
            if (LEFTS == 1)
                load_left(s);
            else if (s + 1 < STEPS)
                load_left(s + 1);
#pragma unroll
            for (u32 j = 0; j < FN; j++)
                if (RIGHTS > 1 && s + 1 < STEPS)
                    load_right(s + 1, j);
            if constexpr (!COPIED)
                columns.advance(w_next, s, ahead);
#pragma unroll
            for (u32 j = 0; j < FN; j++) {
                if (RIGHTS == 1)
                    load_right(s, j);
#pragma unroll
                for (u32 i = 0; i < FM; i++)
                    accumulate(a[s % LEFTS][i], b[s % RIGHTS][j], sums[i][j]);
            }
        }
#if !NVIDIA
        held.store(x_tiles + (t + 1) % STAGES * (BM * DEPTH));
        held.load(x, x_stride, row0, live - 1, ahead * DEPTH);
#endif
    }

#pragma unroll
    for (u32 i = 0; i < FM; i++) {
        f32 factor[SUMS];
#pragma unroll
        for (u32 e = 0; e < SUMS; e++) {
            u32 r = minimum(row0 + m_at + i * SPAN + sum_row(lane, e), live - 1);
            factor[e] = *half_factor((const f16*)row_of(x, x_stride, r), k) * (1.0f / UP<W>);
        }
#pragma unroll
        for (u32 j = 0; j < FN; j++)
#pragma unroll
            for (u32 e = 0; e < SUMS; e += TOGETHER) {
                u32 r = row0 + m_at + i * SPAN + sum_row(lane, e), col = column0 + n_at + j * SPAN + sum_col(lane, e);
                if (r < live)
                    put_sums(sums[i][j], e, factor[e], row_of(p.y, p.y_stride, r),
                             residual ? row_of(residual, res_stride, r) : nullptr, col, p.n);
            }
    }
}

// Block block_x of threads; see above. `k` is a multiple of 32 for quantised types; rows of floats are padded to 16 bytes.
template <class W, u32 FM, u32 FN>
DEVICE void gemm_half(const Step* step, const u8* x, u32 x_stride, const Product (&products)[3], u32 w_stride,
                      const f32* residual, u32 res_stride, u32 k, u32 rows) {
    constexpr u32 BM = 2 * FM * SPAN, BN = 2 * FN * SPAN;
    u32 row_tiles = (rows + BM - 1) / BM, row0 = block_x() % row_tiles * BM, column_tile = block_x() / row_tiles;
    u32 live = live_rows(step, rows);
    // The whole block leaves, before its barriers.
    if (row0 >= live)
        return;
    Product p = products[0];
#pragma unroll
    for (u32 i = 1; i < 3; i++) {
        u32 before = (p.n + BN - 1) / BN;
        if (column_tile < before)
            break;
        column_tile -= before;
        p = products[i];
        residual = nullptr;
    }
    tile_product<W, FM, FN>(x, x_stride, p, w_stride, residual, res_stride, k, live, row0, column_tile * BN);
}

// `residual`, where there is one, is added to the first product.
#define HALF_KERNEL(name, Type, FM, FN)                                                                                \
    GLOBAL THREADS_AT_MOST(THREADS_HALF) void name(                                                                    \
        const Step* step, const u8* x, u32 x_stride, const u8* w0, f32* y0, u32 y0_stride, u32 n0, const u8* w1,       \
        f32* y1, u32 y1_stride, u32 n1, const u8* w2, f32* y2, u32 y2_stride, u32 n2, u32 w_stride,                    \
        const f32* residual, u32 res_stride, u32 k, u32 rows) {                                                        \
        const Product products[3] = {{w0, y0, y0_stride, n0}, {w1, y1, y1_stride, n1}, {w2, y2, y2_stride, n2}};       \
        gemm_half<Type, FM, FN>(step, x, x_stride, products, w_stride, residual, res_stride, k, rows);                 \
    }
// 128 × 128, or 128 × 64 on RDNA3, whose registers hold no more sums; and for few tiles 64 × 64, or 64 × 128 where a
// product is 32 wide. src/gpu/geometry.rs has the same sizes.
#define HALF_KERNELS(name, Type)                                                                                       \
    HALF_KERNEL(gemm_half_##name, Type, 64 / SPAN, RDNA_ONLY(2, 64 / SPAN))                                            \
    HALF_KERNEL(gemm_half_small_##name, Type, 32 / SPAN, 2)
EACH_QUANTIZED(HALF_KERNELS)
HALF_KERNELS(f16, F16)
HALF_KERNELS(bf16, BF16)

// gemm_half.hip's products by warp groups, on sm_90: two of four waves each, whose products take both operands from LDS and
// run while the waves do something else. Weights that are not f16 are brought to it first, by a launch of its own.
//
// A tile is 128 rows by 128 columns, and a group makes 64 of the rows. Nothing differs from gemm_half.hip but who
// multiplies: not the tiles in LDS, whose permutation is the one that these products call 128 bytes' swizzle, and not the
// sums, which lie in a wave's registers as those of its 16 rows would.
//
// Llama-2-7B, 512 rows, on an H100, TFLOP/s; each line an A/B in one run, of the best division of K:
//
// | | q, k, v, gate, up: F16 | Q4_0 | Q4_K | Q8_0 | down: F16 |
// |---|---|---|---|---|---|
// | mma.sync (gemm_half.hip) | 317 | 283 | 195 | 248 | 255 |
// | two tiles' products on the way, x and f16 weights asked for a tile ahead | 369 | | 224 | 280 | 236 |
// | one on the way, asked for two tiles ahead: predicted nothing, the other block fills in | 487 | 321 | 239 | 262 | 460 |
// | quantised weights loaded a whole tile before their conversion: predicted 450 | 511 | 309 | 240 | 262 | 491 |
// | quantised weights to f16 by a launch of their own, its time included: predicted 350 | 484 | 334 | 327 | 314 | 484 |
//
// What holds quantised weights up is the path to L1: a wave's load of a byte, a half or 16 bytes of each of 16 or 32 rows
// takes a turn for each row, and what is converted goes through LDS beside what products read there. A launch that reads
// rows along K, converts and stores 2 bytes for each weight costs memory's time for them, a fifth of the products', and then
// every type multiplies as f16 does.
//
// Refuted: 128 by 256 with one block an SM, which reads three quarters of the bytes (F16 489, Q4_0 270).
#pragma once
#include "half_product.h"

#if WARP_GROUPS

// ---- Weights to f16 ----

// Times WEIGHT_UP, rows of up to three matrices [n, k] one after the other: out [n0 + n1 + n2, out_stride]. Block
// (block_x, block_y) of 64 by 4 threads has four rows, and a thread a sixteen of one.
template <class W>
DEVICE void expand_rows(const u8* const (&w)[3], const u32 (&n)[3], u32 w_stride, u32 k, u8* out, u32 out_stride) {
    let_successor_begin();
    u32 row = block_x() * 4 + thread_y(), rows = n[0] + n[1] + n[2], index = block_y() * 64 + thread_x();
    const u8* from = w[0];
    u32 within = minimum(row, rows - 1);
#pragma unroll
    for (u32 i = 1; i < 3; i++) {
        if (within < n[i - 1])
            break;
        within -= n[i - 1];
        from = w[i];
    }
    from = row_of(from, w_stride, within);
    u32 sixteen = minimum(index, (k - 1) / 16);
    Sixteen<W> held;
    if constexpr (W::FLOAT)
        held = load_sixteen<W>(from, k, sixteen);
    else
        held = load_sixteen<W>(from, W::planes((k + 31) / 32), sixteen);
    f16x8 halves[2];
    expand(held, sixteen % 2, halves);
    // Neighbours swap, so that together they store 32 bytes at once: first the even lane's, then the odd one's.
    bool odd = thread_x() % 2;
    u32x4 first = __builtin_bit_cast(u32x4, halves[0]), second = __builtin_bit_cast(u32x4, halves[1]);
    u32x4 keep = odd ? second : first, give = odd ? first : second, other;
    for (u32 i = 0; i < 4; i++)
        other[i] = one_off(give[i]);
    await_predecessors();
    u8* to = row_of(out, out_stride, minimum(row, rows - 1));
    u32 piece = (index & ~1u) * 2 + odd;
    if (row < rows && piece * 8 < k)
        *(u32x4*)(to + piece * 16) = odd ? other : keep;
    if (row < rows && (piece + 2) * 8 < k)
        *(u32x4*)(to + (piece + 2) * 16) = odd ? keep : other;
}

#define EXPAND_KERNEL(name, Type)                                                                                      \
    GLOBAL THREADS_AT_MOST(256) void expand_##name(const Step*, const u8* w0, u32 n0, const u8* w1, u32 n1,            \
                                                   const u8* w2, u32 n2, u32 w_stride, u32 k, u8* out,                 \
                                                   u32 out_stride) {                                                   \
        const u8* const w[3] = {w0, w1, w2};                                                                           \
        const u32 n[3] = {n0, n1, n2};                                                                                 \
        expand_rows<Type>(w, n, w_stride, k, out, out_stride);                                                         \
    }
EACH_QUANTIZED(EXPAND_KERNEL)
EXPAND_KERNEL(bf16, BF16)

// What such a launch leaves.
struct Expanded : F16 {};
template <> constexpr f32 UP<Expanded> = WEIGHT_UP;

// ---- Products ----

// What threads have written to LDS is there for products, after a barrier.
DEVICE void fence_for_products() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
// Products may be asked for, of sums that this thread has written.
DEVICE void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void end_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
DEVICE void await_products() { asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory"); }

// Rows of 64 f16 along K, which begin at a multiple of 1024 bytes; from element `k` of each on.
DEVICE u64 described(u32 tile, u32 k) {
    constexpr u32 SWIZZLE_128 = 1u << 30, EIGHT_ROWS = 8 * 128 / 16, UNUSED = 1u << 16;
    return (u64)(SWIZZLE_128 | EIGHT_ROWS) << 32 | ((tile + 2 * k) >> 4 | UNUSED);
}

// d += Σ a [64, 16] · b [128, 16], asked for: of each 16 columns a thread of the group has eight sums, as Sums lie.
DEVICE void multiply_groups(f32 (&d)[64], u64 a, u64 b) {
#define FOUR(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define SIXTEEN(i) FOUR(i), FOUR(i + 4), FOUR(i + 8), FOUR(i + 12)
    asm volatile("{\n.reg .pred add;\nsetp.eq.u32 add, 0, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
                 "}, %64, %65, add, 1, 1, 0, 0; }"
                 : SIXTEEN(0), SIXTEEN(16), SIXTEEN(32), SIXTEEN(48)
                 : "l"(a), "l"(b));
#undef FOUR
#undef SIXTEEN
}

// Two groups, one below the other: eight waves of 16 rows each.
struct Groups : Layout<1, 8, 8, 1> {
    // That share an SM, where their buffers are 96 KiB each.
    CONSTANT u32 BLOCKS = 2;
    CONSTANT u32 BUFFERS = 3, AHEAD = BUFFERS - 1, GROUP_ROWS = 64;
    CONSTANT u32 X_TILE = ROWS * DEPTH, W_TILE = COLS * DEPTH;

    template <class W>
    MEMBER void multiply(Sums (&sums)[1][8], const Inputs& inputs, const Panel<Groups>& panel, const Shares& shares) {
        f16* x_tiles = (f16*)staged;
        f16* w_tiles = x_tiles + BUFFERS * X_TILE;
        u32 group = thread_x() / (4 * WAVE), k = inputs.k;
        // The block's tiles along K.
        u32 from = block_y() * shares.tiles, to = minimum(from + shares.tiles, (k + DEPTH - 1) / DEPTH);
        u32 x_end = half_columns(k) * 2, w_end = (k * 2 + 15) & ~15u;
        auto x_at = [&](u32 r, u32 byte) { return inputs.at(r, byte); };
        auto w_at = [&](u32 c, u32 byte) { return panel.at(c) + byte; };
        // Tile t into a buffer.
        auto fetch = [&](u32 t, u32 buffer) {
            if (t < to) {
                Rows<ROWS, THREADS>::copy(x_tiles + buffer * X_TILE, x_at, t * DEPTH, x_end);
                Rows<COLS, THREADS>::copy(w_tiles + buffer * W_TILE, w_at, t * DEPTH, w_end);
            }
            // A group a tile, also where there is none, so that counting groups is counting tiles.
            asm volatile("cp.async.commit_group;" ::: "memory");
        };
#pragma unroll
        for (u32 t = 0; t < AHEAD; t++)
            fetch(from + t, t);
        f32 d[64] = {};
        u32 x_first = shared_address(x_tiles) + group * (GROUP_ROWS * DEPTH * 2), w_first = shared_address(w_tiles);
        // The buffers of tile t and of the one that is asked for beside its products.
        u32 buffer = 0, free = AHEAD;
        for (u32 t = from; t < to; t++) {
            // All but the newest AHEAD − 1 groups have arrived, tile t among them.
            asm volatile("cp.async.wait_group %0;" ::"n"(AHEAD - 1) : "memory");
            fence_for_products();
            // Tile t is complete, and the products of tile t − 1 are done, whose buffers are free.
            barrier();
            u32 x_tile = x_first + buffer * (X_TILE * 2), w_tile = w_first + buffer * (W_TILE * 2);
            begin_products();
#pragma unroll
            for (u32 s = 0; s < STEPS; s++)
                multiply_groups(d, described(x_tile, 16 * s), described(w_tile, 16 * s));
            end_products();
            fetch(t + AHEAD, free);
            await_products();
            buffer = buffer + 1 == BUFFERS ? 0 : buffer + 1;
            free = free + 1 == BUFFERS ? 0 : free + 1;
        }
#pragma unroll
        for (u32 i = 0; i < 64; i++)
            sums[0][i / 8][i % 8] = d[i];
    }
};

HALF_KERNEL(gemm_half_128x128_f16, F16, Groups)
HALF_KERNEL(gemm_half_128x128_expanded, Expanded, Groups)

#endif

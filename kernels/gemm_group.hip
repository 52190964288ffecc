// gemm_half.hip's products by warp groups, on sm_90: two of four waves each, whose products take both operands from LDS and
// run while the waves do something else.
//
// A tile is 128 rows by 128 columns, and a group makes 64 of the rows. Along K, tile t's products are asked for as soon as
// its operands are there; while they run, the same waves bring the weights of tile t + 1 to f16 and ask for what comes
// after. Two tiles' products are on the way at most, so that the matrix cores find the next when they are done with one:
//
//   products   |  t - 1  |    t    |  t + 1  |
//   waves      | w t     | w t + 1 | w t + 2 |
//
// One barrier a tile: after it tile t is complete, and every group's products of tile t − 2 are done, whose buffers are then
// filled. Nothing else differs from gemm_half.hip: not the tiles in LDS, whose permutation is the one that these products
// call 128 bytes' swizzle, and not the sums, which lie in a wave's registers as those of its 16 rows would.
#pragma once
#include "half_product.h"

#if WARP_GROUPS

// Where LDS that products read is written by threads: it is done, for all that a barrier orders after it.
DEVICE void fence_for_products() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
// Products may be asked for, of sums that this thread has written.
DEVICE void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void end_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// All but the newest COUNT have been done.
template <u32 COUNT> DEVICE void await_products() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(COUNT) : "memory"); }

// Rows of 64 f16 along K, which begin at a multiple of 1024 bytes; from element `k` of each on.
DEVICE u64 described(const f16* tile, u32 k) {
    constexpr u64 SWIZZLE_128 = 1ull << 62, EIGHT_ROWS = (u64)(8 * 128 / 16) << 32, UNUSED = 1ull << 16;
    return SWIZZLE_128 | EIGHT_ROWS | UNUSED | (shared_address(tile) + 2 * k) >> 4;
}

// 64 rows by 128 columns, of which a thread of the group has 64 sums: of 16 columns, eight as Sums has them.
typedef f32 GroupSums[64];

// d += Σ a [64, 16] · b [128, 16], asked for.
DEVICE void multiply_groups(GroupSums& d, u64 a, u64 b) {
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
    CONSTANT u32 BLOCKS = 2, GROUP_ROWS = 64;

    template <class W>
    MEMBER void multiply(Sums (&sums)[1][8], const Inputs& inputs, const Panel<Groups>& panel, const Shares& shares) {
        typedef Rows<ROWS, THREADS> XRows;
        typedef Rows<COLS, THREADS> WRows;
        typedef Columns<W, COLS, THREADS> WColumns;
        // Weights that are copied as they are take more room: two blocks share an SM's LDS.
        constexpr bool COPIED = W::FLOAT && UP<W> == 1.0f;
        constexpr u32 X_BUFFERS = COPIED ? 3 : 4, W_BUFFERS = 3;
        // A buffer is free two tiles after its own.
        constexpr u32 AHEAD = X_BUFFERS - 2;
        f16* x_tiles = (f16*)staged;
        f16* w_tiles = x_tiles + X_BUFFERS * ROWS * DEPTH;
        u32 group = thread_x() / (4 * WAVE), k = inputs.k;
        // The block's tiles along K.
        u32 from = block_y() * shares.tiles, to = minimum(from + shares.tiles, (k + DEPTH - 1) / DEPTH);
        u32 x_end = half_columns(k) * 2, w_end = (k * 2 + 15) & ~15u;
        auto x_at = [&](u32 r, u32 byte) { return inputs.at(r, byte); };
        auto w_at = [&](u32 c, u32 byte) { return panel.at(c) + byte; };
        auto x_tile = [&](u32 t) { return x_tiles + t % X_BUFFERS * (ROWS * DEPTH); };
        auto w_tile = [&](u32 t) { return w_tiles + t % W_BUFFERS * (COLS * DEPTH); };
        auto fetch = [&](u32 t) {
            if (t < to) {
                XRows::copy(x_tile(t), x_at, t * DEPTH, x_end);
                if constexpr (COPIED)
                    WRows::copy(w_tile(t), w_at, t * DEPTH, w_end);
            }
            // A group a tile, also where there is none, so that counting groups is counting tiles.
            asm volatile("cp.async.commit_group;" ::: "memory");
        };
#pragma unroll
        for (u32 t = 0; t < AHEAD; t++)
            fetch(from + t);
        WColumns columns;
        auto load = [&](u32 t) {
#pragma unroll
            for (u32 part = 0; part < WColumns::EACH; part++)
                columns.load(minimum(t, to - 1), part);
        };
        auto store = [&](u32 t) {
#pragma unroll
            for (u32 part = 0; part < WColumns::EACH; part++)
                columns.store(w_tile(t), part);
        };
        if constexpr (!COPIED) {
            columns.open(panel, k);
            load(from);
            store(from);
            load(from + 1);
        }
        GroupSums d = {};
        for (u32 t = from; t < to; t++) {
            // All but the newest AHEAD − 1 groups have arrived, tile t among them.
            asm volatile("cp.async.wait_group %0;" ::"n"(AHEAD - 1) : "memory");
            fence_for_products();
            barrier();
            begin_products();
#pragma unroll
            for (u32 s = 0; s < STEPS; s++)
                multiply_groups(d, described(x_tile(t) + group * (GROUP_ROWS * DEPTH), 16 * s), described(w_tile(t), 16 * s));
            end_products();
            fetch(t + AHEAD);
            if constexpr (!COPIED) {
                // Past the last tile the last is stored again, for nobody.
                store(t + 1);
                load(t + 2);
            }
            await_products<1>();
        }
        await_products<0>();
#pragma unroll
        for (u32 i = 0; i < 64; i++)
            sums[0][i / 8][i % 8] = d[i];
    }
};

#define GROUP_KERNELS(name, Type) HALF_KERNEL(gemm_half_128x128_##name, Type, Groups)
EACH_QUANTIZED(GROUP_KERNELS)
GROUP_KERNELS(f16, F16)
GROUP_KERNELS(bf16, BF16)

#endif

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
// Then the sums go through LDS once more, so that four neighbours of a row are one thread's: they are scaled, gated or
// added to, and stored as 16 bytes.
//
// Blocks that run together share columns: the tiles of all rows come first, so that a panel of weights is read from
// memory once and x stays in the second-level cache.
//
// Where there are fewer tiles than the device has room for, the tuning table has smaller ones or lets `parts` blocks
// share the K of each. Which of the two changes no bit of a sum, which is made in the order of K; parts are summed apart
// and then added in their order.
//
// What a wave does for a tile of 128 × 128 × 32 on gfx942, from the code object, and what follows for an MI300X (304
// units, 2.1 GHz, 1,307 TFLOP/s) if its vector instructions, at 4 cycles, never overlap with its own products, at 32, nor
// with the other block's on the unit (predicted, not measured; with full overlap LDS, 75 % busy, allows all of it):
//
//   |                        | Q4_0 | Q4_K | Q8_0 | F16 | Q6_K |
//   | v_mfma_f32_32x32x8_f16 |   16 |   16 |   16 |  16 |   16 |
//   | ds_read_b128, ds_write_b128 | 8, 4 | 8, 4 | 8, 4 | 8, 4 | 8, 4 |
//   | other vector ALU       |   48 |   58 |   45 |  27 |   68 |
//   | TFLOP/s at least       |  950 |  899 |  967 | 1079 |  853 |
//
// What a warp does for tiles 64 deep on sm_90, from the code object:
//
//   |                          | 128 × 128 | 128 × 64 | 64 × 64 |
//   | HMMA.16816, LDSM         |   128, 32 |   64, 24 |  32, 16 |
//   | the loop, of F16         |       293 |      184 |     117 |
//   | of Q4_0, of Q4_K         |  445, 547 | 244, 272 | 209, 234 |
//   | registers at most        |       254 |      206 |     128 |
//   | blocks an SM, by registers |       2 |        2 |       4 |
//
// What follows for Llama-2-7B's o, 4096 × 4096, and 512 rows on 132 SMs (predicted, not measured): 128 tiles of 128 × 128
// are one block an SM, whose four warps wait for each other at each barrier with nobody to fill in. 256 tiles of 128 × 64
// are two, at 1.5 times the loads of x and w for a product and 1.1 times the instructions of Q4_0. 256 halves of 128 × 128
// are two with the large tile's loads, and write and read 16.8 MB of sums, which L2 holds: at 5 TB/s 7 µs of a launch of
// 60.
//
// Gate and up in one launch store one f32 for two: of 512 rows by 11,008, 22.5 MB less are written here and as many less
// read by whoever rounds them, 15 µs at 3 TB/s (predicted).
//
// What is rounded: x and w to 11 bits each. Rows past the live ones repeat the last, columns past N the last column, and
// neither is stored. x is padded with zeros to 64 columns, so that weights past K only have to be numbers.
#include "half_product.h"

// Tiles of x that are in LDS or on their way: asynchronous copies need a third.
CONSTANT u32 STAGES = NVIDIA_ONLY(3, 2);

// The block's tiles along K of x times the panel's columns, by all of its threads.
template <class W, class L>
DEVICE void multiply_tile(typename L::Products& sums, const Inputs& inputs, const Panel<L>& panel, const Shares& shares) {
    constexpr u32 FM = L::FM, FN = L::FN, BM = L::ROWS, BN = L::COLS;
    typedef Rows<BM, L::THREADS> XRows;
    typedef Columns<W, BN, L::THREADS> WColumns;
    // Weights that are copied as they are.
    constexpr bool COPIED = NVIDIA_ONLY(W::FLOAT && UP<W> == 1.0f, false);
    constexpr u32 W_BUFFERS = COPIED ? STAGES : 2;
    // Operands of a step are loaded during the step before where registers allow it.
    constexpr u32 LEFTS = RDNA_ONLY(1, 2), RIGHTS = RDNA_ONLY(1, 2);
    f16* x_tiles = (f16*)staged;
    f16* w_tiles = x_tiles + STAGES * BM * DEPTH;
    u32 lane = thread_x() % WAVE, wave = thread_x() / WAVE;
    u32 m_at = wave / 2 * (FM * SPAN), n_at = wave % 2 * (FN * SPAN);
    // The block's tiles along K.
    u32 from = block_y() * shares.tiles, to = minimum(from + shares.tiles, (inputs.k + DEPTH - 1) / DEPTH);
    u32 k = inputs.k;
    auto x_at = [&](u32 r, u32 byte) { return inputs.at(r, byte); };

    WColumns columns;
    if constexpr (!COPIED)
        columns.open(panel, k);

    u32 second = minimum(from + 1, to - 1);
#if NVIDIA
    u32 x_end = half_columns(k) * 2, w_end = (k * 2 + 15) & ~15u;
    auto w_at = [&](u32 c, u32 byte) { return panel.at(c) + byte; };
    auto fetch = [&](u32 t) {
        if (t < to) {
            XRows::copy(x_tiles + t % STAGES * (BM * DEPTH), x_at, t * DEPTH, x_end);
            if constexpr (COPIED)
                Rows<BN, L::THREADS>::copy(w_tiles + t % STAGES * (BN * DEPTH), w_at, t * DEPTH, w_end);
        }
        // A group a tile, also where there is none, so that counting groups is counting tiles.
        asm volatile("cp.async.commit_group;" ::: "memory");
    };
#pragma unroll
    for (u32 t = 0; t < STAGES - 1; t++)
        fetch(from + t);
#else
    XRows held;
    held.load(x_at, from * DEPTH);
    held.store(x_tiles + from % STAGES * (BM * DEPTH));
    held.load(x_at, second * DEPTH);
#endif
    if constexpr (!COPIED) {
#pragma unroll
        for (u32 part = 0; part < WColumns::EACH; part++)
            columns.load(from, part);
#pragma unroll
        for (u32 part = 0; part < WColumns::EACH; part++)
            columns.store(w_tiles + from % W_BUFFERS * (BN * DEPTH), part);
#pragma unroll
        for (u32 part = 0; part < WColumns::EACH; part++)
            columns.load(second, part);
    }

    for (u32 t = from; t < to; t++) {
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
        u32 ahead = minimum(t + 2, to - 1);
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
        held.load(x_at, ahead * DEPTH);
#endif
    }
}

// Four waves, two by two.
template <u32 FM, u32 FN> struct Waves : Layout<FM, FN, 2, 2> {
    // That a compute unit has at least.
    CONSTANT u32 BLOCKS = FM * FN > 4 ? 2 : 4;

    template <class W>
    MEMBER void multiply(Sums (&sums)[FM][FN], const Inputs& inputs, const Panel<Waves>& panel, const Shares& shares) {
        multiply_tile<W, Waves>(sums, inputs, panel, shares);
    }
};

typedef Waves<64 / SPAN, 64 / SPAN> Waves128x128;
typedef Waves<64 / SPAN, 32 / SPAN> Waves128x64;
typedef Waves<32 / SPAN, 64 / SPAN> Waves64x128;
typedef Waves<32 / SPAN, 32 / SPAN> Waves64x64;

// By rows and columns of their tiles: src/gpu/geometry.rs has the same. RDNA3's registers hold no more sums than those of
// 128 × 64. Where a product is 32 wide, threads have whole sixteens of 128 columns only.
#define HALF_TILE(rows, cols, name, Type) HALF_KERNEL(gemm_half_##rows##x##cols##_##name, Type, Waves##rows##x##cols)
#if CDNA
#define HALF_KERNELS(name, Type) HALF_TILE(128, 128, name, Type) HALF_TILE(64, 128, name, Type)
#elif RDNA
#define HALF_KERNELS(name, Type) HALF_TILE(128, 64, name, Type) HALF_TILE(64, 64, name, Type)
#elif WARP_GROUPS
// The largest is gemm_group.hip's.
#define HALF_KERNELS(name, Type) HALF_TILE(128, 64, name, Type) HALF_TILE(64, 64, name, Type)
#else
#define HALF_KERNELS(name, Type)                                                                                       \
    HALF_TILE(128, 128, name, Type) HALF_TILE(128, 64, name, Type) HALF_TILE(64, 64, name, Type)
#endif
EACH_QUANTIZED(HALF_KERNELS)
HALF_KERNELS(f16, F16)
HALF_KERNELS(bf16, BF16)

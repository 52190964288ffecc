// What the kernels for long prompts' products share (gemm_half.hip, gemm_group.hip): which tile a block makes, how x and
// the weights come to LDS, and what becomes of the sums.
#pragma once
#include "activation.h"
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

CONSTANT u32 DEPTH = NVIDIA_ONLY(64, 32);
CONSTANT u32 STEPS = DEPTH / 16;
CONSTANT u32 PIECES_DEEP = DEPTH / 8;
// Warp groups' products want tiles to begin at whole turns of their permutation.
extern SHARED __attribute__((aligned(WARP_GROUPS ? 1024 : 16))) u32x4 staged[];

// How the waves of a block lie on its tile of y: DOWN by ACROSS of them, each with FM by FN products of SPAN by SPAN.
template <u32 FM_, u32 FN_, u32 DOWN_, u32 ACROSS_> struct Layout {
    CONSTANT u32 FM = FM_, FN = FN_, DOWN = DOWN_, ACROSS = ACROSS_;
    CONSTANT u32 THREADS = DOWN * ACROSS * WAVE;
    CONSTANT u32 ROWS = DOWN * FM * SPAN, COLS = ACROSS * FN * SPAN;
    typedef Sums Products[FM][FN];
};

// One of the matrices that a launch multiplies with: W [n, K] and y [R, n].
struct Product {
    const u8* w;
    f32* y;
    u32 y_stride, n;
};

// block_x(), which the compiler does not take for the one it has.
DEVICE u32 block_x_anew() {
#if NVIDIA
    u32 x;
    asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(x));
    return x;
#else
    return block_x();
#endif
}

// Columns of y that a tile computes, which are rows of weights: from `column` on, `n` in all, `stride` bytes apart. With
// `up` each wave's are half of `w`'s and half of `up`'s, the same of both, so that it has gate and up of an element.
template <class L> struct Panel {
    CONSTANT u32 HALF = L::FN * SPAN / 2;
    static_assert(L::FN % 2 == 0, "a wave has as many columns of gate as of up");

    const u8 *w, *up;
    u32 stride, column, n;

    // The row of weights for column c of the tile; past the last, the last.
    DEVICE_MEMBER const u8* at(u32 c) const {
        if (!up)
            return row_of(w, stride, minimum(column + c, n - 1));
        u32 r = c / (2 * HALF) * HALF + c % HALF;
        return row_of(c / HALF % 2 ? up : w, stride, minimum(column + r, n - 1));
    }
};

// Rows of f16 into a tile [ROWS][DEPTH], columns k0 …, as asynchronous copies (NVIDIA) or through registers. `at(r, b)` is
// byte b of row r, `end` the bytes of a row that may be read; past them are zeros.
template <u32 ROWS, u32 THREADS> struct Rows {
    CONSTANT u32 EACH = ROWS * PIECES_DEEP / THREADS;
    static_assert(EACH * THREADS == ROWS * PIECES_DEEP, "threads have whole pieces");
    // A thread's pieces are so many rows apart, which leaves their permutation as it is.
    CONSTANT u32 APART = THREADS / PIECES_DEEP;
    static_assert(APART % 8 == 0, "a thread's pieces are permuted alike");

    MEMBER u32 row() { return copied_row<PIECES_DEEP>(thread_x()); }
    MEMBER u32 piece() { return copied_piece<PIECES_DEEP>(thread_x()); }
    MEMBER f16* place_in(f16* tile, u32 i) {
        return tile + 8 * (place<PIECES_DEEP>(row(), piece()) + i * APART * PIECES_DEEP);
    }

#if NVIDIA
    template <class At> MEMBER void copy(f16* tile, At at, u32 k0, u32 end) {
        u32 byte = (k0 + piece() * 8) * 2, live = byte < end ? 16 : 0;
#pragma unroll
        for (u32 i = 0; i < EACH; i++) {
            // A copy of no bytes writes zeros; it is still given an address that exists.
            const u8* from = at(row() + i * APART, live ? byte : 0);
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                         :
                         : "r"(shared_address(place_in(tile, i))),
                           "l"((const __attribute__((address_space(1))) void*)from), "r"(live)
                         : "memory");
        }
    }
#else
    u32x4 held[EACH];

    template <class At> DEVICE_MEMBER void load(At at, u32 k0) {
#pragma unroll
        for (u32 i = 0; i < EACH; i++)
            held[i] = *(const u32x4*)at(row() + i * APART, (k0 + piece() * 8) * 2);
    }
    DEVICE_MEMBER void store(f16* tile) const {
#pragma unroll
        for (u32 i = 0; i < EACH; i++)
            *(u32x4*)place_in(tile, i) = held[i];
    }
#endif
};

// Weights into a tile [COLS][DEPTH] through registers: a thread has EACH sixteens of one row.
template <class W, u32 COLS, u32 THREADS> struct Columns {
    CONSTANT u32 EACH = COLS * DEPTH / 16 / THREADS;
    static_assert(EACH > 0 && EACH * (THREADS / COLS) == STEPS, "threads have whole sixteens of a row");

    const u8* w;
    Planes planes;
    u32 k, row, first;
    Sixteen<W> held[EACH];

    template <class P> DEVICE_MEMBER void open(const P& panel, u32 k_) {
        k = k_;
        row = expanded_row<STEPS, EACH>(thread_x());
        first = expanded_sixteen<STEPS, EACH>(thread_x(), 0);
        w = panel.at(row);
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

// What the blocks of a tile that share its K leave each other.
struct Shares {
    f32x4* sums;
    u32* tickets;
    // So many blocks, each with so many tiles along K, the last with what is left.
    u32 parts, tiles;
};

// Rows of x from `row0` on; past the last live one, the last.
struct Inputs {
    const u8* x;
    u32 x_stride, k, row0, live;

    // Byte `byte` of row r: one register a row, since x is shorter than 4 GiB, which weights need not be.
    DEVICE_MEMBER const u8* at(u32 r, u32 byte) const { return x + (minimum(row0 + r, live - 1) * x_stride + byte); }
};

// What becomes of sums.
struct Finish {
    const u8* x;
    u32 x_stride, k, live;
    const f32* residual;
    u32 res_stride, gate;
    // What the weights have been multiplied by, to take back.
    f32 down;
};

// A tile's sums on their way from the registers that products leave them in to rows of y: through LDS, PASS of each wave's
// FM · SPAN rows at a time, so that a thread has four neighbouring columns, and of gate and up the same.
template <class L> struct SumTile {
    CONSTANT u32 FM = L::FM, FN = L::FN, COLS = L::COLS;
    CONSTANT u32 HALF = FN * SPAN / 2;
    // AMD's tiles of operands leave no room for more.
    CONSTANT u32 PASSES = NVIDIA_ONLY(1, FM > 1 ? 2 : 1);
    CONSTANT u32 EACH = FM / PASSES;
    CONSTANT u32 ROWS = L::DOWN * EACH * SPAN;
    // Rows that lanes write at once fall on different banks: four on NVIDIA, two on RDNA3, on CDNA a part of one.
    CONSTANT u32 STRIDE = COLS + NVIDIA_ONLY(8, RDNA_ONLY(16, 0));
    CONSTANT u32 FOURS = ROWS * COLS / 4;

    MEMBER f32* at(u32 row, u32 col) { return (f32*)staged + row * STRIDE + col; }
    // Four neighbours, the `q`-th of all.
    MEMBER f32x4& four(u32 q) { return *(f32x4*)at(q / (COLS / 4), q % (COLS / 4) * 4); }

    // The sums of pass `pass`; everyone is done with what lay in LDS, and they are complete for all on return.
    MEMBER void put(const typename L::Products& sums, u32 pass) {
        u32 lane = thread_x() % WAVE, wave = thread_x() / WAVE;
        u32 row = wave / L::ACROSS * (EACH * SPAN), col = wave % L::ACROSS * (FN * SPAN);
        barrier();
#pragma unroll
        for (u32 i = 0; i < EACH; i++)
#pragma unroll
            for (u32 j = 0; j < FN; j++)
#pragma unroll
                for (u32 e = 0; e < SUMS; e += NVIDIA_ONLY(2, 1)) {
                    f32* to = at(row + i * SPAN + sum_row(lane, e), col + j * SPAN + sum_col(lane, e));
                    const Sums& from = sums[pass * EACH + i][j];
#if NVIDIA
                    *(f32x2*)to = f32x2{from[e], from[e + 1]};
#else
                    *to = from[e];
#endif
                }
        barrier();
    }

    // Sums that are in LDS, those of pass `pass`, to the live ones of rows row0 … and the panel's columns.
    MEMBER void finish(u32 pass, const Finish& f, const Product& p, u32 row0, u32 column) {
        // Fours of a row of y.
        constexpr u32 WIDE = COLS / 4;
        u32 narrow = f.gate ? 1 : 0;
        for (u32 q = thread_x(); q < FOURS >> narrow; q += L::THREADS) {
            u32 row = q / (WIDE >> 1) >> (1 - narrow), c = (q & ((WIDE >> narrow) - 1)) * 4;
            u32 r = row0 + row / (EACH * SPAN) * (FM * SPAN) + pass * (EACH * SPAN) + row % (EACH * SPAN);
            u32 col = column + c;
            if (r >= f.live || col >= p.n)
                continue;
            f32 factor = *half_factor((const f16*)row_of(f.x, f.x_stride, r), f.k) * f.down;
            f32x4 v;
            if (f.gate) {
                const f32* from = at(row, c / HALF * (2 * HALF) + c % HALF);
                v = *(const f32x4*)from * factor;
                f32x4 up = *(const f32x4*)(from + HALF) * factor;
                for (u32 i = 0; i < 4; i++)
                    v[i] = activated(v[i], f.gate - 1) * up[i];
            } else {
                v = *(const f32x4*)at(row, c) * factor;
            }
            if (f.residual)
                v += load4(row_of(f.residual, f.res_stride, r), col, p.n);
            store4(row_of(p.y, p.y_stride, r), col, p.n, v);
        }
    }
};

// Brings the sums of all blocks of a tile together, added in the order of K, and finishes them. Whichever block takes the
// tile's last ticket has them all; the others are done. Coherence is as at the head of attention_step.hip.
template <class L>
DEVICE void finish_shared(const typename L::Products& sums, const Shares& shares, const Finish& finish, const Product& p,
                          u32 row0, u32 column) {
    typedef SumTile<L> Tile;
    constexpr u32 ALL = Tile::PASSES * Tile::FOURS;
    f32x4* first = shares.sums + (u64)block_x() * shares.parts * ALL;
#pragma unroll
    for (u32 pass = 0; pass < Tile::PASSES; pass++) {
        Tile::put(sums, pass);
        f32x4* mine = first + block_y() * ALL + pass * Tile::FOURS;
#pragma unroll 4
        for (u32 q = thread_x(); q < Tile::FOURS; q += L::THREADS)
            mine[q] = Tile::four(q);
    }
    publish();
    // Every thread has published, and is done with LDS.
    barrier();
    u32* ticket = (u32*)staged;
    if (thread_x() == 0)
        *ticket = take_ticket(shares.tickets + block_x());
    barrier();
    // The whole block leaves.
    if (*ticket != shares.parts - 1)
        return;
    if (thread_x() == 0)
        put_back(shares.tickets + block_x());
    refresh();
    for (u32 pass = 0; pass < Tile::PASSES; pass++) {
        // Everyone has read the ticket, or finished the pass before.
        barrier();
#pragma unroll 2
        for (u32 q = thread_x(); q < Tile::FOURS; q += L::THREADS) {
            f32x4 sum = 0.0f;
            for (u32 part = 0; part < shares.parts; part++)
                sum += first[part * ALL + pass * Tile::FOURS + q];
            Tile::four(q) = sum;
        }
        // All are complete.
        barrier();
        Tile::finish(pass, finish, p, row0, column);
    }
}

// What block `block` of a row of blocks makes: see above for their order.
template <class L> struct Place {
    CONSTANT u32 BM = L::ROWS, BN = L::COLS;

    u32 row0;
    Product p;
    Panel<L> panel;
    const f32* residual;

    MEMBER Place of(u32 block, const Product (&products)[3], u32 w_stride, const f32* residual, u32 rows, u32 gate) {
        Place place;
        u32 row_tiles = (rows + BM - 1) / BM, column_tile = block / row_tiles;
        place.row0 = block % row_tiles * BM;
        place.p = products[0];
#pragma unroll
        for (u32 i = 1; i < 3; i++) {
            u32 before = (place.p.n + BN - 1) / BN;
            if (gate || column_tile < before)
                break;
            column_tile -= before;
            place.p = products[i];
            residual = nullptr;
        }
        place.residual = residual;
        place.panel = {place.p.w, gate ? products[1].w : nullptr, w_stride, column_tile * (gate ? BN / 2 : BN), place.p.n};
        return place;
    }
};

// Block (block_x, block_y) of a layout's threads. `k` is a multiple of 32 for quantised types; rows of floats are padded to
// 16 bytes.
template <class W, class L>
DEVICE void gemm_half(const Step* step, const u8* x, u32 x_stride, const Product (&products)[3], u32 w_stride,
                      const f32* residual, u32 res_stride, u32 k, u32 rows, u32 gate, const Shares& shares) {
    typedef SumTile<L> Tile;
    typename L::Products sums = {};
    {
        auto place = Place<L>::of(block_x(), products, w_stride, residual, rows, gate);
        u32 live = live_rows(step, rows);
        // The whole block leaves, before its barriers.
        if (place.row0 >= live)
            return;
        L::template multiply<W>(sums, Inputs{x, x_stride, k, place.row0, live}, place.panel, shares);
    }
    // Worked out anew, so that no register holds it meanwhile.
    auto place = Place<L>::of(block_x_anew(), products, w_stride, residual, rows, gate);
    Finish finish = {x, x_stride, k, live_rows(step, rows), place.residual, res_stride, gate, 1.0f / UP<W>};
    if (shares.parts > 1)
        return finish_shared<L>(sums, shares, finish, place.p, place.row0, place.panel.column);
#pragma unroll
    for (u32 pass = 0; pass < Tile::PASSES; pass++) {
        Tile::put(sums, pass);
        Tile::finish(pass, finish, place.p, place.row0, place.panel.column);
    }
}

// `residual`, where there is one, is added to the first product. With `gate` the first two are gate and up, and y of the
// first is activation(gate) · up.
#define HALF_KERNEL(name, Type, Tile)                                                                                  \
    GLOBAL THREADS_AND_BLOCKS(Tile::THREADS, Tile::BLOCKS) void name(                                                  \
        const Step* step, const u8* x, u32 x_stride, const u8* w0, f32* y0, u32 y0_stride, u32 n0, const u8* w1,       \
        f32* y1, u32 y1_stride, u32 n1, const u8* w2, f32* y2, u32 y2_stride, u32 n2, u32 w_stride,                    \
        const f32* residual, u32 res_stride, u32 k, u32 rows, u32 gate, f32x4* sums, u32* tickets, u32 parts,          \
        u32 part_tiles) {                                                                                              \
        const Product products[3] = {{w0, y0, y0_stride, n0}, {w1, y1, y1_stride, n1}, {w2, y2, y2_stride, n2}};       \
        const Shares shares = {sums, tickets, parts, part_tiles};                                                      \
        gemm_half<Type, Tile>(step, x, x_stride, products, w_stride, residual, res_stride, k, rows, gate, shares);     \
    }

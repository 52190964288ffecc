// y [N] = W [N, K] · x [K]: one row of activations, where memory is the limit.
//
// A group of `threads_x` lanes serves two rows of weights (of gate and up, one each), so that an activation block read
// from LDS serves both; a block has `threads_y` groups. src/gpu/geometry.rs chooses both numbers by K, so that 18 blocks
// (K = 576) do not leave most of a wave idle. Quantised types: a lane takes a block of 32 at a time (16 bytes of codes),
// the loads of the next blocks are in flight while the present ones are used, and the first ones before the activations
// are waited for. Integer products are exact; a block's sum becomes f32 once.
#include "activation.h"
#include "layout.h"
#include "step.h"

// Rows a group serves, blocks of each a lane has in flight, and loads of a float row.
CONSTANT u32 ROWS = 2;
CONSTANT u32 BLOCKS_AHEAD = 4;
CONSTANT u32 LOADS_AHEAD = 4;
// Activation blocks in LDS at a time: geometry.rs's STAGED_BLOCKS.
CONSTANT u32 STAGED = 512;
CONSTANT u32 THREADS = 256;

// min(K / 32, STAGED) blocks of activations, as the launch says.
extern SHARED __attribute__((aligned(16))) u32x4 staged[];

// The block of each row, the last block in place of those past the end: what is loaded twice comes from a cache.
template <class W>
DEVICE void load_block(typename W::Fragment (&f)[ROWS], const u8* const (&w)[ROWS], const Planes& p, u32 b, u32 end) {
#pragma unroll
    for (u32 r = 0; r < ROWS; r++)
        f[r] = W::load(w[r], p, minimum(b, end - 1));
}

// Copies `count` pieces of x to LDS, four loads in flight.
DEVICE void stage(const u32x4* x, u32 count, u32 thread, u32 threads) {
    for (u32 i = thread; i < count; i += 4 * threads) {
        u32x4 pieces[4];
#pragma unroll
        for (u32 j = 0; j < 4; j++)
            pieces[j] = x[minimum(i + j * threads, count - 1)];
#pragma unroll
        for (u32 j = 0; j < 4; j++)
            if (i + j * threads < count)
                staged[i + j * threads] = pieces[j];
    }
}

// sums [ROWS] = w [ROWS][K] · x [K/32] blocks, over all lanes of the group.
template <class W> DEVICE void dot_rows(const u8* const (&w)[ROWS], const void* x, u32 k, f32 (&sums)[ROWS]) {
    u32 lane = thread_x(), lanes = threads_x(), blocks = k / 32;
    u32 thread = thread_y() * lanes + lane, threads = lanes * threads_y(), ahead = lanes * BLOCKS_AHEAD;
    Planes p = W::planes(blocks);
    for (u32 r = 0; r < ROWS; r++)
        sums[r] = 0.0f;
    for (u32 first = 0; first < blocks; first += STAGED) {
        u32 end = minimum(first + STAGED, blocks);
        typename W::Fragment f[BLOCKS_AHEAD][ROWS];
        // The conditions on whole turns are the same in all threads.
#pragma unroll
        for (u32 u = 0; u < BLOCKS_AHEAD; u++)
            if (first + u * lanes < end)
                load_block<W>(f[u], w, p, first + u * lanes + lane, end);
        // Every thread has read the last of the activations that are about to be overwritten.
        if (first != 0)
            barrier();
        stage((const u32x4*)x + first * 5, (end - first) * 5, thread, threads);
        // The activations are complete.
        barrier();
        for (u32 base = first; base < end; base += ahead) {
#pragma unroll
            for (u32 u = 0; u < BLOCKS_AHEAD; u++) {
                u32 turn = base + u * lanes, b = turn + lane;
                if (turn >= end)
                    break;
                if (b < end) {
                    Activation a = load_activation(staged + (b - first) * 5);
#pragma unroll
                    for (u32 r = 0; r < ROWS; r++)
                        sums[r] += W::dot(f[u][r], a);
                }
                // What has been used makes room for the same turn of the next round.
                if (turn + ahead < end)
                    load_block<W>(f[u], w, p, b + ahead, end);
            }
        }
    }
    for (u32 r = 0; r < ROWS; r++)
        sums[r] = group_sum(sums[r], lanes);
}

// Likewise for floats, x [K] f32. Activations come straight from the caches: lanes read them side by side.
template <class W> DEVICE void dot_float_rows(const u8* const (&w)[ROWS], const void* x_, u32 k, f32 (&sums)[ROWS]) {
    u32 lane = thread_x(), lanes = threads_x(), units = k / W::LEN;
    const f32* x = (const f32*)x_;
    for (u32 r = 0; r < ROWS; r++)
        sums[r] = 0.0f;
    for (u32 base = 0; base < units; base += lanes * LOADS_AHEAD) {
        u32x4 loads[ROWS][LOADS_AHEAD];
#pragma unroll
        for (u32 u = 0; u < LOADS_AHEAD; u++)
#pragma unroll
            for (u32 r = 0; r < ROWS; r++)
                loads[r][u] = load_streamed(w[r] + 16 * minimum(base + u * lanes + lane, units - 1));
#pragma unroll
        for (u32 u = 0; u < LOADS_AHEAD; u++) {
            u32 unit = base + u * lanes + lane;
            if (unit < units) {
                f32x4 a[W::LEN / 4];
#pragma unroll
                for (u32 i = 0; i < W::LEN / 4; i++)
                    a[i] = ((const f32x4*)(x + unit * W::LEN))[i];
#pragma unroll
                for (u32 r = 0; r < ROWS; r++)
#pragma unroll
                    for (u32 i = 0; i < W::LEN; i++)
                        sums[r] = __builtin_fmaf(W::element(loads[r][u], i), a[i / 4][i % 4], sums[r]);
            }
        }
    }
    // Fewer than LEN ≤ 8 elements are left, at most one a lane.
    u32 rest = units * W::LEN + lane;
    if (rest < k)
        for (u32 r = 0; r < ROWS; r++)
            sums[r] = __builtin_fmaf(W::at(w[r], rest), x[rest], sums[r]);
    for (u32 r = 0; r < ROWS; r++)
        sums[r] = group_sum(sums[r], lanes);
}

template <class W> DEVICE void dots(const u8* const (&w)[ROWS], const void* x, u32 k, f32 (&sums)[ROWS]) {
    if constexpr (W::FLOAT)
        dot_float_rows<W>(w, x, k, sums);
    else
        dot_rows<W>(w, x, k, sums);
}

// y [n] = w [n, k] · x (+ residual [n]). Groups past the end repeat the last row and store nothing: no thread leaves
// before the barriers.
template <class W>
DEVICE void gemv(const void* x, const u8* w, u32 w_stride, const f32* residual, f32* y, u32 n, u32 k) {
    u32 first = (block_x() * threads_y() + thread_y()) * ROWS;
    const u8* rows[ROWS];
    for (u32 r = 0; r < ROWS; r++)
        rows[r] = row_of(w, w_stride, minimum(first + r, n - 1));
    f32 sums[ROWS];
    dots<W>(rows, x, k, sums);
    if (thread_x() == 0)
        for (u32 r = 0; r < ROWS; r++)
            if (first + r < n)
                y[first + r] = residual ? sums[r] + residual[first + r] : sums[r];
}

// Three matrices of one type and width over the same x: their groups one after the other. n1 and n2 may be 0.
template <class W>
DEVICE void gemv3(const void* x, const u8* w0, f32* y0, u32 n0, const u8* w1, f32* y1, u32 n1, const u8* w2, f32* y2,
                  u32 n2, u32 w_stride, u32 k) {
    u32 group = block_x() * threads_y() + thread_y();
    u32 groups0 = (n0 + ROWS - 1) / ROWS, groups1 = (n1 + ROWS - 1) / ROWS, groups2 = (n2 + ROWS - 1) / ROWS;
    const u8* w = w0;
    f32* y = y0;
    u32 n = n0, first = group;
    if (group >= groups0 && group < groups0 + groups1) {
        w = w1, y = y1, n = n1;
        first = group - groups0;
    } else if (group >= groups0 + groups1 && group < groups0 + groups1 + groups2) {
        w = w2, y = y2, n = n2;
        first = group - groups0 - groups1;
    }
    first *= ROWS;
    const u8* rows[ROWS];
    for (u32 r = 0; r < ROWS; r++)
        rows[r] = row_of(w, w_stride, minimum(first + r, n - 1));
    f32 sums[ROWS];
    dots<W>(rows, x, k, sums);
    // Groups past the last matrix have fallen back to the first, whose end they lie past.
    if (thread_x() == 0)
        for (u32 r = 0; r < ROWS; r++)
            if (first + r < n)
                y[first + r] = sums[r];
}

// y [n] = activation(gate [n, k] · x) · (up [n, k] · x).
template <class W>
DEVICE void gated_gemv(const void* x, const u8* gate, const u8* up, u32 w_stride, f32* y, u32 n, u32 k, u32 activation) {
    u32 row = block_x() * threads_y() + thread_y(), from = minimum(row, n - 1);
    const u8* rows[ROWS] = {row_of(gate, w_stride, from), row_of(up, w_stride, from)};
    f32 sums[ROWS];
    dots<W>(rows, x, k, sums);
    if (thread_x() == 0 && row < n)
        y[row] = activated(sums[0], activation) * sums[1];
}

// x is one row of blocks for quantised types, of f32 for floats. The step and strides of single rows are not used.
#define GEMV_KERNELS(name, Type)                                                                                       \
    GLOBAL THREADS_AT_MOST(THREADS) void gemv_##name(const Step*, const void* x, u32, const u8* w, u32 w_stride,       \
                                                     const f32* residual, u32, f32* y, u32, u32 n, u32 k) {            \
        gemv<Type>(x, w, w_stride, residual, y, n, k);                                                                 \
    }                                                                                                                  \
    GLOBAL THREADS_AT_MOST(THREADS) void gemv3_##name(const Step*, const void* x, u32, const u8* w0, f32* y0, u32 n0,  \
                                                      const u8* w1, f32* y1, u32 n1, const u8* w2, f32* y2, u32 n2,    \
                                                      u32 w_stride, u32 k) {                                           \
        gemv3<Type>(x, w0, y0, n0, w1, y1, n1, w2, y2, n2, w_stride, k);                                               \
    }                                                                                                                  \
    GLOBAL THREADS_AT_MOST(THREADS) void gated_gemv_##name(const Step*, const void* x, u32, const u8* gate,            \
                                                           const u8* up, u32 w_stride, f32* y, u32, u32 n, u32 k,      \
                                                           u32 activation) {                                           \
        gated_gemv<Type>(x, gate, up, w_stride, y, n, k, activation);                                                  \
    }

EACH_QUANTIZED(GEMV_KERNELS)
EACH_FLOAT(GEMV_KERNELS)

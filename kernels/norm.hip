// Root-mean-square normalisation, y = x · w / √(mean(x²) + eps), and rounding to blocks: src/cpu/norm.rs's twins.
#include "norm.h"
#include "step.h"

// 1 / √(mean(x²) + eps) of x [n], summed in f64: one sum that a whole row depends on. `first` is the four elements that
// this thread uses next, so that a row of up to four a thread is read once.
DEVICE f32 inverse_rms(const f32* x, u32 n, f32 eps, f32x4& first) {
    first = load4(x, 4 * thread_x(), n);
    f64 sum = squares(first);
    for (u32 i = 4 * (thread_x() + threads_x()); i < n; i += 4 * threads_x())
        sum += squares(load4(x, i, n));
    return inverse_rms(sum, share_of(n), eps, thread_x(), threads_x());
}

// y [rows, cols]: `groups` groups of n = cols / groups columns, each normalised with the same w [n]. A block a row
// (block_y) and group (block_x). n is a multiple of 4 where there is more than one group.
GLOBAL THREADS_AT_MOST(1024) void rms_norm(const Step* step, const f32* x, u32 x_stride, const f32* w, f32 eps, f32* y,
                                           u32 y_stride, u32 cols, u32 groups, u32 rows) {
    begin_in_turn();
    u32 r = block_y(), n = cols / groups;
    // The whole block leaves, before its barrier.
    if (r >= live_rows(step, rows))
        return;
    x = row_of(x, x_stride, r) + block_x() * n;
    y = row_of(y, y_stride, r) + block_x() * n;
    // In flight while the row is summed.
    f32x4 v, weights = load4(w, 4 * thread_x(), n);
    f32 scale = inverse_rms(x, n, eps, v);
    for (u32 i = 4 * thread_x(); i < n; i += 4 * threads_x()) {
        if (i >= 4 * threads_x()) {
            v = load4(x, i, n);
            weights = load4(w, i, n);
        }
        store4(y, i, n, normalised(v, weights, scale));
    }
}

// y [rows, ⌈cols / 32⌉] blocks. A block of threads a row.
GLOBAL THREADS_AT_MOST(1024) void rms_norm_quantize(const Step* step, const f32* x, u32 x_stride, const f32* w, f32 eps,
                                                    Block* y, u32 y_stride, u32 cols, u32 rows) {
    begin_in_turn();
    u32 r = block_y();
    // The whole block leaves, before its barrier.
    if (r >= live_rows(step, rows))
        return;
    x = row_of(x, x_stride, r);
    y = row_of(y, y_stride, r);
    // In flight while the row is summed.
    f32x4 v, weights = load4(w, 4 * thread_x(), cols);
    f32 scale = inverse_rms(x, cols, eps, v);
    // All threads take as many turns, since rounding shuffles; columns past the end are zeros.
    for (u32 base = 0; base < cols; base += 4 * threads_x()) {
        u32 i = base + 4 * thread_x();
        if (base > 0) {
            v = load4(x, i, cols);
            weights = load4(w, i, cols);
        }
        quantize_block(normalised(v, weights, scale), y + i / 32, i / 32 * 32 < cols);
    }
}

// y [rows, ⌈cols / 32⌉] blocks = x [rows, cols]. A thread four columns.
GLOBAL THREADS_AT_MOST(256) void quantize(const Step* step, const f32* x, u32 x_stride, Block* y, u32 y_stride, u32 cols,
                                          u32 rows) {
    begin_in_turn();
    u32 r = block_y();
    if (r >= live_rows(step, rows))
        return;
    u32 i = 4 * (block_x() * threads_x() + thread_x());
    f32x4 v = load4(row_of(x, x_stride, r), i, cols);
    quantize_block(v, row_of(y, y_stride, r) + i / 32, i / 32 * 32 < cols);
}

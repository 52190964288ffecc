// Rows of f16 (half.h): activations that many rows of weights will be multiplied with, rounded once.
//
// A block of threads a row: it finds the greatest magnitude first, then rounds. A thread keeps the columns it has seen, up
// to HELD_FOURS fours of them; what a longer row has more is computed again.
#include "activation.h"
#include "half.h"
#include "step.h"

CONSTANT u32 HELD_FOURS = 4;

// The greatest of the block's values, in all threads.
DEVICE u32 block_maximum(u32 v) {
    SHARED static u32 waves[1024 / 32];
    for (u32 mask = 1; mask < WAVE; mask <<= 1)
        v = maximum(v, shuffle_xor(v, mask));
    u32 count = threads_x() / WAVE, lane = thread_x() % WAVE;
    if (lane == 0)
        waves[thread_x() / WAVE] = v;
    // The maxima of all waves are in LDS. They are written once a launch, so nothing waits afterwards.
    barrier();
    v = waves[lane & (count - 1)];
    for (u32 mask = 1; mask < count; mask <<= 1)
        v = maximum(v, shuffle_xor(v, mask));
    return v;
}

// y [half_columns(cols)] and its factor, of the fours that `at` gives: at(i) is columns i … i + 3, zeros past the end.
template <class At> DEVICE void round_row(f16* y, u32 cols, At at) {
    f32x4 held[HELD_FOURS];
    u32 peak = 0, stride = 4 * threads_x();
    auto seen = [&](f32x4 v) {
        for (u32 j = 0; j < 4; j++)
            peak = maximum(peak, bits_of(v[j]) & 0x7fffffffu);
    };
#pragma unroll
    for (u32 n = 0; n < HELD_FOURS; n++) {
        u32 i = 4 * thread_x() + n * stride;
        held[n] = 0.0f;
        if (i < cols)
            held[n] = at(i);
        seen(held[n]);
    }
    for (u32 i = 4 * thread_x() + HELD_FOURS * stride; i < cols; i += stride)
        seen(at(i));
    f32 down, up = half_up(block_maximum(peak), down);
    auto put = [&](u32 i, f32x4 v) {
        f16x4 rounded;
        for (u32 j = 0; j < 4; j++)
            // Not a product with zero: infinity would make it NaN.
            rounded[j] = (f16)(up == 0.0f ? 0.0f : v[j] * up);
        *(f16x4*)(y + i) = rounded;
    };
    u32 end = half_columns(cols);
#pragma unroll
    for (u32 n = 0; n < HELD_FOURS; n++) {
        u32 i = 4 * thread_x() + n * stride;
        if (i < end)
            put(i, held[n]);
    }
    for (u32 i = 4 * thread_x() + HELD_FOURS * stride; i < end; i += stride)
        put(i, i < cols ? at(i) : f32x4(0.0f));
    if (thread_x() == 0)
        *half_factor(y, cols) = down;
}

// y [rows, cols] f16 rows = x [rows, cols].
GLOBAL THREADS_AT_MOST(1024) void round_rows(const Step* step, const f32* x, u32 x_stride, f16* y, u32 y_stride, u32 cols,
                                             u32 rows) {
    u32 r = block_y();
    // The whole block leaves, before its barrier; here and below.
    if (r >= live_rows(step, rows))
        return;
    x = row_of(x, x_stride, r);
    round_row(row_of(y, y_stride, r), cols, [&](u32 i) { return load4(x, i, cols); });
}

// y [rows, cols] f16 rows = x normalised as rms_norm does with one group.
GLOBAL THREADS_AT_MOST(1024) void rms_norm_half(const Step* step, const f32* x, u32 x_stride, const f32* w, f32 eps, f16* y,
                                                u32 y_stride, u32 cols, u32 rows) {
    u32 r = block_y();
    if (r >= live_rows(step, rows))
        return;
    x = row_of(x, x_stride, r);
    f32x4 first;
    f32 scale = inverse_rms(x, cols, eps, first);
    round_row(row_of(y, y_stride, r), cols, [&](u32 i) {
        f32x4 v = i == 4 * thread_x() ? first : load4(x, i, cols);
        return normalised(v, load4(w, i, cols), scale);
    });
}

// y [rows, cols] f16 rows = activation(gate) · up.
GLOBAL THREADS_AT_MOST(1024) void gated_mul_half(const Step* step, const f32* gate, u32 gate_stride, const f32* up,
                                                 u32 up_stride, f16* y, u32 y_stride, u32 cols, u32 activation, u32 rows) {
    u32 r = block_y();
    if (r >= live_rows(step, rows))
        return;
    gate = row_of(gate, gate_stride, r);
    up = row_of(up, up_stride, r);
    round_row(row_of(y, y_stride, r), cols, [&](u32 i) {
        f32x4 g = load4(gate, i, cols), u = load4(up, i, cols);
        for (u32 j = 0; j < 4; j++)
            g[j] = activated(g[j], activation) * u[j];
        return g;
    });
}

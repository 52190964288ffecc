// Element by element: the gate, sums, products, copies. A thread four columns; rows in block_y; whole rows of
// [rows, cols] f32, `stride` bytes apart. The twins of src/cpu/silu.rs and elementwise.rs.
#include "activation.h"
#include "step.h"

// The first column of this thread, `cols` where it has none.
DEVICE u32 first_column(const Step* step, u32 cols, u32 rows) {
    u32 i = 4 * (block_x() * threads_x() + thread_x());
    return block_y() < live_rows(step, rows) ? i : cols;
}

// y = activation(gate) · up.
GLOBAL THREADS_AT_MOST(256) void gated_mul(const Step* step, const f32* gate, u32 gate_stride, const f32* up,
                                           u32 up_stride, f32* y, u32 y_stride, u32 cols, u32 activation, u32 rows) {
    begin_in_turn();
    u32 i = first_column(step, cols, rows), r = block_y();
    if (i >= cols)
        return;
    f32x4 g = load4(row_of(gate, gate_stride, r), i, cols), u = load4(row_of(up, up_stride, r), i, cols);
    for (u32 j = 0; j < 4; j++)
        g[j] = activated(g[j], activation) * u[j];
    store4(row_of(y, y_stride, r), i, cols, g);
}

// y = a + b.
GLOBAL THREADS_AT_MOST(256) void add(const Step* step, const f32* a, u32 a_stride, const f32* b, u32 b_stride, f32* y,
                                     u32 y_stride, u32 cols, u32 rows) {
    begin_in_turn();
    u32 i = first_column(step, cols, rows), r = block_y();
    if (i < cols)
        store4(row_of(y, y_stride, r), i, cols,
               load4(row_of(a, a_stride, r), i, cols) + load4(row_of(b, b_stride, r), i, cols));
}

// y = x + bias [cols].
GLOBAL THREADS_AT_MOST(256) void add_bias(const Step* step, const f32* x, u32 x_stride, const f32* bias, f32* y,
                                          u32 y_stride, u32 cols, u32 rows) {
    begin_in_turn();
    u32 i = first_column(step, cols, rows), r = block_y();
    if (i < cols)
        store4(row_of(y, y_stride, r), i, cols, load4(row_of(x, x_stride, r), i, cols) + load4(bias, i, cols));
}

// y = x · by.
GLOBAL THREADS_AT_MOST(256) void scale(const Step* step, const f32* x, u32 x_stride, f32 by, f32* y, u32 y_stride,
                                       u32 cols, u32 rows) {
    begin_in_turn();
    u32 i = first_column(step, cols, rows), r = block_y();
    if (i < cols)
        store4(row_of(y, y_stride, r), i, cols, load4(row_of(x, x_stride, r), i, cols) * by);
}

// y [1, cols] = the last live row of x.
GLOBAL THREADS_AT_MOST(256) void last_row(const Step* step, const f32* x, u32 x_stride, f32* y, u32 cols, u32 rows) {
    u32 i = block_x() * threads_x() + thread_x();
    if (i < cols)
        y[i] = row_of(x, x_stride, live_rows(step, rows) - 1)[i];
}

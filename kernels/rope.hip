// Rotary position embedding and the K/V cache: src/cpu/rope.rs's and kv.rs's twins.
#include "rope.h"
#include "step.h"

// ---- The table: f64 by our own polynomials, since no device library is linked ----

// ln x for finite x > 0: x = m · 2^e with m within √½ … √2, and ln m = 2 artanh((m − 1) / (m + 1)).
DEVICE f64 logarithm(f64 x) {
    u64 bits = __builtin_bit_cast(u64, x);
    i32 e = (i32)(bits >> 52) - 1023;
    f64 m = __builtin_bit_cast(f64, (bits & 0xfffffffffffffull) | 0x3ff0000000000000ull);
    if (m > 1.4142135623730951) {
        m *= 0.5;
        e += 1;
    }
    f64 s = (m - 1.0) / (m + 1.0), z = s * s, p = 1.0 / 25.0;
#pragma unroll
    for (i32 i = 23; i > 0; i -= 2)
        p = p * z + 1.0 / (f64)i;
    return 2.0 * s * p + (f64)e * 0.69314718055994530942;
}

// e^x for |x| < 700: x = n ln 2 + r with |r| ≤ ln 2 / 2, and e^r by its series.
DEVICE f64 exponential64(f64 x) {
    f64 n = __builtin_rint(x * 1.4426950408889634074);
    // ln 2 in two parts, the first with 21 zero bits at its end, so that its product with n is exact.
    f64 r = x - n * 6.93147180369123816490e-01 - n * 1.90821492927058770002e-10;
    f64 p = 1.0;
    // Unrolled, the reciprocals are constants: a division takes as long as twenty products.
#pragma unroll
    for (i32 i = 14; i > 0; i--)
        p = p * (r * (1.0 / (f64)i)) + 1.0;
    return p * __builtin_bit_cast(f64, (u64)((i64)n + 1023) << 52);
}

// cos x and sin x for 0 ≤ |x| < 2²⁰: x = n π/2 + r with |r| ≤ π/4, π/2 in three parts of which n times the first two
// is exact.
DEVICE void turn(f64 x, f32& cosine, f32& sine) {
    f64 n = __builtin_rint(x * 0.63661977236758134308);
    f64 r = x - n * 1.57079632673412561417e+00;
    r -= n * 6.07710050630396597660e-11;
    r -= n * 2.02226624879595063154e-21;
    f64 z = r * r, s = 1.0, c = 1.0;
#pragma unroll
    for (i32 i = 16; i > 0; i -= 2) {
        s = 1.0 - s * (z * (1.0 / (f64)(i * (i + 1))));
        c = 1.0 - c * (z * (1.0 / (f64)(i * (i - 1))));
    }
    s *= r;
    i32 quadrant = (i32)n & 3;
    f64 a = quadrant & 1 ? s : c, b = quadrant & 1 ? c : s;
    cosine = (f32)(quadrant == 1 || quadrant == 2 ? -a : a);
    sine = (f32)(quadrant >= 2 ? -b : b);
}

// y [rows][dims / 2][2] = cos and sin of position · scale_i · base^(−2 i / dims) / factors [i], times `magnitude`.
// scale_i is position_scale, but for what YaRN spares: `keep` of pairs up to `first`, nothing from `last` on.
GLOBAL THREADS_AT_MOST(64) void rope_table(const Step* step, const f32* factors, f32* y, u32 y_stride, u32 dims, f64 base,
                                           f64 position_scale, f64 first, f64 last, f64 keep, f32 magnitude, u32 rows) {
    begin_in_turn();
    u32 r = block_y(), i = block_x() * threads_x() + thread_x();
    if (r >= live_rows(step, rows) || i >= dims / 2)
        return;
    f64 frequency = exponential64(-2.0 * (f64)i / (f64)dims * logarithm(base));
    f64 factor = factors ? (f64)factors[i] : 1.0;
    f64 position = (f64)step->position + (f64)r;
    f64 width = last - first < 0.001 ? 0.001 : last - first, ramp = ((f64)i - first) / width;
    f64 kept = keep * (1.0 - (ramp < 0.0 ? 0.0 : ramp > 1.0 ? 1.0 : ramp));
    f64 scale = position_scale * (1.0 - kept) + kept;
    f32* pair = row_of(y, y_stride, r) + 2 * i;
    turn(position * scale * frequency / factor, pair[0], pair[1]);
    pair[0] *= magnitude;
    pair[1] *= magnitude;
}

// ---- Turning, a thread a pair (rope.h) ----

// y [rows, heads · D] = x turned by table [rows][dims / 2][2].
GLOBAL THREADS_AT_MOST(256) void rope(const Step* step, const f32* x, u32 x_stride, const f32* table, u32 t_stride, f32* y,
                                      u32 y_stride, u32 heads, u32 D, u32 dims, u32 style, u32 rows) {
    begin_in_turn();
    u32 r = block_y(), pair = block_x() * threads_x() + thread_x(), pairs = D / 2, head = pair / pairs;
    if (r >= live_rows(step, rows) || head >= heads)
        return;
    Pair p = turned(row_of(x, x_stride, r) + head * D, row_of(table, t_stride, r), pair % pairs, dims, style);
    f32* to = row_of(y, y_stride, r) + head * D;
    to[p.a] = p.x;
    to[p.b] = p.y;
}

// Rows of k and v [rows, G · D] into the caches kc and vc [G, S, D] at the step's position and after.
GLOBAL THREADS_AT_MOST(256) void kv_append(const Step* step, const f32* k, u32 k_stride, const f32* v, u32 v_stride,
                                           f16* kc, f16* vc, u32 G, u32 D, u32 S, u32 rows) {
    begin_in_turn();
    u32 r = block_y(), pair = block_x() * threads_x() + thread_x(), pairs = D / 2, head = pair / pairs;
    u32 position = step->position + r;
    if (r >= live_rows(step, rows) || head >= 2 * G || position >= S)
        return;
    bool keys = head < G;
    u32 g = keys ? head : head - G;
    const f32* from = (keys ? row_of(k, k_stride, r) : row_of(v, v_stride, r)) + g * D;
    store_halves(cache_row(keys ? kc : vc, g, position, S, D), turned(from, nullptr, pair % pairs, 0, 0));
}

// y [rows, H · D] = q turned; kc gets k turned, vc v, as kv_append does.
GLOBAL THREADS_AT_MOST(256) void rope_append(const Step* step, const f32* q, u32 q_stride, const f32* k, u32 k_stride,
                                             const f32* v, u32 v_stride, const f32* table, u32 t_stride, f32* y,
                                             u32 y_stride, f16* kc, f16* vc, u32 H, u32 G, u32 D, u32 dims, u32 style,
                                             u32 S, u32 rows) {
    begin_in_turn();
    u32 r = block_y(), pair = block_x() * threads_x() + thread_x(), pairs = D / 2, head = pair / pairs, i = pair % pairs;
    u32 position = step->position + r;
    if (r >= live_rows(step, rows) || head >= H + 2 * G || position >= S)
        return;
    const f32* angles = row_of(table, t_stride, r);
    if (head < H) {
        Pair p = turned(row_of(q, q_stride, r) + head * D, angles, i, dims, style);
        f32* to = row_of(y, y_stride, r) + head * D;
        to[p.a] = p.x;
        to[p.b] = p.y;
    } else if (head < H + G) {
        u32 g = head - H;
        Pair p = turned(row_of(k, k_stride, r) + g * D, angles, i, dims, style);
        store_halves(cache_row(kc, g, position, S, D), p);
    } else {
        u32 g = head - H - G;
        Pair p = turned(row_of(v, v_stride, r) + g * D, nullptr, i, 0, 0);
        store_halves(cache_row(vc, g, position, S, D), p);
    }
}

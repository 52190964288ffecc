// K/V caches of 8 bits, ggml's Q8_0: the twins of src/cpu/kv.rs and of src/cpu/attention over such a cache. The kernels
// take what their namesakes for f16 take. A cache is a signed byte an element, [G, S, D], and behind them an f16 scale
// for every 32 of a head, [G, S, D / 32]; D is a multiple of 32.

// ---- Appending: a thread four columns, eight neighbouring lanes a block ----

// Rounds v to the cache as the CPU does, bit for bit: scale absmax / 127, halves away from zero. All lanes of the wave
// call it, since it shuffles; those with `store` false write nothing.
DEVICE void store_q8(f32x4 v, i8* cache, u32 G, u32 g, u32 position, u32 S, u32 D, u32 column, bool store) {
#pragma clang fp contract(off)
    u32 peak = 0;
    for (u32 i = 0; i < 4; i++)
        // As integers, magnitudes order finite values, then infinity, then NaN.
        peak = maximum(peak, bits_of(v[i]) & 0x7fffffffu);
    for (u32 mask = 1; mask < 8; mask <<= 1)
        peak = maximum(peak, shuffle_xor(peak, mask));
    bool fault = peak >= 0x7f800000u;
    f32 d = float_of(fault ? 0 : peak) / 127.0f;
    f32 inverse = d != 0.0f ? 1.0f / d : 0.0f;
    u32 word = 0;
    for (u32 i = 0; i < 4; i++) {
        f32 x = fault ? 0.0f : v[i] * inverse;
        // The greatest float below one half: adding half itself would round what is just below a half up.
        f32 rounded = __builtin_truncf(x + __builtin_copysignf(0.49999997f, x));
        word |= ((u32)(i32)rounded & 255) << (8 * i);
    }
    if (!store)
        return;
    u64 element = ((u64)g * S + position) * D + column;
    *(u32*)(cache + element) = word;
    if ((thread_x() & 7) == 0)
        ((u16*)(cache + (u64)G * S * D))[element / 32] = fault ? 0x7e00 : __builtin_bit_cast(u16, (f16)d);
}

// Columns c … c + 3 of a head turned by table [dims / 2][2], as `turned` turns pairs; those past `dims` as they are.
DEVICE f32x4 turned4(const f32* head, const f32* table, u32 c, u32 dims, u32 style) {
#pragma clang fp contract(off)
    f32x4 v = *(const f32x4*)(head + c);
    u32 half = dims / 2;
#pragma unroll
    for (u32 e = 0; e < 4; e++) {
        u32 at = c + e;
        if (at >= dims)
            continue;
        bool second = style ? at >= half : at % 2 == 1;
        u32 pair = style ? (second ? at - half : at) : at / 2;
        f32 a = style ? head[pair] : head[2 * pair], b = style ? head[pair + half] : head[2 * pair + 1];
        f32 cosine = table[2 * pair], sine = table[2 * pair + 1];
        v[e] = second ? rounded_product(a, sine) + rounded_product(b, cosine)
                      : rounded_product(a, cosine) - rounded_product(b, sine);
    }
    return v;
}

// As kv_append.
GLOBAL THREADS_AT_MOST(256) void kv_append_q8(const Step* step, const f32* k, u32 k_stride, const f32* v, u32 v_stride,
                                              i8* kc, i8* vc, u32 G, u32 D, u32 S, u32 rows) {
    begin_in_turn();
    u32 r = block_y(), thread = block_x() * threads_x() + thread_x(), quads = D / 4;
    // The whole block leaves, before its shuffles.
    if (r >= live_rows(step, rows))
        return;
    u32 head = minimum(thread / quads, 2 * G - 1), c = thread % quads * 4, position = step->position + r;
    bool keys = head < G, store = thread / quads < 2 * G && position < S;
    u32 g = keys ? head : head - G;
    const f32* from = (keys ? row_of(k, k_stride, r) : row_of(v, v_stride, r)) + g * D;
    store_q8(*(const f32x4*)(from + c), keys ? kc : vc, G, g, position, S, D, c, store);
}

// As rope_append.
GLOBAL THREADS_AT_MOST(256) void rope_append_q8(const Step* step, const f32* q, u32 q_stride, const f32* k, u32 k_stride,
                                                const f32* v, u32 v_stride, const f32* table, u32 t_stride, f32* y,
                                                u32 y_stride, i8* kc, i8* vc, u32 H, u32 G, u32 D, u32 dims, u32 style,
                                                u32 S, u32 rows) {
    begin_in_turn();
    u32 r = block_y(), thread = block_x() * threads_x() + thread_x(), quads = D / 4;
    // The whole block leaves, before its shuffles.
    if (r >= live_rows(step, rows))
        return;
    u32 head = minimum(thread / quads, H + 2 * G - 1), c = thread % quads * 4, position = step->position + r;
    bool real = thread / quads < H + 2 * G;
    const f32* angles = row_of(table, t_stride, r);
    const f32* from = head < H       ? row_of(q, q_stride, r) + head * D
                      : head < H + G ? row_of(k, k_stride, r) + (head - H) * D
                                     : row_of(v, v_stride, r) + (head - H - G) * D;
    f32x4 out = turned4(from, angles, c, head < H + G ? dims : 0, style);
    if (real && head < H)
        *(f32x4*)(row_of(y, y_stride, r) + head * D + c) = out;
    bool keys = head < H + G;
    u32 g = head < H ? 0 : keys ? head - H : head - H - G;
    store_q8(out, keys ? kc : vc, G, g, position, S, D, c, real && head >= H && position < S);
}

// ---- Attention ----

// The rows of a K/V head, read eight elements at a time: what walk asks of a cache.
struct EightBits {
    struct Eight {
        u32x2 q;
        f32 scale;
    };
    const i8* q;
    const f16* scales;

    inline __attribute__((device, always_inline)) Eight load(u64 element) const {
        return {*(const u32x2*)(q + element), (f32)scales[element / 32]};
    }
    MEMBER f32 value(const Eight& eight, u32 i) { return (f32)(i8)(eight.q[i / 4] >> (8 * (i % 4))) * eight.scale; }
};
DEVICE EightBits head_rows(const i8* cache, u32 g, u32 G, u32 D, u32 S) {
    u64 first = (u64)g * S * D;
    return {cache + first, (const f16*)(cache + (u64)G * S * D) + first / 32};
}

// N queries of the group from `head` on, over the positions of one split; those past the group repeat its last.
template <u32 N>
DEVICE void split_q8(const f32* q, EightBits k, EightBits v, f32* partials, u32 head, u32 heads, u32 from, u32 to, u32 D,
                     f32 scale, u32 splits, u32 split_index) {
    Work<N, EightBits> work;
#pragma unroll
    for (u32 n = 0; n < N; n++) {
        work.q[n] = q + minimum(head + n, heads - 1) * D;
        work.from[n] = from;
        work.to[n] = to;
    }
    work.k = k, work.v = v, work.first = from, work.end = to, work.D = D, work.scale = scale;
    Running running[N];
    walk(work, running);
    u32 padded = pad_head(D), thread = thread_x();
#pragma unroll
    for (u32 n = 0; n < N; n++) {
        f32 peak, total;
        f32 sum = merge_waves(running[n], D, peak, total);
        if (head + n >= heads)
            continue;
        f32* out = partials + ((u64)(head + n) * splits + split_index) * (padded + 16);
        if (thread < padded)
            out[thread] = thread < D ? sum : 0.0f;
        if (thread == 0) {
            out[padded] = peak;
            out[padded + 1] = total;
        }
    }
}

// As attention_split.
GLOBAL THREADS_AT_MOST(THREADS_ATTENTION) void attention_split_q8(const Step* step, const f32* q, const i8* kc, const i8* vc,
                                                                  f32* partials, u32 H, u32 G, u32 D, u32 S, u32 split,
                                                                  u32 window, f32 scale) {
    begin_in_turn();
    u32 position = step->position, g = block_y(), group = H / G;
    u32 from = maximum(block_x() * split, first_seen(position, window));
    u32 to = minimum(minimum((block_x() + 1) * split, position + 1), S);
    // The whole block leaves, before its barriers: nothing of this split is seen.
    if (from >= to)
        return;
    u32 splits = (S + split - 1) / split;
    EightBits k = head_rows(kc, g, G, D, S), v = head_rows(vc, g, G, D, S);
    q += (u64)g * group * D;
    partials += (u64)g * group * splits * (pad_head(D) + 16);
    if (group == 1)
        split_q8<1>(q, k, v, partials, 0, group, from, to, D, scale, splits, block_x());
    else
        for (u32 head = 0; head < group; head += QUERIES)
            split_q8<QUERIES>(q, k, v, partials, head, group, from, to, D, scale, splits, block_x());
}

// As attention_rows.
GLOBAL THREADS_AT_MOST(THREADS_ATTENTION) void attention_rows_q8(const Step* step, const f32* q, u32 q_stride, const i8* kc,
                                                                 const i8* vc, f32* y, u32 y_stride, u32 H, u32 G, u32 D,
                                                                 u32 S, u32 window, f32 scale, u32 rows) {
    u32 g = block_y();
    attend_rows(step, q, q_stride, head_rows(kc, g, G, D, S), head_rows(vc, g, G, D, S), y, y_stride, H, G, D, S, window,
                scale, rows);
}

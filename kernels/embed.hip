// y [R, E] = table [V, E] row of each token, times a scale: the one kernel that reads weights as the file has them,
// because a token costs one row of one matrix and the packed copy, where the head is tied, is the head's.
//
// The twin of src/dtype/decode.rs, whose layouts are not explained again here. Bit for bit the same: each product and
// each sum is rounded on its own, which is why functions with both turn contraction off.
#include "step.h"

// f16 at byte `at` of a block, which need not be aligned.
DEVICE f32 half_at(const u8* b, u32 at) { return half_of((u16)(b[at] | b[at + 1] << 8)); }
DEVICE u32 nibble(const u8* qs, u32 i) { return i < 16 ? qs[i] & 15 : qs[i - 16] >> 4; }
// Nibble i with bit i of the four bytes at `high` on top.
DEVICE u32 five_bits(const u8* high, const u8* qs, u32 i) { return nibble(qs, i) | (high[i >> 3] >> (i & 7) & 1) << 4; }
// The 2-bit code of element i of 256.
DEVICE u32 pair(const u8* qs, u32 i) {
    u32 group = i >> 4;
    return qs[group / 8 * 32 + group % 2 * 16 + i % 16] >> (group % 8 / 2 * 2) & 3;
}
// The 6-bit scale and minimum of 32-element `group` in twelve bytes.
DEVICE u32 packed_scale(const u8* p, u32 group) {
    return group < 4 ? p[group] & 63 : (p[group + 4] & 15) | p[group - 4] >> 6 << 4;
}
DEVICE u32 packed_min(const u8* p, u32 group) {
    return group < 4 ? p[group + 4] & 63 : p[group + 4] >> 4 | p[group] >> 6 << 4;
}

// Element i of the block b.
struct FileQ4_0 {
    enum { LEN = 32, BYTES = 18 };
    MEMBER f32 at(const u8* b, u32 i) { return half_at(b, 0) * (f32)((i32)nibble(b + 2, i) - 8); }
};
struct FileQ4_1 {
    enum { LEN = 32, BYTES = 20 };
    MEMBER f32 at(const u8* b, u32 i) {
#pragma clang fp contract(off)
        return half_at(b, 0) * (f32)nibble(b + 4, i) + half_at(b, 2);
    }
};
struct FileQ5_0 {
    enum { LEN = 32, BYTES = 22 };
    MEMBER f32 at(const u8* b, u32 i) { return half_at(b, 0) * (f32)((i32)five_bits(b + 2, b + 6, i) - 16); }
};
struct FileQ5_1 {
    enum { LEN = 32, BYTES = 24 };
    MEMBER f32 at(const u8* b, u32 i) {
#pragma clang fp contract(off)
        return half_at(b, 0) * (f32)five_bits(b + 4, b + 8, i) + half_at(b, 2);
    }
};
struct FileQ8_0 {
    enum { LEN = 32, BYTES = 34 };
    MEMBER f32 at(const u8* b, u32 i) { return half_at(b, 0) * (f32)(i8)b[2 + i]; }
};
struct FileQ2_K {
    enum { LEN = 256, BYTES = 84 };
    MEMBER f32 at(const u8* b, u32 i) {
#pragma clang fp contract(off)
        f32 scale = half_at(b, 80) * (f32)(b[i >> 4] & 15), min = half_at(b, 82) * (f32)(b[i >> 4] >> 4);
        return scale * (f32)pair(b + 16, i) - min;
    }
};
struct FileQ3_K {
    enum { LEN = 256, BYTES = 110 };
    MEMBER f32 at(const u8* b, u32 i) {
        const u8* scales = b + 96;
        u32 group = i >> 4;
        u32 low = scales[group % 8] >> (group / 8 * 4) & 15, top = scales[8 + group % 4] >> (group / 4 * 2) & 3;
        f32 scale = half_at(b, 108) * (f32)((i32)(low | top << 4) - 32);
        i32 offset = b[group % 2 * 16 + i % 16] >> (group / 2) & 1 ? 0 : 4;
        return scale * (f32)((i32)pair(b + 32, i) - offset);
    }
};
struct FileQ4_K {
    enum { LEN = 256, BYTES = 144 };
    MEMBER f32 at(const u8* b, u32 i) {
#pragma clang fp contract(off)
        u32 group = i >> 5, q = b[16 + group / 2 * 32 + i % 32] >> (group % 2 * 4) & 15;
        f32 scale = half_at(b, 0) * (f32)packed_scale(b + 4, group), min = half_at(b, 2) * (f32)packed_min(b + 4, group);
        return scale * (f32)q - min;
    }
};
struct FileQ5_K {
    enum { LEN = 256, BYTES = 176 };
    MEMBER f32 at(const u8* b, u32 i) {
#pragma clang fp contract(off)
        u32 group = i >> 5, q = b[48 + group / 2 * 32 + i % 32] >> (group % 2 * 4) & 15;
        q |= (b[16 + i % 32] >> group & 1) << 4;
        f32 scale = half_at(b, 0) * (f32)packed_scale(b + 4, group), min = half_at(b, 2) * (f32)packed_min(b + 4, group);
        return scale * (f32)q - min;
    }
};
struct FileQ6_K {
    enum { LEN = 256, BYTES = 210 };
    MEMBER f32 at(const u8* b, u32 i) {
        u32 group = i >> 4, half = group / 8, within = group % 8;
        u32 low = b[half * 64 + within % 4 * 16 + i % 16] >> (within / 4 * 4) & 15;
        u32 high = b[128 + half * 32 + within % 2 * 16 + i % 16] >> (within / 2 * 2) & 3;
        f32 scale = half_at(b, 208) * (f32)(i8)b[192 + group];
        return scale * (f32)((i32)(low | high << 4) - 32);
    }
};
struct FileF16 {
    enum { LEN = 1, BYTES = 2 };
    MEMBER f32 at(const u8* b, u32) { return half_at(b, 0); }
};
struct FileBF16 {
    enum { LEN = 1, BYTES = 2 };
    MEMBER f32 at(const u8* b, u32) { return float_of((u32)(b[0] | b[1] << 8) << 16); }
};
struct FileF32 {
    enum { LEN = 1, BYTES = 4 };
    MEMBER f32 at(const u8* b, u32) { return float_of(b[0] | b[1] << 8 | b[2] << 16 | (u32)b[3] << 24); }
};

// A thread an element: y [rows, cols], a block row in block_y.
template <class T>
DEVICE void embed(const Step* step, const u8* table, u32 row_bytes, f32 scale, f32* y, u32 y_stride, u32 cols, u32 rows) {
    begin_in_turn();
    u32 r = block_y(), i = block_x() * threads_x() + thread_x();
    if (r >= live_rows(step, rows) || i >= cols)
        return;
    const u8* row = table + (u64)step->tokens[r] * row_bytes;
    f32 x = T::at(row + (u64)(i / T::LEN) * T::BYTES, i % T::LEN);
    row_of(y, y_stride, r)[i] = scale == 1.0f ? x : x * scale;
}

#define EMBED_KERNEL(name, Type)                                                                                       \
    GLOBAL THREADS_AT_MOST(256) void embed_##name(const Step* step, const u8* table, u32 row_bytes, f32 scale, f32* y, \
                                                  u32 y_stride, u32 cols, u32 rows) {                                  \
        embed<Type>(step, table, row_bytes, scale, y, y_stride, cols, rows);                                           \
    }
EMBED_KERNEL(q4_0, FileQ4_0)
EMBED_KERNEL(q4_1, FileQ4_1)
EMBED_KERNEL(q5_0, FileQ5_0)
EMBED_KERNEL(q5_1, FileQ5_1)
EMBED_KERNEL(q8_0, FileQ8_0)
EMBED_KERNEL(q2_k, FileQ2_K)
EMBED_KERNEL(q3_k, FileQ3_K)
EMBED_KERNEL(q4_k, FileQ4_K)
EMBED_KERNEL(q5_k, FileQ5_K)
EMBED_KERNEL(q6_k, FileQ6_K)
EMBED_KERNEL(f16, FileF16)
EMBED_KERNEL(bf16, FileBF16)
EMBED_KERNEL(f32, FileF32)

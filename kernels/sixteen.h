// Quantised weights to f16, sixteen neighbouring elements of a row at a time: all that share a scale in every type.
//
// weight · WEIGHT_UP = (code − OFFSET) · s + m, with s and m rounded to f16: 11 bits, as the activations have. A code
// becomes an f16 by putting it under 0x64: 1024 + code, from which 1024 + OFFSET is taken exactly.
#pragma once
#include "layout.h"

// What weights are multiplied by on their way to f16, so that small ones are not subnormal: CDNA2's matrix cores take
// those for zero. Weights beyond 1023 overflow, and then the product is not a number.
CONSTANT f32 WEIGHT_UP = 64.0f;

// Sixteen elements as they lie in memory.
template <class W> struct Sixteen {
    u32 codes[W::CODES == PAIRS ? 2 : 4];
    u32 high[W::HIGH == 2 ? 2 : 1];
    u16 d, m;
    u8 scale, min;
};

// The `index`-th sixteen of a row. Plain loads: neighbouring threads and the blocks beside this one read the same lines.
template <class W> DEVICE Sixteen<W> load_sixteen(const u8* row, const Planes& p, u32 index) {
    Sixteen<W> f;
    u32 b = index / 2;
    if constexpr (W::CODES == PAIRS) {
        u32x2 v = *(const u32x2*)(row + b * 8);
        f.codes[0] = v.x, f.codes[1] = v.y;
    } else {
        u32x4 v = *(const u32x4*)(row + (W::CODES == BYTES ? index : b) * 16);
        for (u32 i = 0; i < 4; i++)
            f.codes[i] = v[i];
    }
    f.high[0] = 0;
    if constexpr (W::HIGH == 1) {
        f.high[0] = *(const u16*)(row + p.high + index * 2);
    } else if constexpr (W::HIGH == 2) {
        u32x2 v = *(const u32x2*)(row + p.high + b * 8);
        f.high[0] = v.x, f.high[1] = v.y;
    }
    f.d = W::factor(row + p.d, b);
    f.m = W::MINS ? W::factor(row + p.m, b) : 0;
    u32 sub = W::SUB == 16 ? index : b;
    f.scale = W::SUB ? row[p.scales + sub] : 0;
    f.min = W::SUB && W::MINS ? row[p.mins + sub] : 0;
    return f;
}

// The codes of elements 4 j … of a sixteen whose index is `half` (mod 2), one a byte, unsigned.
template <class W> DEVICE u32 codes_of(const Sixteen<W>& f, u32 half, u32 j) {
    u32 codes, pair = 4 * half + 2 * (j >> 1);
    if constexpr (W::CODES == NIBBLES)
        codes = f.codes[j] >> (4 * half) & 0x0f0f0f0fu;
    else if constexpr (W::CODES == BYTES)
        codes = f.codes[j] ^ 0x80808080u;
    else
        codes = f.codes[j & 1] >> pair & 0x03030303u;
    if constexpr (W::HIGH == 1)
        codes |= W::spread(f.high[0] >> (4 * j)) << W::HIGH_SHIFT;
    else if constexpr (W::HIGH == 2)
        codes |= (f.high[j & 1] >> pair & 0x03030303u) << W::HIGH_SHIFT;
    return codes;
}

// 1024 + bytes 2 · upper and 2 · upper + 1 of `codes`.
DEVICE f16x2 lifted(u32 codes, bool upper) {
#if NVIDIA
    u32 v = __nvvm_prmt(codes, 0x64646464u, upper ? 0x4342u : 0x4140u);
#else
    u32 v = __builtin_amdgcn_perm(0x64646464u, codes, upper ? 0x04030402u : 0x04010400u);
#endif
    return __builtin_bit_cast(f16x2, v);
}

// The weights times WEIGHT_UP.
template <class W> DEVICE void expand(const Sixteen<W>& f, u32 half, f16x8 (&out)[2]) {
    f32 s = WEIGHT_UP * half_of(f.d), m = WEIGHT_UP * half_of(f.m);
    if constexpr (W::SUB != 0) {
        s *= (f32)W::sub_scale(f.scale, 0);
        m *= -(f32)f.min;
    }
    f16x2 scale = (f16)s, min = (f16)m, offset = (f16)(-(f32)(1024 + (W::CODES == BYTES ? 128 : W::OFFSET)));
#pragma unroll
    for (u32 j = 0; j < 4; j++) {
        u32 codes = codes_of(f, half, j);
#pragma unroll
        for (u32 upper = 0; upper < 2; upper++) {
            f16x2 v = lifted(codes, upper) + offset;
            v = W::MINS ? __builtin_elementwise_fma(v, scale, min) : v * scale;
            out[j / 2][j % 2 * 4 + 2 * upper] = v.x;
            out[j / 2][j % 2 * 4 + 2 * upper + 1] = v.y;
        }
    }
}

// The same for floats of 16 bits, whose rows are padded with zeros to whole loads of eight; k elements, a multiple of 8.
template <u32 KIND> struct Sixteen<Float<KIND>> {
    u32x4 v[2];
};
// What weights of a type have been multiplied by when they are in a tile.
template <class W> CONSTANT f32 UP = WEIGHT_UP;
// CDNA2 alone takes subnormal f16 for zero. All others get the file's bits.
#if !defined(__gfx90a__)
template <> constexpr f32 UP<F16> = 1.0f;
#endif

// Past the row's end, zeros.
template <class W> DEVICE Sixteen<W> load_sixteen(const u8* row, u32 k, u32 index) {
    Sixteen<W> f;
    for (u32 i = 0; i < 2; i++) {
        u32 at = index * 16 + i * 8;
        f.v[i] = 0;
        if (at < k)
            f.v[i] = *(const u32x4*)(row + at * 2);
    }
    return f;
}
template <u32 KIND> DEVICE void expand(const Sixteen<Float<KIND>>& f, u32, f16x8 (&out)[2]) {
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
        if constexpr (KIND == 16) {
            out[i] = __builtin_bit_cast(f16x8, f.v[i]);
            if (UP<F16> != 1.0f)
                out[i] *= (f16)UP<F16>;
        } else {
#pragma unroll
            for (u32 e = 0; e < 8; e++)
                out[i][e] = (f16)(Float<KIND>::element(f.v[i], e) * WEIGHT_UP);
        }
    }
}

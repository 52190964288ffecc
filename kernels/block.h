// Activations as integers: the twin of src/cpu/activation.rs, and bit-identical to it.
#pragma once
#include "common.h"

// 32 activations: x ≈ scale · q, q = 128 · high + low. 80 bytes; a row's stride is a multiple of 64.
struct Block {
    i8 high[32];     // −127 … 127
    i8 low[32];      // −64 … 63
    f32 scale;
    f32 scaled_sum;  // scale · Σ q
    i32 sums[2];     // Σ q of the first and of the last 16
};
static_assert(sizeof(Block) == 80, "as the CPU lays it out");

// The same 80 bytes in registers.
struct Activation {
    u32x4 high[2];
    u32x4 low[2];
    f32 scale;
    f32 scaled_sum;
    i32 sums[2];
};

// 16-byte pieces, which 8 lanes 80 bytes apart read from LDS without bank conflicts. `at` is aligned to 16.
DEVICE Activation load_activation(const u32x4* at) {
    Activation x;
    x.high[0] = at[0];
    x.high[1] = at[1];
    x.low[0] = at[2];
    x.low[1] = at[3];
    u32x4 rest = at[4];
    x.scale = float_of(rest.x);
    x.scaled_sum = float_of(rest.y);
    x.sums[0] = (i32)rest.z;
    x.sums[1] = (i32)rest.w;
    return x;
}

// Rounds 32 values to a block: 8 neighbouring lanes with 4 values each, the first lane a multiple of 8. All lanes of
// the wave must call it, since it shuffles; those with `store` false write nothing.
//
// Division, multiplication and rounding are IEEE's on every target, and each operation stands alone, so that nothing
// can be contracted: the bits are the CPU's.
DEVICE void quantize_block(f32x4 v, Block* out, bool store) {
    u32 lane = thread_x() & 7;
    u32 peak = 0;
    for (u32 i = 0; i < 4; i++)
        // As integers, magnitudes order finite values, then infinity, then NaN.
        peak = maximum(peak, bits_of(v[i]) & 0x7fffffffu);
    for (u32 mask = 1; mask < 8; mask <<= 1)
        peak = maximum(peak, shuffle_xor(peak, mask));
    // Below 2⁻¹¹⁰ the reciprocal would overflow; infinity and NaN have no integers. Both leave blank bytes.
    bool blank = peak >= 0x7f800000u || peak < 17u << 23;
    f32 absmax = float_of(blank ? 0x3f800000u : peak);
    f32 inverse = 16256.0f / absmax, scale = absmax / 16256.0f;
    u32 high = 0, low = 0;
    i32 sum = 0;
    for (u32 i = 0; i < 4; i++) {
        f32 rounded = __builtin_rintf((blank ? 0.0f : v[i]) * inverse);
        i32 q = (i32)rounded;
        i32 h = (q + 64) >> 7;
        i32 l = q - h * 128;
        high |= (u32)(h & 255) << (8 * i);
        low |= (u32)(l & 255) << (8 * i);
        sum += q;
    }
    sum += (i32)shuffle_xor((u32)sum, 1);
    sum += (i32)shuffle_xor((u32)sum, 2);
    i32 other = (i32)shuffle_xor((u32)sum, 4);
    if (!store)
        return;
    ((u32*)out->high)[lane] = high;
    ((u32*)out->low)[lane] = low;
    if (lane == 0) {
        u32 fill = peak >= 0x7f800000u ? 0x7fc00000u : 0;
        f32 scaled_sum = scale * (f32)(sum + other);
        u32x4 rest;
        rest.x = blank ? fill : bits_of(scale);
        rest.y = blank ? fill : bits_of(scaled_sum);
        rest.z = (u32)sum;
        rest.w = (u32)other;
        *(u32x4*)&out->scale = rest;
    }
}

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

// One 16-byte read. LLVM would split a vector of which only words are used, and four words at a stride of 80 bytes meet
// in the banks: on NVIDIA the empty statement keeps them together.
DEVICE u32x4 whole(u32x4 v) {
#if NVIDIA
    u32 a = v.x, b = v.y, c = v.z, d = v.w;
    asm("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d));
    v.x = a, v.y = b, v.z = c, v.w = d;
#endif
    return v;
}

// 16-byte pieces, which 8 lanes 80 bytes apart read from LDS without bank conflicts. `at` is aligned to 16.
DEVICE Activation load_activation(const u32x4* at) {
    Activation x;
    x.high[0] = whole(at[0]);
    x.high[1] = whole(at[1]);
    x.low[0] = whole(at[2]);
    x.low[1] = whole(at[3]);
    u32x4 rest = whole(at[4]);
    x.scale = float_of(rest.x);
    x.scaled_sum = float_of(rest.y);
    x.sums[0] = (i32)rest.z;
    x.sums[1] = (i32)rest.w;
    return x;
}

// What 16256 divides into, Q_MAX of the CPU's twin.
CONSTANT f32 STEPS_OF_PEAK = 16256.0f;

// absmax / 16256 and 16256 / absmax as IEEE rounds them, for absmax from 2⁻¹¹⁰ up, without the branches of a division in
// general: a quotient by the rounded reciprocal is put right by what it leaves (Markstein, "Computation of elementary
// functions on the IBM RISC System/6000 processor", 1990). The second divides by the mantissa alone, then takes the
// exponent off; that its result is the division's was tried for every mantissa, from reciprocals up to 4 units off.
DEVICE f32 step_of(f32 absmax) {
    const f32 inverse = 1.0f / STEPS_OF_PEAK;
    f32 q = rounded_product(absmax, inverse);
    return __builtin_fmaf(__builtin_fmaf(-q, STEPS_OF_PEAK, absmax), inverse, q);
}
DEVICE f32 inverse_step(u32 absmax) {
    f32 mantissa = float_of((absmax & 0x7fffffu) | 0x3f800000u), y = reciprocal(mantissa);
    y = __builtin_fmaf(__builtin_fmaf(-mantissa, y, 1.0f), y, y);
    f32 q = rounded_product(STEPS_OF_PEAK, y);
    q = __builtin_fmaf(__builtin_fmaf(-mantissa, q, STEPS_OF_PEAK), y, q);
    return float_of(bits_of(q) - (absmax & 0x7f800000u) + 0x3f800000u);
}

// Rounds 32 values to a block: 8 neighbouring lanes with 4 values each, the first lane a multiple of 8. All lanes of
// the wave must call it, since it shuffles; those with `store` false write nothing.
//
// Divisions, products and roundings are IEEE's on every target, and each operation stands alone, so that nothing can be
// contracted: the bits are the CPU's. No branch stands before the stores: several blocks' chains of shuffles overlap.
DEVICE void quantize_block(f32x4 v, Block* out, bool store) {
    u32 lane = thread_x() & 7;
    u32 peak = 0;
    for (u32 i = 0; i < 4; i++)
        // As integers, magnitudes order finite values, then infinity, then NaN.
        peak = maximum(peak, bits_of(v[i]) & 0x7fffffffu);
    peak = maximum(peak, one_off(peak));
    peak = maximum(peak, two_off(peak));
    peak = maximum(peak, other_four(peak));
    // Below 2⁻¹¹⁰ the reciprocal would overflow; infinity and NaN have no integers. Both leave blank bytes.
    bool blank = peak >= 0x7f800000u || peak < 17u << 23;
    u32 absmax = blank ? 0x3f800000u : peak;
    f32 inverse = inverse_step(absmax), scale = step_of(float_of(absmax));
    u32 high = 0, low = 0;
    i32 sum = 0;
    for (u32 i = 0; i < 4; i++) {
        // Adding 1.5 · 2²³ leaves the nearest integer in the low bits, ties to even.
        const f32 magic = 12582912.0f;
        i32 q = (i32)(bits_of(rounded_product(blank ? 0.0f : v[i], inverse) + magic) - bits_of(magic));
        i32 h = (q + 64) >> 7;
        i32 l = q - h * 128;
        high |= (u32)(h & 255) << (8 * i);
        low |= (u32)(l & 255) << (8 * i);
        sum += q;
    }
    sum += (i32)one_off((u32)sum);
    sum += (i32)two_off((u32)sum);
    i32 other = (i32)other_four((u32)sum);
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

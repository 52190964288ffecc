// Root-mean-square normalisation, y = x · w / √(mean(x²) + eps): the parts that a norm of its own (norm.hip) and one in
// the prologue of a product (gemv.hip) share.
#pragma once
#include "block.h"

// Σ v over the block, the same in all threads. Waves leave their sums in LDS. `threads`, a power of two, are numbered by
// `thread`.
DEVICE f64 block_sum(f64 v, u32 thread, u32 threads) {
    SHARED static f64 waves[1024 / 32];
    v = wave_sum(v);
    u32 count = threads / WAVE, lane = thread % WAVE;
    if (lane == 0)
        waves[thread / WAVE] = v;
    // The sums of all waves are in LDS before any is read. It is written once a launch, so nothing waits afterwards.
    barrier_of(threads);
    // Pairs, then pairs of pairs, the same in all threads. Up to eight waves each thread reads all of.
    if (count <= 8) {
        f64 sums[8];
        for (u32 i = 0; i < 8; i++)
            sums[i] = i < count ? waves[i] : 0.0;
        return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
    }
    f64 sum = waves[lane & (count - 1)];
    for (u32 mask = 1; mask < count; mask <<= 1)
        sum += shuffle_xor(sum, mask);
    return sum;
}

// Σ of four squares, exact but for three roundings to f64.
DEVICE f64 squares(f32x4 v) {
    f64 a = v.x, b = v.y, c = v.z, d = v.w;
    return __builtin_fma(a, a, b * b) + __builtin_fma(c, c, d * d);
}

// What one of n elements has in their mean: a division, which here is made where it stands.
DEVICE f64 share_of(u32 n) {
    f64 share = 1.0 / (f64)n;
#if NVIDIA
    asm volatile("" : "+d"(share));
#endif
    return share;
}

// 1 / √(mean(x²) + eps) of elements whose squares add up to `sum` over the block, each of which has `share` in the mean.
DEVICE f32 inverse_rms(f64 sum, f64 share, f32 eps, u32 thread, u32 threads) {
    return (f32)inverse_root(__builtin_fma(block_sum(sum, thread, threads), share, (f64)eps));
}

// Four columns of the normalised row: two roundings, as on the CPU.
DEVICE f32x4 normalised(f32x4 v, f32x4 w, f32 scale) { return v * scale * w; }

// Root-mean-square normalisation, y = x · w / √(mean(x²) + eps): the parts that a norm of its own (norm.hip) and one in
// the prologue of a product (gemv.hip) share.
#pragma once
#include "block.h"

// Σ v over the block, the same in all threads. Waves leave their sums in LDS. `threads`, a power of two, are numbered by
// `thread`.
DEVICE f64 block_sum(f64 v, u32 thread, u32 threads) {
    SHARED static f64 waves[1024 / 32];
    for (u32 mask = 1; mask < WAVE; mask <<= 1)
        v += shuffle_xor(v, mask);
    u32 count = threads / WAVE, lane = thread % WAVE;
    if (lane == 0)
        waves[thread / WAVE] = v;
    // The sums of all waves are in LDS before any is read. It is written once a launch, so nothing waits afterwards.
    barrier();
    // A power of two. Sums of pairs are the same from both sides, so that all threads get the same bits.
    f64 sum = waves[lane & (count - 1)];
    for (u32 mask = 1; mask < count; mask <<= 1)
        sum += shuffle_xor(sum, mask);
    return sum;
}

// Σ of four squares, added to `sum`.
DEVICE f64 add_squares(f64 sum, f32x4 v) {
    for (u32 j = 0; j < 4; j++)
        sum += (f64)v[j] * v[j];
    return sum;
}

// 1 / √(mean(x²) + eps) of n elements whose squares add up to `sum` over the block.
DEVICE f32 inverse_rms(f64 sum, u32 n, f32 eps, u32 thread, u32 threads) {
    f64 mean = block_sum(sum, thread, threads) / (f64)n;
    return (f32)(1.0 / __builtin_sqrt(mean + (f64)eps));
}

// Four columns of the normalised row: two roundings, as on the CPU.
DEVICE f32x4 normalised(f32x4 v, f32x4 w, f32 scale) { return v * scale * w; }

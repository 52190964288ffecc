// The ends of a step: fetching it, and choosing a token; and reading memory for its own sake.
#include "step.h"

// Copies the step from pinned host memory, written before the replay was launched, to device memory: a kernel, because
// memory nodes in a recording have read stale values. `volatile`: no earlier replay's cached words.
GLOBAL THREADS_AT_MOST(64) void step_fetch(const volatile u32* host, u32* device, u32 rows) {
    begin_in_turn();
    for (u32 i = thread_x(); i < sizeof(Step) / 4 + rows; i += threads_x())
        device[i] = host[i];
}

// The greater of two logits, the earlier where equal. NaN beats all, so that it shows.
DEVICE bool beats(f32 a, u32 at_a, f32 b, u32 at_b) {
    bool nan_a = a != a, nan_b = b != b;
    if (nan_a || nan_b)
        return nan_a && (!nan_b || at_a < at_b);
    return a > b || (a == b && at_a < at_b);
}

// token = the index of the greatest of logits [n], the lowest such; 0xffffffff if any is NaN. One block.
GLOBAL THREADS_AT_MOST(1024) void argmax(const f32* logits, u32 n, u32* token) {
    SHARED static f32 values[1024 / 32];
    SHARED static u32 indices[1024 / 32];
    f32 best = -__builtin_inff();
    u32 at = n;
    for (u32 base = 0; base < n; base += 4 * threads_x()) {
        u32 i = base + 4 * thread_x();
        f32x4 v = load4(logits, i, n);
        for (u32 j = 0; j < 4; j++)
            if (i + j < n && beats(v[j], i + j, best, at))
                best = v[j], at = i + j;
    }
    for (u32 mask = 1; mask < WAVE; mask <<= 1) {
        f32 other = shuffle_xor(best, mask);
        u32 other_at = shuffle_xor(at, mask);
        if (beats(other, other_at, best, at))
            best = other, at = other_at;
    }
    if (thread_x() % WAVE == 0) {
        values[thread_x() / WAVE] = best;
        indices[thread_x() / WAVE] = at;
    }
    // Every wave's best is in LDS before the first thread compares them.
    barrier();
    if (thread_x() == 0) {
        for (u32 i = 1; i < threads_x() / WAVE; i++)
            if (beats(values[i], indices[i], best, at))
                best = values[i], at = indices[i];
        *token = best == best ? at : 0xffffffffu;
    }
}

// Reads `bytes` (a multiple of 16) at p once, as GEMVs read weights. The result depends on every byte, and is stored
// only in a case that random data do not produce, so that nothing is written and nothing can be left out.
GLOBAL THREADS_AT_MOST(256) void stream_read(const u8* p, u64 bytes, u32* sink) {
    u64 step = (u64)blocks_x() * threads_x() * 16;
    u64 i = ((u64)block_x() * threads_x() + thread_x()) * 16;
    u32x4 sum = 0;
    for (; i + 3 * step < bytes; i += 4 * step) {
        u32x4 a = load_streamed(p + i), b = load_streamed(p + i + step);
        u32x4 c = load_streamed(p + i + 2 * step), d = load_streamed(p + i + 3 * step);
        sum ^= a ^ b ^ c ^ d;
    }
    for (; i < bytes; i += step)
        sum ^= load_streamed(p + i);
    if (sum.x == 0x9e3779b9u && sum.y == 0x7f4a7c15u && sum.z == 0xf39cc060u && sum.w == 0x5cedc834u)
        *sink = sum.x;
}

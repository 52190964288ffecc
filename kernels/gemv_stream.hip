// gemv.hip's products with the weights on their way in LDS instead of registers, where bulk copies exist: NVIDIA from
// sm_90 on.
//
// What a decode step loses is the time in which nothing is on its way from memory: from the last bytes of a launch to the
// first product of the next lie some four latencies. One instruction copies whole rows to LDS and takes no registers: a
// block keeps a ring of slots, each for a few rows, and begins to fill it before it waits for its predecessors.
//
// Llama-2-7B on an H100, tokens/s at context 128, each line an A/B in one run. Those with * are of builds that also wrote
// down when things happened, and whose ring happened to lie at a multiple of 128 bytes:
//
// | | Q4_0 | Q4_K | Q8_0 | F16 |
// |---|---|---|---|---|
// | weights in registers (gemv.hip) | 501 | 469 | 280 | 200 |
// | a ring a wave, two rows at a time | 529 | 475 | 333 | 207 |
// | a ring a block, two blocks of 110 KB on an SM, all slots asked for at once | 554 | 525 | 325 | 206 |
// | two slots on the way at most: predicted 5 % more, since x waits behind what is on the way | 576 | 555 | 323 | 210 |
// | shares of rows that begin anywhere, Q8_0 two rows at a time: predicted 10 % more | 577 | 548 | 358 | 210 |
// | asking and finishing by a wave each, shared runs in three steps: predicted 7 % more | 570 | 545 | 359 | 209 |
// | * two slots on the way, as before | 575 | 552 | 363 | 213 |
// | * one slot until x is there, then of nibbles 1, of bytes 3, of floats 2: predicted 3 % more | 601 | 585 | 372 | 211 |
// | * K, V and the position asked for before the wait (attention_step.hip); F16 two slots from the start | 614 | 598 | 375 | 214 |
// | without *, and sums read four at a time; the ring 64 bytes off a multiple of 128 | 612 | | | |
// | the ring at a multiple of 128: found by what a flag cost that moved it 80 off (544 against 607) | 636 | 618 | 385 | 216 |
//
// Small matrices make few blocks, bound by their instructions and by how long those take to come: SmolLM2 Q4_1 had 18
// blocks for o. Tokens/s, with attention_step.hip's table before:
//
// | | SmolLM2 Q4_1 | Llama-2-7B Q4_0 |
// |---|---|---|
// | four rows a wave | 2,254 | 634 |
// | one kernel with two loops, of four rows and of two; it uses the first | 2,058 | 564 |
// | and it uses the second, of two rows, where tasks are fewer than SMs | 2,245 | |
// | two rows for gate and up as well: 192 blocks that share runs; 48 of four tasks | 2,197; 2,175 | |
// | a kernel for each loop | 2,444 | 633 |
// | of two rows without the code for norms of more than 1,024 columns at once: predicted 1 % more | 2,532 | |
// | of gates likewise | 2,559 | 634 |
// | of four rows likewise | 2,552 | 620 |
//
// Two slots of two blocks on each SM are 9.7 MB on the way, 3.3 us of the memory's time: x, the signal that a launch has
// ended, K and V all came behind them. One is 1.7 us, and still more than memory needs to be busy.
//
// What was refuted: one block of a launch on an SM and the next launch's beside it (540: 8 waves compute 25 KB/us of an
// SM's 23 to come, and nothing catches up); three blocks of 72 KB (486: they lie unevenly, and an SM takes in 42 KB/us);
// asking L2 from o's launch, during attention, for what gate and up begin with (* 32 KB a block: 597 against 599, 64 KB:
// 591: attention waits behind them); slots in halves or quarters, each asked for by itself (566 and 545 against 572, the
// ring 64 off), and registers for a third block (577 against 572, but Q4_K 535 against 546, likewise); a wave's activations
// kept in registers (* 599 against 601); a first turn of the loop on whatever is there, before the wait, for the sake of
// the instruction cache (* 553 against 561, with spills); sums stored by the waves that computed them, where a row is one
// wave's (SmolLM2 2,219 against 2,253). Of a layer's 48 us 38 are the weights'; attention has some 7,
// which o's weights fill by a half.
#pragma once
#include "gemv_ring.h"

#if NVIDIA && __CUDA_ARCH__ >= 900

namespace one_row {

// ---- Up to three matrices of one type and width over the same x ----

// A task: `rows` rows of one of the matrices, or what it has left.
struct PlainTasks {
    Product products[3];
    const f32* residual;
    u32 stride, rows, first, count;
    f32 added[2];  // to 32 of the block's rows, and to the 32 after them

    DEVICE_MEMBER Product find(u32 task, u32& row) const {
        task += first;
        Product found = products[0];
#pragma unroll
        for (u32 i = 0; i < 2; i++) {
            u32 tasks = (products[i].n + rows - 1) >> __builtin_ctz(rows);
            if (task < tasks)
                break;
            task -= tasks;
            found = products[i + 1];
        }
        row = task * rows;
        return found;
    }
    DEVICE_MEMBER void ask(u32 task, u8* slot, Arrivals& full) const {
        u32 row;
        Product of = find(task, row);
        u32 bytes = minimum(rows, of.n - row) * stride;
        full.expect(bytes);
        full.copy(slot, row_of(of.w, stride, row), bytes);
    }
    DEVICE_MEMBER void prepare() {}
    // Only the first matrix is added to, and then it is alone.
    DEVICE_MEMBER f32 residual_of(u32 row) const {
        return residual ? residual[minimum(first * rows + row + thread_x(), products[0].n - 1)] : 0.0f;
    }
    DEVICE_MEMBER void begin() { added[0] = residual_of(0), added[1] = residual_of(32); }
    DEVICE_MEMBER void finish(u32 task, f32 sum) {
        u32 row, at = task * rows % 32;
        if (residual) {
            if (task > 0 && at == 0)
                added[0] = added[1], added[1] = residual_of(task * rows + 32);
            sum += lane_value(added[0], at + thread_x());
        }
        Product of = find(task, row);
        row += thread_x();
        if (thread_x() < rows && row < of.n)
            of.y[row] = sum;
    }
    DEVICE_MEMBER void end() {}
};

// ---- Gate and up ----

// A task: `rows` rows of gate and as many of up, which lie in one slot one after the other.
//
// Runs of 32 results are rounded together, and blocks' shares of rows begin anywhere, or some would have half as much
// again to do as others. Of a run that blocks share each leaves its results in `shared`, and the last to come rounds.
struct GatedTasks {
    const u8 *gate, *up;
    void* y;
    u32 stride, rows, n, activation;
    bool quantize;
    Share share;              // of tasks
    f32 *made, *shared;       // [32] in LDS; [n]
    u32* tickets;             // [n / 32], 0 before and after
    u32 first, count;         // tasks of this block
    u32 runs[2], sharers[2];  // its first run and its last, and how many blocks have some of each
    bool parts[2];            // whether others have
    u32 early, apart;         // tasks of the last run, if others have some of it; and of both
    u32 settled, ticket;      // steps done of settling these runs, and what the first gave
    f32x4 values;             // and the second

    DEVICE_MEMBER void order() {
        u32 begin = first * rows, end = (first + count) * rows;
        runs[0] = begin / 32, runs[1] = minimum(end - 1, n - 1) / 32;
        parts[0] = quantize && (begin % 32 != 0 || end < minimum(runs[0] * 32 + 32, n));
        parts[1] = quantize && runs[1] > runs[0] && end < minimum(runs[1] * 32 + 32, n);
        early = parts[1] ? first + count - runs[1] * 32 / rows : 0;
        apart = early + (parts[0] ? minimum(runs[0] * 32 + 32, end) / rows - first : 0);
    }
    // What is shared comes first: nobody then waits for others at the end.
    DEVICE_MEMBER u32 in_order(u32 task) const { return task < early ? count - early + task : task - early; }
    DEVICE_MEMBER void ask(u32 task, u8* slot, Arrivals& full) const {
        u32 row = (first + in_order(task)) * rows, bytes = minimum(rows, n - row) * stride;
        full.expect(2 * bytes);
        full.copy(slot, row_of(gate, stride, row), bytes);
        full.copy(slot + rows * stride, row_of(up, stride, row), bytes);
    }

    // Whose a task is.
    DEVICE_MEMBER u32 owner(u32 task) const {
        u32 longer = share.more * (share.each + 1);
        return task < longer ? task / (share.each + 1) : share.more + (task - longer) / maximum(share.each, 1);
    }
    // Divisions take long: before the wait.
    DEVICE_MEMBER void prepare() {
#pragma unroll
        for (u32 i = 0; i < 2; i++)
            sharers[i] = owner(minimum(runs[i] * 32 + 31, n - 1) / rows) - owner(runs[i] * 32 / rows) + 1;
    }
    DEVICE_MEMBER void begin() { settled = apart > 0 ? 0 : 3; }
    DEVICE_MEMBER void round(u32 run, f32x4 v, bool store) const {
        for (u32 i = 0; i < 4; i++)
            v[i] = run * 32 + thread_x() % 8 * 4 + i < n ? v[i] : 0.0f;
        quantize_block(v, (Block*)y + run, store);
    }
    // One step of three with the shared runs, of which eight lanes each have four results. Steps are spread over tasks, so
    // that a latency of L2 passes between them and nobody waits for it.
    DEVICE_MEMBER void settle() {
        u32 lane = thread_x();
        bool second = lane / 8 % 2, mine = lane < 16 && (second ? parts[1] : parts[0]);
        u32 run = second ? runs[1] : runs[0], blocks = second ? sharers[1] : sharers[0];
        if (settled == 0) {
            // What all lanes have stored, the ticket publishes.
            wave_barrier();
            ticket = mine && lane % 8 == 0 ? take_ticket(tickets + run) : 0;
            wave_barrier();
        } else {
            // All lanes shuffle.
            u32 taken = bits_of(lane_value(float_of(ticket), lane & ~7u));
            bool last = mine && taken + 1 == blocks;
            if (settled == 1 && last) {
                values = load4(shared, run * 32 + lane % 8 * 4, n);
                if (lane % 8 == 0)
                    put_back(tickets + run);
            } else if (settled == 2) {
                round(run, values, last);
            }
        }
        settled++;
    }
    DEVICE_MEMBER void finish(u32 task, f32 sum) {
        bool whole = task >= apart;
        if (task > apart && settled < 3)
            settle();
        u32 lane = thread_x(), begin = (first + in_order(task)) * rows, row = begin + lane;
        f32 other = lane_value(sum, lane + rows);
        bool live = lane < rows && row < n;
        f32 value = live ? activated(sum, activation) * other : 0.0f;
        if (live && quantize && whole)
            made[row % 32] = value;
        else if (live)
            (quantize ? shared : (f32*)y)[row] = value;
        // Until all of the run is there.
        if (!quantize || !whole || ((begin + rows) % 32 != 0 && begin + rows < n))
            return;
        wave_barrier();
        round(begin / 32, *(const f32x4*)(made + lane % 8 * 4), lane < 8);
        // And read by all.
        wave_barrier();
    }
    DEVICE_MEMBER void end() {
        while (settled < 3)
            settle();
    }
};

// As gemv.hip's, but for the last arguments: groups of waves, and slots. What is shared: tasks; with `quantize` runs of 32.
#define PLAIN_STREAM_KERNEL(name, Type, ROWS, ROLLED)                                                                  \
    GLOBAL THREADS_AND_BLOCKS(THREADS + 2 * WAVE, RESIDENT) void gemv_stream_##name(                                   \
        const Step*, const void* x, const f32* norm, f32 eps, u32 k, const u8* w0, f32* y0, u32 n0, const u8* w1,      \
        f32* y1, u32 n1, const u8* w2, f32* y2, u32 n2, u32 w_stride, const f32* residual, u32 each, u32 more,         \
        u32 groups, u32 slots) {                                                                                       \
        PlainTasks tasks{{{w0, y0, n0}, {w1, y1, n1}, {w2, y2, n2}}, residual, w_stride, ROWS * groups, 0, 0, {}};     \
        tasks.first = Share{each, more}.first(tasks.count);                                                            \
        stream<Type, ROWS, ROLLED>(tasks, Source{x, norm, eps, k}, groups, slots);                                     \
    }
#define GATED_STREAM_KERNEL(name, Type)                                                                                \
    GLOBAL THREADS_AND_BLOCKS(THREADS + 2 * WAVE, RESIDENT) void gated_gemv_stream_##name(                             \
        const Step*, const void* x, const f32* norm, f32 eps, u32 k, const u8* gate, const u8* up, u32 w_stride,       \
        void* y, u32 n, u32 activation, u32 quantize, u32 each, u32 more, u32 groups, u32 slots, f32* shared,          \
        u32* tickets) {                                                                                                \
        SHARED static f32 made[32] __attribute__((aligned(16)));                                                       \
        GatedTasks tasks{gate, up, y, w_stride, Type::STREAMED_ROWS * groups / 2, n, activation, quantize != 0,        \
                         Share{each, more}, made, shared, tickets, 0, 0, {}, {}, {}, 0, 0, 0, 0, {}};                  \
        tasks.first = tasks.share.first(tasks.count);                                                                  \
        tasks.order();                                                                                                 \
        stream<Type, Type::STREAMED_ROWS, true>(tasks, Source{x, norm, eps, k}, groups, slots);                        \
    }
#define GEMV_STREAM_KERNELS(name, Type)                                                                                \
    PLAIN_STREAM_KERNEL(name, Type, Type::STREAMED_ROWS, false)                                                        \
    GATED_STREAM_KERNEL(name, Type)
// Where four rows a wave make few tasks.
#define FEW_STREAM_KERNEL(name, Type) PLAIN_STREAM_KERNEL(few_##name, Type, 2, true)

EACH_QUANTIZED(GEMV_STREAM_KERNELS)
EACH_FLOAT(GEMV_STREAM_KERNELS)
EACH_NARROW(FEW_STREAM_KERNEL)

}  // namespace one_row

#endif

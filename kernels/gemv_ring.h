// The ring of slots in LDS that a block's weights come through (gemv_stream.hip).
//
// Eight waves compute: a group of them shares a row, each with every so-many-th 32 units of it, and takes ROWS rows at a
// time, so that an activation read from LDS serves them all: with two rows a wave, an SM could not read LDS any faster.
// A ninth wave asks for weights; a tenth adds up what the waves of a group have of a row, and stores.
//
// A slot goes round: copies fill it (`full` counts their bytes), eight waves read it and leave their sums (`used` counts
// the waves), the tenth takes the sums (`read`), and the ninth has it filled again. No barrier of the whole block is in
// the loop.
#pragma once
#include "gemv_row.h"

#if NVIDIA && __CUDA_ARCH__ >= 900

namespace one_row {

// A barrier in LDS, of threads that arrive and bytes that copies bring.
struct Arrivals {
    u64 state;

    DEVICE_MEMBER u32 at() const { return shared_address(&state); }
    DEVICE_MEMBER void begin(u32 threads) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at()), "r"(threads) : "memory");
    }
    DEVICE_MEMBER void arrive() { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at()) : "memory"); }
    // Arrives, and so many bytes are to come beside.
    DEVICE_MEMBER void expect(u32 bytes) {
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(at()), "r"(bytes) : "memory");
    }
    // Until all of the turn with this parity have come.
    DEVICE_MEMBER void await(u32 parity) {
        u32 done;
        do {
            asm volatile("{\n.reg .pred done;\nmbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\n"
                         "selp.u32 %0, 1, 0, done; }"
                         : "=r"(done)
                         : "r"(at()), "r"(parity)
                         : "memory");
        } while (!done);
    }
    // Whether they have.
    DEVICE_MEMBER bool complete(u32 parity) {
        u32 done;
        asm volatile("{\n.reg .pred done;\nmbarrier.test_wait.parity.shared::cta.b64 done, [%1], %2;\n"
                     "selp.u32 %0, 1, 0, done; }"
                     : "=r"(done)
                     : "r"(at()), "r"(parity)
                     : "memory");
        return done;
    }
    // Asks for `bytes` (a multiple of 16) from `from` to be copied to LDS; both are aligned to 16.
    DEVICE_MEMBER void copy(void* to, const u8* from, u32 bytes) {
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                         shared_address(to)),
                     "l"((const __attribute__((address_space(1))) void*)from), "r"(bytes), "r"(at())
                     : "memory");
    }
};
// Barriers that this thread has begun are there for copies.
DEVICE void fence_for_copies() {
    asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async.shared::cta;" ::: "memory");
}
DEVICE void wave_barrier() { __nvvm_bar_warp_sync(0xffffffffu); }

// Waves that compute, the one that asks for weights, and the one that finishes; and slots of a block at most.
CONSTANT u32 WAVES = THREADS / WAVE;
CONSTANT u32 ASKING = WAVES, FINISHING = WAVES + 1;
CONSTANT u32 SLOTS = 8;
// Blocks that an SM's registers have room for.
CONSTANT u32 RESIDENT = 2;

// Where a slot of a ring is in its turns.
struct Turn {
    u32 slots;
    u32 slot = 0, parity = 0;

    DEVICE_MEMBER void next() {
        if (++slot == slots)
            slot = 0, parity ^= 1;
    }
};

// The sum of the first `count` values: 1, 2, 4 or 8.
DEVICE f32 sum_of(const f32* v, u32 count) {
    if (count < 4)
        return count > 1 ? v[0] + v[1] : v[0];
    f32x4 four = *(const f32x4*)v;
    f32 sum = four.x + four.y + four.z + four.w;
    if (count > 4) {
        four = *(const f32x4*)(v + 4);
        sum = sum + four.x + four.y + four.z + four.w;
    }
    return sum;
}

// The work of one launch's block, whose waves take ROWS rows at a time; of ROLLED gemv_row.h tells. `Job` says: `count`,
// how many tasks; `ask(task, slot, full)`, by one lane, which has the rows of a task copied to a slot; and by all lanes of
// the wave that finishes `prepare()`, before it waits; `begin()`; `finish(task, sum)`, where the first `rows` lanes have a
// row's sum each; and `end()`.
template <class W, u32 ROWS, bool ROLLED, class Job>
DEVICE void stream(Job& job, const Source& source, u32 groups, u32 slots) {
    let_successor_begin();
    u32 lane = thread_x(), wave = thread_y(), units = (source.k + W::LEN - 1) / W::LEN;
    u32 waves = WAVES >> __builtin_ctz(groups), rows = ROWS * groups, slot_bytes = rows * job.stride;
    // The sums of the waves of a group, row by row.
    SHARED static f32 sums[SLOTS][WAVES * ROWS] __attribute__((aligned(16)));
    SHARED static Arrivals full[SLOTS], used[SLOTS], read[SLOTS], activations;
    // Behind the activations, at a multiple of 128, as copies want it.
    u8* ring = (u8*)(pool + (units * W::PIECES + 7) / 8 * 8);

    if (wave == ASKING && lane == 0) {
        for (u32 slot = 0; slot < slots; slot++)
            full[slot].begin(1), used[slot].begin(WAVES), read[slot].begin(1);
        activations.begin(1);
        fence_for_copies();
    }
    // The barriers of the ring are there for all.
    barrier();
    if (wave == ASKING) {
        if (lane > 0)
            return;
        Turn asked{slots}, come{slots}, free{slots};
        for (u32 task = 0, on_the_way = 0; task < job.count; task++, asked.next()) {
            if (task >= slots) {
                read[free.slot].await(free.parity);
                free.next();
            }
            // Whatever is asked for later, activations too, waits behind what is on the way.
            u32 most = activations.complete(0) ? minimum(W::ON_THE_WAY, slots) : 1;
            for (; on_the_way >= most; on_the_way--) {
                full[come.slot].await(come.parity);
                come.next();
            }
            on_the_way++;
            job.ask(task, ring + asked.slot * slot_bytes, full[asked.slot]);
        }
        return;
    }
    if (wave == FINISHING) {
        job.prepare();
        await_predecessors();
        job.begin();
        Turn turn{slots};
        for (u32 task = 0; task < job.count; task++, turn.next()) {
            used[turn.slot].await(turn.parity);
            f32 sum = lane < rows ? sum_of(sums[turn.slot] + lane * waves, waves) : 0.0f;
            // All lanes have read the sums.
            wave_barrier();
            if (lane == 0)
                read[turn.slot].arrive();
            job.finish(task, sum);
        }
        job.end();
        return;
    }

    Row<W, false, ROLLED> row;
    row.source = source, row.units = units;
    row.thread = wave * WAVE + lane, row.threads = THREADS;
    if (source.norm)
        row.ask_norm();
    await_predecessors();
    row.ask();
    row.put();
    // The activations are complete.
    barrier_of(THREADS);
    if (row.thread == 0)
        activations.arrive();
    Planes p = W::planes(units);
    u32 group = wave / waves, first = wave % waves;
    Turn turn{slots};
    for (u32 task = 0; task < job.count; task++, turn.next()) {
        full[turn.slot].await(turn.parity);
        const u8* from = ring + turn.slot * slot_bytes + group * ROWS * job.stride;
        f32 mine[ROWS] = {};
        for (u32 unit = first * WAVE + lane; unit < units; unit += waves * WAVE) {
            typename W::Input a = W::input(pool + unit * W::PIECES);
#pragma unroll
            for (u32 r = 0; r < ROWS; r++)
                mine[r] += W::dot(W::template load<Staged>(from + r * job.stride, p, unit), a);
        }
        // Row r's in the lanes from WAVE / ROWS · r on.
        deal_sums<WAVE / 2, 1, ROWS>(mine);
        if (lane % (WAVE / ROWS) == 0)
            sums[turn.slot][(group * ROWS + lane / (WAVE / ROWS)) * waves + first] = mine[0];
        // The wave's sums are in LDS, and all its lanes have read the slot.
        wave_barrier();
        if (lane == 0)
            used[turn.slot].arrive();
    }
}

}  // namespace one_row

#endif

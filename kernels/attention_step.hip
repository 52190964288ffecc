// One row's attention from its unturned q, k and v to its output, in one launch: rope of q and k, k and v to the f16
// caches [G, S, D], out [H, D] = softmax(scale · q Kᵀ) · V over them, and rounding to blocks. What rope_append,
// attention_split and attention_combine_quantize do in three, with their formulas.
//
// A block serves a K/V head (block_y) and every blocks_x()-th chunk of CHUNK positions (block_x): all blocks have
// work at any length of the context, and which block has what depends on the position alone. Blocks without a chunk
// leave. The block that has the last chunk appends k and v; it uses the rounded rows it keeps in LDS, so that nothing
// waits for them to come back from memory. With one block at work (short contexts) that is all. Otherwise each leaves a
// partial result, and the one that takes the last ticket merges them in the order of positions: whichever block that is,
// it does the same sums, so that bits do not depend on it.
//
// What to expect, Llama-2-7B (H = G = 32, D = 128; 8 blocks a head): at 128 positions 2.1 MB by 64 blocks, a chain of
// latencies of about 3 us; at 4,000 positions 65.5 MB and 131 MFLOP, 22.6 us at 2.9 TB/s (H100) and 16.0 us at 4.1 TB/s
// (MI300X). Two blocks of an SM have 64 KB of K and V on the way, where 22 bytes a ns at 1 us ask for 22 KB.
//
// Where launches overlap, the position and the rows of earlier positions are asked for before the wait: 614 tokens/s
// against 599, Llama-2-7B Q4_0 on an H100 at context 128. When the products had twice as much on the way (gemv_stream.hip)
// it gained nothing: all that is loaded here came behind o's weights.
//
// Refuted there, at 570 tokens/s: clusters of eight blocks that merge in the first one's LDS instead of by tickets (557;
// of four 567, of two 564: a cluster begins where all of it has room, which the product before leaves late), and two,
// three or four chunks by one block alone (571, 569, 565).
//
// Coherence: partials are written by all threads of a block; each publishes its writes (a release at the device's
// scope), the block's barrier orders them before thread 0's ticket (acquire and release at the device's scope), and in
// the block whose ticket was the last, thread 0's acquire and the barrier after it order every block's partials before
// the refreshed reads. The caches are not part of it: the row that is written is read by later launches only. The ticket
// is put back to 0 by the last block, after all others have taken theirs; no other launch touches it until this one has
// finished, since its users are launches of the same kernel, which wait for it (common.h).
#include "block.h"
#include "rope.h"
#include "step.h"

CONSTANT u32 STEP_THREADS = 256;
CONSTANT u32 STEP_WAVES = STEP_THREADS / WAVE;

// What the threads pass each other, for a chunk of up to QUERIES queries.
struct StepExchange {
    f32 scores[QUERIES][CHUNK];  // then the weights
    f32 shrink[QUERIES], peaks[QUERIES], totals[QUERIES];
    union {
        f32 sums[QUERIES][STEP_WAVES][MAX_HEAD];
        struct {
            f32 peaks[STEP_THREADS], totals[STEP_THREADS];
            f32x4 sums[STEP_THREADS];
        } slices;
    };
    u32 ticket;
};

// What a block works on.
struct StepWork {
    f32* queries;       // [heads][D] in LDS, turned; then the result
    const f16* new_k;   // [D] in LDS: the step's own row
    const f16* new_v;
    const f16* k;       // [S, D]
    const f16* v;
    f32* partials;      // [heads][blocks][pad16(D) + 16]
    u32 heads, D, blocks;
    Divisor by_D;
    u32 position, from; // seen: from … position
    u32 chunk, last;    // this block's first chunk, and the last of all
    bool alone;         // one block has everything: the result goes to `queries`
    f32 scale;
};

// The rows of a chunk that a lane multiplies. Rows outside of what is seen are replaced by one inside: finite, and
// weighted by 0. The step's own row comes from LDS.
template <u32 LANES, u32 TURNS>
DEVICE void load_rows(f16x8 (&rows)[TURNS], const f16* from, const StepWork& work, u32 chunk, u32 column) {
    u32 group = thread_x() / LANES;
#pragma unroll
    for (u32 t = 0; t < TURNS; t++) {
        u32 at = chunk * CHUNK + t * (STEP_THREADS / LANES) + group;
        at = minimum(maximum(at, work.from), work.position);
        rows[t] = halves_at(from + at * work.D + column);
    }
}
template <u32 LANES, u32 TURNS>
DEVICE void patch_rows(f16x8 (&rows)[TURNS], const f16* own, const StepWork& work, u32 chunk, u32 column) {
    u32 group = thread_x() / LANES;
    if (chunk != work.last)
        return;
    f16x8 row = halves_at(own + column);
#pragma unroll
    for (u32 t = 0; t < TURNS; t++)
        if (chunk * CHUNK + t * (STEP_THREADS / LANES) + group >= work.position)
            rows[t] = row;
}

// Heads `head` … of the group, up to N of them; those past the group repeat its last and store nothing. LANES lanes
// have a position's columns, eight each. `keys` and `values` are those of the first chunk, perhaps on the way; the next
// chunk's keys are on the way while this one's values are used.
template <u32 N, u32 LANES, u32 TURNS>
DEVICE void step_heads(StepExchange& exchange, const StepWork& work, u32 head, f16x8 (&keys)[TURNS], f16x8 (&values)[TURNS]) {
    constexpr u32 GROUPS_OF_LANES = STEP_THREADS / LANES;
    static_assert(GROUPS_OF_LANES * TURNS == CHUNK && N <= STEP_WAVES, "a thread has whole positions, a query a wave");
    u32 thread = thread_x(), wave = thread / WAVE, lane = thread % WAVE, D = work.D;
    u32 column = thread % LANES * 8, group = thread / LANES;
    bool live = column < D;
    u32 from_column = live ? column : 0;
    // The turned queries and the step's own rows are in LDS; or all have read what the heads before left there.
    barrier();
    f32x4 queries[N][2];
#pragma unroll
    for (u32 n = 0; n < N; n++) {
        const f32x4* at = (const f32x4*)(work.queries + minimum(head + n, work.heads - 1) * D + from_column);
        f32 factor = live ? work.scale : 0.0f;
        queries[n][0] = at[0] * factor;
        queries[n][1] = at[1] * factor;
    }
    f32 sums[N][8];
    // The wave's own query, when it has one: the same in all its lanes.
    f32 peak = LEAST, total = 0.0f;
    for (u32 chunk = work.chunk; chunk <= work.last; chunk += work.blocks) {
        bool first = chunk == work.chunk, more = chunk + work.blocks <= work.last;
        patch_rows<LANES, TURNS>(keys, work.new_k, work, chunk, from_column);
#pragma unroll
        for (u32 n = 0; n < N; n++)
#pragma unroll
            for (u32 t = 0; t < TURNS; t++) {
                f32 sum = 0.0f;
#pragma unroll
                for (u32 i = 0; i < 8; i++)
                    sum = __builtin_fmaf(queries[n][i / 4][i % 4], (f32)keys[t][i], sum);
                sum = group_sum(sum, LANES);
                u32 slot = t * GROUPS_OF_LANES + group, at = chunk * CHUNK + slot;
                if (column == 0)
                    exchange.scores[n][slot] = at >= work.from && at <= work.position ? sum : -__builtin_inff();
            }
        // AMD: in any case, or the wait for this chunk's values would be one for the next keys too (gemv.hip). Rows past
        // the last are the last.
        if (more || !NVIDIA)
            load_rows<LANES, TURNS>(keys, work.k, work, chunk + work.blocks, from_column);
        // The scores are complete.
        barrier();
        if (wave < N) {
            f32 scores[CHUNK / WAVE], greatest = peak, weights = 0.0f;
#pragma unroll
            for (u32 i = 0; i < CHUNK / WAVE; i++) {
                scores[i] = exchange.scores[wave][i * WAVE + lane];
                greatest = scores[i] > greatest ? scores[i] : greatest;
            }
#pragma unroll
            for (u32 mask = 1; mask < WAVE; mask <<= 1) {
                f32 other = shuffle_xor(greatest, mask);
                greatest = other > greatest ? other : greatest;
            }
#pragma unroll
            for (u32 i = 0; i < CHUNK / WAVE; i++) {
                f32 weight = exponential(scores[i] - greatest);
                exchange.scores[wave][i * WAVE + lane] = weight;
                weights += weight;
            }
            f32 shrink = exponential(peak - greatest);
            total = total * shrink + group_sum(weights, WAVE);
            peak = greatest;
            if (lane == 0) {
                exchange.shrink[wave] = shrink;
                exchange.peaks[wave] = peak;
                exchange.totals[wave] = total;
            }
        }
        patch_rows<LANES, TURNS>(values, work.new_v, work, chunk, from_column);
        // The weights are complete.
        barrier();
#pragma unroll
        for (u32 n = 0; n < N; n++) {
            f32 shrink = first ? 0.0f : exchange.shrink[n];
#pragma unroll
            for (u32 i = 0; i < 8; i++)
                sums[n][i] = first ? 0.0f : sums[n][i] * shrink;
#pragma unroll
            for (u32 t = 0; t < TURNS; t++) {
                f32 weight = exchange.scores[n][t * GROUPS_OF_LANES + group];
#pragma unroll
                for (u32 i = 0; i < 8; i++)
                    sums[n][i] = __builtin_fmaf(weight, (f32)values[t][i], sums[n][i]);
            }
        }
        if (more) {
            load_rows<LANES, TURNS>(values, work.v, work, chunk + work.blocks, from_column);
            // The weights have been read by all.
            barrier();
        }
    }
#pragma unroll
    for (u32 n = 0; n < N; n++) {
#pragma unroll
        for (u32 mask = LANES; mask < WAVE; mask <<= 1)
#pragma unroll
            for (u32 i = 0; i < 8; i++)
                sums[n][i] += shuffle_xor(sums[n][i], mask);
        if (lane < LANES && live) {
            f32x4* at = (f32x4*)&exchange.sums[n][wave][column];
            at[0] = f32x4{sums[n][0], sums[n][1], sums[n][2], sums[n][3]};
            at[1] = f32x4{sums[n][4], sums[n][5], sums[n][6], sums[n][7]};
        }
    }
    // Every wave's sums are in LDS.
    barrier();
    u32 padded = pad_head(D), stride = padded + 16, count = minimum(N, work.heads - head) * D;
    for (u32 i = thread; i < count; i += STEP_THREADS) {
        u32 n = work.by_D.quotient(i), c = i - n * D;
        f32 sum = 0.0f;
#pragma unroll
        for (u32 w = 0; w < STEP_WAVES; w++)
            sum += exchange.sums[n][w][c];
        if (work.alone) {
            work.queries[head * D + i] = sum / exchange.totals[n];
            continue;
        }
        f32* out = work.partials + ((u64)(head + n) * work.blocks + block_x()) * stride;
        out[c] = sum;
        if (c == 0) {
            out[padded] = exchange.peaks[n];
            out[padded + 1] = exchange.totals[n];
        }
    }
}

// Merges the partial results of `count` blocks, the first of which is block `begin`, into work.queries [heads · D], four
// columns a thread. Blocks are dealt to slices in turn; each slice keeps a running maximum, and slice 0 merges them.
DEVICE void step_merge(StepExchange& exchange, const StepWork& work, u32 begin, u32 count) {
    constexpr u32 BATCH = 4;
    u32 D = work.D, padded = pad_head(D), stride = padded + 16, pieces = work.heads * D / 4, thread = thread_x();
    for (u32 done = 0; done < pieces; done += STEP_THREADS) {
        u32 across = 8;
        while (across < pieces - done && across < STEP_THREADS)
            across <<= 1;
        u32 shift = __builtin_ctz(across), slices = STEP_THREADS >> shift, slice = thread >> shift;
        u32 piece = done + (thread & (across - 1));
        bool live = piece < pieces;
        u32 column = (live ? piece : 0) * 4;
        u32 head = work.by_D.quotient(column);
        const f32* rows = work.partials + (u64)head * work.blocks * stride;
        f32 peak = LEAST, total = 0.0f;
        f32x4 sum = 0.0f;
        for (u32 i = slice; i < count; i += slices * BATCH) {
            f32x4 v[BATCH];
            f32 peaks[BATCH], totals[BATCH];
#pragma unroll
            for (u32 b = 0; b < BATCH; b++) {
                u32 block = begin + minimum(i + b * slices, count - 1);
                const f32* at = rows + (block < work.blocks ? block : block - work.blocks) * stride;
                v[b] = *(const f32x4*)(at + column - head * D);
                peaks[b] = at[padded];
                totals[b] = at[padded + 1];
            }
#pragma unroll
            for (u32 b = 0; b < BATCH; b++)
                if (i + b * slices < count) {
                    f32 greatest = peaks[b] > peak ? peaks[b] : peak;
                    f32 mine = exponential(peak - greatest), theirs = exponential(peaks[b] - greatest);
                    peak = greatest;
                    total = total * mine + totals[b] * theirs;
                    sum = sum * mine + v[b] * theirs;
                }
        }
        // What lay here has been read by all.
        barrier();
        exchange.slices.peaks[thread] = peak;
        exchange.slices.totals[thread] = total;
        exchange.slices.sums[thread] = sum;
        // Every slice is in LDS.
        barrier();
        if (slice == 0 && live) {
            u32 used = minimum(count, slices);
            peak = LEAST;
            for (u32 s = 0; s < used; s++) {
                f32 other = exchange.slices.peaks[s * across + thread];
                peak = other > peak ? other : peak;
            }
            total = 0.0f;
            sum = 0.0f;
            for (u32 s = 0; s < used; s++) {
                u32 at = s * across + thread;
                f32 factor = exponential(exchange.slices.peaks[at] - peak);
                total += exchange.slices.totals[at] * factor;
                sum += exchange.slices.sums[at] * factor;
            }
            *(f32x4*)(work.queries + column) = sum / total;
        }
    }
}

// y [H · D], f32 or with `quantize` (H / G · D is then a multiple of 32) blocks; q [H · D], k and v [G · D], f32;
// table [dims / 2][2]; partials [H][blocks_x()][pad16(D) + 16]; tickets [G], 0 before and after. D is a multiple of 8.
//
// N queries are served at a time, by LANES lanes a position: src/gpu/geometry.rs says by which kernel.
template <u32 LANES, u32 N>
DEVICE void attention_step(const Step* step, const f32* q, const f32* k, const f32* v, const f32* table, f16* kc, f16* vc,
                           f32* partials, u32* tickets, void* y, u32 H, u32 G, u32 D, u32 dims, u32 style, u32 S,
                           u32 window, f32 scale, u32 quantize) {
    SHARED static StepExchange exchange;
    constexpr u32 TURNS = CHUNK * LANES / STEP_THREADS;
    let_successor_begin();
    // Divisions, before the wait.
    u32 g = block_y(), heads = H / G, pairs = D / 2, thread = thread_x();
    StepWork work;
    work.by_D = divisor(D);
    // The pairs of all rows, of which this thread has every STEP_THREADS-th.
    u32 all = (heads + 2) * pairs;
    auto head_of = [&](u32 i) __attribute__((always_inline)) { return work.by_D.quotient(2 * i); };
    u32 first_pair = minimum(thread, all - 1), own_head = head_of(first_pair), own_pair = first_pair - own_head * pairs;
    // Earlier steps have left it (common.h).
    work.position = step->position;
    work.queries = (f32*)pool;
    f16 *new_k = (f16*)(work.queries + heads * D), *new_v = new_k + D;
    const f32* from = q + (u64)g * heads * D;
    // A pair of a head of the group's queries, then of k, then of v, turned.
    auto turn_pair = [&](u32 head, u32 pair) __attribute__((always_inline)) {
        bool value = head > heads;
        const f32* row = head < heads ? from + head * D : value ? v + g * D : k + g * D;
        return turned(row, table, pair, value ? 0 : dims, style);
    };
    // The thread's first of them: on AMD, whose loads come in order, on the way with the position.
    Pair own;
    if (!NVIDIA)
        own = turn_pair(own_head, own_pair);
    // A recording never steps past its capacity: `position` is below S.
    work.from = first_seen(work.position, window);
    work.blocks = blocks_x();
    u32 first = work.from / CHUNK;
    work.last = work.position / CHUNK;
    // Without a window, `first` is 0 and nothing is divided.
    work.chunk = first == 0 ? block_x() : first + (block_x() + work.blocks - first % work.blocks) % work.blocks;
    // The whole block leaves, before its barriers: it has no chunk.
    if (work.chunk > work.last || work.position >= S) {
        await_predecessors();
        return;
    }
    u32 count = minimum(work.last - first + 1, work.blocks);
    work.alone = count == 1;
    work.new_k = new_k, work.new_v = new_v;
    work.k = kc + (u64)g * S * D, work.v = vc + (u64)g * S * D;
    work.partials = partials + (u64)g * heads * work.blocks * (pad_head(D) + 16);
    work.heads = heads, work.D = D, work.scale = scale;
    // Idle lanes load column 0 and multiply it by 0 in q; what they sum of V is not stored.
    u32 column = thread % LANES * 8 < D ? thread % LANES * 8 : 0;
    f16x8 keys[TURNS], values[TURNS];
    auto load_first = [&]() __attribute__((always_inline)) {
        load_rows<LANES, TURNS>(keys, work.k, work, work.chunk, column);
        load_rows<LANES, TURNS>(values, work.v, work, work.chunk, column);
    };
    load_first();
    bool appends = (work.last - work.chunk) % work.blocks == 0;
    await_predecessors();
    if (NVIDIA)
        own = turn_pair(own_head, own_pair);
    for (u32 i = thread; i < all; i += STEP_THREADS) {
        u32 head = own_head;
        if (i != thread) {
            head = head_of(i);
            own = turn_pair(head, i - head * pairs);
        }
        if (head < heads) {
            work.queries[head * D + own.a] = own.x;
            work.queries[head * D + own.b] = own.y;
            continue;
        }
        bool value = head > heads;
        store_halves(value ? new_v : new_k, own);
        if (appends)
            store_halves(cache_row(value ? vc : kc, g, work.position, S, D), own);
    }
    for (u32 head = 0; head < heads; head += N) {
        if (head > 0)
            load_first();
        step_heads<N, LANES, TURNS>(exchange, work, head, keys, values);
    }
    if (!work.alone) {
        // See the head of this file.
        publish();
        barrier();
        if (thread == 0)
            exchange.ticket = take_ticket(tickets + g);
        barrier();
        if (exchange.ticket != count - 1)
            return;
        if (thread == 0)
            put_back(tickets + g);
        refresh();
        step_merge(exchange, work, first == 0 ? 0 : first % work.blocks, count);
    }
    // The result is in LDS.
    barrier();
    u32 columns = heads * D;
    // Whole waves take as many turns, since rounding shuffles.
    for (u32 base = 0; base < columns; base += 4 * STEP_THREADS) {
        u32 i = base + 4 * thread;
        bool live = i < columns;
        f32x4 out = *(const f32x4*)(work.queries + (live ? i : 0));
        if (quantize)
            quantize_block(out, (Block*)y + (g * columns + i) / 32, live);
        else if (live)
            *(f32x4*)((f32*)y + g * columns + i) = out;
    }
}

// D up to 8 · LANES. At least 8 lanes to a position, so that a chunk has as many as the other sizes'. BLOCKS of them on an
// SM at least: what is in flight must hide the memory's latency.
#define ATTENTION_STEP(name, LANES, N, BLOCKS)                                                                           \
    GLOBAL THREADS_AND_BLOCKS(STEP_THREADS, BLOCKS) void attention_step_##name(                                          \
        const Step* step, const f32* q, const f32* k, const f32* v, const f32* table, f16* kc, f16* vc, f32* partials,   \
        u32* tickets, void* y, u32 H, u32 G, u32 D, u32 dims, u32 style, u32 S, u32 window, f32 scale, u32 quantize) {   \
        attention_step<LANES, N>(step, q, k, v, table, kc, vc, partials, tickets, y, H, G, D, dims, style, S, window,    \
                                 scale, quantize);                                                                       \
    }
ATTENTION_STEP(64x1, 8, 1, 3)
ATTENTION_STEP(64x3, 8, 3, 2)
ATTENTION_STEP(64x4, 8, 4, 2)
ATTENTION_STEP(128x1, 16, 1, 2)
ATTENTION_STEP(128x4, 16, 4, 1)
ATTENTION_STEP(256x1, 32, 1, 1)
ATTENTION_STEP(256x2, 32, 2, 1)

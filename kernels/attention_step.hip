// One row's attention from its unturned q, k and v to its output, in one launch: rope of q and k, k and v to the f16
// caches [G, S, D], out [H, D] = softmax(scale · q Kᵀ) · V over them, and rounding to blocks. What rope_append,
// attention_split and attention_combine_quantize do in three, with their formulas.
//
// A block serves a K/V head (block_y) and every blocks_x()-th chunk of positions (block_x): all blocks have work at any
// length of the context, and which block has what depends on the position alone. Blocks without a chunk leave. At short
// contexts blocks serve one head of a group instead, since it is arithmetic that takes long then: K and V are read again
// for each, from L2, by compute units that were idle. The block that has the last chunk appends k and v; it uses the
// rounded rows it keeps in LDS, so that nothing waits for them to come back from memory. With one block at work that is
// all. Otherwise each leaves a partial result, and the one that takes the last ticket merges them in the order of
// positions: whichever block that is, it does the same sums, so that bits do not depend on it.
//
// What to expect, Llama-2-7B (H = G = 32, D = 128; 8 blocks a head): at 128 positions 2.1 MB by 64 blocks, a chain of
// latencies of about 3 us; at 4,000 positions 65.5 MB and 131 MFLOP, 22.6 us at 2.9 TB/s (H100) and 16.0 us at 4.1 TB/s
// (MI300X). Two blocks of an SM have 64 KB of K and V on the way, where 22 bytes a ns at 1 us ask for 22 KB.
//
// Where launches overlap, the position and the rows of earlier positions are asked for before the wait: 614 tokens/s
// against 599, Llama-2-7B Q4_0 on an H100 at context 128. When the products had twice as much on the way (gemv_stream.hip)
// it gained nothing: all that is loaded here came behind o's weights.
//
// A block of many positions is bound by the instructions of one compute unit. With H100's figures, tokens/s at contexts up
// to 256 and up to 4,100 (2,000 of SmolLM2), each line an A/B against the first in one run:
//
// | | SmolLM2 Q4_1 | Llama-3-8B Q4_K | Llama-2-7B Q4_0 |
// |---|---|---|---|
// | 256 threads, a group's heads, chunks of 64, one wave weighs all scores of a head | 2,125, 1,891 | 524, 441 | 633, 518 |
// | chunks of 128; of 256 | 2,129; 2,068 | | |
// | 512 threads, each LANES lanes weigh their own scores, chunks of 128 | 2,017 | | 620, 493 |
// | one head a block up to 512 positions, 512 threads, chunks of 256; one wave weighs | 2,219 | 528 | 629 |
// | each LANES lanes weigh their own; 256 threads where a group is one head | 2,253, 1,891 | 535, 477 | 633, 519 |
// | the same with 256 threads, chunks of 256; of 128 | 2,187; 2,145 | | |
// | waves without columns do not round | 2,269, 1,902 | 535, 476 | |
// | one head a block up to 1,024 positions; up to 2,048 | 1,938; 2,038 | 478; 482 | |
//
// The third line and the fourth are of a host that was late at times, which took about 1 %. With a build slower in other
// kernels, Llama-3-8B up to 4,100: 438, and 443 where heads are apart up to 4,096, 445 where always; up to 8,000: 414 and
// 412. Predicted were 2,440 for the first of these steps that gained. Of 3.3 us that attention took of SmolLM2's layer at
// 100 positions with them, 0.4 were for turning q and k, 1.2 for multiplying and weighing, 0.85 for merging waves and 0.75
// for rounding. Refuted: a rehearsal of all that before the wait, for the instruction cache's sake (2,107 against 2,229).
//
// Refuted before, with Llama-2-7B Q4_0 at 570 tokens/s: clusters of eight blocks that merge in the first one's LDS instead
// of by tickets (557; of four 567, of two 564: a cluster begins where all of it has room, which the product before leaves
// late), and two, three or four chunks by one block alone (571, 569, 565).
//
// On AMD the thread's first pair is asked for with the position, K and V, and turned when it is there; before, its turning
// waited for two trips to memory in a row. The same in NVIDIA's order, raw_pair and turned apart, made SmolLM2 slower (2,480
// against 2,527), by the order of instructions alone: there `turned` is one.
//
// Coherence: partials are written by all threads of a block; each publishes its writes (a release at the device's
// scope), the block's barrier orders them before thread 0's ticket (acquire and release at the device's scope), and in
// the block whose ticket was the last, thread 0's acquire and the barrier after it order every block's partials before
// the refreshed reads. The caches are not part of it: of the row that is written later launches only use anything. The ticket
// is put back to 0 by the last block, after all others have taken theirs; no other launch touches it until this one has
// finished, since its users are launches of the same kernel, which wait for it (common.h).
#include "block.h"
#include "rope.h"
#include "step.h"

// How a block works: LANES lanes have TURNS positions of a chunk, for N queries at a time.
template <u32 LANES_, u32 N_, u32 TURNS_, u32 THREADS_> struct StepShape {
    CONSTANT u32 LANES = LANES_, N = N_, TURNS = TURNS_, THREADS = THREADS_;
    CONSTANT u32 WAVES = THREADS / WAVE;
    // Positions that are taken side by side, and those of a chunk.
    CONSTANT u32 SIDE = THREADS / LANES, CHUNK = SIDE * TURNS;
    static_assert(LANES % TURNS == 0, "lanes have whole turns");
};

// What the threads pass each other.
template <class Shape> struct StepExchange {
    union {
        struct {
            f32 peaks[Shape::N][Shape::WAVES], totals[Shape::N][Shape::WAVES];
            f32 sums[Shape::N][Shape::WAVES][8 * Shape::LANES];
        } waves;
        struct {
            f32 peaks[Shape::THREADS], totals[Shape::THREADS];
            f32x4 sums[Shape::THREADS];
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
    u32 heads, D, blocks, block;
    Divisor by_D;
    u32 position, from; // seen: from … position
    u32 chunk, last;    // this block's first chunk, and the last of all
    bool alone;         // one block has everything: the result goes to `queries`
    f32 scale;
};

// The rows of a chunk that a lane multiplies. Rows outside of what is seen are replaced by one inside: finite, and
// weighted by 0. The step's own row comes from LDS.
template <class Shape>
DEVICE void load_rows(f16x8 (&rows)[Shape::TURNS], const f16* from, const StepWork& work, u32 chunk, u32 column) {
    u32 group = thread_x() / Shape::LANES;
#pragma unroll
    for (u32 t = 0; t < Shape::TURNS; t++) {
        u32 at = chunk * Shape::CHUNK + t * Shape::SIDE + group;
        at = minimum(maximum(at, work.from), work.position);
        rows[t] = halves_at(from + at * work.D + column);
    }
}
template <class Shape>
DEVICE void patch_rows(f16x8 (&rows)[Shape::TURNS], const f16* own, const StepWork& work, u32 chunk, u32 column) {
    u32 group = thread_x() / Shape::LANES;
    if (chunk != work.last)
        return;
    f16x8 row = halves_at(own + column);
#pragma unroll
    for (u32 t = 0; t < Shape::TURNS; t++)
        if (chunk * Shape::CHUNK + t * Shape::SIDE + group >= work.position)
            rows[t] = row;
}

DEVICE f32 greater(f32 a, f32 b) { return a > b ? a : b; }
constexpr u32 halvings(u32 n) { return n % 2 ? 0 : 1 + halvings(n / 2); }

// Heads `head` … of the group, up to N of them; those past the group repeat its last and store nothing. LANES lanes
// have a position's columns, eight each. `keys` and `values` are those of the first chunk, perhaps on the way; the next
// chunk's keys are on the way while this one's values are used.
//
// LANES lanes keep a running maximum of a query's scores at the positions that they have seen, which no other lanes need
// know before the end: nothing waits for a barrier in the loop. Of the N · TURNS scores of a chunk each lane has some in the
// end (deal_sums), of one turn, and for those alone it computes the weights.
template <class Shape>
DEVICE void step_heads(StepExchange<Shape>& exchange, const StepWork& work, u32 head, f16x8 (&keys)[Shape::TURNS],
                       f16x8 (&values)[Shape::TURNS]) {
    constexpr u32 N = Shape::N, LANES = Shape::LANES, TURNS = Shape::TURNS, THREADS = Shape::THREADS, WAVES = Shape::WAVES;
    // Lanes that have the scores of a turn, among which queries are dealt as far as they halve, so many to each.
    constexpr u32 OF_TURN = LANES / TURNS;
    constexpr u32 DEALT = halvings(N) < halvings(OF_TURN) ? halvings(N) : halvings(OF_TURN);
    constexpr u32 OWN = N >> DEALT, OF_OWN = OF_TURN >> DEALT;
    u32 thread = thread_x(), wave = thread / WAVE, lane = thread % WAVE, D = work.D;
    u32 column = thread % LANES * 8, group = thread / LANES, own_turn = thread % LANES / OF_TURN;
    bool live = column < D;
    u32 from_column = live ? column : 0;
    // What the lane of these LANES that has it knows of query n, of turn t if that matters.
    auto known = [&](const f32(&of_own)[OWN], u32 n, u32 t) __attribute__((always_inline)) {
        return lane_value(of_own[n % OWN], lane / LANES * LANES + t * OF_TURN + n / OWN * OF_OWN);
    };
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
    f32 sums[N][8] = {}, peaks[OWN], totals[OWN] = {};
#pragma unroll
    for (u32 i = 0; i < OWN; i++)
        peaks[i] = LEAST;
    for (u32 chunk = work.chunk; chunk <= work.last; chunk += work.blocks) {
        bool more = chunk + work.blocks <= work.last;
        patch_rows<Shape>(keys, work.new_k, work, chunk, from_column);
        f32 scores[TURNS * N];
#pragma unroll
        for (u32 t = 0; t < TURNS; t++)
#pragma unroll
            for (u32 n = 0; n < N; n++) {
                f32 sum = 0.0f;
#pragma unroll
                for (u32 i = 0; i < 8; i++)
                    sum = __builtin_fmaf(queries[n][i / 4][i % 4], (f32)keys[t][i], sum);
                scores[t * N + n] = sum;
            }
        // AMD: the next rows in any case, or waiting for the older half of what is on the way would be waiting for all
        // (gemv.hip). Rows past the last are the last.
        if (more || !NVIDIA)
            load_rows<Shape>(keys, work.k, work, chunk + work.blocks, from_column);
        deal_sums<LANES / 2, 1, TURNS * N>(scores);
        u32 at = chunk * Shape::CHUNK + own_turn * Shape::SIDE + group;
        bool seen = at >= work.from && at <= work.position;
        f32 shrinks[OWN], weights[OWN];
#pragma unroll
        for (u32 i = 0; i < OWN; i++) {
            f32 score = seen ? scores[i] : -__builtin_inff(), peak = greater(score, peaks[i]);
#pragma unroll
            for (u32 mask = OF_TURN; mask < LANES; mask <<= 1)
                peak = greater(shuffle_xor(peak, mask), peak);
            shrinks[i] = exponential(peaks[i] - peak);
            weights[i] = exponential(score - peak);
            peaks[i] = peak;
            totals[i] = totals[i] * shrinks[i] + weights[i];
        }
        patch_rows<Shape>(values, work.new_v, work, chunk, from_column);
#pragma unroll
        for (u32 n = 0; n < N; n++) {
            f32 shrink = known(shrinks, n, 0);
#pragma unroll
            for (u32 i = 0; i < 8; i++)
                sums[n][i] *= shrink;
#pragma unroll
            for (u32 t = 0; t < TURNS; t++) {
                f32 weight = known(weights, n, t);
#pragma unroll
                for (u32 i = 0; i < 8; i++)
                    sums[n][i] = __builtin_fmaf(weight, (f32)values[t][i], sums[n][i]);
            }
        }
        if (more || !NVIDIA)
            load_rows<Shape>(values, work.v, work, chunk + work.blocks, from_column);
    }
    // Turns of a query add up to a total.
#pragma unroll
    for (u32 i = 0; i < OWN; i++)
#pragma unroll
        for (u32 mask = OF_TURN; mask < LANES; mask <<= 1)
            totals[i] += shuffle_xor(totals[i], mask);
    f32 own_peaks[N];
#pragma unroll
    for (u32 n = 0; n < N; n++) {
        f32 peak = own_peaks[n] = known(peaks, n, 0);
#pragma unroll
        for (u32 mask = LANES; mask < WAVE; mask <<= 1)
            peak = greater(shuffle_xor(peak, mask), peak);
        if (lane == 0)
            exchange.waves.peaks[n][wave] = peak;
    }
    // Every wave's maxima are in LDS.
    barrier();
    auto peak_of = [&](u32 n) __attribute__((always_inline)) {
        f32 peak = LEAST;
#pragma unroll
        for (u32 w = 0; w < WAVES; w++)
            peak = greater(exchange.waves.peaks[n][w], peak);
        return peak;
    };
    // Columns of a lane after the sums over the wave.
    constexpr u32 COLUMNS = 8 * LANES / WAVE;
#pragma unroll
    for (u32 n = 0; n < N; n++) {
        f32 factor = exponential(own_peaks[n] - peak_of(n)), total = known(totals, n, 0) * factor;
#pragma unroll
        for (u32 mask = LANES; mask < WAVE; mask <<= 1)
            total += shuffle_xor(total, mask);
        if (lane == 0)
            exchange.waves.totals[n][wave] = total;
#pragma unroll
        for (u32 i = 0; i < 8; i++)
            sums[n][i] *= factor;
        deal_sums<WAVE / 2, LANES, 8>(sums[n]);
#pragma unroll
        for (u32 i = 0; i < COLUMNS; i++)
            exchange.waves.sums[n][wave][column + lane / LANES * COLUMNS + i] = sums[n][i];
    }
    // Every wave's sums are in LDS.
    barrier();
    u32 padded = pad_head(D), stride = padded + 16, count = minimum(N, work.heads - head) * D;
    for (u32 i = thread; i < count; i += THREADS) {
        u32 n = work.by_D.quotient(i), c = i - n * D;
        f32 sum = 0.0f, total = 0.0f;
#pragma unroll
        for (u32 w = 0; w < WAVES; w++) {
            sum += exchange.waves.sums[n][w][c];
            total += exchange.waves.totals[n][w];
        }
        if (work.alone) {
            work.queries[head * D + i] = sum / total;
            continue;
        }
        f32* out = work.partials + ((u64)(head + n) * work.blocks + work.block) * stride;
        out[c] = sum;
        if (c == 0) {
            out[padded] = peak_of(n);
            out[padded + 1] = total;
        }
    }
}

// Merges the partial results of `count` blocks, the first of which is block `begin`, into work.queries [heads · D], four
// columns a thread. Blocks are dealt to slices in turn; each slice keeps a running maximum, and slice 0 merges them.
template <class Shape>
DEVICE void step_merge(StepExchange<Shape>& exchange, const StepWork& work, u32 begin, u32 count) {
    constexpr u32 BATCH = 4, THREADS = Shape::THREADS;
    u32 D = work.D, padded = pad_head(D), stride = padded + 16, pieces = work.heads * D / 4, thread = thread_x();
    for (u32 done = 0; done < pieces; done += THREADS) {
        u32 across = 8;
        while (across < pieces - done && across < THREADS)
            across <<= 1;
        u32 shift = __builtin_ctz(across), slices = THREADS >> shift, slice = thread >> shift;
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

// What a launch computes: y [H · D], f32 or with `quantize` (H / G · D is then a multiple of 32) blocks; q [H · D], k and
// v [G · D], f32; table [dims / 2][2]; partials [H][blocks_x()][pad16(D) + 16]; tickets [H], 0 before and after. D is a
// multiple of 8.
struct StepArguments {
    const f32 *q, *k, *v, *table;
    f16 *kc, *vc;
    f32* partials;
    u32* tickets;
    void* y;
    u32 H, G, D, dims, style, S, window;
    f32 scale;
    u32 quantize;
};

// Heads `first` … of K/V head g, `heads` of them, by `blocks` blocks, of which this is the `block`-th.
template <class Shape>
DEVICE void serve(StepExchange<Shape>& exchange, const StepArguments& of, u32 position, u32 g, u32 first_head, u32 heads,
                  u32 block, u32 blocks) {
    constexpr u32 LANES = Shape::LANES, THREADS = Shape::THREADS, CHUNK = Shape::CHUNK;
    // Divisions, before the wait.
    u32 D = of.D, pairs = D / 2, thread = thread_x();
    StepWork work;
    work.by_D = divisor(D);
    // The pairs of all rows, of which this thread has every THREADS-th.
    u32 all = (heads + 2) * pairs;
    auto head_of = [&](u32 i) __attribute__((always_inline)) { return work.by_D.quotient(2 * i); };
    u32 first_pair = minimum(thread, all - 1), own_head = head_of(first_pair), own_pair = first_pair - own_head * pairs;
    work.position = position;
    work.queries = (f32*)pool;
    f16 *new_k = (f16*)(work.queries + heads * D), *new_v = new_k + D;
    const f32* from = of.q + (u64)first_head * D;
    // A pair of a head of the group's queries, then of k, then of v: `of_pair` is raw_pair or turned.
    auto pair_of = [&](u32 head, u32 pair, auto of_pair) __attribute__((always_inline)) {
        bool value = head > heads;
        const f32* row = head < heads ? from + head * D : (value ? of.v : of.k) + g * D;
        return of_pair(row, of.table, pair, value ? 0 : of.dims, of.style);
    };
    auto raw = [](auto... args) __attribute__((always_inline)) { return raw_pair(args...); };
    auto turn = [](auto... args) __attribute__((always_inline)) { return turned(args...); };
    // The thread's first of them: on AMD, whose loads come in order, on the way with the position, and turned when K and V
    // are on the way too.
    RawPair first_raw;
    if (!NVIDIA)
        first_raw = pair_of(own_head, own_pair, raw);
    // A recording never steps past its capacity: `position` is below S.
    work.from = first_seen(position, of.window);
    work.blocks = blocks;
    u32 first = work.from / CHUNK;
    work.last = position / CHUNK;
    // Without a window, `first` is 0 and nothing is divided.
    work.chunk = first == 0 ? block : first + (block + blocks - first % blocks) % blocks;
    // The whole block leaves, before its barriers: it has no chunk.
    if (block >= blocks || work.chunk > work.last || position >= of.S) {
        await_predecessors();
        return;
    }
    u32 count = minimum(work.last - first + 1, blocks);
    work.alone = count == 1;
    work.block = block;
    work.new_k = new_k, work.new_v = new_v;
    work.k = of.kc + (u64)g * of.S * D, work.v = of.vc + (u64)g * of.S * D;
    work.partials = of.partials + (u64)first_head * blocks * (pad_head(D) + 16);
    work.heads = heads, work.D = D, work.scale = of.scale;
    // Idle lanes load column 0 and multiply it by 0 in q; what they sum of V is not stored.
    u32 column = thread % LANES * 8 < D ? thread % LANES * 8 : 0;
    f16x8 keys[Shape::TURNS], values[Shape::TURNS];
    auto load_first = [&]() __attribute__((always_inline)) {
        load_rows<Shape>(keys, work.k, work, work.chunk, column);
        load_rows<Shape>(values, work.v, work, work.chunk, column);
    };
    load_first();
    bool appends = first_head == g * (of.H / of.G) && (work.last - work.chunk) % blocks == 0;
    await_predecessors();
    Pair own = NVIDIA ? pair_of(own_head, own_pair, turn) : turned(first_raw);
    for (u32 i = thread; i < all; i += THREADS) {
        u32 head = own_head;
        if (i != thread) {
            head = head_of(i);
            own = pair_of(head, i - head * pairs, turn);
        }
        if (head < heads) {
            work.queries[head * D + own.a] = own.x;
            work.queries[head * D + own.b] = own.y;
            continue;
        }
        bool value = head > heads;
        store_halves(value ? new_v : new_k, own);
        if (appends)
            store_halves(cache_row(value ? of.vc : of.kc, g, position, of.S, D), own);
    }
    for (u32 head = 0; head < heads; head += Shape::N) {
        if (head > 0)
            load_first();
        step_heads(exchange, work, head, keys, values);
    }
    if (!work.alone) {
        // See the head of this file.
        publish();
        barrier();
        if (thread == 0)
            exchange.ticket = take_ticket(of.tickets + first_head);
        barrier();
        if (exchange.ticket != count - 1)
            return;
        if (thread == 0)
            put_back(of.tickets + first_head);
        refresh();
        step_merge(exchange, work, first == 0 ? 0 : first % blocks, count);
    }
    // The result is in LDS.
    barrier();
    u32 columns = heads * D, before = first_head * D;
    // Whole waves, since rounding shuffles; those without columns are done.
    for (u32 i = 4 * thread; i - 4 * (thread % WAVE) < columns; i += 4 * THREADS) {
        bool live = i < columns;
        f32x4 out = *(const f32x4*)(work.queries + (live ? i : 0));
        if (of.quantize)
            quantize_block(out, (Block*)of.y + (before + i) / 32, live);
        else if (live)
            *(f32x4*)((f32*)of.y + before + i) = out;
    }
}

// Positions up to which each head of a group has blocks of its own. At 8,000 K and V come from L2 often enough for both ways
// to take as long (Llama-3-8B on an H100).
CONSTANT u32 APART = 2048;

// N queries are served at a time, by LANES lanes a position: src/gpu/geometry.rs says by which kernel.
//
// At short contexts the heads of a group go to blocks of their own, which read K and V of the group each: then it is not
// memory that takes long but one compute unit's arithmetic, and others are idle.
template <class Together, class Apart> DEVICE void attention_step(const Step* step, const StepArguments& of) {
    SHARED static union {
        StepExchange<Together> together;
        StepExchange<Apart> apart;
    } exchange;
    let_successor_begin();
    // Earlier steps have left it (common.h).
    u32 position = step->position, g = block_y(), heads = of.H / of.G, blocks = blocks_x();
    if constexpr (Together::N > 1) {
        if (position < APART && heads <= blocks && of.D % 32 == 0) {
            // Blocks of a head are `heads` apart.
            u32 block = block_x() / heads;
            serve(exchange.apart, of, position, g, g * heads + block_x() - block * heads, 1, block, blocks / heads);
            return;
        }
    }
    serve(exchange.together, of, position, g, g * heads, heads, block_x(), blocks);
}

// D up to 8 · LANES.
#define ATTENTION_STEP(name, LANES, THREADS, N, TURNS)                                                                   \
    GLOBAL THREADS_AT_MOST(THREADS) void attention_step_##name(                                                          \
        const Step* step, const f32* q, const f32* k, const f32* v, const f32* table, f16* kc, f16* vc, f32* partials,   \
        u32* tickets, void* y, u32 H, u32 G, u32 D, u32 dims, u32 style, u32 S, u32 window, f32 scale, u32 quantize) {   \
        attention_step<StepShape<LANES, N, TURNS, THREADS>, StepShape<LANES, 1, 4, THREADS>>(                            \
            step, StepArguments{q, k, v, table, kc, vc, partials, tickets, y, H, G, D, dims, style, S, window, scale,    \
                                quantize});                                                                              \
    }
ATTENTION_STEP(64x1, 8, 256, 1, 4)
ATTENTION_STEP(64x3, 8, 512, 3, 2)
ATTENTION_STEP(64x4, 8, 512, 4, 2)
ATTENTION_STEP(128x1, 16, 256, 1, 4)
ATTENTION_STEP(128x4, 16, 512, 4, 2)
ATTENTION_STEP(256x1, 32, 256, 1, 4)
ATTENTION_STEP(256x2, 32, 512, 2, 4)

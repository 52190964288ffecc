// y [N] = W [N, K] · x [K]: one row of activations, where memory is the limit.
//
// On NVIDIA two blocks of a launch and one of the next fit on an SM, so that the next has its weights fetched meanwhile.
//
// A group of `threads_x` lanes serves two rows of weights at a time (of gate and up, one each), so that an activation
// read from LDS serves both; a block has `threads_y` groups, and walks a run of rows of its own. src/gpu/geometry.rs
// chooses the numbers by shape, and the grid so that all blocks are resident at once. A lane takes a unit of a row at a
// time: a block of 32 quantised weights (16 bytes of codes, where they are nibbles) or 16 bytes of floats. AHEAD units
// of both rows are in flight per lane, across the ends of rows; the first of them, and a hint to L2 for what follows,
// before the predecessors are waited for. Integer products are exact; a block's sum becomes f32 once.
//
// What to expect of a launch, at 2.9 TB/s on an H100 and 4.1 TB/s on an MI300X, Llama-2-7B in Q4_0 (18 bytes for 32
// weights; 58 instructions for as many on sm_90, of 183 that fit while their bytes arrive):
//
// | launch | MB | MFLOP | H100, us | MI300X, us | measured on an H100, us |
// |---|---|---|---|---|---|
// | norm, q, k, v [12288, 4096] | 28.3 | 101 | 9.8 | 6.9 | |
// | o + residual [4096, 4096] | 9.4 | 34 | 3.3 | 2.3 | |
// | norm, gate, up, rounding [2 · 11008, 4096] | 50.7 | 180 | 17.5 | 12.4 | |
// | down + residual [4096, 11008] | 25.4 | 90 | 8.8 | 6.2 | |
// | norm, head [32000, 4096] | 73.7 | 262 | 25.4 | 18.0 | |
//
// Of SmolLM2-135M every launch but the head's (31 MB: 10.8 and 7.6 us) has less than 2 MB, and takes what a chain of
// latencies does: the wait, x from L2, the sum, the products, the store, 1.5 to 2 us.
//
// A norm may stand in the prologue: each block then makes the activations from x itself (rms_norm_quantize's bits),
// under the latency of the weights that it has asked for.
//
// What lies between a launch and its stream is a chain of latencies, and it costs more than anything else here: on an
// H100 every launch of Llama-2-7B took some 4.7 us more than its bytes. So nothing that could be asked for waits: the
// first load comes 46 instructions into the kernel on sm_90 (it was 164, with three divisions), all pieces of x and of
// the norm's weights are asked for at once (of 4096 columns the second half came in two more turns of a latency each),
// and no branch separates the chains of shuffles that round one piece from those of the next. By the latencies of their
// instructions that was to be 2 us a normed launch; it was 0.8 us of any (481 -> 509 tok/s). Where weights can come
// through LDS, gemv_stream.hip does better.
//
// On gfx942 the loop over Q4_0 waits for vmcnt(15), (13) and (12): of the four units in flight a lane waits for the
// oldest alone. Eight waves of a unit have 2 blocks · 4 waves · 64 lanes · 4 units · 2 rows · 18 bytes = 74 KB on the way,
// where 4.1 TB/s over 304 units at 1.5 us ask for 20.
#include "activation.h"
#include "gemv_row.h"
#include "step.h"

// All kernels are one translation unit, and these names are short.
namespace one_row {

// Rows a group serves at a time.
CONSTANT u32 ROWS = 2;
// Bytes of activations in LDS at a time: geometry.rs's STAGED_BYTES.
CONSTANT u32 STAGED_BYTES = 40960;

// Units of activations that fit in LDS: a multiple of any number of lanes.
template <class W> CONSTANT u32 STAGED = STAGED_BYTES / 16 / W::PIECES;

// The unit of each row, the last one in place of those past the end: what is loaded twice comes from a cache.
template <class W>
DEVICE void load_unit(typename W::Fragment (&f)[ROWS], const u8* const (&w)[ROWS], const Planes& p, u32 unit, u32 units) {
#pragma unroll
    for (u32 r = 0; r < ROWS; r++)
        f[r] = W::load(w[r], p, minimum(unit, units - 1));
}

// What L2 is asked for ahead of the loads: so many whole pairs of rows of each group, or bytes of its first pair's rows.
struct Hint {
    u32 pairs, bytes;
};

// Runs a job of a block. `Job` says: `turns(block)`, how many pairs of rows this group computes, the same in all groups
// of a wave, or with `block` of the whole block; `rows(turn, w)`, where the pair begins, for any turn a pair that exists;
// `hint(turn, bytes)`, which asks L2 for so much of each row; `begin()`, which may load what launches before have made;
// `finish(turn, sums)`, called by all lanes with the same sums.
//
// AMD counts the loads of a wave as they return, in order, and a wait names how many may be left. The compiler knows
// that number only where no condition stands between a load and its use; elsewhere it waits for all, and what is ahead
// is ahead no more. So loads are never left out: those past the end repeat the last pair, which a cache has, and the
// last AHEAD rounds, which load nothing, are written out after the loop.
template <class W, class Job> DEVICE void run(Job& job, const Source& source, const Hint& hint) {
    constexpr u32 AHEAD = W::AHEAD;
    let_successor_begin();
    u32 lane = thread_x(), lanes = threads_x(), units = (source.k + W::LEN - 1) / W::LEN;
    u32 thread = thread_y() * lanes + lane, threads = lanes * threads_y();
    Planes p = W::planes(units);
    // Activations that do not fit at once are staged anew for every pair of rows, with barriers: all groups take part.
    bool long_rows = units > STAGED<W>;
    u32 turns = alike(job.turns(long_rows)), rounds = turns * ((units + lanes - 1) >> __builtin_ctz(lanes));

    // What launches before have made is asked for after the wait, and so after the weights, where launches overlap;
    // elsewhere before the weights, since loads come back in order.
    Row<W, NVIDIA != 0> row;
    row.source = source, row.units = units, row.thread = thread, row.threads = threads;
    auto ask = [&]() __attribute__((always_inline)) {
        job.begin();
        if (source.norm || !long_rows)
            row.ask();
    };
    if (!NVIDIA) {
        await_predecessors();
        if (source.norm)
            row.ask_norm();
        ask();
    }
    // The loads that are ahead: of which turn, and from which unit on.
    const u8* w[ROWS];
    u32 ahead_turn = 0, ahead_unit = 0;
    typename W::Fragment f[AHEAD][ROWS];
    job.rows(0, w);
    auto load_next = [&](typename W::Fragment(&to)[ROWS]) __attribute__((always_inline)) {
        load_unit<W>(to, w, p, ahead_unit + lane, units);
        ahead_unit += lanes;
        if (ahead_unit >= units) {
            ahead_unit = 0;
            job.rows(++ahead_turn, w);
            if (lane == 0 && hint.pairs > 0 && ahead_turn + hint.pairs < turns)
                job.hint(ahead_turn + hint.pairs, job.stride);
        }
    };
#pragma unroll
    for (u32 u = 0; u < AHEAD; u++)
        load_next(f[u]);
    if (lane == 0 && hint.bytes > 0)
        job.hint(0, hint.bytes);
    if (lane == 0 && hint.pairs > 0)
        for (u32 turn = 0; turn < minimum(hint.pairs + 1, turns); turn++)
            job.hint(turn, job.stride);
    if (NVIDIA) {
        if (source.norm)
            row.ask_norm();
        await_predecessors();
        ask();
    }
    if (source.norm || !long_rows)
        row.put();
    // The activations are complete.
    barrier();

    f32 sums[ROWS] = {0.0f, 0.0f};
    u32 turn = 0, base = 0;
    auto use = [&](const typename W::Fragment(&from)[ROWS]) __attribute__((always_inline)) {
        if (long_rows && base % STAGED<W> == 0) {
            // Every thread has read the last of the activations that are about to be overwritten.
            barrier();
            row.stage(base * W::PIECES, minimum(base + STAGED<W>, units) * W::PIECES, base * W::PIECES);
            // The activations are complete.
            barrier();
        }
        u32 unit = base + lane;
        if (unit < units) {
            typename W::Input a = W::input(pool + (long_rows ? unit % STAGED<W> : unit) * W::PIECES);
#pragma unroll
            for (u32 r = 0; r < ROWS; r++)
                sums[r] += W::dot(from[r], a);
        }
    };
    auto end_round = [&]() __attribute__((always_inline)) {
        base += lanes;
        if (base < units)
            return;
#pragma unroll
        for (u32 r = 0; r < ROWS; r++)
            sums[r] = group_sum(sums[r], lanes);
        job.finish(turn, sums);
        sums[0] = sums[1] = 0.0f;
        base = 0;
        turn++;
    };
    u32 round = 0;
    for (; round + AHEAD < rounds; round += AHEAD) {
#pragma unroll
        for (u32 u = 0; u < AHEAD; u++) {
            use(f[u]);
            // What has been used makes room for the same turn of the next round.
            load_next(f[u]);
            end_round();
        }
    }
#pragma unroll
    for (u32 u = 0; u < AHEAD; u++) {
        if (round + u >= rounds)
            break;
        use(f[u]);
        end_round();
    }
}

// Of things dealt to blocks in runs, `each` to a block and one more to the first `more`: where this block's run begins, and
// how many it has. The host divides (src/gpu/gemv.rs): here it would be the longest thing before the first load.
struct Share {
    u32 each, more;

    DEVICE_MEMBER u32 first(u32& count) const {
        u32 block = block_x();
        count = each + (block < more);
        return block * each + minimum(block, more);
    }
};

// Turns until every one of `count` rows or pairs from this block's first on has a group.
DEVICE u32 turns_for(u32 count, bool block) {
    u32 groups = threads_y();
    // In a wave of several groups, a power of two of them, the first has the most to do.
    u32 in_wave = WAVE >> __builtin_ctz(threads_x());
    u32 first = block ? 0 : thread_y() & ~(in_wave - 1);
    return count > first ? (count - first + groups - 1) >> __builtin_ctz(groups) : 0;
}

// ---- Up to three matrices of one type and width over the same x, their pairs of rows one after the other ----

struct Product {
    const u8* w;
    f32* y;
    u32 n;
};

struct PlainJob {
    Product products[3];
    const f32* residual;  // [n] of the first matrix, or null
    u32 stride;           // bytes of a row
    u32 first, count;     // pairs of this block
    f32 added[ROWS];      // in this turn

    // The pair's matrix, and its first row in there.
    DEVICE_MEMBER Product find(u32 pair, u32& row) const {
        u32 pairs0 = (products[0].n + 1) / 2, pairs1 = (products[1].n + 1) / 2;
        Product found = products[0];
        if (pair >= pairs0 + pairs1) {
            found = products[2];
            pair -= pairs0 + pairs1;
        } else if (pair >= pairs0) {
            found = products[1];
            pair -= pairs0;
        }
        row = 2 * pair;
        return found;
    }
    DEVICE_MEMBER u32 turns(bool block) const { return turns_for(count, block); }
    DEVICE_MEMBER void rows(u32 turn, const u8* (&w)[ROWS]) const {
        // Groups past the end repeat the last pair, and the last row of an odd matrix is a pair of itself.
        u32 row, pair = minimum(turn * threads_y() + thread_y(), count - 1);
        Product of = find(first + pair, row);
        w[0] = row_of(of.w, stride, row);
        w[1] = row_of(of.w, stride, minimum(row + 1, of.n - 1));
    }
    DEVICE_MEMBER void hint(u32 turn, u32 bytes) const {
        const u8* w[ROWS];
        rows(turn, w);
        prefetch(w[0], bytes);
        prefetch(w[1], bytes);
    }
    DEVICE_MEMBER void begin() { load_residual(0); }
    // What is added in a turn is on the way during it. Only the first matrix is added to.
    DEVICE_MEMBER void load_residual(u32 turn) {
        if (!residual)
            return;
        u32 row = 2 * (first + minimum(turn * threads_y() + thread_y(), count - 1)), last = products[0].n - 1;
        for (u32 r = 0; r < ROWS; r++)
            added[r] = residual[minimum(row + r, last)];
    }
    DEVICE_MEMBER void finish(u32 turn, const f32 (&sums)[ROWS]) {
        u32 row, pair = turn * threads_y() + thread_y();
        if (thread_x() == 0 && pair < count) {
            Product of = find(first + pair, row);
            for (u32 r = 0; r < ROWS; r++)
                if (row + r < of.n)
                    of.y[row + r] = residual ? sums[r] + added[r] : sums[r];
        }
        load_residual(turn + 1);
    }
};

// y_i [n_i] = w_i [n_i, k] · x (+ residual [n0] to the first). Matrices after the first may have no rows.
template <class W>
DEVICE void gemv(const Source& source, const Product (&products)[3], u32 w_stride, const f32* residual, const Share& share,
                 const Hint& hint) {
    PlainJob job;
    for (u32 i = 0; i < 3; i++)
        job.products[i] = products[i];
    job.residual = residual;
    job.added[0] = job.added[1] = 0.0f;
    job.stride = w_stride;
    job.first = share.first(job.count);
    // The launch has at most as many blocks as pairs: there is always one.
    run<W>(job, source, hint);
}

// ---- y [n] = activation(gate [n, k] · x) · (up [n, k] · x), as f32 or as blocks ----

// Groups that a block has at most: one a row of a run.
CONSTANT u32 GROUPS = THREADS / 8;
static_assert(GROUPS == 32, "a turn is at most one block of activations");

struct GatedJob {
    const u8* gate;
    const u8* up;
    void* y;
    u32 stride, n, activation;
    bool quantize;      // y is blocks: a block of threads then has whole runs of 32 rows
    u32 first, count;   // rows of this block of threads; past n there are none
    f32 (*made)[GROUPS];  // [2]: results of a run of 32 rows

    DEVICE_MEMBER void begin() {}
    DEVICE_MEMBER u32 turns(bool block) const { return turns_for(count, block || quantize); }
    DEVICE_MEMBER void rows(u32 turn, const u8* (&w)[ROWS]) const {
        u32 row = minimum(first + turn * threads_y() + thread_y(), n - 1);
        w[0] = row_of(gate, stride, row);
        w[1] = row_of(up, stride, row);
    }
    DEVICE_MEMBER void hint(u32 turn, u32 bytes) const {
        const u8* w[ROWS];
        rows(turn, w);
        prefetch(w[0], bytes);
        prefetch(w[1], bytes);
    }
    DEVICE_MEMBER void finish(u32 turn, const f32 (&sums)[ROWS]) {
        u32 at = turn * threads_y() + thread_y(), row = first + at;
        bool stores = thread_x() == 0 && at < count;
        f32 value = stores && row < n ? activated(sums[0], activation) * sums[1] : 0.0f;
        if (!quantize) {
            if (stores && row < n)
                ((f32*)y)[row] = value;
            return;
        }
        // Results of two runs have room, so that one barrier is enough: before a run is written again, all threads have
        // passed the barrier after the run between.
        u32 end = (turn + 1) * threads_y(), run = (end - 1) / 32;
        f32* results = made[run & 1];
        if (thread_x() == 0)
            results[at % 32] = value;
        if (end % 32 != 0)
            return;
        // The results of the run are complete.
        barrier();
        // One wave rounds: its first 8 lanes have the values, the others shuffle along.
        u32 thread = thread_y() * threads_x() + thread_x();
        if (thread < WAVE)
            quantize_block(*(const f32x4*)(results + 4 * (thread % 8)), (Block*)y + first / 32 + run, thread < 8);
    }
};

template <class W>
DEVICE void gated_gemv(const Source& source, const u8* gate, const u8* up, u32 w_stride, void* y, u32 n, u32 activation,
                       bool quantize, const Share& share, const Hint& hint) {
    SHARED static f32 made[2][GROUPS] __attribute__((aligned(16)));
    GatedJob job;
    job.gate = gate, job.up = up, job.y = y, job.stride = w_stride, job.n = n, job.activation = activation;
    job.quantize = quantize, job.made = made;
    u32 unit = quantize ? 32 : 1;
    job.first = share.first(job.count) * unit;
    job.count *= unit;
    run<W>(job, source, hint);
}

// x is one row of blocks for quantised types, of f32 for floats; with `norm` it is f32 and normalised first. Rows that
// do not fit in LDS at once are never normalised here (src/pass/norm.rs). What is shared: pairs of rows; rows, or with
// `quantize` runs of 32. The step is not used.
#define GEMV_KERNELS(name, Type)                                                                                       \
    GLOBAL THREADS_AND_BLOCKS(THREADS, Type::RESIDENT) void gemv_##name(                                               \
        const Step*, const void* x, const f32* norm, f32 eps, u32 k, const u8* w0, f32* y0, u32 n0, const u8* w1,      \
        f32* y1, u32 n1, const u8* w2, f32* y2, u32 n2, u32 w_stride, const f32* residual, u32 each, u32 more,         \
        u32 hint_pairs, u32 hint_bytes) {                                                                              \
        const Product products[3] = {{w0, y0, n0}, {w1, y1, n1}, {w2, y2, n2}};                                        \
        gemv<Type>(Source{x, norm, eps, k}, products, w_stride, residual, Share{each, more},                           \
                   Hint{hint_pairs, hint_bytes});                                                                      \
    }                                                                                                                  \
    GLOBAL THREADS_AND_BLOCKS(THREADS, Type::RESIDENT) void gated_gemv_##name(                                         \
        const Step*, const void* x, const f32* norm, f32 eps, u32 k, const u8* gate, const u8* up, u32 w_stride,       \
        void* y, u32 n, u32 activation, u32 quantize, u32 each, u32 more, u32 hint_pairs, u32 hint_bytes) {            \
        gated_gemv<Type>(Source{x, norm, eps, k}, gate, up, w_stride, y, n, activation, quantize != 0,                 \
                         Share{each, more}, Hint{hint_pairs, hint_bytes});                                             \
    }

EACH_QUANTIZED(GEMV_KERNELS)
EACH_FLOAT(GEMV_KERNELS)

}  // namespace one_row

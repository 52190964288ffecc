// Causal attention over an f16 cache, out [H, D] = softmax(scale · q Kᵀ) · V, without storing the scores: the twin of
// src/cpu/attention. K and V are [G, S, D]; H / G query heads share a K/V head, and K and V are read once for all of them
// (four at a time). D is a multiple of 8, at most 256.
//
// A block of threads serves up to four queries of one K/V head. A group of lanes, as many as a row of K has 16-byte
// pieces, takes four positions at a time: eight loads are in flight, each lane multiplies its eight columns, the group
// sums, and a running maximum, sum and weighted sum are kept per query. Groups are merged at the end, in a fixed order.
// Positions past a query's own are never read: the cache's tail may hold anything.
#include "block.h"
#include "step.h"

CONSTANT u32 THREADS_ATTENTION = 256;
CONSTANT u32 WAVES_ATTENTION = THREADS_ATTENTION / WAVE;
CONSTANT u32 QUERIES = 4;
CONSTANT u32 POSITIONS = 4;
CONSTANT u32 MAX_HEAD = 256;
// The least maximum: finite, so that a difference of maxima is never ∞ − ∞, and weights of what was not seen are 0.
CONSTANT f32 LEAST = -3.402823466e38f;

// What a query has summed: relative to its maximum.
struct Running {
    f32 peak, total;
    f32 v[8];
};

DEVICE f16x8 halves_at(const f16* at) { return __builtin_bit_cast(f16x8, *(const u32x4*)at); }

// The rows of a K/V head, read eight elements at a time.
struct Halves {
    typedef f16x8 Eight;
    const f16* at;
    inline __attribute__((device, always_inline)) Eight load(u64 element) const { return halves_at(at + element); }
    MEMBER f32 value(const Eight& eight, u32 i) { return (f32)eight[i]; }
};

// What a block works on: N queries of the K/V head whose rows k and v [S, D] are.
template <u32 N, class Cache> struct Work {
    const f32* q[N];  // [D] each
    u32 from[N];      // the first position each sees
    u32 to[N];        // one past the last
    Cache k, v;
    u32 first, end;   // positions walked: all that any sees
    u32 D;
    f32 scale;
};

// Lanes to a position: a power of two, from 1 to 32.
DEVICE u32 lanes_per_position(u32 D) {
    u32 lanes = 1;
    while (8 * lanes < D)
        lanes <<= 1;
    return lanes;
}

DEVICE f32 lanes_sum(f32 x, u32 lanes) {
    for (u32 mask = 1; mask < lanes; mask <<= 1)
        x += shuffle_xor(x, mask);
    return x;
}

// Adds `other`, relative to its own maximum, to `to`.
DEVICE void merge(f32& peak, f32& total, f32 (&v)[8], f32 other_peak, f32 other_total, const f32 (&other)[8]) {
    f32 greatest = other_peak > peak ? other_peak : peak;
    f32 mine = exponential(peak - greatest), theirs = exponential(other_peak - greatest);
    peak = greatest;
    total = total * mine + other_total * theirs;
#pragma unroll
    for (u32 i = 0; i < 8; i++)
        v[i] = v[i] * mine + other[i] * theirs;
}

// Walks the positions; afterwards every lane of a wave holds the wave's result for its columns.
template <u32 N, class Cache> DEVICE void walk(const Work<N, Cache>& work, Running (&running)[N]) {
    u32 lanes = lanes_per_position(work.D), groups = THREADS_ATTENTION / lanes;
    u32 column = thread_x() % lanes * 8, group = thread_x() / lanes;
    bool live = column < work.D;
    f32 q[N][8];
#pragma unroll
    for (u32 n = 0; n < N; n++) {
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
            q[n][i] = live ? work.q[n][column + i] * work.scale : 0.0f;
            running[n].v[i] = 0.0f;
        }
        running[n].peak = LEAST;
        running[n].total = 0.0f;
    }
    // All groups take as many turns, since sums shuffle; what a group has not is masked.
    for (u32 base = work.first; base < work.end; base += groups * POSITIONS) {
        typename Cache::Eight keys[POSITIONS], values[POSITIONS];
#pragma unroll
        for (u32 p = 0; p < POSITIONS; p++) {
            // Past the end, the last position again: finite, and weighted by 0.
            u32 at = minimum(base + p * groups + group, work.end - 1);
            keys[p] = values[p] = typename Cache::Eight{};
            if (live) {
                keys[p] = work.k.load((u64)at * work.D + column);
                values[p] = work.v.load((u64)at * work.D + column);
            }
        }
#pragma unroll
        for (u32 n = 0; n < N; n++) {
            f32 scores[POSITIONS], peak = running[n].peak;
#pragma unroll
            for (u32 p = 0; p < POSITIONS; p++) {
                f32 sum = 0.0f;
#pragma unroll
                for (u32 i = 0; i < 8; i++)
                    sum = __builtin_fmaf(q[n][i], Cache::value(keys[p], i), sum);
                scores[p] = lanes_sum(sum, lanes);
                u32 at = base + p * groups + group;
                if (at < work.from[n] || at >= work.to[n])
                    scores[p] = -__builtin_inff();
                peak = scores[p] > peak ? scores[p] : peak;
            }
            f32 shrink = exponential(running[n].peak - peak);
            running[n].peak = peak;
            running[n].total *= shrink;
#pragma unroll
            for (u32 i = 0; i < 8; i++)
                running[n].v[i] *= shrink;
#pragma unroll
            for (u32 p = 0; p < POSITIONS; p++) {
                f32 weight = exponential(scores[p] - peak);
                running[n].total += weight;
#pragma unroll
                for (u32 i = 0; i < 8; i++)
                    running[n].v[i] = __builtin_fmaf(weight, Cache::value(values[p], i), running[n].v[i]);
            }
        }
    }
#pragma unroll
    for (u32 n = 0; n < N; n++)
        for (u32 mask = lanes; mask < WAVE; mask <<= 1) {
            f32 other[8];
#pragma unroll
            for (u32 i = 0; i < 8; i++)
                other[i] = shuffle_xor(running[n].v[i], mask);
            f32 peak = shuffle_xor(running[n].peak, mask), total = shuffle_xor(running[n].total, mask);
            merge(running[n].peak, running[n].total, running[n].v, peak, total, other);
        }
}

// A wave's result for one query, in LDS.
struct Merged {
    f32 v[MAX_HEAD];
    f32 peak, total;
};

// Merges the waves' results for query n: thread t gets column t of the sum, and the maximum and the sum of weights.
DEVICE f32 merge_waves(const Running& running, u32 D, f32& peak, f32& total) {
    SHARED static Merged merged[WAVES_ATTENTION];
    u32 thread = thread_x(), lane = thread % WAVE, lanes = lanes_per_position(D);
    Merged& mine = merged[thread / WAVE];
    // The results of the query before this one have been read by all.
    barrier();
    if (lane < lanes && lane * 8 < D)
#pragma unroll
        for (u32 i = 0; i < 8; i++)
            mine.v[lane * 8 + i] = running.v[i];
    if (lane == 0) {
        mine.peak = running.peak;
        mine.total = running.total;
    }
    // Every wave's results are in LDS.
    barrier();
    peak = LEAST;
    for (u32 w = 0; w < WAVES_ATTENTION; w++)
        peak = merged[w].peak > peak ? merged[w].peak : peak;
    f32 sum = 0.0f;
    total = 0.0f;
    for (u32 w = 0; w < WAVES_ATTENTION; w++) {
        f32 factor = exponential(merged[w].peak - peak);
        total = __builtin_fmaf(merged[w].total, factor, total);
        if (thread < D)
            sum = __builtin_fmaf(merged[w].v[thread], factor, sum);
    }
    return sum;
}

DEVICE u32 pad_head(u32 D) { return (D + 15) & ~15u; }
// The first position seen from `position`.
DEVICE u32 first_seen(u32 position, u32 window) {
    return window && position + 1 > window ? position + 1 - window : 0;
}

// ---- One row: a block a K/V head (block_y) and a split of the capacity (block_x) ----

// What the threads of attention_split pass each other, for CHUNK positions of up to QUERIES queries.
CONSTANT u32 CHUNK = 64;
struct Exchange {
    f32 scores[QUERIES][CHUNK];  // then the weights
    f32 shrink[QUERIES];
    f32 sums[QUERIES][WAVES_ATTENTION][MAX_HEAD];
};

// Heads `head` … of the group, up to N of them; those past the group repeat its last and store nothing. LANES lanes
// have a position's columns, eight each, and every K and V row of a chunk is loaded before any is used.
template <u32 N, u32 LANES>
DEVICE void split_heads(Exchange& exchange, const f32* q, const f16* k, const f16* v, f32* partials, u32 head, u32 heads, u32 from, u32 to,
                        u32 D, f32 scale, u32 splits, u32 split_index) {
    constexpr u32 GROUPS = THREADS_ATTENTION / LANES, TURNS = CHUNK / GROUPS;
    static_assert(GROUPS * TURNS == CHUNK && N <= WAVES_ATTENTION, "a thread has whole positions, a query a wave");
    u32 thread = thread_x(), wave = thread / WAVE, lane = thread % WAVE;
    u32 column = thread % LANES * 8, group = thread / LANES;
    bool live = column < D;
    // Idle lanes load column 0 and multiply it by 0 in q; what they sum of V is not stored.
    u32 from_column = live ? column : 0;
    f32x4 queries[N][2];
    f32 sums[N][8];
    // The wave's own query, when it has one: the same in all its lanes.
    f32 peak = LEAST, total = 0.0f;
    for (u32 base = from; base < to; base += CHUNK) {
        f16x8 keys[TURNS], values[TURNS];
#pragma unroll
        for (u32 t = 0; t < TURNS; t++) {
            // Past the end, the last position again: finite, and weighted by 0.
            u32 at = minimum(base + t * GROUPS + group, to - 1) * D + from_column;
            keys[t] = halves_at(k + at);
            values[t] = halves_at(v + at);
        }
        if (base == from) {
#pragma unroll
            for (u32 n = 0; n < N; n++) {
                const f32x4* at = (const f32x4*)(q + minimum(head + n, heads - 1) * D + from_column);
                f32 factor = live ? scale : 0.0f;
                queries[n][0] = at[0] * factor;
                queries[n][1] = at[1] * factor;
            }
        } else {
            // The weights of the chunk before have been read by all.
            barrier();
        }
#pragma unroll
        for (u32 n = 0; n < N; n++)
#pragma unroll
            for (u32 t = 0; t < TURNS; t++) {
                f32 sum = 0.0f;
#pragma unroll
                for (u32 i = 0; i < 8; i++)
                    sum = __builtin_fmaf(queries[n][i / 4][i % 4], (f32)keys[t][i], sum);
                sum = group_sum(sum, LANES);
                u32 at = t * GROUPS + group;
                if (column == 0)
                    exchange.scores[n][at] = base + at < to ? sum : -__builtin_inff();
            }
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
            if (lane == 0)
                exchange.shrink[wave] = shrink;
            total = total * shrink + group_sum(weights, WAVE);
            peak = greatest;
        }
        // The weights are complete.
        barrier();
#pragma unroll
        for (u32 n = 0; n < N; n++) {
            f32 shrink = base == from ? 0.0f : exchange.shrink[n];
#pragma unroll
            for (u32 i = 0; i < 8; i++)
                sums[n][i] = base == from ? 0.0f : sums[n][i] * shrink;
#pragma unroll
            for (u32 t = 0; t < TURNS; t++) {
                f32 weight = exchange.scores[n][t * GROUPS + group];
#pragma unroll
                for (u32 i = 0; i < 8; i++)
                    sums[n][i] = __builtin_fmaf(weight, (f32)values[t][i], sums[n][i]);
            }
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
    u32 padded = pad_head(D), stride = padded + 16;
    partials += ((u64)head * splits + split_index) * stride;
    if (wave < N && lane == 0 && head + wave < heads) {
        f32* out = partials + (u64)wave * splits * stride + padded;
        out[0] = peak;
        out[1] = total;
    }
    // Every wave's sums are in LDS.
    barrier();
    u32 count = minimum(N, heads - head) * padded;
    for (u32 i = thread; i < count; i += THREADS_ATTENTION) {
        u32 n = i / padded, c = i % padded;
        f32 sum = 0.0f;
#pragma unroll
        for (u32 w = 0; w < WAVES_ATTENTION; w++)
            sum += exchange.sums[n][w][minimum(c, D - 1)];
        partials[(u64)n * splits * stride + c] = c < D ? sum : 0.0f;
    }
}

// All heads of a group, up to QUERIES at a time.
template <u32 LANES>
DEVICE void split_group(Exchange& exchange, const f32* q, const f16* k, const f16* v, f32* partials, u32 heads, u32 from, u32 to, u32 D,
                        f32 scale, u32 splits) {
    if (heads == 1)
        split_heads<1, LANES>(exchange, q, k, v, partials, 0, heads, from, to, D, scale, splits, block_x());
    else if (heads == 3)
        split_heads<3, LANES>(exchange, q, k, v, partials, 0, heads, from, to, D, scale, splits, block_x());
    else
        for (u32 head = 0; head < heads; head += QUERIES) {
            // What the heads before left in LDS has been read by all.
            if (head > 0)
                barrier();
            split_heads<QUERIES, LANES>(exchange, q, k, v, partials, head, heads, from, to, D, scale, splits, block_x());
        }
}

// partials [H][splits][pad16(D) sums | maximum | sum of weights | padding to + 16] of q [H, D], over the positions of
// split block_x: `split` positions each, ⌈S / split⌉ splits. Only splits that the step's position sees are written.
GLOBAL THREADS_AT_MOST(THREADS_ATTENTION) void attention_split(const Step* step, const f32* q, const f16* kc, const f16* vc,
                                                               f32* partials, u32 H, u32 G, u32 D, u32 S, u32 split,
                                                               u32 window, f32 scale) {
    begin_in_turn();
    u32 position = step->position, g = block_y(), group = H / G;
    u32 from = maximum(block_x() * split, first_seen(position, window));
    u32 to = minimum(minimum((block_x() + 1) * split, position + 1), S);
    // The whole block leaves, before its barriers: nothing of this split is seen.
    if (from >= to)
        return;
    u32 splits = (S + split - 1) / split;
    const f16 *k = kc + (u64)g * S * D, *v = vc + (u64)g * S * D;
    q += (u64)g * group * D;
    partials += (u64)g * group * splits * (pad_head(D) + 16);
    SHARED static Exchange exchange;
    // At least 8 lanes to a position, so that a chunk has as many as the other sizes'.
    if (D <= 64)
        split_group<8>(exchange, q, k, v, partials, group, from, to, D, scale, splits);
    else if (D <= 128)
        split_group<16>(exchange, q, k, v, partials, group, from, to, D, scale, splits);
    else
        split_group<32>(exchange, q, k, v, partials, group, from, to, D, scale, splits);
}

// ---- Merging the splits: 8 lanes with 4 columns each, and 32 slices of the splits ----

CONSTANT u32 SLICES = 32;

// Columns c … c + 3 of out [H · D], in slice 0's threads; zeros past the end. D being a multiple of 8, they are one head's.
DEVICE f32x4 combined(const Step* step, const f32* partials, u32 H, u32 D, u32 S, u32 split, u32 window) {
    SHARED static f32 peaks[SLICES][8];
    SHARED static f32 totals[SLICES][8];
    SHARED static f32x4 sums[SLICES][8];
    u32 padded = pad_head(D), stride = padded + 16, splits = (S + split - 1) / split;
    u32 position = step->position, x = thread_x(), slice = thread_y();
    u32 first = first_seen(position, window) / split, end = minimum(position / split + 1, splits);
    u32 column = block_x() * 32 + x * 4, head = column / D;
    f32 peak = LEAST, total = 0.0f;
    f32x4 sum = 0.0f;
    if (head < H)
        for (u32 s = first + slice; s < end; s += SLICES) {
            const f32* at = partials + ((u64)head * splits + s) * stride;
            f32x4 v = *(const f32x4*)(at + column % D);
            f32 other = at[padded], greatest = other > peak ? other : peak;
            f32 mine = exponential(peak - greatest), theirs = exponential(other - greatest);
            peak = greatest;
            total = total * mine + at[padded + 1] * theirs;
            sum = sum * mine + v * theirs;
        }
    peaks[slice][x] = peak;
    totals[slice][x] = total;
    sums[slice][x] = sum;
    // Every slice is in LDS.
    barrier();
    if (slice != 0)
        return 0.0f;
    u32 used = minimum(end - first, SLICES);
    peak = LEAST;
    for (u32 s = 0; s < used; s++)
        peak = peaks[s][x] > peak ? peaks[s][x] : peak;
    total = 0.0f;
    sum = 0.0f;
    for (u32 s = 0; s < used; s++) {
        f32 factor = exponential(peaks[s][x] - peak);
        total += totals[s][x] * factor;
        sum += sums[s][x] * factor;
    }
    return head < H ? sum / total : 0.0f;
}

// y [H · D] f32 from what attention_split wrote for the same position.
GLOBAL THREADS_AT_MOST(256) void attention_combine(const Step* step, const f32* partials, f32* y, u32 H, u32 D, u32 S,
                                                   u32 split, u32 window) {
    begin_in_turn();
    f32x4 out = combined(step, partials, H, D, S, split, window);
    if (thread_y() == 0)
        store4(y, block_x() * 32 + thread_x() * 4, H * D, out);
}

// y [⌈H · D / 32⌉] blocks.
GLOBAL THREADS_AT_MOST(256) void attention_combine_quantize(const Step* step, const f32* partials, Block* y, u32 H, u32 D,
                                                            u32 S, u32 split, u32 window) {
    begin_in_turn();
    f32x4 out = combined(step, partials, H, D, S, split, window);
    quantize_block(out, y + block_x(), thread_y() == 0);
}

// ---- Many rows: a block a K/V head (block_y) and four queries (block_x), a query being a row and one of its heads ----

// y [rows, H · D] of q [rows, H · D]; row r stands at the step's position + r and sees the positions up to its own, or
// the last `window` of them.
template <class Cache>
DEVICE void attend_rows(const Step* step, const f32* q, u32 q_stride, Cache k, Cache v, f32* y, u32 y_stride, u32 H, u32 G,
                        u32 D, u32 S, u32 window, f32 scale, u32 rows) {
    u32 g = block_y(), group = H / G, queries = live_rows(step, rows) * group, first = block_x() * QUERIES;
    // The whole block leaves, before its barriers.
    if (first >= queries)
        return;
    Work<QUERIES, Cache> work;
    work.first = S;
    work.end = 0;
#pragma unroll
    for (u32 n = 0; n < QUERIES; n++) {
        // Queries past the end repeat the last and store nothing.
        u32 query = minimum(first + n, queries - 1), r = query / group, position = step->position + r;
        work.q[n] = row_of(q, q_stride, r) + (g * group + query % group) * D;
        work.from[n] = first_seen(position, window);
        work.to[n] = minimum(position + 1, S);
        work.first = minimum(work.first, work.from[n]);
        work.end = maximum(work.end, work.to[n]);
    }
    work.k = k, work.v = v, work.D = D, work.scale = scale;
    Running running[QUERIES];
    walk(work, running);
#pragma unroll
    for (u32 n = 0; n < QUERIES; n++) {
        f32 peak, total;
        f32 sum = merge_waves(running[n], D, peak, total);
        u32 query = first + n;
        if (query < queries && thread_x() < D)
            row_of(y, y_stride, query / group)[(g * group + query % group) * D + thread_x()] = sum / total;
    }
}
GLOBAL THREADS_AT_MOST(THREADS_ATTENTION) void attention_rows(const Step* step, const f32* q, u32 q_stride, const f16* kc,
                                                              const f16* vc, f32* y, u32 y_stride, u32 H, u32 G, u32 D,
                                                              u32 S, u32 window, f32 scale, u32 rows) {
    u64 head = (u64)block_y() * S * D;
    attend_rows(step, q, q_stride, Halves{kc + head}, Halves{vc + head}, y, y_stride, H, G, D, S, window, scale, rows);
}

// The ends of a step: setting or fetching it, and choosing the token that follows; and reading memory for its own sake.
//
// What is chosen is defined in src/sampler/mod.rs, whose twin computes it on the host; here are only other ways to the
// same token. Everything that is summed is an integer, so that no order matters.
//
// | kernel | reads | writes |
// |---|---|---|
// | step_set | its arguments | the shared step, one word of the history |
// | step_fetch | the step in host memory | the recording's step, a word of the history a row |
// | rule_set | its arguments | the rule |
// | sample_scan | step, rule, history, logits | scores (unless greedy), firsts |
// | sample_choose | step, rule, firsts, scores | the shared step, one word of the history, one slot of the ring |
//
// sample_choose changes the step: nothing of the replay may still read it then, so that in a recording it comes after
// everything else is over, and not only its own inputs.
#include "step.h"

// All kernels are one translation unit, and these names are short.
namespace sampling {

// How tokens are chosen, as src/sampler/rule.rs gives it.
struct Rule {
    u32 flags;
    u32 top_k;                // 0: all
    u32 top_p[2];             // low and high half, of 2^64
    f32 inverse_temperature;
    f32 floor;                // of a logit less the largest
    f32 repeat_penalty;
    f32 frequency_penalty;
    f32 presence_penalty;
    u32 repeat_last_n;        // 0: no penalties
    u32 seed[2];
};
static_assert(sizeof(Rule) == 48, "as RULE_WORDS says");
enum { GREEDY = 1, TOP_P = 2 };

// What is said in place of a token: a logit was NaN or infinite; all were minus infinity.
CONSTANT u32 BAD_LOGIT = 0xffffffffu, NO_CANDIDATE = 0xfffffffeu;

// Slots of the ring, a power of two: as many tokens may be queued since the last that the host has read.
CONSTANT u32 RING = 64;

// Logits that a wave of sample_scan looks at: one load of four a lane. And those of a block of 256 threads.
CONSTANT u32 CHUNK = 4 * WAVE, BLOCK = 1024;
// Threads of sample_choose.
CONSTANT u32 CHOOSERS = 1024, WAVES = CHOOSERS / WAVE;
// Bins of a histogram: two a thread.
CONSTANT u32 BINS = 2 * CHOOSERS;
// Tokens that are compared each with each, where no more are left.
CONSTANT u32 LIST = 512;

// ---- The step ----

// Makes the shared step `token` at `position`. Arguments and not a copy: they are taken when the launch is queued, so
// that nothing the host writes later can overtake a replay.
GLOBAL THREADS_AT_MOST(64) void step_set(Step* step, u32 position, u32 token, u32* history) {
    if (thread_x() == 0) {
        step->position = position;
        step->rows = 1;
        step->tokens[0] = token;
        history[position] = token;
    }
}

// Copies the step from pinned host memory, written before the replay was launched, to device memory: a kernel, because
// memory nodes in a recording have read stale values. `volatile`: no earlier replay's cached words.
GLOBAL THREADS_AT_MOST(64) void step_fetch(const volatile u32* host, u32* device, u32 rows, u32* history) {
    begin_in_turn();
    u32 head = sizeof(Step) / 4, position = host[0], live = host[1];
    for (u32 i = thread_x(); i < head + rows; i += threads_x()) {
        u32 word = host[i];
        device[i] = word;
        if (i >= head && i - head < live)
            history[position + i - head] = word;
    }
}

GLOBAL THREADS_AT_MOST(64) void rule_set(Rule* rule, u32 flags, u32 top_k, u32 p_low, u32 p_high, u32 inverse,
                                         u32 floor, u32 repeat, u32 frequency, u32 presence, u32 last_n, u32 seed_low,
                                         u32 seed_high) {
    if (thread_x() == 0) {
        rule->flags = flags;
        rule->top_k = top_k;
        rule->top_p[0] = p_low, rule->top_p[1] = p_high;
        rule->inverse_temperature = float_of(inverse);
        rule->floor = float_of(floor);
        rule->repeat_penalty = float_of(repeat);
        rule->frequency_penalty = float_of(frequency);
        rule->presence_penalty = float_of(presence);
        rule->repeat_last_n = last_n;
        rule->seed[0] = seed_low, rule->seed[1] = seed_high;
    }
}

// ---- Order and weight ----

// A token's place as one integer, the greater the earlier: by logit, then the lower index. Never 0.
DEVICE u64 place_of(f32 x, u32 at) {
    u32 bits = bits_of(x);
    u32 key = bits >> 31 ? ~bits : bits | 0x80000000u;
    return (u64)key << 32 | ~at;
}
DEVICE f32 logit_of(u64 place) {
    u32 key = (u32)(place >> 32);
    return float_of(key >> 31 ? key & 0x7fffffffu : ~key);
}
DEVICE u32 token_of(u64 place) { return ~(u32)place; }

// 2^40 times x, for x in 0 .. 1, rounded down.
DEVICE u64 fixed(f32 x) {
    u32 bits = bits_of(x), exponent = bits >> 23;
    u64 mantissa = (bits & 0x7fffffu) | 0x800000u;
    return exponent >= 110 ? mantissa << (exponent - 110) : (exponent > 86 ? mantissa >> (110 - exponent) : 0);
}
DEVICE u64 weight(f32 x, f32 max, f32 inverse) { return fixed(exponential((x - max) * inverse)); }

// The upper half of a product.
DEVICE u64 share(u64 a, u64 b) {
    u64 al = (u32)a, ah = a >> 32, bl = (u32)b, bh = b >> 32;
    u64 middle = al * bl >> 32;
    u64 left = ah * bl + middle, right = al * bh + (u32)left;
    return ah * bh + (left >> 32) + (right >> 32);
}

// ---- Randomness ----

DEVICE u32 rotate(u32 x, u32 by) { return x << by | x >> (32 - by); }
DEVICE void quarter(u32& a, u32& b, u32& choice, u32& d) {
    a += b, d = rotate(d ^ a, 16);
    choice += d, b = rotate(b ^ choice, 12);
    a += b, d = rotate(d ^ a, 8);
    choice += d, b = rotate(b ^ choice, 7);
}
// 64-bit word `number` of ChaCha8 (D. J. Bernstein) under the key of a seed: eight words a block of the cipher.
DEVICE u64 random_word(u32 seed_low, u32 seed_high, u32 number) {
    u32 start[16] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574, seed_low, seed_high};
    start[12] = number / 8;
    u32 x[16];
#pragma unroll
    for (u32 i = 0; i < 16; i++)
        x[i] = start[i];
    for (u32 round = 0; round < 8; round += 2) {
        quarter(x[0], x[4], x[8], x[12]);
        quarter(x[1], x[5], x[9], x[13]);
        quarter(x[2], x[6], x[10], x[14]);
        quarter(x[3], x[7], x[11], x[15]);
        quarter(x[0], x[5], x[10], x[15]);
        quarter(x[1], x[6], x[11], x[12]);
        quarter(x[2], x[7], x[8], x[13]);
        quarter(x[3], x[4], x[9], x[14]);
    }
    u64 word = 0;
    // Indices that are known keep the block in registers.
#pragma unroll
    for (u32 i = 0; i < 8; i++)
        if (number % 8 == i)
            word = (u64)(x[2 * i + 1] + start[2 * i + 1]) << 32 | (x[2 * i] + start[2 * i]);
    return word;
}

// ---- Choosing ----

// What a wave found in its chunk.
struct First {
    // Of the token that comes first.
    u64 place;
    // The first bad logit, n if there is none, and its bits.
    u32 bad, bad_bits;
};

// The logit of a token that occurred lately, `count` times. Multiply-adds are spelt out, so that what the compiler would
// contract changes nothing.
DEVICE f32 penalised(const Rule* rule, f32 x, u32 count) {
    f32 off = __builtin_fmaf((f32)count, rule->frequency_penalty, rule->presence_penalty);
    return x > 0.0f ? x / rule->repeat_penalty - off : __builtin_fmaf(x, rule->repeat_penalty, -off);
}

// A wave a CHUNK of logits [n]: penalises what occurred lately, and finds the first token and the first bad logit.
GLOBAL THREADS_AT_MOST(256) void sample_scan(const Step* step, u32 rows, const f32* logits, u32 n, const Rule* rule,
                                             const u32* history, f32* scores, First* firsts) {
    begin_in_turn();
    // How often each token of the block occurred lately.
    SHARED static u32x4 counts[BLOCK / 4];
    u32 base = block_x() * BLOCK, i = base + 4 * thread_x();
    f32x4 v = load4(logits, i, n);
    u32 window = rule->repeat_last_n;
    if (window > 0) {
        counts[thread_x()] = 0;
        // The counts are zeros before any token is counted.
        barrier();
        u32 end = step->position + live_rows(step, rows);
        for (u32 at = end - minimum(window, end) + thread_x(); at < end; at += threads_x()) {
            u32 token = history[at] - base;
            if (token < BLOCK)
                __atomic_fetch_add((u32*)counts + token, 1u, __ATOMIC_RELAXED);
        }
        // All tokens are counted before any count is read.
        barrier();
        u32x4 own = counts[thread_x()];
        for (u32 j = 0; j < 4; j++)
            if (own[j] > 0)
                v[j] = penalised(rule, v[j], own[j]);
    }
    u64 place = 0;
    u32 bad = n;
    for (u32 j = 0; j < 4; j++) {
        // Minus zero becomes zero, to which it is equal.
        v[j] += 0.0f;
        if (i + j < n) {
            u64 other = place_of(v[j], i + j);
            place = other > place ? other : place;
            if (!(v[j] < __builtin_inff()))
                bad = minimum(bad, i + j);
        }
    }
    if (!(rule->flags & GREEDY))
        store4(scores, i, n, v);
    u32 own_bad = bad;
    for (u32 mask = 1; mask < WAVE; mask <<= 1) {
        u64 other = shuffle_xor(place, mask);
        place = other > place ? other : place;
        bad = minimum(bad, shuffle_xor(bad, mask));
    }
    // Whoever has the bad logit speaks for the wave, else its first lane; a wave beyond the row has nothing to say.
    if (i / CHUNK * CHUNK < n && (bad < n ? own_bad == bad : thread_x() % WAVE == 0)) {
        f32 bad_logit = 0.0f;
        for (u32 j = 0; j < 4; j++)
            bad_logit = i + j == bad ? v[j] : bad_logit;
        firsts[i / CHUNK] = {place, bad, bits_of(bad_logit)};
    }
}

// What the threads of sample_choose share.
struct Choice {
    u64 weights[BINS];
    u32 counts[BINS];
    u32 chunks[BINS];
    u64 sums[WAVES];
    u64 places[LIST];
    u64 list_weights[LIST];
    u64 before, random;
    u32 bin, upto, listed, token, bad, bad_bits;
};
static_assert(sizeof(Choice) <= 48 * 1024, "what a block may have everywhere");

// The sum of v over the lanes up to this one.
DEVICE u64 sum_upto(u64 v) {
    u32 lane = thread_x() % WAVE;
    for (u32 by = 1; by < WAVE; by <<= 1) {
        u64 other = shuffle_from(v, (lane - by) % WAVE);
        v += lane >= by ? other : 0;
    }
    return v;
}

// The sum of v over the threads before this one, and over all.
struct Sums {
    u64 before, total;
};
DEVICE Sums sum(Choice& choice, u64 v) {
    u32 lane = thread_x() % WAVE, wave = thread_x() / WAVE;
    u64 upto = sum_upto(v);
    // An earlier sum may still be read.
    barrier();
    if (lane == WAVE - 1)
        choice.sums[wave] = upto;
    // All waves' sums are in LDS before they are read.
    barrier();
    u64 waves = sum_upto(lane < WAVES ? choice.sums[lane] : 0);
    u64 before = shuffle_from(waves, (wave - 1) % WAVE);
    return {(wave > 0 ? before : 0) + upto - v, shuffle_from(waves, WAVES - 1)};
}

// What is known of the tokens that survive.
struct Cut {
    // Their places are at least this.
    u64 least;
    // As it was given, or the weight that the given share comes to.
    u64 target;
    // They are all in the list, among others; else `least` is exact.
    bool listed;
};

// 1/64 below the largest each; the last takes all the rest.
DEVICE u32 bucket_of(f32 x, f32 max) {
    f32 below = (max - x) * 64.0f;
    return below < (f32)(BINS - 1) ? (u32)below : BINS - 1;
}

// Empties the bins, before they are filled.
DEVICE void empty(Choice& choice) {
    for (u32 bin = thread_x(); bin < BINS; bin += CHOOSERS)
        choice.counts[bin] = 0, choice.weights[bin] = 0;
    barrier();
}

// The bin that holds the last token of the shortest prefix that reaches `target`, which is above `before` and at most
// that and all bins together: choice.bin, with what comes before it in choice.before and, of tokens, in choice.listed;
// choice.upto are the tokens with it. With `fraction` the target is that share of all. It is returned, at least 1, since
// the first token always survives.
DEVICE u64 cross(Choice& choice, u64 before, u32 count_before, bool by_weight, bool fraction, u64 target) {
    // All bins are full before they are summed.
    barrier();
    u32 bin = 2 * thread_x(), count = choice.counts[bin], next_count = choice.counts[bin + 1];
    u64 measure = by_weight ? choice.weights[bin] : count;
    u64 next_measure = by_weight ? choice.weights[bin + 1] : next_count;
    u32 counted = count_before + (u32)sum(choice, count + next_count).before;
    Sums measures = sum(choice, measure + next_measure);
    if (fraction) {
        target = share(target, measures.total);
        target = target > 0 ? target : 1;
    }
    u64 from = before + measures.before;
    if (from < target && target <= from + measure + next_measure) {
        bool second = target > from + measure;
        choice.bin = bin + second;
        choice.before = from + (second ? measure : 0);
        choice.listed = counted + (second ? count : 0);
        choice.upto = counted + count + (second ? next_count : 0);
    }
    // The bin is known to all.
    barrier();
    return target;
}

// Whether a token of this score is in `bucket` or one before it.
DEVICE bool within(f32 x, f32 max, u32 bucket) {
    return (max - x) * 64.0f < (bucket == BINS - 1 ? __builtin_inff() : (f32)(bucket + 1));
}

// Puts a token on the list. Too long a list is noticed by its count.
DEVICE void list(Choice& choice, u64 place) {
    u32 at = __atomic_fetch_add(&choice.listed, 1u, __ATOMIC_RELAXED);
    if (at < LIST)
        choice.places[at] = place;
}

// Lists at least the first `target` tokens, if they can be told by the firsts of the chunks: the first `target` of
// these are so many tokens, so that whatever comes after all of them is out, and with it most chunks unseen.
DEVICE bool list_by_firsts(Choice& choice, const f32* scores, u32 n, f32 max, const First* firsts, u32 chunks,
                           u32 target) {
    if (target > chunks || chunks > BINS)
        return false;
    empty(choice);
    for (u32 chunk = thread_x(); chunk < chunks; chunk += CHOOSERS)
        __atomic_fetch_add(&choice.counts[bucket_of(logit_of(firsts[chunk].place), max)], 1u, __ATOMIC_RELAXED);
    cross(choice, 0, 0, false, false, target);
    u32 bucket = choice.bin;
    // It has been read by all before the list begins.
    barrier();
    if (thread_x() == 0)
        choice.listed = 0, choice.upto = 0;
    barrier();
    for (u32 chunk = thread_x(); chunk < chunks; chunk += CHOOSERS)
        if (within(logit_of(firsts[chunk].place), max, bucket))
            choice.chunks[__atomic_fetch_add(&choice.upto, 1u, __ATOMIC_RELAXED)] = chunk;
    // All chunks of interest are known.
    barrier();
    for (u32 at = thread_x() / WAVE; at < choice.upto; at += WAVES) {
        u32 i = choice.chunks[at] * CHUNK + 4 * (thread_x() % WAVE);
        f32x4 v = load4(scores, i, n);
        for (u32 j = 0; j < 4; j++)
            if (i + j < n && within(v[j], max, bucket))
                list(choice, place_of(v[j], i + j));
    }
    // The list is complete.
    barrier();
    return choice.listed <= LIST;
}

// Cuts the tokens at or above `floor` down to the first `target`, or with `by_weight` to the shortest prefix that
// weighs the share `target` of them. Digit by digit of the place, the first digit being the bucket; as soon as no more
// than LIST tokens are left in question they are listed.
DEVICE Cut narrow(Choice& choice, const f32* scores, u32 n, f32 max, u64 floor, bool by_weight, u64 target) {
    u64 least = 0, mask = 0, before = 0;
    u32 bucket = BINS - 1, count_before = 0;
    for (u32 round = 0; round < 7; round++) {
        // 32 bits of the logit in three digits, 32 of the index in three.
        u32 bits = round == 3 || round == 6 ? 10 : 11;
        u32 shift = round == 1 ? 53 : round == 2 ? 42 : round == 3 ? 32 : round == 4 ? 21 : round == 5 ? 10 : 0;
        u32 last = (1u << bits) - 1;
        empty(choice);
        for (u32 i = thread_x(); i < n; i += CHOOSERS) {
            f32 x = scores[i];
            u64 place = place_of(x, i);
            u32 own = bucket_of(x, max);
            if (place < floor || (round > 0 && (own != bucket || (place & mask) != least)))
                continue;
            u32 bin = round == 0 ? own : last - ((u32)(place >> shift) & last);
            __atomic_fetch_add(&choice.counts[bin], 1u, __ATOMIC_RELAXED);
            u64 w = by_weight ? weight(x, max, 1.0f) : 0;
            if (w > 0)
                __atomic_fetch_add(&choice.weights[bin], w, __ATOMIC_RELAXED);
        }
        target = cross(choice, before, count_before, by_weight, by_weight && round == 0, target);
        u32 upto = choice.upto;
        before = choice.before;
        count_before = choice.listed;
        if (round == 0) {
            bucket = choice.bin;
        } else {
            least |= (u64)(last - choice.bin) << shift;
            mask |= (u64)last << shift;
        }
        // It has been read by all before the next round finds another.
        barrier();
        if (upto > LIST)
            continue;
        if (thread_x() == 0)
            choice.listed = 0;
        barrier();
        for (u32 i = thread_x(); i < n; i += CHOOSERS) {
            f32 x = scores[i];
            u64 place = place_of(x, i);
            if (place >= floor && place >= least && within(x, max, bucket))
                list(choice, place);
        }
        // The list is complete.
        barrier();
        return {least, target, true};
    }
    return {least, target, false};
}

// Draws among the tokens of the list that survive, `target` being as `narrow` left it.
DEVICE void draw_listed(Choice& choice, const Rule* rule, f32 max, bool by_weight, u64 target) {
    u32 count = choice.listed, t = thread_x();
    u64 place = t < count ? choice.places[t] : 0;
    f32 x = logit_of(place);
    u64 plain = t < count ? weight(x, max, 1.0f) : 0;
    bool top_p = rule->flags & TOP_P;
    if (t < count)
        choice.list_weights[t] = plain;
    // All weights are in the list.
    barrier();
    u32 ahead = 0;
    u64 before = 0;
    if (t < count)
        for (u32 j = 0; j < count; j++)
            if (choice.places[j] > place)
                ahead++, before += choice.list_weights[j];
    bool survives = t < count;
    if (!by_weight) {
        survives = survives && ahead < target;
        if (top_p) {
            u64 total = sum(choice, survives ? plain : 0).total;
            target = share((u64)rule->top_p[1] << 32 | rule->top_p[0], total);
        }
    }
    if (top_p)
        survives = survives && (before < target || ahead == 0);
    survives = survives && x - max >= rule->floor;
    u64 w = survives ? weight(x, max, rule->inverse_temperature) : 0;
    u64 drawn = share(choice.random, sum(choice, w).total);
    if (t < count)
        choice.list_weights[t] = w;
    // The survivors' weights have replaced the others.
    barrier();
    u64 upto = w;
    if (w > 0)
        for (u32 j = 0; j < count; j++)
            upto += (u32)choice.places[j] > (u32)place ? choice.list_weights[j] : 0;
    if (w > 0 && upto - w <= drawn && drawn < upto)
        choice.token = token_of(place);
}

// Draws among all tokens from `least` on: each wave has a run of them, and the one that is hit walks its own again.
DEVICE void draw_all(Choice& choice, const Rule* rule, const f32* scores, u32 n, f32 max, u64 least) {
    u32 lane = thread_x() % WAVE, wave = thread_x() / WAVE;
    u32 run = ((n + WAVES - 1) / WAVES + WAVE - 1) / WAVE * WAVE;
    u32 start = wave * run, end = minimum(start + run, n);
    f32 inverse = rule->inverse_temperature, floor = rule->floor;
    u64 own = 0;
    for (u32 i = start + lane; i < end; i += WAVE) {
        f32 x = scores[i];
        if (place_of(x, i) >= least && x - max >= floor)
            own += weight(x, max, inverse);
    }
    Sums sums = sum(choice, own);
    u64 drawn = share(choice.random, sums.total);
    // What comes before the wave's first lane, and the wave's last.
    u64 before = shuffle_from(sums.before, 0), after = shuffle_from(sums.before + own, WAVE - 1);
    if (drawn < before || drawn >= after)
        return;
    for (u32 base = start; before <= drawn; base += WAVE) {
        u32 i = base + lane;
        f32 x = i < end ? scores[i] : max;
        u64 w = i < end && place_of(x, i) >= least && x - max >= floor ? weight(x, max, inverse) : 0;
        u64 upto = sum_upto(w);
        if (before + upto - w <= drawn && drawn < before + upto)
            choice.token = i;
        before += shuffle_from(upto, WAVE - 1);
    }
}

// Chooses the token after the step, makes it the next step's, and tells the host: ring [RING] of {token, index of a bad
// logit, its bits, the token's position}, by position. One block of CHOOSERS.
GLOBAL THREADS_AT_MOST(1024) void sample_choose(const Step* step, u32 rows, const f32* scores, u32 n, const Rule* rule,
                                                const First* firsts, u32 chunks, Step* next, u32* history, u32 context,
                                                volatile u32x4* ring) {
    begin_in_turn();
    SHARED static Choice choice;
    u32 t = thread_x();
    bool greedy = rule->flags & GREEDY;
    u32 position = step->position + live_rows(step, rows);
    if (!greedy && t == CHOOSERS - 1)
        choice.random = random_word(rule->seed[0], rule->seed[1], position);
    First first = {0, n, 0};
    for (u32 chunk = t; chunk < chunks; chunk += CHOOSERS) {
        First other = firsts[chunk];
        first.place = other.place > first.place ? other.place : first.place;
        if (other.bad < first.bad)
            first.bad = other.bad, first.bad_bits = other.bad_bits;
    }
    u64 place = first.place;
    u32 bad = first.bad;
    for (u32 mask = 1; mask < WAVE; mask <<= 1) {
        u64 other = shuffle_xor(place, mask);
        place = other > place ? other : place;
        bad = minimum(bad, shuffle_xor(bad, mask));
    }
    if (t % WAVE == 0) {
        choice.places[t / WAVE] = place;
        choice.chunks[t / WAVE] = bad;
    }
    // Every wave's result is in LDS before they are compared.
    barrier();
    for (u32 w = 0; w < WAVES; w++) {
        place = choice.places[w] > place ? choice.places[w] : place;
        bad = minimum(bad, choice.chunks[w]);
    }
    f32 max = logit_of(place);
    if (bad < n) {
        if (first.bad == bad)
            choice.token = BAD_LOGIT, choice.bad = bad, choice.bad_bits = first.bad_bits;
    } else if (max == -__builtin_inff()) {
        choice.token = NO_CANDIDATE;
    } else if (greedy) {
        choice.token = token_of(place);
    } else {
        // The waves' results are read before lists take their place.
        barrier();
        u64 top_p = (u64)rule->top_p[1] << 32 | rule->top_p[0];
        bool has_k = rule->top_k > 0 && rule->top_k < n, has_p = rule->flags & TOP_P;
        Cut cut = {0, rule->top_k, has_k && list_by_firsts(choice, scores, n, max, firsts, chunks, rule->top_k)};
        bool by_weight = false;
        // Top-k, then top-p among what is left.
        for (u32 pass = 0; pass < 2 && !cut.listed; pass++) {
            if (!(pass == 0 ? has_k : has_p))
                continue;
            by_weight = pass == 1;
            cut = narrow(choice, scores, n, max, cut.least, by_weight, by_weight ? top_p : rule->top_k);
        }
        if (cut.listed)
            draw_listed(choice, rule, max, by_weight, cut.target);
        else
            draw_all(choice, rule, scores, n, max, cut.least);
    }
    // The token is known.
    barrier();
    if (t == 0) {
        u32 token = choice.token, fed = token < n ? token : 0;
        u32x4 slot;
        slot.x = token;
        slot.y = token == BAD_LOGIT ? choice.bad : 0;
        slot.z = token == BAD_LOGIT ? choice.bad_bits : 0;
        slot.w = position;
        ring[position % RING] = slot;
        fence_for_host();
        // A replay too many stays at the last position, which no later step sees before it has written it anew.
        next->position = minimum(position, context - 1);
        next->rows = 1;
        next->tokens[0] = fed;
        if (position < context)
            history[position] = fed;
    }
}

} // namespace sampling

// Reads `bytes` (a multiple of 16) at p once, as GEMVs read weights. The result depends on every byte, and is stored
// only in a case that random data do not produce, so that nothing is written and nothing can be left out.
GLOBAL THREADS_AT_MOST(256) void stream_read(const u8* p, u64 bytes, u32* sink) {
    u64 step = (u64)blocks_x() * threads_x() * 16;
    u64 i = ((u64)block_x() * threads_x() + thread_x()) * 16;
    u32x4 sum = 0;
    for (; i + 3 * step < bytes; i += 4 * step) {
        u32x4 a = load_streamed(p + i), b = load_streamed(p + i + step);
        u32x4 choice = load_streamed(p + i + 2 * step), d = load_streamed(p + i + 3 * step);
        sum ^= a ^ b ^ choice ^ d;
    }
    for (; i < bytes; i += step)
        sum ^= load_streamed(p + i);
    if (sum.x == 0x9e3779b9u && sum.y == 0x7f4a7c15u && sum.z == 0xf39cc060u && sum.w == 0x5cedc834u)
        *sink = sum.x;
}

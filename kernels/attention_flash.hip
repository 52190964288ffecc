// Causal attention of many rows over an f16 cache on the matrix cores: out = softmax(scale · q Kᵀ) · V, scores in registers
// only. For long prompts, like gemm_half: q · scale and the weights of V are rounded to f16, 11 bits.
//
// A block of four waves serves 64 queries of one K/V head, a query being a row and one of the heads that share it, so that
// K and V are read once for all of these. Each wave has 16 queries. Along the positions they walk tiles of KEYS, from the
// first that any query of the block sees to the last; a wave leaves out tiles that none of its queries sees. Positions
// that no query of the block sees are zeros in LDS, whatever the cache holds there.
//
// Running maxima and sums are kept per query in the lanes that hold its scores (arXiv:2307.08691); weights come from the
// hardware's 2ˣ. All is in a fixed order.
//
// NVIDIA: K and V tiles come by asynchronous copies, one tile ahead, and the scores' layout is the left operand's. AMD:
// they come through registers, V transposed on its way into LDS, and weights pass through LDS, since layouts differ.
#include "step.h"
#include "wide.h"

CONSTANT u32 THREADS_FLASH = 4 * WAVE;
CONSTANT u32 FLASH_QUERIES = 64;
// RDNA3's registers hold neither more scores nor a tile that waits in them.
#if RDNA
CONSTANT u32 KEYS = 32;
CONSTANT bool FLASH_AHEAD = false;
#else
CONSTANT u32 KEYS = 64;
CONSTANT bool FLASH_AHEAD = true;
#endif
// f16 from row to row of tiles that are read without permutation: spread over the banks, 16-byte aligned.
CONSTANT u32 KEYS_STRIDE = KEYS + 8;
CONSTANT f32 LOG2E = 1.4426950408889634f;

extern SHARED __attribute__((aligned(16))) u32x4 staged[];

#if NVIDIA
typedef Left QueryPart;
typedef Right OtherPart;
// Rows of 16 × 16 sums that a lane has a part of, and which of them element e belongs to.
CONSTANT u32 SLOTS = 2;
DEVICE u32 slot_of(u32 e) { return e >> 1 & 1; }
DEVICE u32 slot_row(u32 lane, u32 slot) { return lane / 4 + 8 * slot; }
DEVICE void product(const QueryPart& a, const OtherPart& b, Accumulator& d) { accumulate(a, b, d.v); }
#else
typedef MatrixFragment QueryPart;
typedef MatrixFragment OtherPart;
CONSTANT u32 SLOTS = HELD;
DEVICE u32 slot_of(u32 e) { return e; }
DEVICE u32 slot_row(u32 lane, u32 slot) { return matrix_row(lane, slot); }
DEVICE void product(const QueryPart& a, const OtherPart& b, Accumulator& d) { multiply(a, b, d); }
#endif

// The greatest and the sum over the lanes that share a row.
DEVICE f32 row_maximum(f32 x) {
#if NVIDIA
    for (u32 mask = 1; mask < 4; mask <<= 1) {
        f32 other = shuffle_xor(x, mask);
        x = other > x ? other : x;
    }
#else
    // As group_sum: pairs, quads, eights, sixteen.
    f32 other = moved<0xb1>(x);
    x = other > x ? other : x;
    other = moved<0x4e>(x);
    x = other > x ? other : x;
    other = moved<0x141>(x);
    x = other > x ? other : x;
    other = moved<0x140>(x);
    x = other > x ? other : x;
#endif
    return x;
}
DEVICE f32 row_sum(f32 x) {
#if NVIDIA
    x += shuffle_xor(x, 1);
    return x + shuffle_xor(x, 2);
#else
    return group_sum(x, 16);
#endif
}

// 2ˣ by the hardware: 2 units in the last place or better; 0 for −∞.
DEVICE f32 power_of_two(f32 x) {
#if NVIDIA
    f32 y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return __builtin_amdgcn_exp2f(x);
#endif
}

// Columns 16 part … of query `row` (of 16) of a wave, times scale, as the left operand holds them. `at(row)` is where a
// query's columns begin.
template <class At> DEVICE QueryPart query_part(At at, u32 part, u32 D, f32 scale, u32 lane) {
    QueryPart q;
#if NVIDIA
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        u32 column = 16 * part + lane % 4 * 2 + 8 * (i / 2);
        const f32* from = at(lane / 4 + 8 * (i % 2)) + column;
        f16x2 two = 0;
        if (column < D)
            two.x = (f16)(from[0] * scale), two.y = (f16)(from[1] * scale);
        q.w[i] = __builtin_bit_cast(u32, two);
    }
#else
    // Four columns of 4 (lane / 16) … on CDNA, all sixteen on RDNA3.
    constexpr u32 COUNT = sizeof(QueryPart) / 2;
#pragma unroll
    for (u32 i = 0; i < COUNT; i += 4) {
        u32 column = 16 * part + (COUNT == 4 ? lane / 16 * 4 : i);
        f32x4 four = 0.0f;
        if (column < D)
            four = *(const f32x4*)(at(lane % 16) + column) * scale;
        for (u32 j = 0; j < 4; j++)
            q[i + j] = (f16)four[j];
    }
#endif
    return q;
}

// Tiles of K and V [KEYS, DP] in LDS, from caches whose rows have D columns. Columns past D are zeros.
template <u32 DP> struct CacheTiles {
    CONSTANT u32 PIECES = DP / 8;
#if NVIDIA
    // Two of each, K before V.
    MEMBER f16* keys(u32 t) { return (f16*)staged + t % 2 * (2 * KEYS * DP); }
    MEMBER f16* values(u32 t) { return keys(t) + KEYS * DP; }

    MEMBER void copy(f16* tile, const f16* cache, u32 base, u32 first, u32 end, u32 D) {
#pragma unroll
        for (u32 i = 0; i < KEYS * PIECES / THREADS_FLASH; i++) {
            u32 index = thread_x() + i * THREADS_FLASH;
            u32 row = copied_row<PIECES>(index), piece = copied_piece<PIECES>(index);
            u32 position = base + row;
            bool seen = position >= first && position < end && piece * 8 < D;
            const f16* from = cache + (seen ? (u64)position * D + piece * 8 : (u64)first * D);
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                         :
                         : "r"(shared_address(tile + 8 * place<PIECES>(row, piece))),
                           "l"((const __attribute__((address_space(1))) void*)from), "r"(seen ? 16 : 0)
                         : "memory");
        }
    }
#else
    CONSTANT u32 STRIDE = DP + 8;
    CONSTANT u32 EACH = KEYS * PIECES / THREADS_FLASH;
    // V as pairs of neighbouring positions, so that transposed they are words.
    CONSTANT u32 EACH_PAIRS = EACH / 2;
    u32x4 k[EACH];
    u32x4 v[EACH_PAIRS][2];

    MEMBER f16* keys() { return (f16*)staged; }
    MEMBER f16* values() { return keys() + KEYS * STRIDE; }
    MEMBER f16* weights(u32 wave) { return values() + DP * KEYS_STRIDE + wave * (16 * KEYS_STRIDE); }

    MEMBER u32x4 piece_of(const f16* cache, u32 position, u32 piece, u32 first, u32 end, u32 D) {
        u32x4 none = 0;
        bool seen = position >= first && position < end && piece * 8 < D;
        return seen ? *(const u32x4*)(cache + (u64)position * D + piece * 8) : none;
    }
    inline __attribute__((device, always_inline)) void load(const f16* kc, const f16* vc, u32 base, u32 first, u32 end, u32 D) {
#pragma unroll
        for (u32 i = 0; i < EACH; i++) {
            u32 index = thread_x() + i * THREADS_FLASH;
            k[i] = piece_of(kc, base + index / PIECES, index % PIECES, first, end, D);
        }
#pragma unroll
        for (u32 i = 0; i < EACH_PAIRS; i++) {
            // Neighbouring lanes have neighbouring positions: they store to neighbouring words.
            u32 index = thread_x() + i * THREADS_FLASH, position = base + index % (KEYS / 2) * 2, piece = index / (KEYS / 2);
            for (u32 j = 0; j < 2; j++)
                v[i][j] = piece_of(vc, position + j, piece, first, end, D);
        }
    }
    inline __attribute__((device, always_inline)) void store() const {
#pragma unroll
        for (u32 i = 0; i < EACH; i++) {
            u32 index = thread_x() + i * THREADS_FLASH;
            *(u32x4*)(keys() + index / PIECES * STRIDE + index % PIECES * 8) = k[i];
        }
#pragma unroll
        for (u32 i = 0; i < EACH_PAIRS; i++) {
            u32 index = thread_x() + i * THREADS_FLASH, at = index % (KEYS / 2) * 2, piece = index / (KEYS / 2);
#pragma unroll
            for (u32 e = 0; e < 8; e++) {
                u32 shift = e % 2 * 16, a = v[i][0][e / 2] >> shift & 0xffff, b = v[i][1][e / 2] >> shift & 0xffff;
                *(u32*)(values() + (piece * 8 + e) * KEYS_STRIDE + at) = a | b << 16;
            }
        }
    }
#endif
};

// y [rows, H · D] of q [rows, H · D]; row r stands at the step's position + r and sees the positions up to its own, or
// the last `window` of them. Block block_x has the queries that many from the last, which see most, block_y the K/V head.
template <u32 DP>
DEVICE void flash(const Step* step, const f32* q, u32 q_stride, const f16* kc, const f16* vc, f32* y, u32 y_stride, u32 H,
                  u32 G, u32 D, u32 S, u32 window, f32 scale, u32 rows) {
    constexpr u32 PARTS = DP / 16;
    u32 g = block_y(), group = H / G, queries = live_rows(step, rows) * group, position = step->position;
    u32 blocks = (queries + FLASH_QUERIES - 1) / FLASH_QUERIES;
    // The whole block leaves, before its barriers.
    if (block_x() >= blocks)
        return;
    u32 query0 = (blocks - 1 - block_x()) * FLASH_QUERIES;
    u32 lane = thread_x() % WAVE, wave = thread_x() / WAVE;
    u32 mine = query0 + wave * 16;
    // Queries past the end repeat the last and store nothing.
    auto row_of_query = [&](u32 i) { return minimum(mine + i, queries - 1) / group; };
    auto head_of_query = [&](u32 i) { return g * group + minimum(mine + i, queries - 1) % group; };
    u32 from_row = query0 / group, to_row = minimum(query0 + FLASH_QUERIES - 1, queries - 1) / group;
    // Positions that some query of the block sees, and all of this wave see.
    auto first_of = [&](u32 r) { return window && position + r + 1 > window ? position + r + 1 - window : 0; };
    u32 first = first_of(from_row), end = minimum(position + to_row + 1, S);
    u32 wave_first = first_of(row_of_query(0)), wave_end = position + row_of_query(15) + 1;
    u32 all_first = first_of(row_of_query(15)), all_end = position + row_of_query(0) + 1;
    kc += (u64)g * S * D;
    vc += (u64)g * S * D;

    QueryPart query[PARTS];
    auto at = [&](u32 i) { return row_of(q, q_stride, row_of_query(i)) + head_of_query(i) * D; };
#pragma unroll
    for (u32 part = 0; part < PARTS; part++)
        query[part] = query_part(at, part, D, scale * LOG2E, lane);
    Accumulator out[PARTS] = {};
    // Of scores times log₂ e. The maximum is always finite, so that infinities of masked scores never meet.
    f32 peak[SLOTS], total[SLOTS];
    u32 last_seen[SLOTS];
#pragma unroll
    for (u32 s = 0; s < SLOTS; s++) {
        peak[s] = -3.402823466e38f;
        total[s] = 0.0f;
        last_seen[s] = position + row_of_query(slot_row(lane, s));
    }

    u32 start = first / KEYS * KEYS, tiles = (end - start + KEYS - 1) / KEYS;
    typedef CacheTiles<DP> Tiles;
#if NVIDIA
    auto fetch = [&](u32 t) {
        if (t < tiles) {
            Tiles::copy(Tiles::keys(t), kc, start + t * KEYS, first, end, D);
            Tiles::copy(Tiles::values(t), vc, start + t * KEYS, first, end, D);
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
    };
    fetch(0);
#else
    Tiles held;
    if (FLASH_AHEAD)
        held.load(kc, vc, start, first, end, D);
#endif
    for (u32 t = 0; t < tiles; t++) {
        u32 base = start + t * KEYS;
#if NVIDIA
        asm volatile("cp.async.wait_group 0;" ::: "memory");
        // Tile t has arrived for all, and everyone is done with tile t − 1, whose place the next takes.
        barrier();
        fetch(t + 1);
#else
        if (!FLASH_AHEAD)
            held.load(kc, vc, base, first, end, D);
        // Everyone is done with tile t − 1.
        barrier();
        held.store();
        // Tile t is complete.
        barrier();
        if (FLASH_AHEAD && t + 1 < tiles)
            held.load(kc, vc, base + KEYS, first, end, D);
#endif
        // A tile that none of the wave's queries sees; nothing below waits for other waves.
        if (base >= wave_end || base + KEYS <= wave_first)
            continue;
        Accumulator scores[KEYS / 16] = {};
#pragma unroll
        for (u32 part = 0; part < PARTS; part++)
#pragma unroll
            for (u32 n = 0; n < KEYS / 16; n++) {
#if NVIDIA
                OtherPart keys = right<Tiles::PIECES>(Tiles::keys(t), 16 * n, part, lane);
#else
                OtherPart keys = matrix_load(Tiles::keys() + 16 * n * Tiles::STRIDE + 16 * part, Tiles::STRIDE, lane);
#endif
                product(query[part], keys, scores[n]);
            }
        if (base < all_first || base + KEYS > all_end) {
#pragma unroll
            for (u32 n = 0; n < KEYS / 16; n++)
#pragma unroll
                for (u32 e = 0; e < HELD; e++) {
                    u32 here = base + 16 * n + matrix_col(lane, e), s = slot_of(e);
                    if (here > last_seen[s] || (window && here + window <= last_seen[s]))
                        scores[n].v[e] = -__builtin_inff();
                }
        }
        f32 greatest[SLOTS], shrink[SLOTS];
#pragma unroll
        for (u32 s = 0; s < SLOTS; s++)
            greatest[s] = peak[s];
#pragma unroll
        for (u32 n = 0; n < KEYS / 16; n++)
#pragma unroll
            for (u32 e = 0; e < HELD; e++)
                greatest[slot_of(e)] = scores[n].v[e] > greatest[slot_of(e)] ? scores[n].v[e] : greatest[slot_of(e)];
#pragma unroll
        for (u32 s = 0; s < SLOTS; s++) {
            greatest[s] = row_maximum(greatest[s]);
            shrink[s] = power_of_two(peak[s] - greatest[s]);
            peak[s] = greatest[s];
            total[s] *= shrink[s];
        }
#pragma unroll
        for (u32 part = 0; part < PARTS; part++)
#pragma unroll
            for (u32 e = 0; e < HELD; e++)
                out[part].v[e] *= shrink[slot_of(e)];
#pragma unroll
        for (u32 n = 0; n < KEYS / 16; n++)
#pragma unroll
            for (u32 e = 0; e < HELD; e++) {
                f32 weight = power_of_two(scores[n].v[e] - greatest[slot_of(e)]);
                scores[n].v[e] = weight;
                total[slot_of(e)] += weight;
            }
#if NVIDIA
#pragma unroll
        for (u32 n = 0; n < KEYS / 16; n++) {
            QueryPart weights;
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                f16x2 two = {(f16)scores[n].v[2 * i], (f16)scores[n].v[2 * i + 1]};
                weights.w[i] = __builtin_bit_cast(u32, two);
            }
#pragma unroll
            for (u32 part = 0; part < PARTS; part++)
                product(weights, right_transposed<Tiles::PIECES>(Tiles::values(t), 16 * n, 2 * part, lane), out[part]);
        }
#else
        f16* own = Tiles::weights(wave);
#pragma unroll
        for (u32 n = 0; n < KEYS / 16; n++)
#pragma unroll
            for (u32 e = 0; e < HELD; e++)
                own[matrix_row(lane, e) * KEYS_STRIDE + 16 * n + matrix_col(lane, e)] = (f16)scores[n].v[e];
        // The wave's own weights, by other lanes: LDS serves a wave in order, the compiler must too.
        __builtin_amdgcn_fence(__ATOMIC_ACQ_REL, "wavefront");
        __builtin_amdgcn_wave_barrier();
#pragma unroll
        for (u32 n = 0; n < KEYS / 16; n++) {
            QueryPart weights = matrix_load(own + 16 * n, KEYS_STRIDE, lane);
#pragma unroll
            for (u32 part = 0; part < PARTS; part++)
                product(weights, matrix_load(Tiles::values() + 16 * part * KEYS_STRIDE + 16 * n, KEYS_STRIDE, lane), out[part]);
        }
        __builtin_amdgcn_fence(__ATOMIC_ACQ_REL, "wavefront");
        __builtin_amdgcn_wave_barrier();
#endif
    }

    f32 inverse[SLOTS];
#pragma unroll
    for (u32 s = 0; s < SLOTS; s++)
        inverse[s] = 1.0f / row_sum(total[s]);
#pragma unroll
    for (u32 e = 0; e < HELD; e++) {
        u32 i = matrix_row(lane, e);
        f32* to = row_of(y, y_stride, row_of_query(i)) + head_of_query(i) * D;
        if (mine + i >= queries)
            continue;
#pragma unroll
        for (u32 part = 0; part < PARTS; part++) {
            u32 column = 16 * part + matrix_col(lane, e);
            if (column < D)
                to[column] = out[part].v[e] * inverse[slot_of(e)];
        }
    }
}

// Heads of up to 64, and of up to 128.
#define FLASH_KERNEL(DP)                                                                                               \
    GLOBAL THREADS_AT_MOST(THREADS_FLASH) void attention_flash_##DP(                                                   \
        const Step* step, const f32* q, u32 q_stride, const f16* kc, const f16* vc, f32* y, u32 y_stride, u32 H, u32 G,\
        u32 D, u32 S, u32 window, f32 scale, u32 rows) {                                                               \
        flash<DP>(step, q, q_stride, kc, vc, y, y_stride, H, G, D, S, window, scale, rows);                            \
    }
FLASH_KERNEL(64)
FLASH_KERNEL(128)

// The activations of a GEMV on their way to LDS (gemv.hip, gemv_stream.hip).
#pragma once
#include "layout.h"
#include "norm.h"

namespace one_row {

// Threads of a block at most; where weights come through LDS, those that compute.
CONSTANT u32 THREADS = 256;

// The activations of a launch: a row of blocks (of f32 for float weights), or with `norm` the f32 to normalise.
struct Source {
    const void* x;
    const f32* norm;
    f32 eps;
    u32 k;
};

#if NVIDIA
// Asks for a piece of 16 bytes to be copied to LDS; past the first `live` of them come zeros.
DEVICE void copy_piece(void* to, const void* from, u32 live) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)),
                 "l"((const __attribute__((address_space(1))) void*)from), "r"(live)
                 : "memory");
}
// What this thread has asked for has come; a barrier shows it to the others.
DEVICE void await_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }
#else
DEVICE void copy_piece(void*, const void*, u32) {}
DEVICE void await_copies() {}
#endif

// A row on its way to LDS: blocks as they are, floats with zeros up to a whole unit, or what its norm makes of it. All of a
// thread's pieces, 16 bytes each, are asked for before it waits for any: `ask_norm`, for which the predecessors need not
// have finished, then `ask`, then `put`, after which a barrier shows the row to all. Only `ask_norm` and `ask` load
// anything of a row whose pieces are KEPT at most for each thread.
//
// With COPIED (NVIDIA) x and the norm's weights go by copies to LDS behind the activations, which take no registers:
// those limit the blocks of an SM where weights on the way take them too.
//
// A norm of several pieces of each thread is unrolled code of 16 KB, which a launch of little work takes longer to fetch
// than to run: with ROLLED there is a piece at a time.
template <class W, bool COPIED, bool ROLLED = false> struct Row {
    // Pieces at a time: of NVIDIA's registers, two fit where three blocks share an SM.
    CONSTANT u32 KEPT = COPIED && W::RESIDENT > 2 ? 2 : 4;
    Source source;
    u32 units, thread, threads;
    // Pieces of x, with a norm half as many and the norm's after them.
    u32x4 held[2 * KEPT];
    f64 share;  // of an element in the mean

    // Where x and the norm's weights are copied to: each thread reads what it copied.
    DEVICE_MEMBER f32x4* copies(u32 which) const {
        return (f32x4*)(pool + units * W::PIECES) + which * ((source.k + 3) / 4);
    }
    DEVICE_MEMBER void copy(u32 which, const f32* from) {
        for (u32 i = thread; 4 * i < source.k; i += threads)
            copy_piece(copies(which) + i, from + 4 * i, minimum(4 * (source.k - 4 * i), 16));
    }
    // The thread's j-th piece of either, zeros past the end.
    DEVICE_MEMBER f32x4 copied(u32 which, u32 j) const {
        u32 i = thread + j * threads;
        return 4 * i < source.k ? copies(which)[i] : f32x4(0.0f);
    }

    DEVICE_MEMBER u32x4 piece(u32 i, u32 end) const {
        if constexpr (W::FLOAT)
            return __builtin_bit_cast(u32x4, load4((const f32*)source.x, 4 * i, source.k));
        else
            return ((const u32x4*)source.x)[minimum(i, end - 1)];
    }
    // Four columns of x or of the norm's weights, the thread's j-th of them.
    DEVICE_MEMBER f32x4 four(const void* from, u32 j) const {
        return load4((const f32*)from, 4 * (thread + j * threads), source.k);
    }

    DEVICE_MEMBER void ask_norm() {
        share = share_of(source.k);
        if (COPIED) {
            copy(1, source.norm);
        } else {
            for (u32 j = 0; j < KEPT; j++)
                held[KEPT + j] = __builtin_bit_cast(u32x4, four(source.norm, j));
        }
    }
    DEVICE_MEMBER void ask() {
        if (source.norm && COPIED) {
            copy(0, (const f32*)source.x);
        } else if (source.norm) {
            for (u32 j = 0; j < KEPT; j++)
                held[j] = __builtin_bit_cast(u32x4, four(source.x, j));
        } else if (!NVIDIA) {
            for (u32 j = 0; j < 2 * KEPT; j++)
                held[j] = piece(thread + j * threads, units * W::PIECES);
        }
    }
    DEVICE_MEMBER void put() {
        if (!source.norm) {
            u32 done = 0;
            if (!NVIDIA) {
                for (u32 j = 0; j < 2 * KEPT; j++)
                    if (thread + j * threads < units * W::PIECES)
                        pool[thread + j * threads] = held[j];
                done = 2 * KEPT * threads;
            }
            stage(done, units * W::PIECES, 0);
        } else if (ROLLED || (NVIDIA && source.k <= 4 * threads)) {
            normalise<1>();
        } else {
            normalise<KEPT>();
        }
        if (!NVIDIA)
            for (u32 j = 0; j < 2 * KEPT; j++)
                await(held[j]);
    }

    // Pieces first … end to LDS, from where piece `origin` lies on. What is loaded has come when this returns.
    DEVICE_MEMBER void stage(u32 first, u32 end, u32 origin) const {
#if NVIDIA
        for (u32 i = first + thread; i < end; i += threads) {
            u32 have = W::FLOAT ? 4 * source.k : 16 * end;
            u32 live = 16 * i < have ? minimum(have - 16 * i, 16) : 0;
            copy_piece(pool + i - origin, (const u32x4*)source.x + (live ? i : 0), live);
        }
        await_copies();
#else
        for (u32 i = first + thread; i < end; i += KEPT * threads) {
            u32x4 pieces[KEPT];
            for (u32 j = 0; j < KEPT; j++)
                pieces[j] = piece(i + j * threads, end);
            for (u32 j = 0; j < KEPT; j++)
                if (i + j * threads < end)
                    pool[i + j * threads - origin] = pieces[j];
            for (u32 j = 0; j < KEPT; j++)
                await(pieces[j]);
        }
#endif
    }

    // Columns i … i + 3 of the normalised row to LDS. All lanes of a wave call it, since rounding shuffles.
    DEVICE_MEMBER void put_normalised(f32x4 v, u32 i) const {
        if constexpr (W::FLOAT) {
            if (i < units * W::LEN)
                pool[i / 4] = __builtin_bit_cast(u32x4, v);
        } else {
            quantize_block(v, (Block*)pool + i / 32, i < source.k);
        }
    }

    // The thread's j-th piece of x and of the norm's weights; on AMD the first KEPT are held.
    DEVICE_MEMBER f32x4 x_piece(u32 j, bool is_held) const {
        if (COPIED)
            return copied(0, j);
        return is_held ? __builtin_bit_cast(f32x4, held[j]) : four(source.x, j);
    }
    DEVICE_MEMBER f32x4 norm_piece(u32 j, bool is_held) const {
        if (COPIED)
            return copied(1, j);
        return is_held ? __builtin_bit_cast(f32x4, held[KEPT + j]) : four(source.norm, j);
    }

    // COUNT pieces of a thread at a time; columns past the end are zeros. The sums are rms_norm_quantize's in another
    // order, in f64: the f32 that comes of them is the same but for one in a billion.
    template <u32 COUNT> DEVICE_MEMBER void normalise() {
        if (COPIED)
            await_copies();
        f64 sums[COUNT];
#pragma unroll
        for (u32 j = 0; j < COUNT; j++)
            sums[j] = squares(x_piece(j, true));
        u32 turns = (source.k + 4 * threads - 1) >> (2 + __builtin_ctz(threads));
        for (u32 turn = COUNT; turn < turns; turn += COUNT) {
#pragma unroll
            for (u32 j = 0; j < COUNT; j++)
                sums[j] += squares(x_piece(turn + j, false));
        }
        f64 sum = sums[0];
#pragma unroll
        for (u32 j = 1; j < COUNT; j++)
            sum += sums[j];
        f32 scale = inverse_rms(sum, share, source.eps, thread, threads);
        auto put_pieces = [&](u32 turn, bool is_held) __attribute__((always_inline)) {
            f32x4 v[COUNT];
#pragma unroll
            for (u32 j = 0; j < COUNT; j++)
                v[j] = normalised(x_piece(turn + j, is_held), norm_piece(turn + j, is_held), scale);
#pragma unroll
            for (u32 j = 0; j < COUNT; j++)
                // NVIDIA: without a branch, so that the chains of shuffles of all of them overlap.
                if (NVIDIA || turn + j < turns)
                    put_normalised(v[j], 4 * (thread + (turn + j) * threads));
        };
        put_pieces(0, true);
        for (u32 turn = COUNT; turn < turns; turn += COUNT)
            put_pieces(turn, false);
    }
};

}  // namespace one_row

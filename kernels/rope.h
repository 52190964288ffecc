// Turning one pair of a head, and where it goes: what the kernels of rope.hip and attention_step.hip share.
#pragma once
#include "common.h"

struct Pair {
    u32 a, b;  // columns in the head
    f32 x, y;  // their values
};

// Contraction is off: K's f16 are then the CPU's to the bit.
DEVICE Pair turn(Pair p, f32 cosine, f32 sine) {
#pragma clang fp contract(off)
    f32 a = p.x, b = p.y;
    p.x = rounded_product(a, cosine) - rounded_product(b, sine);
    p.y = rounded_product(a, sine) + rounded_product(b, cosine);
    return p;
}

// A pair before it is turned, its values perhaps on the way.
struct RawPair {
    Pair pair;
    f32 cosine, sine;
    bool turns;
};

// Pair `i` of a head of D elements, the first `dims` of which turn by table [dims / 2][2]. `style` 0: pairs are
// neighbours; 1: halves of the turning part apart.
DEVICE RawPair raw_pair(const f32* head, const f32* table, u32 i, u32 dims, u32 style) {
    if (i >= dims / 2)
        return {{2 * i, 2 * i + 1, head[2 * i], head[2 * i + 1]}, 1.0f, 0.0f, false};
    u32 a = style ? i : 2 * i, b = style ? i + dims / 2 : 2 * i + 1;
    return {{a, b, head[a], head[b]}, table[2 * i], table[2 * i + 1], true};
}

DEVICE Pair turned(const RawPair& raw) { return raw.turns ? turn(raw.pair, raw.cosine, raw.sine) : raw.pair; }

// Both at once: attention_step.hip says where one is quicker, where the other.
DEVICE Pair turned(const f32* head, const f32* table, u32 i, u32 dims, u32 style) {
    if (i >= dims / 2)
        return {2 * i, 2 * i + 1, head[2 * i], head[2 * i + 1]};
    u32 a = style ? i : 2 * i, b = style ? i + dims / 2 : 2 * i + 1;
    f32 cosine = table[2 * i], sine = table[2 * i + 1];
    return turn({a, b, head[a], head[b]}, cosine, sine);
}

// Where head g's row of a cache [G, S, D] begins for this position.
DEVICE f16* cache_row(f16* cache, u32 g, u32 position, u32 S, u32 D) { return cache + ((u64)g * S + position) * D; }

DEVICE void store_halves(f16* row, const Pair& p) {
    row[p.a] = (f16)p.x;
    row[p.b] = (f16)p.y;
}

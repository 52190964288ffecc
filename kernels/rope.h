// Turning one pair of a head, and where it goes: what the kernels of rope.hip and attention_step.hip share.
#pragma once
#include "common.h"

struct Pair {
    u32 a, b;  // columns in the head
    f32 x, y;  // their values
};

// Pair `i` of a head of D elements, the first `dims` of which turn by table [dims / 2][2]. `style` 0: pairs are
// neighbours; 1: halves of the turning part apart. Contraction is off: K's f16 are then the CPU's to the bit.
DEVICE Pair turned(const f32* head, const f32* table, u32 i, u32 dims, u32 style) {
#pragma clang fp contract(off)
    Pair p;
    if (i >= dims / 2) {
        p.a = 2 * i, p.b = 2 * i + 1;
        p.x = head[p.a], p.y = head[p.b];
        return p;
    }
    p.a = style ? i : 2 * i;
    p.b = style ? i + dims / 2 : 2 * i + 1;
    f32 cosine = table[2 * i], sine = table[2 * i + 1], a = head[p.a], b = head[p.b];
    p.x = rounded_product(a, cosine) - rounded_product(b, sine);
    p.y = rounded_product(a, sine) + rounded_product(b, cosine);
    return p;
}

// Where head g's row of a cache [G, S, D] begins for this position.
DEVICE f16* cache_row(f16* cache, u32 g, u32 position, u32 S, u32 D) { return cache + ((u64)g * S + position) * D; }

DEVICE void store_halves(f16* row, const Pair& p) {
    row[p.a] = (f16)p.x;
    row[p.b] = (f16)p.y;
}

// Rows of weights as src/gpu/pack.rs lays them out: a quantised row is a few planes, each padded to 16 bytes.
//
//   codes   nibbles (16 bytes a block of 32: byte i is element i, low, and i + 16, high), bytes (32, signed), or pairs
//           (8: byte i is elements i, i + 8, i + 16, i + 24 at bits 0, 2, 4, 6)
//   high    one bit (4 bytes a block: bit i is element i's) or pairs (8, as above) on top of the codes
//   d, m    f16 scale and minimum, for every 32 elements, or 256 of a K type
//   scales, mins   a byte for every 16 or 32 elements of a K type
//
// weight = d · scale · (code − OFFSET) − m · min for K types, d · (code − OFFSET) + m for the others.
#pragma once
#include "block.h"

// Bytes of each of two rows that a lane of a GEMV has on the way. NVIDIA's registers hold no more of nibbles and pairs if
// three blocks are to fit on an SM, of which one is the next launch's (gemv.hip); hints to L2 run ahead of them there.
// Types of more bits take longer, and gain less from overlapping than from bytes in flight.
CONSTANT u32 IN_FLIGHT = 64;
CONSTANT u32 IN_FLIGHT_NIBBLES = NVIDIA ? 32 : 64;

enum Codes { NIBBLES, BYTES, PAIRS };

template <bool FIRST, class A, class B> struct Either {
    typedef A Type;
};
template <class A, class B> struct Either<false, A, B> {
    typedef B Type;
};

// Where the planes of a row of `blocks` blocks of 32 begin, in bytes.
struct Planes {
    u32 high, d, m, scales, mins;

    // The i-th of them, the codes first.
    DEVICE_MEMBER u32 operator[](u32 i) const {
        switch (i) {
        case 0: return 0;
        case 1: return high;
        case 2: return d;
        case 3: return m;
        case 4: return scales;
        default: return mins;
        }
    }
};

// Where a row lies: in device memory, read once; or in LDS.
struct Streamed {
    MEMBER u32x4 sixteen(const void* at) { return load_streamed(at); }
    MEMBER u32x2 eight(const void* at) { return load_streamed8(at); }
};
struct Staged {
    MEMBER u32x4 sixteen(const void* at) { return whole(*(const u32x4*)at); }
    MEMBER u32x2 eight(const void* at) { return *(const u32x2*)at; }
};

// A quantised type. `SUB`: elements a byte of `scales` is for, 0 where d is the only scale. `SIGNED`: those bytes are.
template <Codes CODES_, u32 HIGH_, bool MINS_, u32 SUB_, bool SIGNED_, i32 OFFSET_> struct Quantized {
    CONSTANT Codes CODES = CODES_;
    CONSTANT u32 HIGH = HIGH_;  // bits on top of the codes: 0, 1 or 2
    CONSTANT bool MINS = MINS_;
    CONSTANT u32 SUB = SUB_;
    CONSTANT bool SIGNED = SIGNED_;
    CONSTANT i32 OFFSET = OFFSET_;
    CONSTANT bool FLOAT = false;
    // Elements of a unit, 16-byte pieces of activations that one takes, and units of a row a lane has in flight.
    CONSTANT u32 LEN = 32;
    CONSTANT u32 PIECES = sizeof(Block) / 16;
    CONSTANT u32 AHEAD = CODES == BYTES ? IN_FLIGHT / 32 : IN_FLIGHT_NIBBLES / 16;
    // Rows that a wave takes at a time where they come through LDS (gemv_ring.h).
    CONSTANT u32 STREAMED_ROWS = CODES == BYTES ? 2 : 4;
    // Slots of a block that are on the way at once there.
    CONSTANT u32 ON_THE_WAY = CODES == BYTES ? 3 : 1;
    // Blocks of a GEMV that NVIDIA's registers have room for on an SM (gemv.hip).
    CONSTANT u32 RESIDENT = CODES == BYTES || (HIGH && SUB == 32) ? 2 : 3;
    CONSTANT u32 CODE_BYTES = CODES == NIBBLES ? 16 : CODES == BYTES ? 32 : 8;
    CONSTANT u32 HIGH_BYTES = 4 * HIGH;
    // Where the high bits go in a code.
    CONSTANT u32 HIGH_SHIFT = CODES == NIBBLES ? 4 : 2;

    // Planes of a row in their order, of which a type lacks some; and the bytes of one for so many blocks.
    CONSTANT u32 PLANES = 6;
    constexpr MEMBER u32 plane_bytes(u32 plane, u32 blocks) {
        u32 factors = SUB ? blocks / 8 * 2 : blocks * 2;
        u32 subs = SUB ? blocks * (32 / (SUB ? SUB : 32)) : 0;
        switch (plane) {
        case 0: return blocks * CODE_BYTES;
        case 1: return blocks * HIGH_BYTES;
        case 2: return factors;
        case 3: return MINS ? factors : 0;
        case 4: return subs;
        default: return MINS ? subs : 0;
        }
    }
    MEMBER Planes planes(u32 blocks) {
        Planes p;
        p.high = pad16(plane_bytes(0, blocks));
        p.d = p.high + pad16(plane_bytes(1, blocks));
        p.m = p.d + pad16(plane_bytes(2, blocks));
        p.scales = p.m + pad16(plane_bytes(3, blocks));
        p.mins = p.scales + pad16(plane_bytes(4, blocks));
        return p;
    }

    // d (or m) of block b, its plane beginning at `at`.
    MEMBER u16 factor(const u8* at, u32 b) { return ((const u16*)at)[SUB ? b >> 3 : b]; }
    // The one or two bytes of block b in a plane of sub-block bytes, as they are loaded.
    typedef typename Either<SUB == 16, u16, u8>::Type SubBytes;
    MEMBER SubBytes sub_bytes(const u8* at, u32 b) { return ((const SubBytes*)at)[b]; }
    // Byte `half` of those as a number.
    MEMBER i32 sub_scale(u16 bytes, u32 half) {
        u8 byte = (u8)(bytes >> (8 * half));
        return SIGNED ? (i32)(i8)byte : (i32)byte;
    }

    // A block of a row, as it lies in memory.
    struct Fragment {
        u32 codes[CODE_BYTES / 4];
        u32 high[HIGH ? HIGH : 1];
        u16 d, m;
        SubBytes scales, mins;
    };

    // Every load is independent of the others, so that all are in flight at once. What is read 16 bytes a lane is most
    // of the row and streamed; the small planes share cache lines between lanes and iterations, so they are cached.
    template <class From = Streamed> MEMBER Fragment load(const u8* row, const Planes& p, u32 b) {
        Fragment f;
        if constexpr (CODES == NIBBLES) {
            u32x4 v = From::sixteen(row + b * 16);
            for (u32 i = 0; i < 4; i++)
                f.codes[i] = v[i];
        } else if constexpr (CODES == BYTES) {
            u32x4 v = From::sixteen(row + b * 32), w = From::sixteen(row + b * 32 + 16);
            for (u32 i = 0; i < 4; i++) {
                f.codes[i] = v[i];
                f.codes[i + 4] = w[i];
            }
        } else {
            u32x2 v = From::eight(row + b * 8);
            f.codes[0] = v.x;
            f.codes[1] = v.y;
        }
        f.high[0] = 0;
        if constexpr (HIGH == 1) {
            f.high[0] = ((const u32*)(row + p.high))[b];
        } else if constexpr (HIGH == 2) {
            u32x2 v = From::eight(row + p.high + b * 8);
            f.high[0] = v.x;
            f.high[1] = v.y;
        }
        f.d = factor(row + p.d, b);
        f.m = MINS ? factor(row + p.m, b) : 0;
        f.scales = SUB ? sub_bytes(row + p.scales, b) : 0;
        f.mins = SUB && MINS ? sub_bytes(row + p.mins, b) : 0;
        return f;
    }

    // Four bits as the lowest bits of four bytes: multiplying puts copies 7 bits apart, so that bit i lands on 8 i.
    MEMBER u32 spread(u32 bits) { return (bits & 15) * 0x00204081u & 0x01010101u; }

    // The codes of elements 4 j … 4 j + 3 of a block, one a byte.
    MEMBER u32 word(const Fragment& f, u32 j) {
        u32 codes;
        if constexpr (CODES == NIBBLES)
            codes = (f.codes[j & 3] >> (j < 4 ? 0 : 4)) & 0x0f0f0f0fu;
        else if constexpr (CODES == BYTES)
            codes = f.codes[j];
        else
            codes = (f.codes[j & 1] >> (2 * (j >> 1))) & 0x03030303u;
        if constexpr (HIGH == 1)
            codes |= spread(f.high[0] >> (4 * j)) << HIGH_SHIFT;
        else if constexpr (HIGH == 2)
            codes |= ((f.high[j & 1] >> (2 * (j >> 1))) & 0x03030303u) << HIGH_SHIFT;
        return codes;
    }

    // A block of activations in LDS.
    typedef Activation Input;
    MEMBER Activation input(const u32x4* at) { return load_activation(at); }

    // Σ weight · x over a block. Integers stay exact up to one conversion: the largest sum, of Q6_K, is
    // 128 · 32 · 16256 · 32 < 2³¹.
    MEMBER f32 dot(const Fragment& f, const Activation& x) {
        i32 halves[2];
#pragma unroll
        for (u32 h = 0; h < 2; h++) {
            i32 high = 0, low = 0;
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                u32 codes = word(f, 4 * h + i);
                high = dot4(codes, x.high[h][i], high);
                low = dot4(codes, x.low[h][i], low);
            }
            halves[h] = high * 128 + low - OFFSET * x.sums[h];
        }
        u16 scales = alone(f.scales), least = alone(f.mins);
        f32 d = half_of(alone(f.d)) * x.scale;
        if constexpr (SUB == 0) {
            f32 sum = d * (f32)(halves[0] + halves[1]);
            return MINS ? sum + half_of(alone(f.m)) * x.scaled_sum : sum;
        } else if constexpr (SUB == 32) {
            f32 sum = d * (f32)(sub_scale(scales, 0) * (halves[0] + halves[1]));
            return MINS ? sum - half_of(alone(f.m)) * (f32)least * x.scaled_sum : sum;
        } else {
            f32 sum = d * (f32)(sub_scale(scales, 0) * halves[0] + sub_scale(scales, 1) * halves[1]);
            if (!MINS)
                return sum;
            i32 mins = (i32)(least & 255) * x.sums[0] + (i32)(least >> 8) * x.sums[1];
            return sum - half_of(alone(f.m)) * x.scale * (f32)mins;
        }
    }

    // The codes of elements 8 part … 8 part + 7 of block b, four a word: what a thread takes of a matrix tile.
    MEMBER u32x2 eighth(const u8* row, const Planes& p, u32 b, u32 part) {
        u32x2 codes;
        if constexpr (CODES == NIBBLES)
            codes = (*(const u32x2*)(row + b * 16 + (part & 1) * 8) >> ((part >> 1) * 4)) & 0x0f0f0f0fu;
        else if constexpr (CODES == BYTES)
            codes = *(const u32x2*)(row + b * 32 + part * 8);
        else
            codes = (*(const u32x2*)(row + b * 8) >> (part * 2)) & 0x03030303u;
        if constexpr (HIGH == 1) {
            u32 bits = row[p.high + b * 4 + part];
            codes.x |= spread(bits) << HIGH_SHIFT;
            codes.y |= spread(bits >> 4) << HIGH_SHIFT;
        } else if constexpr (HIGH == 2) {
            codes |= ((*(const u32x2*)(row + p.high + b * 8) >> (part * 2)) & 0x03030303u) << HIGH_SHIFT;
        }
        return codes;
    }
};

typedef Quantized<NIBBLES, 0, false, 0, false, 8> Q4_0;
typedef Quantized<NIBBLES, 0, true, 0, false, 0> Q4_1;
typedef Quantized<NIBBLES, 1, false, 0, false, 16> Q5_0;
typedef Quantized<NIBBLES, 1, true, 0, false, 0> Q5_1;
typedef Quantized<BYTES, 0, false, 0, false, 0> Q8_0;
typedef Quantized<PAIRS, 0, true, 16, false, 0> Q2_K;
typedef Quantized<PAIRS, 1, false, 16, true, 4> Q3_K;
typedef Quantized<NIBBLES, 0, true, 32, false, 0> Q4_K;
typedef Quantized<NIBBLES, 1, true, 32, false, 0> Q5_K;
typedef Quantized<NIBBLES, 2, false, 16, true, 32> Q6_K;

// A float type: `LEN` elements to a 16-byte load; rows are padded to whole ones.
template <u32 KIND> struct Float {
    CONSTANT bool FLOAT = true;
    CONSTANT u32 LEN = KIND == 32 ? 4 : 8;
    CONSTANT u32 BYTES = 16 / LEN;
    CONSTANT u32 PIECES = LEN / 4;
    CONSTANT u32 STREAMED_ROWS = 2;
    CONSTANT u32 ON_THE_WAY = 2;
    CONSTANT u32 RESIDENT = 2;
    CONSTANT u32 AHEAD = IN_FLIGHT / 16;
    // Whether one f16 holds a weight, once scaled: all but f32's 24 bits.
    CONSTANT bool NARROW = KIND != 32;

    // Element i of 16 bytes.
    MEMBER f32 element(u32x4 v, u32 i) {
        if constexpr (KIND == 32)
            return float_of(v[i]);
        else if constexpr (KIND == 16)
            return (f32)__builtin_bit_cast(f16x8, v)[i];
        else
            return float_of(i & 1 ? v[i >> 1] & 0xffff0000u : v[i >> 1] << 16);
    }

    CONSTANT u32 PLANES = 1;
    constexpr MEMBER u32 plane_bytes(u32, u32 units) { return 16 * units; }
    MEMBER Planes planes(u32) { return Planes{}; }

    struct Fragment {
        u32x4 v;
    };
    template <class From = Streamed> MEMBER Fragment load(const u8* row, const Planes&, u32 unit) {
        return Fragment{From::sixteen(row + 16 * unit)};
    }

    // LEN activations in LDS.
    struct Input {
        f32x4 v[PIECES];
    };
    MEMBER Input input(const u32x4* at) {
        Input x;
#pragma unroll
        for (u32 i = 0; i < PIECES; i++)
            x.v[i] = __builtin_bit_cast(f32x4, whole(at[i]));
        return x;
    }
    MEMBER f32 dot(const Fragment& f, const Input& x) {
        f32 sum = 0.0f;
#pragma unroll
        for (u32 i = 0; i < LEN; i++)
            sum = __builtin_fmaf(element(f.v, i), x.v[i / 4][i % 4], sum);
        return sum;
    }

    // Element i of a row.
    MEMBER f32 at(const u8* row, u32 i) {
        if constexpr (KIND == 32)
            return ((const f32*)row)[i];
        else if constexpr (KIND == 16)
            return half_of(((const u16*)row)[i]);
        else
            return float_of((u32)((const u16*)row)[i] << 16);
    }
};

typedef Float<16> F16;
typedef Float<17> BF16;  // 16 bits too, but another 16
typedef Float<32> F32;

// Instantiates M(name, type) for every type that weights may have.
#define EACH_NARROW(M) \
    M(q4_0, Q4_0) M(q4_1, Q4_1) M(q5_0, Q5_0) M(q5_1, Q5_1) M(q2_k, Q2_K) M(q3_k, Q3_K) M(q4_k, Q4_K) M(q5_k, Q5_K) \
    M(q6_k, Q6_K)
#define EACH_QUANTIZED(M) EACH_NARROW(M) M(q8_0, Q8_0)
#define EACH_FLOAT(M) M(f16, F16) M(bf16, BF16) M(f32, F32)

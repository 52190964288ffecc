// Rows of weights as files have them → as layout.h reads them, when weights are uploaded (src/gpu/upload.rs).
//
//   to [rows, to_stride] planes, padded with zeros ← from [rows, from_stride] blocks, aligned to 16 bytes
//
// A thread makes one block of 32 elements, or 16 bytes of a row of floats; threads past a row's last write the zeros that
// pad its planes, so a launch has whole runs of 64 (src/gpu/geometry.rs). Blocks of most types are aligned to two or four
// bytes only. Threads of a wave read neighbouring blocks, so whatever the pieces in which a thread reads its own, all
// bytes of a cache line are used while it is near.
//
// Predicted from instruction counts, not measured. The longest code, Q3_K's on gfx942, has 202 instructions, 131 of them on
// vectors, for 64 blocks of 13.75 bytes: 131 cycles of a compute unit's four SIMDs, and some 170 of its L1 for four loads
// of 16 unaligned bytes and three of 2. That is 5 bytes a cycle, 3 TB/s for 304 units at 2.1 GHz, and more for other types,
// so HBM decides, which moves each byte twice: 1 to 2 TB/s of the file. An H100 reads unaligned blocks two bytes at a time,
// 35 loads for 32 blocks of Q3_K that take about 5 cycles each: 2.5 bytes a cycle, 0.5 TB/s. PCIe brings 0.06.
#pragma once
#include "layout.h"

// N words from `at`, which is aligned to ALIGN bytes: in the largest pieces that this allows.
template <u32 ALIGN, u32 N> DEVICE void read_words(const u8* at, u32 (&words)[N]) {
    __builtin_memcpy(words, __builtin_assume_aligned(at, ALIGN), 4 * N);
}
DEVICE u16 read_half(const u8* at) { return *(const u16*)at; }

// The lowest bits of four bytes as four bits: the inverse of Quantized::spread. Copies 7 bits apart put bit 8 i at 28 + i.
DEVICE u32 gather(u32 bytes) { return (bytes & 0x01010101u) * 0x10204080u >> 28; }

// Where a type's blocks have their fields, in bytes; what of them a K type's block of 256 has for the whole of it.
template <class Q> struct InFile {
    // Types of 32-wide blocks: d, m, high and codes follow each other.
    CONSTANT u32 LEN = 32, D = 0, M = 2, HIGH = Q::MINS ? 4 : 2, CODES = HIGH + Q::HIGH_BYTES, SCALES = 0;
    CONSTANT u32 BYTES = CODES + Q::CODE_BYTES;
};
template <> struct InFile<Q2_K> {
    CONSTANT u32 LEN = 256, SCALES = 0, CODES = 16, D = 80, M = 82, HIGH = 0, BYTES = 84;
};
template <> struct InFile<Q3_K> {
    CONSTANT u32 LEN = 256, HIGH = 0, CODES = 32, SCALES = 96, D = 108, M = 0, BYTES = 110;
};
template <> struct InFile<Q4_K> {
    CONSTANT u32 LEN = 256, D = 0, M = 2, SCALES = 4, HIGH = 0, CODES = 16, BYTES = 144;
};
template <> struct InFile<Q5_K> {
    CONSTANT u32 LEN = 256, D = 0, M = 2, SCALES = 4, HIGH = 16, CODES = 48, BYTES = 176;
};
template <> struct InFile<Q6_K> {
    CONSTANT u32 LEN = 256, CODES = 0, HIGH = 128, SCALES = 192, D = 208, M = 0, BYTES = 210;
};

// Two bits at `shift` of each of 32 bytes, as a plane of pairs has them.
template <u32 ALIGN> DEVICE void pairs(const u8* at, u32 shift, u32 (&out)[2]) {
    u32 bytes[8];
    read_words<ALIGN>(at, bytes);
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
        out[i] = 0;
#pragma unroll
        for (u32 j = 0; j < 4; j++)
            out[i] |= (bytes[2 * j + i] >> shift & 0x03030303u) << (2 * j);
    }
}

// Bit `shift` of each of 32 bytes.
template <u32 ALIGN> DEVICE u32 bits(const u8* at, u32 shift) {
    u32 bytes[8], out = 0;
    read_words<ALIGN>(at, bytes);
#pragma unroll
    for (u32 i = 0; i < 8; i++)
        out |= gather(bytes[i] >> shift) << (4 * i);
    return out;
}

// The scales and minima of the two sub-blocks of 16, or the one of 32, of block `part` of 8. Six-bit ones are packed as
// DType::decode describes.
template <class Q> DEVICE void sub_blocks(const u8* at, u32 part, typename Q::Fragment& f) {
    if constexpr (Q::SUB == 32) {
        if (part < 4) {
            f.scales = at[part] & 63;
            f.mins = at[part + 4] & 63;
        } else {
            f.scales = (at[part + 4] & 15) | at[part - 4] >> 6 << 4;
            f.mins = at[part + 4] >> 4 | at[part] >> 6 << 4;
        }
    } else if constexpr (Q::MINS) {
        u32 both = read_half(at + 2 * part);
        f.scales = both & 0x0f0fu;
        f.mins = both >> 4 & 0x0f0fu;
    } else if constexpr (Q::HIGH == 1) {
        u32 low = read_half(at + 2 * (part & 3)) >> (part >> 2) * 4 & 0x0f0fu;
        u32 top = read_half(at + 8 + 2 * (part & 1)) >> (part >> 1) * 2 & 0x0303u;
        // Less 32, each byte by itself: the sixth bit turns over, and becomes the sign.
        u32 turned = (low | top << 4) ^ 0x2020u, sign = turned & 0x2020u;
        f.scales = turned | sign << 1 | sign << 2;
    } else {
        f.scales = read_half(at + 2 * part);
    }
}

// Block `unit` of a row.
template <class Q> DEVICE typename Q::Fragment from_file(const u8* row, u32 unit) {
    typedef InFile<Q> In;
    // What all blocks and their runs of codes are aligned to, since the first row is to 16.
    constexpr u32 ALL = In::BYTES | In::CODES | In::HIGH, ALIGN = ALL % 16 == 0 ? 16 : ALL % 4 == 0 ? 4 : 2;
    typename Q::Fragment f = {};
    if constexpr (In::LEN == 32) {
        const u8* block = row + unit * In::BYTES;
        f.d = read_half(block + In::D);
        if constexpr (Q::MINS)
            f.m = read_half(block + In::M);
        if constexpr (Q::HIGH)
            read_words<ALIGN>(block + In::HIGH, f.high);
        read_words<ALIGN>(block + In::CODES, f.codes);
    } else {
        const u8* block = row + (unit >> 3) * In::BYTES;
        u32 part = unit & 7, half = part >> 2;
        f.d = read_half(block + In::D);
        if constexpr (Q::MINS)
            f.m = read_half(block + In::M);
        sub_blocks<Q>(block + In::SCALES, part, f);
        if constexpr (Q::CODES == PAIRS) {
            pairs<ALIGN>(block + In::CODES + 32 * half, 2 * (part & 3), f.codes);
        } else {
            // Q4_K and Q5_K have a block and the next in 32 bytes; Q6_K a block and the next but one.
            u32 run = Q::HIGH == 2 ? 2 * half + (part & 1) : part >> 1;
            u32 shift = 4 * (Q::HIGH == 2 ? part >> 1 & 1 : part & 1);
            u32 bytes[8];
            read_words<ALIGN>(block + In::CODES + 32 * run, bytes);
#pragma unroll
            for (u32 i = 0; i < 4; i++)
                f.codes[i] = (bytes[i] >> shift & 0x0f0f0f0fu) | (bytes[i + 4] >> shift & 0x0f0f0f0fu) << 4;
        }
        if constexpr (Q::HIGH == 1)
            f.high[0] = bits<ALIGN>(block + In::HIGH, part);
        else if constexpr (Q::HIGH == 2)
            pairs<ALIGN>(block + In::HIGH + 32 * half, 2 * (part & 3), f.high);
    }
    return f;
}

// Writes a block to the planes, or zeros where one is only padded so far.
template <class Q> DEVICE void to_planes(u8* row, const Planes& p, u32 unit, u32 units, const typename Q::Fragment& f) {
    // Of a plane of `bytes` a unit: whether it has this one, its padding to 16 included.
    auto has = [&](u32 bytes) { return unit * bytes < pad16(units * bytes); };
    if (unit < units) {
        u8* codes = row + unit * Q::CODE_BYTES;
        if constexpr (Q::CODES == PAIRS)
            *(u32x2*)codes = u32x2{f.codes[0], f.codes[1]};
        else
            *(u32x4*)codes = u32x4{f.codes[0], f.codes[1], f.codes[2], f.codes[3]};
        if constexpr (Q::CODES == BYTES)
            ((u32x4*)codes)[1] = u32x4{f.codes[4], f.codes[5], f.codes[6], f.codes[7]};
        if constexpr (Q::HIGH == 2)
            ((u32x2*)(row + p.high))[unit] = u32x2{f.high[0], f.high[1]};
    }
    if constexpr (Q::HIGH == 1)
        if (has(4))
            ((u32*)(row + p.high))[unit] = f.high[0];
    if constexpr (Q::SUB == 0) {
        if (has(2)) {
            ((u16*)(row + p.d))[unit] = f.d;
            if constexpr (Q::MINS)
                ((u16*)(row + p.m))[unit] = f.m;
        }
    } else {
        // One f16 of d for eight blocks.
        if ((unit & 7) == 0 && unit / 4 < pad16(units / 4)) {
            ((u16*)(row + p.d))[unit >> 3] = f.d;
            if constexpr (Q::MINS)
                ((u16*)(row + p.m))[unit >> 3] = f.m;
        }
        if (has(32 / Q::SUB)) {
            if constexpr (Q::SUB == 16) {
                ((u16*)(row + p.scales))[unit] = f.scales;
                if constexpr (Q::MINS)
                    ((u16*)(row + p.mins))[unit] = f.mins;
            } else {
                row[p.scales + unit] = (u8)f.scales;
                row[p.mins + unit] = (u8)f.mins;
            }
        }
    }
}

template <class Q> DEVICE void repack(const u8* from, u8* to, u32 from_stride, u32 to_stride, u32 units, u32 rows) {
    u32 unit = block_y() * 64 + thread_x(), r = block_x() * 4 + thread_y();
    if (r >= rows)
        return;
    typename Q::Fragment f = {};
    if (unit < units)
        f = from_file<Q>(row_of(from, from_stride, r), unit);
    to_planes<Q>(row_of(to, to_stride, r), Q::planes(units), unit, units, f);
}

#define REPACK(name, Q) \
    GLOBAL THREADS_AT_MOST(256) void repack_##name(const u8* from, u8* to, u32 from_stride, u32 to_stride, u32 units, \
                                                   u32 rows) { \
        repack<Q>(from, to, from_stride, to_stride, units, rows); \
    }
EACH_QUANTIZED(REPACK)
#undef REPACK

// Rows of an even number of bytes, padded with zeros to whole units of 16: floats, whatever their type.
GLOBAL THREADS_AT_MOST(256) void repack_rows(const u8* from, u8* to, u32 from_stride, u32 to_stride, u32 units,
                                             u32 rows) {
    u32 unit = block_y() * 64 + thread_x(), r = block_x() * 4 + thread_y();
    if (r >= rows || unit >= units)
        return;
    const u8* row = row_of(from, from_stride, r);
    u32x4 words;
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        u32 at = 16 * unit + 4 * i;
        u32 low = at < from_stride ? read_half(row + at) : 0;
        u32 high = at + 2 < from_stride ? read_half(row + at + 2) : 0;
        words[i] = low | high << 16;
    }
    ((u32x4*)row_of(to, to_stride, r))[unit] = words;
}

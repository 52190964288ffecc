// Rows of f16 that all share a power of two: activations for gemm_half. A row is its columns, zeros to a multiple of 64,
// and then one f32, 2⁻ˢ: values are f16 · 2⁻ˢ, the largest within 2¹⁴ … 2¹⁵, so that none overflows and what is
// subnormal is below 2⁻²⁸ of the largest. src/cpu/half_rows.rs is the twin.
#pragma once
#include "common.h"

CONSTANT u32 HALF_UNIT = 64;

DEVICE u32 half_columns(u32 cols) { return (cols + HALF_UNIT - 1) / HALF_UNIT * HALF_UNIT; }
// The factor behind a row.
DEVICE f32* half_factor(f16* row, u32 cols) { return (f32*)(row + half_columns(cols)); }
DEVICE const f32* half_factor(const f16* row, u32 cols) { return (const f32*)(row + half_columns(cols)); }

// 2ˢ for a row whose greatest magnitude has these bits, and 2⁻ˢ. A row below 2⁻¹¹² is zeros; one with an infinity or a
// NaN is zeros times NaN.
DEVICE f32 half_up(u32 peak, f32& down) {
    u32 exponent = peak >> 23;
    if (exponent == 255) {
        down = float_of(0x7fc00000u);
        return 0.0f;
    }
    down = exponent < 15 ? 0.0f : float_of((exponent - 14) << 23);
    return exponent < 15 ? 0.0f : float_of((268 - exponent) << 23);
}

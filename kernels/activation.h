// The gated activations: silu(x) = x / (1 + e^−x) and GELU's tanh form, ½ x (1 + tanh u) = x / (1 + e^−2u).
#pragma once
#include "common.h"

// `kind`: 0 is SiLU, 1 is GELU.
DEVICE f32 activated(f32 x, u32 kind) {
    const f32 linear = -2.0f * 0.7978846f;
    f32 exponent = kind == 0 ? -x : (x * x * (linear * 0.044715f) + linear) * x;
    return x / (exponential(exponent) + 1.0f);
}

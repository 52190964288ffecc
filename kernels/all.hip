// Every kernel in one translation unit: a device loads one code object, and build.rs compiles one file an architecture.
#include "attention.hip"
#include "attention_flash.hip"
#include "embed.hip"
#include "gemm.hip"
#include "gemm_half.hip"
#include "gemv.hip"
#include "norm.hip"
#include "half.hip"
#include "rope.hip"
#include "sample.hip"
#include "silu.hip"
// After what it varies: attention and rope.
#include "cache_q8.hip"

// Every kernel in one translation unit: a device loads one code object, and build.rs compiles one file an architecture.
#include "attention.hip"
#include "embed.hip"
#include "gemm.hip"
#include "gemv.hip"
#include "norm.hip"
#include "rope.hip"
#include "sample.hip"
#include "silu.hip"
// After what it varies: attention and rope.
#include "cache_q8.hip"

// What every kernel stands on: one vocabulary for AMD (wave64 and wave32) and NVIDIA, without vendor headers.
//
// Compiled as HIP for gfx90a, gfx942 (waves of 64) and gfx1100 (waves of 32), and as CUDA to PTX (warps of 32).
// Launch geometry is decided in src/gpu/geometry.rs; kernels read their block's shape from the launch. Blocks are
// whole waves, because shuffles name every lane: no thread may leave before its wave's last shuffle, and no wave
// before its block's last barrier, unless the whole block leaves.
#pragma once

#define GLOBAL extern "C" __attribute__((global))
#define DEVICE static inline __attribute__((device, always_inline))
#define DEVICE_MEMBER inline __attribute__((device, always_inline))
#define MEMBER static inline __attribute__((device, always_inline))
#define SHARED __attribute__((shared))
// Of pointers that are known to lead into LDS.
#define SHARED_SPACE __attribute__((address_space(3)))
#define CONSTANT static constexpr __attribute__((unused))
// The most threads of a block; also how many registers a thread may have. clang's HIP leaves `launch_bounds` to vendor
// headers, which spell it so.
#if defined(__AMDGCN__)
#define THREADS_AT_MOST(n) __attribute__((amdgpu_flat_work_group_size(1, n)))
#define THREADS_AND_BLOCKS(n, blocks) THREADS_AT_MOST(n)
#else
#define THREADS_AT_MOST(n) __attribute__((launch_bounds(n)))
// And how many blocks an SM's registers have to hold, where that is worth more than registers.
#define THREADS_AND_BLOCKS(n, blocks) __attribute__((launch_bounds(n, blocks)))
#endif

typedef signed char i8;
typedef unsigned char u8;
typedef unsigned short u16;
typedef int i32;
typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;
typedef float f32;
typedef double f64;
typedef _Float16 f16;
typedef u32 u32x2 __attribute__((ext_vector_type(2)));
typedef u32 u32x4 __attribute__((ext_vector_type(4)));
typedef f32 f32x2 __attribute__((ext_vector_type(2)));
typedef f32 f32x4 __attribute__((ext_vector_type(4)));
typedef f32 f32x8 __attribute__((ext_vector_type(8)));
typedef f16 f16x2 __attribute__((ext_vector_type(2)));
typedef f16 f16x4 __attribute__((ext_vector_type(4)));
typedef f16 f16x8 __attribute__((ext_vector_type(8)));
typedef f16 f16x16 __attribute__((ext_vector_type(16)));

// The wave's width cannot be asked of the preprocessor in every clang: it follows from the target.
#if defined(__AMDGCN__)
#if defined(__gfx90a__) || defined(__gfx942__)
#define WAVE 64
#define CDNA 1
#else
#define WAVE 32
#define RDNA 1
#endif
#else
#define WAVE 32
#define NVIDIA 1
#endif
#ifndef NVIDIA
#define NVIDIA 0
#endif
// What only sm_90 itself has: products by four waves together, of operands in LDS.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define WARP_GROUPS 1
#else
#define WARP_GROUPS 0
#endif

// ---- Who am I ----

#if NVIDIA
DEVICE u32 thread_x() { return __nvvm_read_ptx_sreg_tid_x(); }
DEVICE u32 thread_y() { return __nvvm_read_ptx_sreg_tid_y(); }
DEVICE u32 block_x() { return __nvvm_read_ptx_sreg_ctaid_x(); }
DEVICE u32 block_y() { return __nvvm_read_ptx_sreg_ctaid_y(); }
DEVICE u32 threads_x() { return __nvvm_read_ptx_sreg_ntid_x(); }
DEVICE u32 threads_y() { return __nvvm_read_ptx_sreg_ntid_y(); }
DEVICE u32 blocks_x() { return __nvvm_read_ptx_sreg_nctaid_x(); }
#else
DEVICE u32 thread_x() { return __builtin_amdgcn_workitem_id_x(); }
DEVICE u32 thread_y() { return __builtin_amdgcn_workitem_id_y(); }
DEVICE u32 block_x() { return __builtin_amdgcn_workgroup_id_x(); }
DEVICE u32 block_y() { return __builtin_amdgcn_workgroup_id_y(); }
DEVICE u32 threads_x() { return __builtin_amdgcn_workgroup_size_x(); }
DEVICE u32 threads_y() { return __builtin_amdgcn_workgroup_size_y(); }
DEVICE u32 blocks_x() { return __builtin_amdgcn_grid_size_x() / __builtin_amdgcn_workgroup_size_x(); }
#endif

// Every thread of the block arrives, and what each wrote to LDS or global memory before is visible to all after.
DEVICE void barrier() {
#if NVIDIA
    __syncthreads();
#else
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
    __builtin_amdgcn_s_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
#endif
}

// The same for the first `threads` of a block, whole waves; the others have no part in it. On AMD they are all there are.
DEVICE void barrier_of(u32 threads) {
#if NVIDIA
    asm volatile("bar.sync 1, %0;" ::"r"(threads) : "memory");
#else
    (void)threads;
    barrier();
#endif
}

// What this thread wrote before is seen by the host before what it writes after.
DEVICE void fence_for_host() {
#if NVIDIA
    __nvvm_membar_sys();
#else
    __builtin_amdgcn_fence(__ATOMIC_SEQ_CST, "");
#endif
}

// ---- Bits ----

DEVICE u32 bits_of(f32 x) { return __builtin_bit_cast(u32, x); }
DEVICE f32 float_of(u32 x) { return __builtin_bit_cast(f32, x); }
DEVICE f32 magnitude(f32 x) { return float_of(bits_of(x) & 0x7fffffffu); }
// f16 bits widened, exactly.
DEVICE f32 half_of(u16 x) { return (f32)__builtin_bit_cast(f16, x); }
DEVICE u32 minimum(u32 a, u32 b) { return a < b ? a : b; }
DEVICE u32 maximum(u32 a, u32 b) { return a > b ? a : b; }
DEVICE u32 pad16(u32 bytes) { return (bytes + 15) & ~15u; }

// What numbers below 2¹⁶ are divided by again and again, 2 to 2¹⁶: a division of runtime numbers is a chain of some 40
// instructions. This one is a product with ⌈2³² / d⌉, which is too large by less than 1 / d.
struct Divisor {
    u32 inverse;

    DEVICE_MEMBER u32 quotient(u32 i) const { return (u32)((u64)i * inverse >> 32); }
};
DEVICE Divisor divisor(u32 d) { return Divisor{0xffffffffu / d + 1}; }

// ---- Across lanes ----

// The value of lane `lane ^ mask` of the wave; `mask` is below WAVE and the same in all lanes.
DEVICE u32 shuffle_xor(u32 x, u32 mask) {
#if NVIDIA
    return __nvvm_shfl_sync_bfly_i32(0xffffffffu, x, mask, 31);
#elif CDNA
    u32 lane = __builtin_amdgcn_mbcnt_hi(~0u, __builtin_amdgcn_mbcnt_lo(~0u, 0));
    return __builtin_amdgcn_ds_bpermute((lane ^ mask) << 2, x);
#else
    u32 lane = __builtin_amdgcn_mbcnt_lo(~0u, 0);
    return __builtin_amdgcn_ds_bpermute((lane ^ mask) << 2, x);
#endif
}
DEVICE u64 shuffle_xor(u64 x, u32 mask) {
    u64 low = shuffle_xor((u32)x, mask), high = shuffle_xor((u32)(x >> 32), mask);
    return high << 32 | low;
}
DEVICE f32 shuffle_xor(f32 x, u32 mask) { return float_of(shuffle_xor(bits_of(x), mask)); }
DEVICE f64 shuffle_xor(f64 x, u32 mask) {
    u64 bits = __builtin_bit_cast(u64, x);
    u64 low = shuffle_xor((u32)bits, mask), high = shuffle_xor((u32)(bits >> 32), mask);
    return __builtin_bit_cast(f64, high << 32 | low);
}

// The value of lane `lane` of the wave, which each lane chooses for itself.
DEVICE f32 lane_value(f32 x, u32 lane) {
#if NVIDIA
    return float_of(__nvvm_shfl_sync_idx_i32(0xffffffffu, bits_of(x), lane, 31));
#else
    return float_of(__builtin_amdgcn_ds_bpermute(lane << 2, bits_of(x)));
#endif
}
DEVICE u64 shuffle_from(u64 x, u32 lane) {
#if NVIDIA
    u64 low = (u32)__nvvm_shfl_sync_idx_i32(0xffffffffu, (u32)x, lane, 31);
    u64 high = (u32)__nvvm_shfl_sync_idx_i32(0xffffffffu, (u32)(x >> 32), lane, 31);
#else
    u64 low = (u32)__builtin_amdgcn_ds_bpermute(lane << 2, (u32)x);
    u64 high = (u32)__builtin_amdgcn_ds_bpermute(lane << 2, (u32)(x >> 32));
#endif
    return high << 32 | low;
}

#if !NVIDIA
// The value another lane of the same 16 has, by a DPP pattern, which is part of the instruction that uses it where a
// shuffle goes through LDS: of the lane 1 or 2 off in a quad, of the mirrored lane of 8, and of 16.
enum { DPP_XOR1 = 0xb1, DPP_XOR2 = 0x4e, DPP_MIRROR8 = 0x141, DPP_MIRROR16 = 0x140 };
template <i32 PATTERN> DEVICE u32 moved(u32 x) { return __builtin_amdgcn_update_dpp(0, x, PATTERN, 0xf, 0xf, true); }
template <i32 PATTERN> DEVICE f32 moved(f32 x) { return float_of(moved<PATTERN>(bits_of(x))); }
template <i32 PATTERN> DEVICE f64 moved(f64 x) {
    u64 bits = __builtin_bit_cast(u64, x);
    u64 low = moved<PATTERN>((u32)bits), high = moved<PATTERN>((u32)(bits >> 32));
    return __builtin_bit_cast(f64, high << 32 | low);
}
#endif

// The value of a lane 1 or 2 off in each four lanes; what the other four of eight lanes have, and the other eight of 16,
// who all have the same: steps of a reduction.
template <class T> DEVICE T one_off(T x) {
#if NVIDIA
    return shuffle_xor(x, 1);
#else
    return moved<DPP_XOR1>(x);
#endif
}
template <class T> DEVICE T two_off(T x) {
#if NVIDIA
    return shuffle_xor(x, 2);
#else
    return moved<DPP_XOR2>(x);
#endif
}
template <class T> DEVICE T other_four(T x) {
#if NVIDIA
    return shuffle_xor(x, 4);
#else
    return moved<DPP_MIRROR8>(x);
#endif
}
template <class T> DEVICE T other_eight(T x) {
#if NVIDIA
    return shuffle_xor(x, 8);
#else
    return moved<DPP_MIRROR16>(x);
#endif
}

// x, of 8 or 16 bits, which the compiler may not pack with another value as soon as both are loaded: it would have to wait
// for them there.
DEVICE u16 alone(u16 x) {
#if !NVIDIA
    asm("" : "+v"(x));
#endif
    return x;
}

// What all lanes of a wave have, told to the compiler: AMD then keeps it in a scalar register and branches on it without
// masks.
DEVICE u32 alike(u32 x) {
#if NVIDIA
    return x;
#else
    return __builtin_amdgcn_readfirstlane(x);
#endif
}

// The sum over each aligned group of `lanes` lanes (8, 16, 32 or 64; the same in all of the wave), in all of them.
DEVICE f32 group_sum(f32 x, u32 lanes) {
    x += one_off(x);
    x += two_off(x);
    x += other_four(x);
    if (lanes >= 16)
        x += other_eight(x);
    for (u32 mask = 16; mask < lanes; mask <<= 1)
        x += shuffle_xor(x, mask);
    return x;
}
// The sum over the wave, in all of its lanes.
DEVICE f64 wave_sum(f64 x) {
    x += one_off(x);
    x += two_off(x);
    x += other_four(x);
    x += other_eight(x);
    for (u32 mask = 16; mask < WAVE; mask <<= 1)
        x += shuffle_xor(x, mask);
    return x;
}

// Sums over lanes MASK, MASK / 2 … LAST apart of COUNT values each. Lanes that swap halves of their values keep the sums of
// the other halves, as long as there are halves: the upper lane of each two has the upper half.
template <u32 MASK, u32 LAST, u32 COUNT> DEVICE void deal_sums(f32* v) {
    if constexpr (MASK >= LAST) {
        if constexpr (COUNT % 2 == 0) {
            u32 lane = thread_x();
#if !NVIDIA
            // Not known before the loop: the masks of all halvings would take more scalar registers than there are.
            asm volatile("" : "+v"(lane));
#endif
            bool upper = lane & MASK;
#pragma unroll
            for (u32 i = 0; i < COUNT / 2; i++) {
                f32 low = v[i], high = v[COUNT / 2 + i];
                v[i] = (upper ? high : low) + shuffle_xor(upper ? low : high, MASK);
            }
            deal_sums<MASK / 2, LAST, COUNT / 2>(v);
        } else {
#pragma unroll
            for (u32 i = 0; i < COUNT; i++)
                v[i] += shuffle_xor(v[i], MASK);
            deal_sums<MASK / 2, LAST, COUNT>(v);
        }
    }
}

// ---- Arithmetic ----

// acc + Σ a.byte[i] · b.byte[i], all bytes signed.
DEVICE i32 dot4(u32 a, u32 b, i32 acc) {
#if NVIDIA
    i32 sum;
    asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(acc));
    return sum;
#elif CDNA
    return __builtin_amdgcn_sdot4(a, b, acc, false);
#else
    return __builtin_amdgcn_sudot4(true, a, true, b, acc, false);
#endif
}

// 1 / x to a few units in the last place, for x from 1 to 2.
DEVICE f32 reciprocal(f32 x) {
#if NVIDIA
    return __nvvm_rcp_approx_ftz_f(x);
#else
    return __builtin_amdgcn_rcpf(x);
#endif
}
// 1 / √x: an approximation and two of Newton's steps, good to the last bits of an f64. x is not negative.
DEVICE f64 inverse_root(f64 x) {
#if NVIDIA
    f64 y;
    asm("rsqrt.approx.ftz.f64 %0, %1;" : "=d"(y) : "d"(x));
#else
    f64 y = __builtin_amdgcn_rsq(x);
#endif
    for (u32 i = 0; i < 2; i++)
        y = __builtin_fma(0.5 * y, __builtin_fma(-x * y, y, 1.0), y);
    return y;
}

// a · b, rounded, never contracted with a sum that it goes into: NVIDIA's back end fuses whatever the pragma says.
DEVICE f32 rounded_product(f32 a, f32 b) {
#if NVIDIA
    return __nvvm_mul_rn_f(a, b);
#else
#pragma clang fp contract(off)
    return a * b;
#endif
}

// e^x with a relative error below 2e-7; 0 below −87; NaN stays NaN. The CPU's polynomial (src/cpu/simd/exp.rs), so that
// all machines agree and none needs a device library; hardware exponentials lose a digit at large arguments.
DEVICE f32 exponential(f32 x) {
    // Comparisons, not min and max: those would swallow NaN.
    f32 clamped = x < -87.0f ? -87.0f : x;
    clamped = clamped > 88.37626f ? 88.37626f : clamped;
    f32 magic = __builtin_fmaf(clamped, 1.44269504f, 12582912.0f);
    f32 n = magic - 12582912.0f;
    f32 r = __builtin_fmaf(n, -0.693359375f, clamped);
    r = __builtin_fmaf(n, 2.1219444e-4f, r);
    f32 p = 1.9875691e-4f;
    p = __builtin_fmaf(p, r, 1.3981999e-3f);
    p = __builtin_fmaf(p, r, 8.333452e-3f);
    p = __builtin_fmaf(p, r, 4.1665796e-2f);
    p = __builtin_fmaf(p, r, 1.6666665e-1f);
    p = __builtin_fmaf(p, r, 0.5f);
    p = __builtin_fmaf(p, r * r, r) + 1.0f;
    // The low bits of `magic` are the nearest integer to x / ln 2: added to p's exponent.
    f32 scaled = float_of(bits_of(p) + (bits_of(magic) << 23));
    return x < -87.0f ? 0.0f : (x == x ? scaled : x);
}

// ---- Memory ----

// Element `r` of rows `stride` bytes apart.
template <class T> DEVICE T* row_of(T* base, u32 stride, u32 r) { return (T*)((u8*)base + (u64)r * stride); }
template <class T> DEVICE const T* row_of(const T* base, u32 stride, u32 r) {
    return (const T*)((const u8*)base + (u64)r * stride);
}

// 16 bytes that are read once a step, so that they need not push anything out of the caches. Aligned to 16.
//
// `volatile`, so that a load written before await_predecessors() is issued before it.
DEVICE u32x4 load_streamed(const void* at) {
#if NVIDIA
    u32x4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
        : "l"((const __attribute__((address_space(1))) void*)at));
    return v;
#else
    return __builtin_nontemporal_load((const u32x4*)at);
#endif
}
// Likewise 8 bytes.
DEVICE u32x2 load_streamed8(const void* at) {
#if NVIDIA
    u32x2 v;
    asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];"
        : "=r"(v.x), "=r"(v.y)
        : "l"((const __attribute__((address_space(1))) void*)at));
    return v;
#else
    return __builtin_nontemporal_load((const u32x2*)at);
#endif
}

// x has come from memory. Said of what is loaded for all and used under a condition: AMD's compiler would otherwise take
// it to be on the way until its registers are written again, and wait there for whatever was loaded since (gemv.hip).
DEVICE void await(u32x4 x) {
#if !NVIDIA
    asm volatile("" ::"v"(x));
#else
    (void)x;
#endif
}

#if NVIDIA
// An address as instructions of the shared window take it.
DEVICE u32 shared_address(const void* at) { return (u32)(u64)(const SHARED_SPACE void*)at; }
#endif

// Four f32 of a row of n from column i on, zeros past its end. Rows are aligned to 16 bytes, which are read whole, and i is
// a multiple of 4. No branch: loads that follow one another are then all on the way at once.
DEVICE f32x4 load4(const f32* x, u32 i, u32 n) {
    f32x4 v = *(const f32x4*)(x + minimum(i, (n - 1) & ~3u));
    for (u32 c = 0; c < 4; c++)
        v[c] = i + c < n ? v[c] : 0.0f;
    return v;
}
DEVICE void store4(f32* y, u32 i, u32 n, f32x4 v) {
    if (i + 4 <= n) {
        *(f32x4*)(y + i) = v;
        return;
    }
    if (i < n)
        y[i] = v.x;
    if (i + 1 < n)
        y[i + 1] = v.y;
    if (i + 2 < n)
        y[i + 2] = v.z;
}

// The LDS that a launch asks for, beside what a kernel declares. NVIDIA's bulk copies to addresses that are not multiples
// of 128 are slow (gemv_stream.hip).
extern SHARED __attribute__((aligned(NVIDIA ? 128 : 16))) u32x4 pool[];

// ---- Launches that overlap ----
//
// From sm_90 on a launch may be made to begin while its predecessor P still runs: its blocks take what room P leaves,
// fetch weights, and then wait. The contract of every kernel in src/gpu/overlap.rs's list, which are launched so:
//
//  1. Each block that runs calls await_predecessors() before it reads anything that a kernel of this step writes (values
//     in the arena, the step's own rows of the caches, tickets), and before it writes anything at all. What it touches
//     before that is weights, which nothing writes after they are uploaded, its own arguments and LDS, and what earlier
//     steps have left (4): the rows of the caches before this step's, and the step's words, which only the last kernel of
//     a step writes.
//  2. The wait ends when P has finished and its writes are visible. P had waited for its own predecessor in the same
//     way, or was launched without overlap and began after it had finished; so, by induction, everything before P has
//     finished too. Hence reusing a piece of the arena needs no more than the stream's order, as without overlap.
//  3. A block may leave before others of its grid wait, never before it has waited itself: a grid all of whose blocks
//     leave without waiting would finish before its predecessor, and break (2) for its successor.
//  4. The first launch of a step does not overlap: it begins after all of the step before has finished. Whatever comes
//     later begins after it has begun.
//
// Where the hardware or the launch does not overlap, all of these do nothing.

// The successor may begin, once every block has said so or left.
DEVICE void let_successor_begin() {
#if NVIDIA && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
// Everything launched before has finished and is visible.
DEVICE void await_predecessors() {
#if NVIDIA && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// What a kernel that fetches nothing beforehand begins with.
DEVICE void begin_in_turn() {
    let_successor_begin();
    await_predecessors();
}
// Asks for `bytes` (a multiple of 16) at `at` (aligned to 16) to be brought to L2: one lane does. A hint, for which only
// NVIDIA has an instruction from sm_90 on.
DEVICE void prefetch(const u8* at, u32 bytes) {
#if NVIDIA && __CUDA_ARCH__ >= 900
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"((const __attribute__((address_space(1))) void*)at),
                 "r"(bytes)
                 : "memory");
#else
    (void)at, (void)bytes;
#endif
}

// ---- Across blocks ----

// What this thread wrote before is visible to whoever, on any compute unit of the device, takes a ticket afterwards in a
// thread that this one's block's barrier orders after it. On CDNA 3 that writes L2 back, which its dies do not share.
//
// NVIDIA's tickets release what their thread has seen by a barrier, and acquire for those whom a barrier lets see them:
// there is nothing to add.
DEVICE void publish() {
#if !NVIDIA
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "agent");
#endif
}
// What was published before the tickets that this block has seen is read afresh from here on.
DEVICE void refresh() {
#if !NVIDIA
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "agent");
#endif
}
// Adds one to a counter of the device's and gives what it was.
DEVICE u32 take_ticket(u32* counter) {
#if NVIDIA
    u32 old;
    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;"
                 : "=r"(old)
                 : "l"((__attribute__((address_space(1))) void*)counter)
                 : "memory");
    return old;
#else
    return __hip_atomic_fetch_add(counter, 1u, __ATOMIC_ACQ_REL, __HIP_MEMORY_SCOPE_AGENT);
#endif
}
// Sets such a counter to 0 for the next launch, once all tickets have been taken.
DEVICE void put_back(u32* counter) {
#if NVIDIA
    asm volatile("st.relaxed.gpu.global.u32 [%0], 0;" ::"l"((__attribute__((address_space(1))) void*)counter) : "memory");
#else
    __hip_atomic_store(counter, 0u, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
#endif
}

//! Sixteen lanes as arrays, in loops that the compiler may vectorise.
//!
//! No multiply-add is fused here, because without the instruction that is a library call: sums differ from the other
//! paths' in the last bits.

use super::Simd;
use crate::cpu::activation::HIGH_SHIFT;
use crate::cpu::gemm_q::driver::{self, Panel, Tile, tile_by_rows};
use crate::cpu::gemm_q::format::{Format, Shape};
use crate::cpu::panel::LANES;
use half::f16;

/// Plain Rust, valid on any machine: here the functions' contracts reduce to their pointers.
pub(crate) struct Portable;

fn lanes(f: impl Fn(usize) -> f32) -> [f32; LANES] {
    core::array::from_fn(f)
}

/// # Safety
/// As [`driver::tile`].
unsafe fn tile_of<H: Shape, const R: usize>(tile: &Tile) {
    // SAFETY: the caller's promise.
    unsafe { driver::tile::<Portable, H, R>(tile) }
}

impl Simd for Portable {
    type I = [u8; 64];
    type F = [f32; LANES];
    type A = [i32; LANES];
    const LANES: usize = LANES;
    const ROWS: usize = 4;

    #[inline(always)]
    unsafe fn load(at: *const u8) -> [u8; 64] {
        // SAFETY: the caller's promise.
        unsafe { at.cast::<[u8; 64]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(at: *mut u8, v: [u8; 64]) {
        // SAFETY: the caller's promise.
        unsafe { at.cast::<[u8; 64]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn bytes(v: [u8; 64]) -> [u8; 64] {
        v.map(|b| b ^ 0x80)
    }
    #[inline(always)]
    unsafe fn and(v: [u8; 64], mask: u8) -> [u8; 64] {
        v.map(|b| b & mask)
    }
    #[inline(always)]
    unsafe fn or(a: [u8; 64], b: [u8; 64]) -> [u8; 64] {
        core::array::from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    unsafe fn shift_left(v: [u8; 64], by: u32, mask: u8) -> [u8; 64] {
        v.map(|b| (b << by) & mask)
    }
    #[inline(always)]
    unsafe fn shift_right(v: [u8; 64], by: u32, mask: u8) -> [u8; 64] {
        v.map(|b| (b >> by) & mask)
    }

    #[inline(always)]
    unsafe fn prefetch(_at: *const u8) {}

    #[inline(always)]
    unsafe fn load_f(at: *const f32) -> [f32; LANES] {
        // SAFETY: the caller's promise.
        unsafe { at.cast::<[f32; LANES]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_f(at: *mut f32, v: [f32; LANES]) {
        // SAFETY: the caller's promise.
        unsafe { at.cast::<[f32; LANES]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn splat(v: f32) -> [f32; LANES] {
        [v; LANES]
    }
    #[inline(always)]
    unsafe fn halves(at: *const u8) -> [f32; LANES] {
        // SAFETY: the caller's promise.
        let halves = unsafe { at.cast::<[[u8; 2]; LANES]>().read_unaligned() };
        lanes(|i| f16::from_le_bytes(halves[i]).to_f32())
    }
    #[inline(always)]
    unsafe fn unsigned(at: *const u8, shift: u32, mask: u8) -> [f32; LANES] {
        // SAFETY: the caller's promise.
        let bytes = unsafe { at.cast::<[u8; LANES]>().read_unaligned() };
        lanes(|i| f32::from((bytes[i] >> shift) & mask))
    }
    #[inline(always)]
    unsafe fn signed(at: *const u8) -> [f32; LANES] {
        // SAFETY: the caller's promise.
        let bytes = unsafe { at.cast::<[i8; LANES]>().read_unaligned() };
        lanes(|i| f32::from(bytes[i]))
    }
    #[inline(always)]
    unsafe fn mul(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        lanes(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn fma(a: [f32; LANES], b: [f32; LANES], c: [f32; LANES]) -> [f32; LANES] {
        lanes(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    unsafe fn zero() -> [i32; LANES] {
        [0; LANES]
    }
    #[inline(always)]
    unsafe fn shift_sums(sums: [i32; LANES]) -> [i32; LANES] {
        sums.map(|sum| sum << HIGH_SHIFT)
    }
    #[inline(always)]
    unsafe fn subtract(sums: [i32; LANES], v: i32) -> [i32; LANES] {
        sums.map(|sum| sum - v)
    }
    #[inline(always)]
    unsafe fn dots<const R: usize>(
        mut sums: [[i32; LANES]; R],
        groups: usize,
        w: impl Fn(usize) -> [u8; 64],
        x: [*const u8; R],
    ) -> [[i32; LANES]; R] {
        for i in 0..groups {
            let w = w(i);
            for r in 0..R {
                // SAFETY: the caller's promise.
                let x = unsafe { x[r].add(4 * i).cast::<[i8; 4]>().read() };
                for (sum, w) in sums[r].iter_mut().zip(w.as_chunks::<4>().0) {
                    for (w, x) in w.iter().zip(&x) {
                        *sum += i32::from(*w) * i32::from(*x);
                    }
                }
            }
        }
        sums
    }
    #[inline(always)]
    unsafe fn to_f(v: [i32; LANES]) -> [f32; LANES] {
        lanes(|i| v[i] as f32)
    }

    unsafe fn panel<F: Format>(panel: &Panel) {
        // SAFETY: the caller's promise.
        unsafe { driver::panel::<Self, F>(panel) }
    }
    unsafe fn tiles<H: Shape>(tile: &Tile) {
        // SAFETY: the caller's promise.
        unsafe { tile_by_rows!(tile_of, H, tile, 1 2 3 4) }
    }
}

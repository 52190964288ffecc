//! The dozen operations the kernels are written in, so that each type and each loop is written once for all
//! instruction sets.

use super::driver::{Panel, Tile};
use super::format::{Format, Shape};

/// An instruction set's vectors and operations.
///
/// # Safety
/// Every function is unsafe for one reason besides its pointers: it must be inlined into a function compiled with the
/// implementation's target features (`panel` and `tiles` are such functions) and run on a machine that has them. Pointers
/// need no alignment and must be valid for one vector of what is read or written.
pub(crate) trait Simd: Sized {
    /// Four codes a lane.
    type I: Copy;
    /// One f32 a lane.
    type F: Copy;
    /// One integer sum a lane.
    type A: Copy;
    /// Lanes of a vector; a panel's 16 lanes are `16 / LANES` parts.
    const LANES: usize;
    /// Rows of a tile that fill this instruction set's registers.
    const ROWS: usize;

    /// Reads codes.
    unsafe fn load(at: *const u8) -> Self::I;
    /// Writes codes.
    unsafe fn store(at: *mut u8, v: Self::I);
    /// Signed bytes and 128.
    unsafe fn bytes(v: Self::I) -> Self::I;
    /// `v & mask` in every byte.
    unsafe fn and(v: Self::I, mask: u8) -> Self::I;
    /// `a | b`.
    unsafe fn or(a: Self::I, b: Self::I) -> Self::I;
    /// `(v << by) & mask` in every byte; `mask` has no bit below `by`.
    unsafe fn shift_left(v: Self::I, by: u32, mask: u8) -> Self::I;
    /// `(v >> by) & mask` in every byte; `mask` has no bit from `8 − by` up.
    unsafe fn shift_right(v: Self::I, by: u32, mask: u8) -> Self::I;

    /// Asks for the cache line at `at`, which need not be mapped, into the second-level cache.
    unsafe fn prefetch(at: *const u8);

    /// Reads floats.
    unsafe fn load_f(at: *const f32) -> Self::F;
    /// Writes floats.
    unsafe fn store_f(at: *mut f32, v: Self::F);
    /// The same float in every lane.
    unsafe fn splat(v: f32) -> Self::F;
    /// Reads half-precision floats.
    unsafe fn halves(at: *const u8) -> Self::F;
    /// Reads one unsigned byte a lane and takes `(byte >> shift) & mask`.
    unsafe fn unsigned(at: *const u8, shift: u32, mask: u8) -> Self::F;
    /// Reads one signed byte a lane.
    unsafe fn signed(at: *const u8) -> Self::F;
    /// `a · b`.
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    /// `a · b + c`, fused where the machine fuses.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;

    /// Zero sums.
    unsafe fn zero() -> Self::A;
    /// `sums · 128` in every lane: the weight of the activations' high plane.
    unsafe fn shift_sums(sums: Self::A) -> Self::A;
    /// `sums − v` in every lane.
    unsafe fn subtract(sums: Self::A, v: i32) -> Self::A;
    /// Adds to `sums[r]` the products of `groups` groups of codes, read through `w(0 … groups)`, with the activations at
    /// `x[r]`: four bytes a group. Codes are unsigned bytes.
    unsafe fn dots<const R: usize>(
        sums: [Self::A; R],
        groups: usize,
        w: impl Fn(usize) -> Self::I,
        x: [*const u8; R],
    ) -> [Self::A; R];
    /// Sums as floats, rounded to nearest.
    unsafe fn to_f(v: Self::A) -> Self::F;

    /// [`super::driver::panel`], compiled for this instruction set.
    unsafe fn panel<F: Format>(panel: &Panel);
    /// [`super::driver::tile`] for `tile.rows` rows, at most [`Simd::ROWS`], compiled for this instruction set.
    unsafe fn tiles<H: Shape>(tile: &Tile);
}

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
/// The path in plain Rust: what every other one is compared with, and what aarch64 runs.
mod portable;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Ymm;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::{Zmm, streams};
pub(crate) use portable::Portable;

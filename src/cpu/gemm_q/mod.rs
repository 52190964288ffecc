//! Matrix products with quantised weights and integer activations: `y [R, N] = x [R, K] · Wᵀ, W [N, K]`.
//!
//! # The arithmetic
//!
//! A weight is `scale · (code − offset) + min` with small unsigned codes, an activation `x_scale · q`. Over 32 columns
//!
//! ```text
//! Σ w·x = scale · x_scale · (Σ code·q − offset · Σq) + min · (x_scale · Σq)
//! ```
//!
//! where both sums are integers and exact, and `Σq` comes with the activations. So the weights are exactly the file's, the
//! only approximation is the activations' rounding, and the float work is a conversion, a product and one or two
//! multiply-adds for 32 columns.
//!
//! # The layout
//!
//! Sixteen weight rows make a panel, and each row a *lane*. In a panel ([`crate::cpu::pack`]) four consecutive columns of
//! all lanes are 64 neighbouring bytes, which is one operand of `vpdpbusd`; the other is four activations broadcast from
//! memory. Each lane's sum stays in its lane: nothing is ever added across a register.
//!
//! # What bounds it
//!
//! Many rows are bound by `vpdpbusd`: on a core of Zen 4, which begins one of 64 bytes a cycle, 32 columns of 16 lanes take
//! 16 of them for the two planes of activations, a product and one or two multiply-adds on the same ports: 18 cycles, 28
//! multiply-adds a cycle. Measured, in GMAC/s of CPU time of one core (about 3.7 GHz, others at work), 256 rows, the best of
//! 60 (the bound is about 105):
//!
//! | | K = 576 | K = 1536 | K = 4096 | 32 rows, K = 576 |
//! |---|---|---|---|---|
//! | Q4_0 | 99.0 | 99.8 | 99.6 | 83.2 |
//! | Q4_1 | 97.2 | 97.1 | 97.3 | 83.1 |
//! | Q8_0 | 100.6 | 99.0 | 98.9 | 85.5 |
//! | Q4_K | | 97.2 | 97.4 | |
//! | Q6_K, whose scales change after 16 columns | | 64.5 | 63.9 | |
//!
//! So tiles, panels and prefetching have nothing left to give, and only fewer products would. What was counted, and not
//! written: `vpdpwssd` on activations of 16 bits does half as many products as `vpdpbusd`, which is what two planes cost;
//! two lanes or two rows packed into one wider product need as many instructions, because their sums, which must stay
//! apart, fill it; bfloat16 in two terms likewise. One plane for all would take 0.31 s where two take 0.55 s of a
//! 512-token prompt of SmolLM2-135M, and cost 0.9 % of perplexity ([`super::activation`]).
//!
//! Two threads of a core share its six slots a cycle for renaming, and then these decide: with rows at `[base + index]`,
//! each product takes two. On a core of Emerald Rapids whose other thread works, a twin of this loop in C made 80 to 88
//! GMAC/s with loads of their own and 101 to 107 with operands at `[base]`, and a whole prompt's products here 59 to 74
//! (98 to 104 with the other thread idle, the twin with loads 112 to 125). So a row's address has a register of its own
//! now (`driver::tile`): there, on two such threads, prompts of SmolLM2-135M of 512 tokens went from 864 to 969 a second in
//! Q4_0 (medians of six, in turns) and from 897 to 1,071 in Q8_0.
//!
//! Codes shifted so that every type without a minimum is centred on 128, whose sums are then subtracted as one operand in
//! memory each, are 417 instructions where 431 are now, and no faster on two cores with idle siblings (Q4_0: 1,414 and 1,442,
//! medians of six in turns).
//!
//! AMX was written and taken out again: 16 rows by 16 lanes by 32 columns are two products of tiles, but their sums leave a
//! tile through memory only, and do so every 32 columns, since these share a scale. On a core of Emerald Rapids whose other
//! thread is idle it made 172 to 191 GMAC/s where `vpdpbusd` made 118 to 132, of 119 cycles 33 in products, 31 in stores, 45
//! in loads and 41 in scaling, hardly any at once; where the other thread works, as on a machine of two virtual cores, 88 to
//! 108 against 74 to 107. Activations laid out for it, or sums taken up later, gained a tenth at most.
//!
//! # The files
//!
//! `format` says what a type is and how planes of bits are packed; `simple` and `super_blocks` are the types; `simd` is
//! a dozen operations with an implementation per instruction set that has dot products of bytes; `driver` has the loops,
//! written once; `wide` has those of machines whose best is AVX2, which multiply integers of 16 bits.

mod driver;
pub(crate) mod format;
mod simd;
pub(crate) mod simple;
pub(crate) mod super_blocks;
#[cfg(target_arch = "x86_64")]
mod wide;

#[cfg(test)]
mod tests;

use super::isa::Isa;
use super::panel::{LANES, PanelFn, PanelKernel, STREAMS, Streams};
use crate::dtype::DType;
use format::Format;
use simd::Simd;

/// Calls `$body` with `$f` standing for the [`Format`] of a type; `None` for types this module does not know.
macro_rules! with_format {
    ($dtype:expr, $f:ident => $body:expr) => {{
        use $crate::cpu::gemm_q::{simple, super_blocks};
        with_format!(@ $dtype, $f, $body,
            Q4_0 simple::Q4_0, Q4_1 simple::Q4_1, Q5_0 simple::Q5_0, Q5_1 simple::Q5_1, Q8_0 simple::Q8_0,
            Q2_K super_blocks::Q2K, Q3_K super_blocks::Q3K, Q4_K super_blocks::Q4K, Q5_K super_blocks::Q5K,
            Q6_K super_blocks::Q6K)
    }};
    (@ $dtype:expr, $f:ident, $body:expr, $($name:ident $format:ty),*) => {
        match $dtype {
            $($crate::dtype::DType::$name => {
                type $f = $format;
                Some($body)
            })*
            _ => None,
        }
    };
}
pub(crate) use with_format;

/// The kernel for panels of `dtype` with `k` columns, packed by [`crate::cpu::pack::pack_panel`], on up to `rows_max`
/// activation rows quantised by [`crate::cpu::activation::quantise_row`] for the same `isa`.
///
/// `None` if `dtype` is not a quantised type, or `k` no multiple of its block. A row's result does not depend on how many
/// rows it is computed with. `isa` must be one this machine runs.
pub fn quantised_kernel(isa: Isa, dtype: DType, k: usize, rows_max: usize) -> Option<PanelKernel> {
    with_format!(dtype, F => kernel_of::<F>(Path::of(isa), k, rows_max)).flatten()
}

/// A way to compute on some machine: an [`Isa`], or a better relative of it that the machine turns out to have.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Path {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Path {
    fn of(isa: Isa) -> Path {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Path::Avx512,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 if is_x86_feature_detected!("avxvnni") => Path::AvxVnni,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Path::Avx2,
            _ => Path::Portable,
        }
    }
}

/// Whether memory takes longer than the arithmetic of one row: so it is with types of at least a byte a weight.
const fn is_heavy<F: Format>() -> bool {
    F::PANEL_BYTES >= F::COLS * LANES
}

fn kernel_of<F: Format>(path: Path, k: usize, rows_max: usize) -> Option<PanelKernel> {
    let many = rows_max > 1;
    let unpacked = if many {
        driver::scratch_bytes::<F::Shape>(k)
    } else {
        0
    };
    let (func, panels, scratch_bytes, name): (PanelFn, _, _, _) = match path {
        Path::Portable => (run::<simd::Portable, F>, 1, unpacked, "portable"),
        #[cfg(target_arch = "x86_64")]
        Path::Avx2 => {
            let scratch = if many { size_of::<wide::Scratch>() } else { 0 };
            (run_wide::<F>, wide::PANELS, scratch, "avx2")
        }
        #[cfg(target_arch = "x86_64")]
        Path::AvxVnni => (run::<simd::Ymm, F>, 1, unpacked, "avx-vnni"),
        #[cfg(target_arch = "x86_64")]
        Path::Avx512 => (run::<simd::Zmm, F>, 1, unpacked, "avx512"),
    };
    let streams = match path {
        #[cfg(target_arch = "x86_64")]
        Path::Avx2 => Some(Streams {
            func: wide::streams::<F>,
            most: if is_heavy::<F>() { STREAMS } else { 2 },
        }),
        #[cfg(target_arch = "x86_64")]
        Path::Avx512 if is_heavy::<F>() => Some(Streams {
            func: simd::streams::<F>,
            most: STREAMS,
        }),
        _ => None,
    };
    k.is_multiple_of(F::COLS).then_some(PanelKernel {
        func,
        streams,
        panels,
        scratch_bytes,
        name,
    })
}

/// [`run`] as [`wide`] has it.
///
/// # Safety
/// As [`PanelFn`] says.
#[cfg(target_arch = "x86_64")]
#[allow(clippy::too_many_arguments)]
unsafe fn run_wide<F: Format>(
    w: *const u8,
    lanes: usize,
    k: usize,
    x: *const u8,
    x_stride: usize,
    rows: usize,
    tile: *mut f32,
    scratch: *mut u8,
) {
    let panel = driver::Panel {
        w,
        k,
        x,
        x_stride,
        rows,
        tile,
        scratch,
    };
    // SAFETY: the caller's promise.
    unsafe { wide::panels::<F>(&panel, lanes) }
}

/// The [`PanelFn`] of a type on an instruction set.
///
/// # Safety
/// As [`PanelFn`] says.
#[allow(clippy::too_many_arguments)]
unsafe fn run<S: Simd, F: Format>(
    w: *const u8,
    _lanes: usize,
    k: usize,
    x: *const u8,
    x_stride: usize,
    rows: usize,
    tile: *mut f32,
    scratch: *mut u8,
) {
    // SAFETY: the caller's promise. Lanes past the real ones are packed as zeros and cost nothing extra.
    unsafe {
        S::panel::<F>(&driver::Panel {
            w,
            k,
            x,
            x_stride,
            rows,
            tile,
            scratch,
        })
    }
}

//! Rows of 16-bit floats times a power of two ([`Element::F16`]), which programs for GPUs have: the
//! twin of `kernels/half.h`, so that such a program can be run and compared launch by launch.
//!
//! The arithmetic is this backend's own. A launch that makes such rows makes f32 rows beside them,
//! which are then rounded; a product of such rows widens them first, each thread into its scratch.

use super::CpuError;
use super::activation::quantise_row;
use super::gemm::{Input, Scratch};
use super::isa::Isa;
use super::memory::Pages;
use super::product::Product;
use super::resolve::Resolver;
use super::task::rows::Scale;
use super::task::{Rows, Task};
use super::team::Worker;
use crate::graph::{Element, Op};
use half::f16;

/// Columns that rows are padded to.
const UNIT: usize = 64;

/// Rounds `x` to a row: its columns, zeros, the factor.
///
/// The largest magnitude comes to 2¹⁴ … 2¹⁵. A row below 2⁻¹¹² becomes zeros, one with an infinity or
/// a NaN zeros with a factor of NaN.
///
/// # Panics
/// When `row` is shorter than a row of so many columns.
pub fn round_row(x: &[f32], row: &mut [u8]) {
    let peak = x.iter().map(|x| x.to_bits() & 0x7fff_ffff).max();
    let exponent = peak.unwrap_or(0) >> 23;
    let (up, down) = match exponent {
        255 => (0.0, f32::NAN),
        0..15 => (0.0, 0.0),
        _ => (
            f32::from_bits((268 - exponent) << 23),
            f32::from_bits((exponent - 14) << 23),
        ),
    };
    let padded = x.len().next_multiple_of(UNIT);
    for (index, out) in row[..2 * padded].chunks_exact_mut(2).enumerate() {
        let value = x.get(index).filter(|_| up != 0.0);
        let rounded = value.map_or(f16::ZERO, |x| f16::from_f32(x * up));
        out.copy_from_slice(&rounded.to_le_bytes());
    }
    row[2 * padded..2 * padded + 4].copy_from_slice(&down.to_le_bytes());
}

/// What a row stands for.
///
/// # Panics
/// When `row` is shorter than a row of so many columns.
pub fn widen_row(row: &[u8], x: &mut [f32]) {
    let at = 2 * x.len().next_multiple_of(UNIT);
    let factor = f32::from_le_bytes(row[at..at + 4].try_into().expect("four bytes"));
    for (x, bytes) in x.iter_mut().zip(row.chunks_exact(2)) {
        *x = f16::from_le_bytes([bytes[0], bytes[1]]).to_f32() * factor;
    }
}

/// The task of a launch whose first output or first input has such rows.
pub(super) fn resolve(at: &Resolver<'_>) -> Result<Box<dyn Task>, CpuError> {
    let first = at.launch.inputs.first();
    let takes = first.is_some_and(|slot| slot.element == Element::F16);
    Ok(match at.launch.op {
        Op::Gemm { .. } | Op::GatedGemm(_) if takes => Box::new(Widened::resolve(at)?),
        _ => Box::new(Rounded::resolve(at)?),
    })
}

/// A task whose rows are rounded once they are made, by the thread that made them.
struct Rounded {
    /// Writes f32 rows to `made`, each thread its share of the rows.
    inner: Box<dyn Task>,
    made: Rows,
    y: Rows,
    /// What `made` points to.
    _memory: Pages,
}

impl Rounded {
    fn resolve(at: &Resolver<'_>) -> Result<Self, CpuError> {
        let slot = &at.launch.outputs[0];
        let stride = Element::F32.row_bytes(slot.cols);
        let bytes = slot.rows as usize * stride;
        let memory = Pages::zeroed(bytes).map_err(|source| CpuError::Memory {
            what: "rows to round",
            bytes: bytes as u64,
            source,
        })?;
        let made = Rows {
            base: memory.base(),
            stride,
            cols: slot.cols as usize,
        };
        let mut plain = at.launch.clone();
        plain.outputs[0].element = Element::F32;
        let plain = at.with_output(&plain, made);
        let inner: Box<dyn Task> = match at.launch.op {
            // Rounding is all there is to do: the rows are copied and rounded.
            Op::Quantize => Box::new(Scale::resolve(&plain, 1.0)),
            Op::RmsNorm { .. } | Op::GatedMul(_) => plain.plain()?,
            _ => unreachable!("{} makes no rows of 16-bit floats", at.launch.kernel),
        };
        Ok(Rounded {
            inner,
            made,
            y: at.output(0),
            _memory: memory,
        })
    }
}

impl Task for Rounded {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn scratch_bytes(&self) -> usize {
        self.inner.scratch_bytes()
    }

    unsafe fn run(&self, worker: &Worker<'_>, rows: usize, scratch: Scratch) {
        // SAFETY: the caller's promise; the inner task's share of the rows is this worker's below.
        unsafe {
            self.inner.run(worker, rows, scratch);
            for r in worker.share(rows) {
                let x = std::slice::from_raw_parts(self.made.f32(r), self.made.cols);
                let y = self.y.base.add(r * self.y.stride);
                round_row(x, std::slice::from_raw_parts_mut(y, self.y.stride));
            }
        }
    }
}

/// A product of rows that are widened first.
struct Widened {
    isa: Isa,
    product: Product,
    x: Rows,
    /// What its kernels take.
    element: Element,
    row_bytes: usize,
    rows: usize,
}

impl Widened {
    fn resolve(at: &Resolver<'_>) -> Result<Self, CpuError> {
        let (product, slot) = (Product::resolve(at)?, &at.launch.inputs[0]);
        // The kernels for quantised weights take integers of 15 bits, which 11 fit into.
        let element = match product.is_float() {
            true => Element::F32,
            false => Element::Q15A,
        };
        Ok(Widened {
            isa: at.isa(),
            product,
            x: at.input(0),
            element,
            row_bytes: element.row_bytes(slot.cols),
            rows: slot.rows as usize,
        })
    }

    /// Bytes of the widened rows and one row of f32, before the kernels' scratch.
    fn held_bytes(&self) -> usize {
        self.rows * self.row_bytes + Element::F32.row_bytes(self.x.cols as u32)
    }
}

impl Task for Widened {
    fn name(&self) -> &'static str {
        self.product.name()
    }

    fn scratch_bytes(&self) -> usize {
        self.held_bytes() + self.product.scratch_bytes()
    }

    unsafe fn run(&self, worker: &Worker<'_>, rows: usize, scratch: Scratch) {
        let held = scratch.kernel;
        // SAFETY: the caller's promise; the scratch is as long as `scratch_bytes` says, aligned to 64
        // bytes as rows are multiples of, and this thread's.
        unsafe {
            let row = held.add(self.rows * self.row_bytes).cast::<f32>();
            let row = std::slice::from_raw_parts_mut(row, self.x.cols);
            for r in 0..rows {
                let x = self.x.base.add(r * self.x.stride);
                widen_row(std::slice::from_raw_parts(x, self.x.stride), row);
                let to = held.add(r * self.row_bytes);
                match self.element {
                    Element::F32 => to
                        .cast::<f32>()
                        .copy_from_nonoverlapping(row.as_ptr(), row.len()),
                    _ => quantise_row(self.isa, row, to),
                }
            }
            let scratch = Scratch {
                kernel: held.add(self.held_bytes()),
                ..scratch
            };
            let input = Input {
                x: held,
                stride: self.row_bytes,
            };
            self.product.run_on(input, worker, rows, scratch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(x: &[f32], bound: f32) {
        let mut row = vec![0xff; Element::F16.row_bytes(x.len() as u32)];
        round_row(x, &mut row);
        let mut back = vec![0.0; x.len()];
        widen_row(&row, &mut back);
        let peak = x.iter().fold(0.0, |m: f32, x| m.max(x.abs()));
        for (x, y) in x.iter().zip(&back) {
            let allowed = (x.abs() / 2048.0).max(peak / 2f32.powi(39));
            assert!((x - y).abs() <= allowed * bound, "{x} became {y}");
        }
        let padding = &row[2 * x.len()..2 * x.len().next_multiple_of(UNIT)];
        assert!(padding.iter().all(|&b| b == 0));
    }

    #[test]
    fn rows_keep_eleven_bits_at_any_magnitude() {
        for exponent in [-100, -30, 0, 10, 100] {
            let scale = 2f32.powi(exponent);
            let x: Vec<f32> = (0..65).map(|i| (i as f32 - 31.7) * scale).collect();
            check(&x, 1.0);
        }
        check(&[1.0, 1e-3, 1e-6, 0.0, -0.0, 3e-9], 1.0);
        check(&[0.0; 3], 1.0);
    }

    #[test]
    fn a_row_with_an_infinity_is_nan() {
        for bad in [f32::INFINITY, f32::NAN] {
            let mut row = vec![0; Element::F16.row_bytes(2)];
            round_row(&[1.0, bad], &mut row);
            let mut back = [0.0; 2];
            widen_row(&row, &mut back);
            assert!(back.iter().all(|x| x.is_nan()));
        }
    }
}

//! Matrix products as launches: which kernel multiplies which weight.

use super::CpuError;
use super::gemm::{Epilogue, Gated, Gemm, Input, Scratch, Segment};
use super::gemm_f::float_kernel;
use super::gemm_q::quantised_kernel;
use super::resolve::Resolver;
use super::task::Task;
use super::team::Worker;
use crate::graph::{Activation, Element, Op};

/// The products of one launch.
pub enum Product {
    Gemm(Gemm),
    Gated(Gated),
}

impl Product {
    /// Those of a launch of products, whatever else it does.
    ///
    /// # Errors
    /// Where a weight's type has no kernel for these activations.
    pub fn resolve(at: &Resolver<'_>) -> Result<Self, CpuError> {
        match at.launch.op {
            Op::Gemm { residual } => Product::gemm(at, residual),
            Op::NormGemm { .. } => Product::gemm(at, false),
            Op::GatedGemm(activation) | Op::NormGatedGemm { activation, .. } => {
                Product::gated(at, activation)
            }
            _ => unreachable!("{} is no product", at.launch.kernel),
        }
    }

    fn gemm(at: &Resolver<'_>, residual: bool) -> Result<Self, CpuError> {
        let outputs = 0..at.launch.outputs.len();
        let segments = outputs.map(|i| segment(at, i, i));
        let epilogue = if residual {
            let x = at.input(1);
            Epilogue::Residual {
                x: x.base,
                stride: x.stride,
            }
        } else {
            Epilogue::Store
        };
        Ok(Product::Gemm(Gemm {
            input: input(at),
            segments: segments.collect::<Result<_, _>>()?,
            epilogue,
        }))
    }

    fn gated(at: &Resolver<'_>, activation: Activation) -> Result<Self, CpuError> {
        Ok(Product::Gated(Gated {
            isa: at.isa(),
            input: input(at),
            gate: segment(at, 0, 0)?,
            up: segment(at, 1, 0)?,
            activation,
            quantise: at.quantises(),
        }))
    }

    /// Whether the weights are floats.
    pub fn is_float(&self) -> bool {
        let first = match self {
            Product::Gemm(gemm) => &gemm.segments[0],
            Product::Gated(gated) => &gated.gate,
        };
        first.matrix.dtype.is_float()
    }

    /// This worker's share, over `rows` live rows of `input`.
    ///
    /// # Safety
    /// As [`Gemm::run`].
    pub unsafe fn run_on(&self, input: Input, worker: &Worker<'_>, rows: usize, scratch: Scratch) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Product::Gemm(gemm) => gemm.run(input, worker, rows, scratch),
                Product::Gated(gated) => gated.run(input, worker, rows, scratch),
            }
        }
    }
}

impl Task for Product {
    fn name(&self) -> &'static str {
        match self {
            Product::Gemm(_) => "gemm",
            Product::Gated(_) => "gated_gemm",
        }
    }

    /// What its kernels ask for.
    fn scratch_bytes(&self) -> usize {
        match self {
            Product::Gemm(gemm) => gemm.scratch_bytes(),
            Product::Gated(gated) => gated.scratch_bytes(),
        }
    }

    unsafe fn run(&self, worker: &Worker<'_>, rows: usize, scratch: Scratch) {
        let (Product::Gemm(Gemm { input, .. }) | Product::Gated(Gated { input, .. })) = self;
        // SAFETY: the caller's promise.
        unsafe { self.run_on(*input, worker, rows, scratch) }
    }
}

fn input(at: &Resolver<'_>) -> Input {
    let x = at.input(0);
    Input {
        x: x.base,
        stride: x.stride,
    }
}

/// The launch's weight with number `weight`, whose products go to output `output`.
fn segment(at: &Resolver<'_>, weight: usize, output: usize) -> Result<Segment, CpuError> {
    let (isa, matrix, x) = (at.isa(), at.matrix(weight), at.launch.inputs[0]);
    // A row that is normalised on the way becomes what the weight multiplies.
    let normed = matches!(at.launch.op, Op::NormGemm { .. } | Op::NormGatedGemm { .. });
    let integers = match x.element {
        Element::Q15A => true,
        Element::F32 => normed && !matrix.dtype.is_float(),
        Element::F16 => !matrix.dtype.is_float(),
    };
    let kernel = if integers {
        quantised_kernel(isa, matrix.dtype, matrix.cols, x.rows as usize)
    } else {
        float_kernel(isa, matrix.dtype, matrix.cols, x.rows as usize)
    };
    let kernel = kernel.ok_or_else(|| CpuError::NoKernel {
        kernel: at.launch.kernel.clone(),
        what: format!("{} weights and {} activations", matrix.dtype, x.element),
        isa: isa.name(),
    })?;
    let y = at.output(output);
    Ok(Segment {
        matrix,
        kernel,
        y: y.base,
        y_stride: y.stride,
    })
}

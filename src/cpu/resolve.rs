//! Launch → task: kernels by instruction set and type, addresses by offset.

use super::attention::AttentionShape;
use super::fused::{AttentionStep, Normed, Product};
use super::gemm::{Epilogue, Gated, Gemm, Input, Segment};
use super::gemm_f::float_kernel;
use super::gemm_q::quantised_kernel;
use super::kv::CacheShape;
use super::task::{Caches, Rows, StepMemory, Task};
use super::{CpuError, Shared, half_rows};
use crate::graph::{Element, Heads, KvType, Op, WeightId};
use crate::program::{Launch, Program, Slot};
use std::sync::Arc;

/// What addresses are made of.
pub struct Buffers<'b> {
    pub shared: &'b Shared,
    pub step: &'b Arc<StepMemory>,
}

impl Buffers<'_> {
    pub(super) fn rows(&self, slot: &Slot) -> Rows {
        let arena = &self.shared.arena;
        assert!(
            slot.offset + slot.bytes() <= arena.len(),
            "{} outside the arena",
            slot.value
        );
        // SAFETY: inside the arena, as just checked.
        let base = unsafe { arena.base().add(slot.offset) };
        Rows {
            base,
            stride: slot.row_bytes(),
            cols: slot.cols as usize,
        }
    }

    fn caches(&self, program: &Program, launch: &Launch) -> Caches {
        let base = |index: usize| {
            let offset = self.shared.state_offsets[launch.states[index].index()];
            // SAFETY: the offsets were laid out inside these pages for the same states.
            unsafe { self.shared.states.base().add(offset) }
        };
        let state = &program.states[launch.states[0].index()];
        let shape = CacheShape {
            heads: state.kv_heads as usize,
            capacity: state.positions as usize,
            head: state.head_size as usize,
            kv_type: state.kv_type,
        };
        Caches {
            keys: base(0),
            values: base(1),
            shape,
        }
    }
}

/// Chooses kernels and addresses for one launch.
pub fn resolve(
    program: &Program,
    launch: &Launch,
    buffers: &Buffers<'_>,
) -> Result<Task, CpuError> {
    // Rows of 16-bit floats are a GPU's: here they are made of, and made into, what this backend has.
    let half = |slot: Option<&Slot>| slot.is_some_and(|s| s.element == Element::F16);
    if half(launch.outputs.first()) || half(launch.inputs.first()) {
        half_rows::resolve(program, launch, buffers)
    } else {
        resolve_plain(program, launch, buffers)
    }
}

/// The same for launches without rows of 16-bit floats, or with the input of a product still to be
/// widened to what its kernels take.
pub(super) fn resolve_plain(
    program: &Program,
    launch: &Launch,
    buffers: &Buffers<'_>,
) -> Result<Task, CpuError> {
    let isa = buffers.shared.isa;
    let weights = &buffers.shared.weights;
    let step = Arc::clone(buffers.step);
    let input = |index: usize| buffers.rows(&launch.inputs[index]);
    let output = |index: usize| buffers.rows(&launch.outputs[index]);
    let vector = |id: WeightId| -> Box<[f32]> { weights.vector(program, id).into() };
    let quantise = launch
        .outputs
        .first()
        .is_some_and(|s| s.element == Element::Q15A);
    let segment = |index: usize, slot: &Slot| -> Result<Segment, CpuError> {
        let matrix = weights.matrix(program, launch.weights[index]);
        let x = launch.inputs[0];
        // A row that is normalised on the way becomes what the weight multiplies.
        let normed = matches!(launch.op, Op::NormGemm { .. } | Op::NormGatedGemm { .. });
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
            kernel: launch.kernel.clone(),
            what: format!("{} weights and {} activations", matrix.dtype, x.element),
            isa: isa.name(),
        })?;
        let rows = buffers.rows(slot);
        Ok(Segment {
            matrix,
            kernel,
            y: rows.base,
            y_stride: rows.stride,
        })
    };
    let activations = || {
        let rows = input(0);
        Input {
            x: rows.base,
            stride: rows.stride,
        }
    };

    Ok(match launch.op {
        Op::Embed { scale } => {
            let table = weights.table(program, launch.weights[0]).clone();
            Task::Embed {
                step,
                table,
                scale,
                y: output(0),
            }
        }
        Op::RopeTable(rope) => {
            let factors = launch.weights.first().map(|&w| vector(w));
            Task::RopeTable {
                step,
                rope,
                factors,
                y: output(0),
            }
        }
        Op::RmsNorm { eps, groups } => {
            let (weight, groups) = (vector(launch.weights[0]), groups as usize);
            Task::RmsNorm {
                isa,
                x: input(0),
                weight,
                eps,
                groups,
                y: output(0),
                quantise,
            }
        }
        Op::Gemm { residual } => {
            let outputs = launch.outputs.iter().enumerate();
            let segments = outputs
                .map(|(i, slot)| segment(i, slot))
                .collect::<Result<_, _>>()?;
            let epilogue = if residual {
                let rows = input(1);
                Epilogue::Residual {
                    x: rows.base,
                    stride: rows.stride,
                }
            } else {
                Epilogue::Store
            };
            Task::Gemm(Gemm {
                input: activations(),
                segments,
                epilogue,
            })
        }
        Op::GatedGemm(activation) => {
            let (gate, up) = (
                segment(0, &launch.outputs[0])?,
                segment(1, &launch.outputs[0])?,
            );
            Task::Gated(Gated {
                isa,
                input: activations(),
                gate,
                up,
                activation,
                quantise,
            })
        }
        Op::NormGemm { eps } => {
            let outputs = launch.outputs.iter().enumerate();
            let segments = outputs
                .map(|(i, slot)| segment(i, slot))
                .collect::<Result<Vec<_>, _>>()?;
            let gemm = Gemm {
                input: activations(),
                segments,
                epilogue: Epilogue::Store,
            };
            Task::Normed(normed(program, launch, buffers, eps, Product::Gemm(gemm)))
        }
        Op::NormGatedGemm { eps, activation } => {
            let gated = Gated {
                isa,
                input: activations(),
                gate: segment(0, &launch.outputs[0])?,
                up: segment(1, &launch.outputs[0])?,
                activation,
                quantise,
            };
            Task::Normed(normed(program, launch, buffers, eps, Product::Gated(gated)))
        }
        Op::AttentionStep {
            heads,
            dims,
            style,
            scale,
            window,
            ..
        } => Task::AttentionStep {
            step,
            attention: AttentionStep {
                isa,
                // Splits are for the CPU's own steps; here this length only has to be one.
                shape: attention_shape(
                    buffers.caches(program, launch).shape,
                    heads,
                    scale,
                    window,
                    program.context,
                ),
                heads,
                dims: dims as usize,
                style,
                inputs: [0, 1, 2, 3].map(input),
                y: output(0),
                quantise,
                caches: buffers.caches(program, launch),
            },
        },
        Op::AddBias => Task::AddBias {
            isa,
            x: input(0),
            bias: vector(launch.weights[0]),
            y: output(0),
        },
        Op::Rope {
            heads,
            head_size,
            dims,
            style,
        } => {
            let (heads, head_size, dims) = (heads as usize, head_size as usize, dims as usize);
            Task::Rope {
                isa,
                x: input(0),
                table: input(1),
                heads,
                head_size,
                dims,
                style,
                y: output(0),
            }
        }
        Op::KvAppend { .. } => {
            let caches = buffers.caches(program, launch);
            Task::KvAppend {
                isa,
                step,
                k: input(0),
                v: input(1),
                caches,
            }
        }
        Op::RopeAppend { heads, dims, style } => Task::RopeAppend {
            isa,
            step,
            q: input(0),
            k: input(1),
            v: input(2),
            table: input(3),
            heads,
            dims: dims as usize,
            style,
            y: output(0),
            caches: buffers.caches(program, launch),
        },
        Op::Attention {
            heads,
            scale,
            window,
        } => {
            let caches = buffers.caches(program, launch);
            // Splits are for one row; with several this length only has to be one.
            let shape = attention_shape(caches.shape, heads, scale, window, program.context);
            Task::Attention {
                isa,
                step,
                shape,
                q: input(0),
                y: output(0),
                caches,
            }
        }
        Op::AttentionSplit {
            heads,
            scale,
            window,
            split,
        } => {
            let caches = buffers.caches(program, launch);
            let shape = attention_shape(caches.shape, heads, scale, window, split);
            holds_partials(&launch.outputs[0], &shape);
            Task::AttentionSplit {
                isa,
                step,
                shape,
                q: input(0),
                y: output(0),
                caches,
            }
        }
        Op::AttentionCombine {
            heads,
            window,
            split,
        } => {
            // Partial results are f32, whatever the cache was.
            let cache = CacheShape {
                heads: heads.kv as usize,
                capacity: program.context as usize,
                head: heads.size as usize,
                kv_type: KvType::F16,
            };
            let shape = attention_shape(cache, heads, 1.0, window, split);
            holds_partials(&launch.inputs[0], &shape);
            Task::AttentionCombine {
                isa,
                step,
                shape,
                x: input(0),
                y: output(0),
                quantise,
            }
        }
        Op::GatedMul(activation) => Task::GatedMul {
            isa,
            activation,
            gate: input(0),
            up: input(1),
            y: output(0),
        },
        Op::Add => Task::Add {
            isa,
            a: input(0),
            b: input(1),
            y: output(0),
        },
        Op::Scale { by } => Task::Scale {
            isa,
            by,
            x: input(0),
            y: output(0),
        },
        Op::Quantize => Task::Quantize {
            isa,
            x: input(0),
            y: output(0),
        },
        Op::LastRow => Task::LastRow {
            x: input(0),
            y: output(0),
        },
        Op::Sample => Task::Sample {
            isa,
            step,
            chain: Arc::clone(&buffers.shared.chain),
            x: input(0),
        },
    })
}

/// A product behind the norm whose weight is the launch's last.
fn normed(
    program: &Program,
    launch: &Launch,
    buffers: &Buffers<'_>,
    eps: f32,
    product: Product,
) -> Normed {
    let first = match &product {
        Product::Gemm(gemm) => &gemm.segments[0],
        Product::Gated(gated) => &gated.gate,
    };
    let quantise = !first.matrix.dtype.is_float();
    let (norm, shared) = (launch.weights[launch.weights.len() - 1], buffers.shared);
    Normed {
        isa: shared.isa,
        x: buffers.rows(&launch.inputs[0]),
        weight: shared.weights.vector(program, norm).into(),
        eps,
        quantise,
        product,
    }
}

/// The tasks write and read as many partial results as the shape has, whoever sized their place.
fn holds_partials(slot: &Slot, shape: &AttentionShape) {
    let (found, needed) = (slot.bytes(), 4 * shape.partials_len());
    assert!(
        found >= needed,
        "{}: {found} bytes for {needed} of partial results",
        slot.value
    );
}

fn attention_shape(
    cache: CacheShape,
    heads: Heads,
    scale: f32,
    window: Option<u32>,
    split: u32,
) -> AttentionShape {
    AttentionShape {
        heads: heads.query as usize,
        cache,
        scale,
        window: window.map(|w| w as usize),
        split_len: split as usize,
    }
}

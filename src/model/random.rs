//! Random weights of a model's shape: for measuring speed and memory where no checkpoint is.

use super::definition::Definition;
use super::{Hyperparameters, ModelError, build::placed};
use crate::dtype::DType;
use crate::graph::Section;
use crate::loader::{Blob, Tensor};
use half::{bf16, f16};
use indexmap::IndexMap;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The tensors of a Definition, made when asked for.
pub struct RandomWeights {
    shapes: IndexMap<String, (DType, Vec<usize>)>,
    seed: u64,
}

/// Bytes of random numbers that a tensor repeats: long enough to hide nothing from a cache, short
/// enough that a 7B model is made at the speed of memory.
const PATTERN_BYTES: usize = 1 << 20;

impl RandomWeights {
    /// Every tensor that `definition` needs: matrices of `dtype`, vectors of F32 ones. Fails if
    /// `dtype` does not run or its blocks do not divide a matrix's columns.
    pub fn new(
        hyper: &Hyperparameters,
        definition: &Definition,
        dtype: DType,
        seed: u64,
    ) -> Result<Self, ModelError> {
        let mut shapes = IndexMap::new();
        for entry in definition.weights.values() {
            if entry.optional {
                continue;
            }
            let letters = entry.shape.iter();
            let shape: Option<Vec<usize>> = letters
                .map(|l| hyper.dimension(l).map(|d| d as usize))
                .collect();
            let Some(shape) = shape else { continue };
            let kind = if shape.len() == 1 { DType::F32 } else { dtype };
            let cols = shape[shape.len() - 1];
            if !kind.is_runnable() || kind.row_bytes(cols).is_none() {
                return Err(ModelError::BadHyperparameter {
                    source_name: "random weights".into(),
                    what: format!("type of {}", entry.gguf),
                    found: format!("{kind} for rows of {cols}"),
                    wanted: format!("a type that runs, in whole blocks of {}", kind.block_len()),
                });
            }
            let per_layer = entry.gguf.contains("{layer}");
            let layers = if per_layer { hyper.layers } else { 1 };
            for layer in 0..layers {
                let name = placed(&entry.gguf, Section::Layer(layer));
                shapes.insert(name, (kind, shape.clone()));
            }
        }
        Ok(RandomWeights { shapes, seed })
    }

    pub(super) fn lookup(&self, name: &str) -> Option<(DType, Vec<usize>)> {
        self.shapes.get(name).cloned()
    }

    pub(super) fn tensor(&self, name: &str) -> Option<Tensor> {
        let (index, _, (dtype, shape)) = self.shapes.get_full(name)?;
        let cols = *shape.last()?;
        let rows: usize = shape[..shape.len() - 1].iter().product();
        let bytes = rows * dtype.row_bytes(cols)?;
        let data = if shape.len() == 1 {
            1.0f32.to_le_bytes().to_vec()
        } else {
            let mut rng = ChaCha8Rng::seed_from_u64(self.seed.wrapping_add(index as u64));
            let block = dtype.block_bytes();
            let pattern_bytes = bytes.min(PATTERN_BYTES / block * block);
            let mut data = vec![0; pattern_bytes];
            rng.fill_bytes(&mut data);
            tame(*dtype, &mut data, 1.0 / (cols as f32).sqrt());
            data
        };
        let data = Blob::repeating(data, bytes);
        Some(Tensor {
            name: name.into(),
            dtype: *dtype,
            shape: shape.clone(),
            data,
        })
    }
}

/// Gives whole blocks of random bytes finite values of about `spread`, so that activations neither
/// vanish nor overflow; quants stay random, scales become what the type's range asks for.
fn tame(dtype: DType, data: &mut [u8], spread: f32) {
    match dtype {
        DType::F32 => floats(data, spread, f32::to_le_bytes),
        DType::F16 => floats(data, spread, |x| f16::from_f32(x).to_le_bytes()),
        DType::BF16 => floats(data, spread, |x| bf16::from_f32(x).to_le_bytes()),
        _ => {
            let blocks = data.chunks_exact_mut(dtype.block_bytes());
            blocks.for_each(|block| tame_block(dtype, block, spread));
        }
    }
}

/// Each float becomes one of 256, by its first byte: rounding as many is faster than rounding all.
fn floats<const N: usize>(data: &mut [u8], spread: f32, bytes: impl Fn(f32) -> [u8; N]) {
    let signed = |byte: usize| (byte as f32 - 127.5) / 74.0 * spread;
    let table: [[u8; N]; 256] = std::array::from_fn(|byte| bytes(signed(byte)));
    for float in data.as_chunks_mut::<N>().0 {
        *float = table[usize::from(float[0])];
    }
}

fn tame_block(dtype: DType, block: &mut [u8], spread: f32) {
    let half = |x: f32| f16::from_f32(x).to_le_bytes();
    match dtype {
        DType::Q4_0 => block[..2].copy_from_slice(&half(spread / 4.6)),
        DType::Q4_1 => {
            block[..2].copy_from_slice(&half(spread / 4.6));
            block[2..4].copy_from_slice(&half(-7.5 * spread / 4.6));
        }
        DType::Q5_0 => block[..2].copy_from_slice(&half(spread / 9.2)),
        DType::Q5_1 => {
            block[..2].copy_from_slice(&half(spread / 9.2));
            block[2..4].copy_from_slice(&half(-15.5 * spread / 9.2));
        }
        DType::Q8_0 => block[..2].copy_from_slice(&half(spread / 74.0)),
        // K-quants: the super-block scale over sub-scales that average half their range.
        DType::Q2_K => {
            block[80..82].copy_from_slice(&half(spread / 8.0));
            block[82..84].copy_from_slice(&half(1.5 * spread / 8.0));
        }
        DType::Q3_K => block[108..110].copy_from_slice(&half(spread / 40.0)),
        DType::Q4_K => {
            block[..2].copy_from_slice(&half(spread / 150.0));
            block[2..4].copy_from_slice(&half(7.5 * spread / 150.0));
        }
        DType::Q5_K => {
            block[..2].copy_from_slice(&half(spread / 300.0));
            block[2..4].copy_from_slice(&half(15.5 * spread / 300.0));
        }
        DType::Q6_K => block[208..210].copy_from_slice(&half(spread / 1400.0)),
        other => unreachable!("{other} does not run"),
    }
}

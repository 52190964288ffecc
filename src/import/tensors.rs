//! Tensors: a folder's names → GGUF's, and what GGUF stores otherwise.

use super::ImportError;
use super::config::Config;
use super::error::unsupported;
use super::family::{Family, Kind, Shape};
use crate::dtype::DType;
use crate::loader::{Contents, Folder, Stored, TensorInfo};
use crate::model::Definition;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Endings of tensors that old checkpoints carry and nothing reads: they can be computed.
const COMPUTED: &[&str] = &[
    ".rotary_emb.inv_freq",
    ".attention.masked_bias",
    ".attention.bias",
];

/// What has to be done to a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// Nothing.
    Keep,
    /// Rows of each of `heads` heads: from first halves and second halves to pairs of both.
    Interleave { heads: u32 },
    /// One is added, in f32.
    AddOne,
}

/// The folder's tensors under GGUF's names, in the files' order.
pub(super) fn translate(
    folder: &Folder,
    config: &Config,
    family: &Family,
    shape: &Shape,
    definition: &Definition,
) -> Result<Vec<TensorInfo>, ImportError> {
    let names = names(definition, shape.layers);
    let mut found: HashSet<String> = HashSet::new();
    let mut tensors = Vec::with_capacity(folder.tensors().len());
    for stored in folder.tensors() {
        if family.is_left_out(&stored.name) || COMPUTED.iter().any(|end| stored.name.ends_with(end))
        {
            continue;
        }
        let plain = family.plain_name(&stored.name);
        let name = plain.as_deref().unwrap_or(&stored.name);
        // A tensor without a place keeps its name, and the model refuses it by that.
        let gguf = names
            .get(name)
            .cloned()
            .unwrap_or_else(|| stored.name.clone());
        let change = change(family, shape, &gguf);
        found.insert(name.to_owned());
        tensors.push(changed(stored, gguf, change));
    }
    require(folder, config, shape, definition, &found)?;
    for (key, block) in [("attention_bias", "self_attn"), ("mlp_bias", "mlp")] {
        // Qwen2's biases are the family's, not the file's choice.
        if family.kind != Kind::Qwen2 {
            check_biases(folder, config, key, block, &names, &found)?;
        }
    }
    Ok(tensors)
}

/// Checks that the biases of a block are there if and only if `config.json` says so: Hugging Face adds none that it was not
/// told of, and computes with none that the family's Definition does not list.
fn check_biases(
    folder: &Folder,
    config: &Config,
    key: &'static str,
    block: &str,
    names: &HashMap<String, String>,
    found: &HashSet<String>,
) -> Result<(), ImportError> {
    let is_bias = |name: &&String| name.ends_with(".bias") && name.contains(&format!(".{block}."));
    let mut known: Vec<&String> = names.keys().filter(is_bias).collect();
    known.sort();
    let told = config.flag(key)?.unwrap_or(false);
    if told && known.is_empty() {
        return Err(unsupported(config.file(), key, "true", "false"));
    }
    let wrong = |tensor: &String, problem: String| {
        Err(ImportError::Tensor {
            folder: folder.path().to_owned(),
            tensor: tensor.clone(),
            problem,
        })
    };
    let says = format!("{} says {key} {told}", config.file().display());
    match known.iter().find(|name| found.contains(**name) != told) {
        None => Ok(()),
        Some(name) if told => wrong(
            name,
            format!("expected, since {says}, and found in no file"),
        ),
        Some(name) => wrong(
            name,
            format!("expected no bias, since {says}, and found one"),
        ),
    }
}

/// SafeTensors name → GGUF name.
fn names(definition: &Definition, layers: u32) -> HashMap<String, String> {
    let mut names = HashMap::new();
    for entry in definition.weights.values() {
        let Some(pattern) = &entry.safetensors else {
            continue;
        };
        let count = if pattern.contains("{layer}") {
            layers
        } else {
            1
        };
        for layer in 0..count {
            let place = |pattern: &str| pattern.replace("{layer}", &layer.to_string());
            names.insert(place(pattern), place(&entry.gguf));
        }
    }
    names
}

/// Checks that every tensor the family needs was found, by the name that people see in the folder.
fn require(
    folder: &Folder,
    config: &Config,
    shape: &Shape,
    definition: &Definition,
    found: &HashSet<String>,
) -> Result<(), ImportError> {
    for entry in definition.weights.values() {
        let Some(pattern) = entry.safetensors.as_ref().filter(|_| !entry.optional) else {
            continue;
        };
        if entry.tied.is_some() && shape.tied {
            continue;
        }
        let count = if pattern.contains("{layer}") {
            shape.layers
        } else {
            1
        };
        let mut all = (0..count).map(|layer| pattern.replace("{layer}", &layer.to_string()));
        if let Some(tensor) = all.find(|name| !found.contains(name)) {
            let why = match entry.tied {
                Some(_) => format!(
                    " ({} does not tie the head to the embedding)",
                    config.file().display()
                ),
                None => String::new(),
            };
            let problem = format!(
                "expected, and found in none of the {} file(s){why}",
                folder.file_count()
            );
            let folder = folder.path().to_owned();
            return Err(ImportError::Tensor {
                folder,
                tensor,
                problem,
            });
        }
    }
    Ok(())
}

/// What GGUF stores otherwise, by its name for the tensor: the rules of llama.cpp's converter.
fn change(family: &Family, shape: &Shape, gguf: &str) -> Change {
    match family.kind {
        Kind::Llama | Kind::Mistral | Kind::Ministral | Kind::SmolLm3 => {
            if gguf.contains(".attn_q.") {
                Change::Interleave { heads: shape.heads }
            } else if gguf.contains(".attn_k.") {
                Change::Interleave {
                    heads: shape.kv_heads,
                }
            } else {
                Change::Keep
            }
        }
        Kind::Gemma3 if gguf.ends_with("norm.weight") => Change::AddOne,
        Kind::Gemma3 | Kind::Qwen2 | Kind::Qwen3 => Change::Keep,
    }
}

fn changed(stored: &Stored, name: String, change: Change) -> TensorInfo {
    let (dtype, shape) = (stored.dtype, stored.shape.clone());
    let data = stored.data.clone();
    let (dtype, contents) = match change {
        // A tensor of another shape than heads have is listed as it is; the model refuses it by its shape.
        Change::Interleave { heads } if stored.shape[0].is_multiple_of(2 * heads as usize) => {
            let head_rows = stored.shape[0] / heads as usize;
            let row_bytes = stored.data.len() / stored.shape[0];
            let make = move || Ok(interleave(&data, head_rows, row_bytes));
            (dtype, Contents::Made(Arc::new(make)))
        }
        Change::AddOne => (
            DType::F32,
            Contents::Made(Arc::new(move || Ok(add_one(&data, dtype)))),
        ),
        Change::Keep | Change::Interleave { .. } => (dtype, stored.contents()),
    };
    TensorInfo {
        name,
        dtype,
        shape,
        contents,
    }
}

/// Rows `0 … D/2 − 1, D/2 … D − 1` of each head → `0, D/2, 1, D/2 + 1, …`.
fn interleave(rows: &[u8], head_rows: usize, row_bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(rows.len());
    for head in rows.chunks_exact(head_rows * row_bytes) {
        let (first, second) = head.split_at(head.len() / 2);
        for (a, b) in first
            .chunks_exact(row_bytes)
            .zip(second.chunks_exact(row_bytes))
        {
            out.extend_from_slice(a);
            out.extend_from_slice(b);
        }
    }
    out
}

/// The values plus one, as f32.
fn add_one(bytes: &[u8], dtype: DType) -> Vec<u8> {
    let mut values = vec![0.0; bytes.len() / dtype.block_bytes()];
    dtype.decode(bytes, &mut values);
    values
        .iter()
        .flat_map(|value| (value + 1.0).to_le_bytes())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `weights.reshape(n_head, 2, rows / n_head / 2, …).swapaxes(1, 2)` of 2 heads of 6 rows, by NumPy.
    #[test]
    fn rows_are_interleaved_head_by_head() {
        let rows: Vec<u8> = (0..12).flat_map(|row| [row, 100 + row]).collect();
        let order: Vec<u8> = interleave(&rows, 6, 2)
            .chunks(2)
            .map(|row| row[0])
            .collect();
        assert_eq!(order, [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
    }
}

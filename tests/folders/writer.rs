//! A small SafeTensors writer for variants of a folder and for deliberately broken files. It shares no code with the
//! reader: everything it is told it writes.

use super::support::rng::Rng;
use greta_infer::dtype::DType;
use greta_infer::loader::Folder;
use serde_json::{Map, Value, json};
use std::path::Path;

/// A tensor to write.
#[derive(Clone)]
pub struct Written {
    pub name: String,
    pub dtype: &'static str,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

/// A file of `tensors`; `pad` spaces are added to the header.
pub fn file(tensors: &[Written], pad: usize) -> Vec<u8> {
    let mut header = Map::new();
    let mut data = Vec::new();
    for tensor in tensors {
        let begin = data.len();
        data.extend_from_slice(&tensor.bytes);
        let entry = json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [begin, data.len()]});
        header.insert(tensor.name.clone(), entry);
    }
    raw(
        &(Value::Object(header).to_string() + &" ".repeat(pad)),
        &data,
    )
}

/// A file with this header and this data.
pub fn raw(header: &str, data: &[u8]) -> Vec<u8> {
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(data);
    out
}

/// The tensors of a folder in another type, rounded by the `half` crate.
pub fn tensors(folder: &Path, dtype: DType) -> Vec<Written> {
    let folder = Folder::open(folder).unwrap_or_else(|error| panic!("{error}"));
    let convert = |stored: &greta_infer::loader::Stored| {
        let mut values = vec![0.0; stored.shape.iter().product()];
        stored.dtype.decode(&stored.data, &mut values);
        let bytes = match dtype {
            DType::F16 => values
                .iter()
                .flat_map(|&x| half::f16::from_f32(x).to_le_bytes())
                .collect(),
            DType::BF16 => values
                .iter()
                .flat_map(|&x| half::bf16::from_f32(x).to_le_bytes())
                .collect(),
            _ => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        };
        Written {
            name: stored.name.clone(),
            dtype: dtype.name(),
            shape: stored.shape.clone(),
            bytes,
        }
    };
    folder.tensors().iter().map(convert).collect()
}

/// Writes `tensors` as `count` files with an index, in an order of their own.
pub fn shards(folder: &Path, tensors: &[Written], count: usize) {
    let _none_is_fine = std::fs::remove_file(folder.join("model.safetensors"));
    let mut files = vec![Vec::new(); count];
    let mut map = Map::new();
    let mut rng = Rng::new(7);
    for tensor in tensors {
        let file = rng.below(count);
        files[file].push(tensor.clone());
        map.insert(tensor.name.clone(), shard_name(file, count).into());
    }
    for (index, tensors) in files.iter().enumerate() {
        std::fs::write(folder.join(shard_name(index, count)), file(tensors, index))
            .expect("written");
    }
    let index = json!({"metadata": {"total_size": 0}, "weight_map": map});
    std::fs::write(
        folder.join("model.safetensors.index.json"),
        index.to_string(),
    )
    .expect("written");
}

pub fn shard_name(index: usize, count: usize) -> String {
    format!("model-{:05}-of-{count:05}.safetensors", index + 1)
}

//! The GGUF v3 bytes of a toy, written plainly from the format's description.

use super::super::oracle::RawTensor;

/// A metadata value of the kinds a toy needs.
pub enum Meta {
    U32(u32),
    F32(f32),
    Bool(bool),
    String(String),
    Strings(Vec<String>),
    I32s(Vec<i32>),
}

const ALIGNMENT: usize = 32;

/// A file of `metadata` and `tensors`, each tensor's data aligned to 32 bytes.
pub fn write(metadata: &[(&'static str, Meta)], tensors: &[RawTensor]) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        string(&mut out, key);
        put_value(&mut out, value);
    }
    let mut offset = 0;
    for t in tensors {
        string(&mut out, &t.name);
        out.extend((t.shape.len() as u32).to_le_bytes());
        // GGUF lists the innermost dimension first.
        for n in t.shape.iter().rev() {
            out.extend((*n as u64).to_le_bytes());
        }
        out.extend(t.ggml_id.to_le_bytes());
        out.extend((offset as u64).to_le_bytes());
        offset += t.bytes.len().next_multiple_of(ALIGNMENT);
    }
    for t in tensors {
        out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        out.extend(&t.bytes);
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    out
}

fn put_value(out: &mut Vec<u8>, value: &Meta) {
    let mut kind = |id: u32| out.extend(id.to_le_bytes());
    match value {
        Meta::U32(x) => {
            kind(4);
            out.extend(x.to_le_bytes());
        }
        Meta::F32(x) => {
            kind(6);
            out.extend(x.to_le_bytes());
        }
        Meta::Bool(x) => {
            kind(7);
            out.push(u8::from(*x));
        }
        Meta::String(x) => {
            kind(8);
            string(out, x);
        }
        Meta::Strings(x) => {
            kind(9);
            kind(8);
            out.extend((x.len() as u64).to_le_bytes());
            x.iter().for_each(|s| string(out, s));
        }
        Meta::I32s(x) => {
            kind(9);
            kind(5);
            out.extend((x.len() as u64).to_le_bytes());
            x.iter().for_each(|i| out.extend(i.to_le_bytes()));
        }
    }
}

fn string(out: &mut Vec<u8>, s: &str) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s.as_bytes());
}

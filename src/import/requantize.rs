//! A checkpoint in another type: which tensors change, what they fall back to, and the rounding, row by row.
//!
//! The rules are those of llama.cpp's `llama-quantize --pure`. Tensors of two and more dimensions whose name ends in
//! `weight` are changed, embedding and head among them; norms and whatever has one dimension stay. A row that is no whole
//! number of the type's blocks takes another type: Q2_K and Q3_K fall back to Q4_0, Q4_K to Q5_0, Q5_K to Q5_1, Q6_K to
//! Q8_0, and where 32 does not divide the row either, F16 serves.
//!
//! Nothing is rounded before a tensor is fetched, and nothing kept afterwards: a model quantised at load costs the memory
//! of one tensor in its old and its new type. What was quantised before is decoded and rounded again, which loses a
//! little.

use super::ImportError;
use crate::dtype::DType;
use crate::loader::{Checkpoint, Contents, LoadError, TensorInfo};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Below so many elements starting threads costs more than they save.
const SHARE_FROM: usize = 1 << 16;

/// The type that a tensor called `name` of `shape` and `dtype` has in a file of type `wanted`.
pub fn type_for(name: &str, dtype: DType, shape: &[usize], wanted: DType) -> DType {
    let columns = shape.last().copied().unwrap_or(1);
    // GGUF counts dimensions without those of one at the outer end.
    let dimensions = shape.iter().skip_while(|&&size| size == 1).count();
    if dimensions < 2 || !name.ends_with("weight") || name.contains("_norm.weight") {
        return dtype;
    }
    let fits = |dtype: DType| columns.is_multiple_of(dtype.block_len());
    if fits(wanted) {
        return wanted;
    }
    let smaller = match wanted {
        DType::Q2_K | DType::Q3_K => DType::Q4_0,
        DType::Q4_K => DType::Q5_0,
        DType::Q5_K => DType::Q5_1,
        DType::Q6_K => DType::Q8_0,
        other => other,
    };
    if fits(smaller) { smaller } else { DType::F16 }
}

/// The checkpoint with its matrices in `wanted`, rounded by `threads` threads when they are fetched. `vectors` is the type
/// of what has one dimension; `None` leaves that as it is.
///
/// # Errors
/// [`LoadError::UnsupportedType`] for a tensor that would have to be decoded and cannot.
pub fn requantize(
    checkpoint: Checkpoint,
    wanted: DType,
    vectors: Option<DType>,
    threads: usize,
) -> Result<Checkpoint, ImportError> {
    change(checkpoint, threads, |tensor| {
        match vectors.filter(|_| is_vector(tensor)) {
            Some(vectors) => vectors,
            None => type_for(&tensor.name, tensor.dtype, &tensor.shape, wanted),
        }
    })
}

/// The checkpoint with what has one dimension in `wanted`, and all else as it is.
///
/// # Errors
/// As [`requantize`].
pub fn vectors_to(
    checkpoint: Checkpoint,
    wanted: DType,
    threads: usize,
) -> Result<Checkpoint, ImportError> {
    change(checkpoint, threads, |tensor| {
        if is_vector(tensor) {
            wanted
        } else {
            tensor.dtype
        }
    })
}

fn is_vector(tensor: &TensorInfo) -> bool {
    tensor.shape.len() == 1 && tensor.dtype.is_float()
}

fn change(
    checkpoint: Checkpoint,
    threads: usize,
    wanted: impl Fn(&TensorInfo) -> DType,
) -> Result<Checkpoint, ImportError> {
    let path: Arc<Path> = checkpoint.path().into();
    let changed = checkpoint.map_tensors(|tensor| {
        let dtype = wanted(tensor);
        if dtype == tensor.dtype {
            return Ok(tensor.clone());
        }
        if !tensor.dtype.is_runnable() {
            return Err(LoadError::unsupported_type(&path, tensor));
        }
        let (from, path) = (tensor.clone(), Arc::clone(&path));
        let make = move || convert(&path, &from, dtype, threads);
        Ok(TensorInfo {
            dtype,
            contents: Contents::Made(Arc::new(make)),
            ..tensor.clone()
        })
    })?;
    Ok(changed)
}

/// The tensor's bytes in another type. The mapped pages it was read from are given back.
fn convert(
    path: &Path,
    from: &TensorInfo,
    to: DType,
    threads: usize,
) -> Result<Vec<u8>, LoadError> {
    let tensor = from.fetch()?;
    let columns = from.cols();
    let rows = from.element_count() / columns;
    let row_bytes = |dtype: DType| {
        dtype
            .row_bytes(columns)
            .expect("rows are whole blocks of both types")
    };
    let (from_bytes, to_bytes) = (row_bytes(from.dtype), row_bytes(to));
    let mut out = room(path, from, rows * to_bytes)?;
    let failed = AtomicBool::new(false);
    let share = |first: usize, out: &mut [u8]| {
        let (mut values, mut check) = (vec![0.0; columns], vec![0.0; columns]);
        for (row, out) in out.chunks_exact_mut(to_bytes).enumerate() {
            let row = first + row;
            from.dtype
                .decode(&tensor.data[row * from_bytes..][..from_bytes], &mut values);
            if !round(to, &values, out, &mut check) {
                failed.store(true, Ordering::Relaxed);
                return;
            }
        }
    };
    let threads = if rows * columns < SHARE_FROM {
        1
    } else {
        threads.clamp(1, rows)
    };
    let rows_each = rows.div_ceil(threads);
    thread::scope(|scope| {
        let mut parts = out.chunks_mut(rows_each * to_bytes).enumerate();
        let own = parts.next();
        for (part, out) in parts {
            let share = &share;
            scope.spawn(move || share(part * rows_each, out));
        }
        own.into_iter().for_each(|(_, out)| share(0, out));
    });
    if failed.into_inner() {
        return Err(not_finite(path, from, &tensor.data, to));
    }
    tensor.data.release_pages();
    Ok(out)
}

/// Zeroed bytes for a tensor.
fn room(path: &Path, tensor: &TensorInfo, bytes: usize) -> Result<Vec<u8>, LoadError> {
    let mut out = Vec::new();
    if out.try_reserve_exact(bytes).is_err() {
        return Err(LoadError::NoRoom {
            file: path.to_path_buf(),
            tensor: tensor.name.clone(),
            bytes,
        });
    }
    out.resize(bytes, 0);
    Ok(out)
}

/// Rounds one row; false if a value is not finite, or what it was rounded to is not.
fn round(to: DType, values: &[f32], out: &mut [u8], check: &mut [f32]) -> bool {
    if !values.iter().all(|value| value.is_finite()) {
        return false;
    }
    to.encode(values, out);
    // A scale that overflowed F16 shows here.
    to.decode(out, check);
    check.iter().all(|value| value.is_finite())
}

/// The error for a tensor that had a row which [`round`] refused: names the first element.
fn not_finite(path: &Path, from: &TensorInfo, data: &[u8], to: DType) -> LoadError {
    let columns = from.cols();
    let row_bytes = from
        .dtype
        .row_bytes(columns)
        .expect("rows are whole blocks");
    let mut values = vec![0.0; columns];
    let mut check = vec![0.0; columns];
    let mut out = vec![0; to.row_bytes(columns).expect("as above")];
    for (row, bytes) in data.chunks_exact(row_bytes).enumerate() {
        from.dtype.decode(bytes, &mut values);
        if round(to, &values, &mut out, &mut check) {
            continue;
        }
        let bad = |values: &[f32]| values.iter().position(|value| !value.is_finite());
        let at = bad(&values).or_else(|| bad(&check)).unwrap_or(0);
        return LoadError::NotFinite {
            file: path.to_owned(),
            tensor: from.name.clone(),
            element: row * columns + at,
            value: values[at],
            dtype: to,
        };
    }
    // Every row rounds now: another program has written to the mapped file since.
    LoadError::Changed {
        file: path.to_owned(),
        tensor: from.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loader::Blob;

    /// What a file holds the second time need not be what it held the first time.
    #[test]
    fn the_first_bad_element_is_named_if_it_is_still_there() {
        let check = |values: &[f32], expected: &str| {
            let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            let tensor = TensorInfo {
                name: "t.weight".into(),
                dtype: DType::F32,
                shape: vec![values.len() / 32, 32],
                contents: Contents::Stored(Blob::from(bytes.clone())),
            };
            let error = not_finite(Path::new("m"), &tensor, &bytes, DType::Q8_0);
            let error = error.to_string();
            assert!(error.contains(expected), "{error}");
        };
        let mut values = [1.0; 64];
        check(&values, "m: t.weight: changed while it was read");
        values[40] = f32::NAN;
        check(&values, "m: t.weight: element 40 is NaN");
    }
}

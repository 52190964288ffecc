//! The tensor descriptions, and whether the file can hold what they describe.

use super::RESERVE_MAX;
use super::cursor::Cursor;
use crate::dtype::DType;
use crate::loader::LoadError;
use std::collections::HashMap;
use std::path::Path;

/// The fewest bytes a tensor description can take: an empty name and one dimension.
const TENSOR_BYTES_MIN: u64 = 8 + 4 + 8 + 4 + 8;

/// A tensor as described, before its place in the file is checked.
pub(super) struct Info {
    pub(super) name: String,
    pub(super) dtype: DType,
    /// Outermost first.
    pub(super) shape: Vec<usize>,
    /// The data's size, as type and shape demand.
    pub(super) bytes: usize,
    /// Where the data begins in the data section.
    pub(super) offset: u64,
}

/// The tensors in the file's order, and where in it each name is.
pub(super) type Infos = (Vec<Info>, HashMap<String, usize>);

/// Reads the descriptions of `count` tensors and checks each by itself.
pub(super) fn read(cursor: &mut Cursor<'_>, count: u64) -> Result<Infos, LoadError> {
    cursor.fits(format_args!("tensors"), count, TENSOR_BYTES_MIN)?;
    let reserved = count.min(RESERVE_MAX) as usize;
    let mut infos = Vec::with_capacity(reserved);
    let mut by_name = HashMap::with_capacity(reserved);
    for index in 0..count {
        let info = read_info(cursor, index)?;
        if by_name.insert(info.name.clone(), infos.len()).is_some() {
            return Err(LoadError::Duplicate {
                file: cursor.path.to_owned(),
                what: "tensor",
                name: info.name,
            });
        }
        infos.push(info);
    }
    Ok((infos, by_name))
}

fn read_info(cursor: &mut Cursor<'_>, index: u64) -> Result<Info, LoadError> {
    let file = cursor.path;
    let name = cursor.name(format_args!("name of tensor {index}"))?;
    let dimensions = cursor.u32(format_args!("dimension count of {name}"))?;
    if !(1..=4).contains(&dimensions) {
        return Err(LoadError::Dimensions {
            file: file.to_owned(),
            tensor: name,
            found: dimensions,
        });
    }
    let mut shape = Vec::with_capacity(dimensions as usize);
    for _ in 0..dimensions {
        shape.push(cursor.u64(format_args!("dimensions of {name}"))?);
    }
    shape.reverse(); // The file has the innermost dimension first.
    let id = cursor.u32(format_args!("type of {name}"))?;
    let Some(dtype) = DType::from_ggml(id) else {
        return Err(LoadError::UnknownType {
            file: file.to_owned(),
            tensor: name,
            id,
        });
    };
    let offset = cursor.u64(format_args!("data offset of {name}"))?;
    let (shape, bytes) = check_shape(file, &name, dtype, shape)?;
    Ok(Info {
        name,
        dtype,
        shape,
        bytes,
        offset,
    })
}

/// The shape as `usize`, and the bytes a tensor of it takes.
fn check_shape(
    file: &Path,
    name: &str,
    dtype: DType,
    shape: Vec<u64>,
) -> Result<(Vec<usize>, usize), LoadError> {
    let wrong = |shape, problem| LoadError::Shape {
        file: file.to_owned(),
        tensor: name.to_owned(),
        shape,
        problem,
    };
    const TOO_LARGE: &str = "has more elements than can be addressed";
    if shape.contains(&0) {
        return Err(wrong(
            shape,
            "has a dimension of zero; all must be at least 1",
        ));
    }
    let Ok(sizes) = shape
        .iter()
        .map(|&size| usize::try_from(size))
        .collect::<Result<Vec<_>, _>>()
    else {
        return Err(wrong(shape, TOO_LARGE));
    };
    let (rows, columns) = sizes.split_at(sizes.len() - 1);
    let columns = columns[0];
    if !columns.is_multiple_of(dtype.block_len()) {
        return Err(LoadError::PartialBlock {
            file: file.to_owned(),
            tensor: name.to_owned(),
            dtype,
            columns: columns as u64,
        });
    }
    // Elements and bytes both, so that `element_count` cannot overflow even where a block is smaller than its elements.
    let rows = rows
        .iter()
        .try_fold(1usize, |product, &size| product.checked_mul(size));
    let bytes = rows.and_then(|rows| {
        rows.checked_mul(columns)?;
        rows.checked_mul(dtype.row_bytes(columns)?)
    });
    match bytes {
        Some(bytes) => Ok((sizes, bytes)),
        None => Err(wrong(shape, TOO_LARGE)),
    }
}

/// Checks that every tensor is aligned, inside the data section of `available` bytes, and shares no byte with another.
pub(super) fn check_extents(
    path: &Path,
    infos: &[Info],
    alignment: u64,
    available: u64,
) -> Result<(), LoadError> {
    for info in infos {
        if !info.offset.is_multiple_of(alignment) {
            return Err(LoadError::Misaligned {
                file: path.to_owned(),
                tensor: info.name.clone(),
                offset: info.offset,
                alignment,
            });
        }
        let end = info.offset.checked_add(info.bytes as u64);
        if end.is_none_or(|end| end > available) {
            return Err(LoadError::OutOfRange {
                file: path.to_owned(),
                tensor: info.name.clone(),
                offset: info.offset,
                bytes: info.bytes as u64,
                available,
            });
        }
    }
    // No tensor is empty, so if any two overlap then two neighbours in order of their beginnings do.
    let mut order: Vec<&Info> = infos.iter().collect();
    order.sort_by_key(|info| info.offset);
    for pair in order.windows(2) {
        let (first, second) = (pair[0], pair[1]);
        let first_end = first.offset + first.bytes as u64;
        if second.offset < first_end {
            return Err(LoadError::Overlap {
                file: path.to_owned(),
                first: first.name.clone(),
                first_begin: first.offset,
                first_end,
                second: second.name.clone(),
                second_begin: second.offset,
            });
        }
    }
    Ok(())
}

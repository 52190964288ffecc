//! Weights as the kernels want them: quantised matrices packed into panels, float matrices in the
//! file's order, vectors as f32, embedding tables row by row.
//!
//! Float matrices could stay where the file is mapped, but a mapped file has pages of 4 KB, and a
//! copy has huge ones: one core of an EPYC reads 270 MB at 23.9 GB/s from the file, 20.5 from small
//! anonymous pages, 28.5 from huge ones. Copying takes as long as a few decoded tokens, so what is
//! not too much ([`COPIED_MOST`]) is copied.

use super::CpuError;
use super::memory::Pages;
use super::pack::{pack_panel, packed_panel_bytes};
use super::panel::LANES;
use super::team::Team;
use crate::dtype::DType;
use crate::graph::{Op, WeightId};
use crate::loader::{Blob, Tensor};
use crate::program::{Program, WeightSlot};
use std::collections::HashMap;

/// Float matrices of more bytes in all stay in the file: copying them would take seconds, and memory
/// that the system can otherwise reclaim.
const COPIED_MOST: usize = 2 << 30;

/// A matrix `[N, K]` in panels of 16 rows.
#[derive(Clone, Copy, Debug)]
pub struct Matrix {
    /// The first panel. Valid as long as the [`Weights`] it came from.
    pub base: *const u8,
    /// From one panel to the next.
    pub panel_bytes: usize,
    pub dtype: DType,
    /// `N`
    pub rows: usize,
    /// `K`
    pub cols: usize,
}

/// A table whose rows are decoded one at a time.
#[derive(Clone, Debug)]
pub struct Table {
    pub bytes: Blob,
    pub dtype: DType,
}

/// How programs use one weight; a tied embedding is used in two ways.
#[derive(Default)]
struct Prepared {
    matrix: Option<Matrix>,
    vector: Option<Box<[f32]>>,
    table: Option<Table>,
}

/// Every weight of some programs, ready to be multiplied.
pub struct Weights {
    by_name: HashMap<String, Prepared>,
    /// What `Matrix::base` points into: panels and copies. The rest is in mapped files.
    packed: Pages,
    mapped: Vec<Blob>,
    /// Bytes of all tensors in the file.
    pub file_bytes: u64,
}

// SAFETY: the pointers in `by_name` lead into `packed` and `mapped`, which are owned here, never
// written after `prepare` and never moved; everything else is plain data.
unsafe impl Send for Weights {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Weights {}

/// What has to be made of one weight.
#[derive(Clone, Copy, Default)]
struct Uses {
    matrix: bool,
    vector: bool,
    table: bool,
}

impl Weights {
    /// Fetches and prepares every weight that `programs` name, in the order in which a step reads
    /// them, so that a step walks memory forwards. `progress(done, total)` counts bytes.
    pub fn prepare(
        programs: &[&Program],
        team: &Team,
        fetch: &dyn Fn(&str) -> Option<Tensor>,
        progress: &dyn Fn(u64, u64),
    ) -> Result<Self, CpuError> {
        let wanted = wanted(programs);
        let mut packed_bytes = 0usize;
        let mut total = 0u64;
        for (slot, uses) in &wanted {
            total += tensor_bytes(slot);
            if uses.matrix && !slot.dtype.is_float() {
                packed_bytes += matrix_bytes(slot);
            }
        }
        let float = |(slot, uses): &&(&WeightSlot, Uses)| uses.matrix && slot.dtype.is_float();
        let float_bytes = wanted
            .iter()
            .filter(float)
            .map(|(slot, _)| matrix_bytes(slot));
        let float_bytes: usize = float_bytes.sum();
        let copies = float_bytes <= COPIED_MOST;
        if copies {
            packed_bytes += float_bytes;
        }
        let packed = Pages::zeroed(packed_bytes).map_err(|source| CpuError::Memory {
            what: "packed weights",
            bytes: packed_bytes as u64,
            source,
        })?;
        let mut weights = Weights {
            by_name: HashMap::new(),
            packed,
            mapped: Vec::new(),
            file_bytes: total,
        };
        let (mut offset, mut done) = (0, 0);
        progress(0, total);
        for (slot, uses) in wanted {
            let missing = || CpuError::MissingWeight {
                name: slot.name.clone(),
            };
            let tensor = fetch(&slot.name).ok_or_else(missing)?;
            if uses.matrix && (copies || !slot.dtype.is_float()) {
                // SAFETY: `offset` and the bytes after it were counted above with the same sizes.
                let out = unsafe { weights.packed.base().add(offset) };
                offset += matrix_bytes(slot);
                if slot.dtype.is_float() {
                    copy(team, &tensor.data, out);
                    weights.add_matrix(slot, out, LANES * row_bytes(slot));
                } else {
                    pack(team, slot, &tensor.data, out);
                    let panel_bytes = packed_panel_bytes(slot.dtype, slot.cols);
                    weights.add_matrix(slot, out, panel_bytes);
                }
                tensor.data.release_pages();
            } else if uses.matrix {
                let row_bytes = row_bytes(slot);
                weights.add_matrix(slot, tensor.data.as_ptr(), LANES * row_bytes);
                weights.mapped.push(tensor.data.clone());
            }
            let prepared = weights.by_name.entry(slot.name.clone()).or_default();
            if uses.vector {
                let mut vector = vec![0.0; slot.rows * slot.cols];
                slot.dtype.decode(&tensor.data, &mut vector);
                prepared.vector = Some(vector.into());
            }
            if uses.table {
                let (bytes, dtype) = (tensor.data.clone(), slot.dtype);
                prepared.table = Some(Table { bytes, dtype });
            }
            done += tensor_bytes(slot);
            progress(done, total);
        }
        Ok(weights)
    }

    fn add_matrix(&mut self, slot: &WeightSlot, base: *const u8, panel_bytes: usize) {
        let WeightSlot {
            dtype, rows, cols, ..
        } = *slot;
        let matrix = Matrix {
            base,
            panel_bytes,
            dtype,
            rows,
            cols,
        };
        self.by_name.entry(slot.name.clone()).or_default().matrix = Some(matrix);
    }

    /// Bytes that a step can read: packed panels, copied and mapped matrices.
    pub fn bytes(&self) -> u64 {
        let mapped: usize = self.mapped.iter().map(|b| b.len()).sum();
        (self.packed.len() + mapped) as u64
    }

    /// The weight as a matrix. Panics if no prepared program multiplies by it.
    pub fn matrix(&self, program: &Program, id: WeightId) -> Matrix {
        let prepared = self.prepared(program, id);
        prepared
            .matrix
            .expect("every GEMM's weight was prepared as a matrix")
    }

    /// The weight as f32. Panics if no prepared program uses it as a vector.
    pub fn vector(&self, program: &Program, id: WeightId) -> &[f32] {
        let prepared = self.prepared(program, id);
        prepared
            .vector
            .as_deref()
            .expect("every vector was prepared as one")
    }

    /// The weight as a table of rows. Panics if no prepared program looks rows up in it.
    pub fn table(&self, program: &Program, id: WeightId) -> &Table {
        let prepared = self.prepared(program, id);
        prepared
            .table
            .as_ref()
            .expect("every embedding was prepared as a table")
    }

    fn prepared(&self, program: &Program, id: WeightId) -> &Prepared {
        &self.by_name[&program.weights[id.index()].name]
    }
}

/// Every weight once, in the order of its first launch, with all its uses.
fn wanted<'p>(programs: &[&'p Program]) -> Vec<(&'p WeightSlot, Uses)> {
    let mut wanted: Vec<(&WeightSlot, Uses)> = Vec::new();
    let mut index_of: HashMap<&str, usize> = HashMap::new();
    for program in programs {
        for launch in &program.launches {
            for (place, id) in launch.weights.iter().enumerate() {
                let slot = &program.weights[id.index()];
                let index = *index_of.entry(&slot.name).or_insert_with(|| {
                    wanted.push((slot, Uses::default()));
                    wanted.len() - 1
                });
                let uses = &mut wanted[index].1;
                match launch.op {
                    Op::Embed { .. } => uses.table = true,
                    Op::Gemm { .. } | Op::GatedGemm(_) => uses.matrix = true,
                    Op::NormGemm { .. } | Op::NormGatedGemm { .. }
                        if place + 1 < launch.weights.len() =>
                    {
                        uses.matrix = true;
                    }
                    _ => uses.vector = true,
                }
            }
        }
    }
    wanted
}

fn row_bytes(slot: &WeightSlot) -> usize {
    slot.dtype
        .row_bytes(slot.cols)
        .expect("the model checked that rows are whole blocks")
}

fn tensor_bytes(slot: &WeightSlot) -> u64 {
    (slot.rows * row_bytes(slot)) as u64
}

/// Bytes of a matrix in panels, or of a copy of a float one; a multiple of 64.
fn matrix_bytes(slot: &WeightSlot) -> usize {
    if slot.dtype.is_float() {
        return (slot.rows * row_bytes(slot)).next_multiple_of(64);
    }
    slot.rows.div_ceil(LANES) * packed_panel_bytes(slot.dtype, slot.cols)
}

/// Where threads write, each its own share.
struct Target(*mut u8);
// SAFETY: each thread writes only its share of what is behind the pointer, and shares do not overlap.
unsafe impl Sync for Target {}

/// Copies a matrix as it is, the team's threads taking even runs.
fn copy(team: &Team, file: &Blob, out: *mut u8) {
    let target = Target(out);
    team.run(&|worker| {
        let target = &target;
        let share = worker.share(file.len());
        let from = &file[share.clone()];
        // SAFETY: the caller reserved the file's bytes at `out`; this run of them is ours.
        unsafe {
            target
                .0
                .add(share.start)
                .copy_from_nonoverlapping(from.as_ptr(), from.len())
        };
    });
}

/// Packs every panel of a matrix, the team's threads taking even runs.
fn pack(team: &Team, slot: &WeightSlot, file: &Blob, out: *mut u8) {
    let target = Target(out);
    let (row_bytes, panels) = (row_bytes(slot), slot.rows.div_ceil(LANES));
    let panel_bytes = packed_panel_bytes(slot.dtype, slot.cols);
    team.run(&|worker| {
        let target = &target;
        for panel in worker.share(panels) {
            let first = panel * LANES;
            let lanes = LANES.min(slot.rows - first);
            let rows = &file[first * row_bytes..(first + lanes) * row_bytes];
            // SAFETY: the caller reserved `panels · panel_bytes` bytes at `out`; this panel is ours.
            let out = unsafe {
                std::slice::from_raw_parts_mut(target.0.add(panel * panel_bytes), panel_bytes)
            };
            pack_panel(slot.dtype, rows, lanes, slot.cols, out);
        }
    });
}

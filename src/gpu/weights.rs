//! Where each weight lies on the device: one allocation, in the order in which a step reads it.

use super::launch::{Arg, Form, KernelLaunch};
use super::pack::{pack_rows, row_layout};
use crate::dtype::DType;
use crate::graph::WeightId;
use crate::program::{Program, WeightSlot};
use std::collections::HashMap;
use std::ops::Range;

/// Weights begin at multiples of this.
const ALIGN: usize = 256;

/// One weight in one form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The tensor's name in the checkpoint.
    pub name: String,
    pub form: Form,
    pub dtype: DType,
    pub rows: usize,
    pub cols: usize,
    /// From the start of the weights.
    pub offset: usize,
}

impl Piece {
    /// Bytes from one row to the next on the device.
    pub fn row_bytes(&self) -> usize {
        match self.form {
            Form::Matrix => row_layout(self.dtype, self.cols).stride,
            Form::Table => self.file_row_bytes(),
            Form::Vector => self.cols * 4,
        }
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        self.rows * self.row_bytes()
    }

    /// Bytes of a row in the file.
    pub fn file_row_bytes(&self) -> usize {
        let bytes = self.dtype.row_bytes(self.cols);
        bytes.expect("the model checked that rows are whole blocks")
    }

    /// Writes `rows` of the tensor's bytes `file` to `out` in this piece's form.
    ///
    /// # Panics
    /// When `out` is not exactly those rows.
    pub fn write(&self, rows: Range<usize>, file: &[u8], out: &mut [u8]) {
        let row_bytes = self.file_row_bytes();
        let file = &file[rows.start * row_bytes..rows.end * row_bytes];
        match self.form {
            Form::Matrix => pack_rows(self.dtype, self.cols, file, out),
            Form::Table => out.copy_from_slice(file),
            Form::Vector => {
                let mut values = vec![0.0; rows.len() * self.cols];
                self.dtype.decode(file, &mut values);
                assert_eq!(out.len(), values.len() * 4, "whole rows");
                for (out, value) in out.chunks_exact_mut(4).zip(values) {
                    out.copy_from_slice(&value.to_le_bytes());
                }
            }
        }
    }
}

/// Every weight that some launches read.
#[derive(Clone, Debug, Default)]
pub struct WeightLayout {
    pub pieces: Vec<Piece>,
    pub bytes: usize,
    by_name: HashMap<(String, Form), usize>,
}

impl WeightLayout {
    /// Lays out what the launches of these programs, which are programs of one model, read.
    pub fn new(programs: &[(&Program, &[KernelLaunch])]) -> Self {
        let mut layout = WeightLayout::default();
        for (program, launches) in programs {
            for arg in launches.iter().flat_map(|l| &l.args) {
                if let Arg::Weight { id, form } = *arg {
                    layout.add(&program.weights[id.index()], form);
                }
            }
        }
        layout
    }

    /// The offset of a weight that was laid out.
    ///
    /// # Panics
    /// When it was not.
    pub fn offset(&self, program: &Program, id: WeightId, form: Form) -> usize {
        let slot = &program.weights[id.index()];
        let key = (slot.name.clone(), stored_form(slot, form));
        self.pieces[self.by_name[&key]].offset
    }

    fn add(&mut self, slot: &WeightSlot, form: Form) {
        let form = stored_form(slot, form);
        let key = (slot.name.clone(), form);
        if self.by_name.contains_key(&key) {
            return;
        }
        let piece = Piece {
            name: slot.name.clone(),
            form,
            dtype: slot.dtype,
            rows: slot.rows,
            cols: slot.cols,
            offset: self.bytes,
        };
        self.bytes += piece.bytes().next_multiple_of(ALIGN);
        self.by_name.insert(key, self.pieces.len());
        self.pieces.push(piece);
    }
}

/// A table whose rows are the matrix's own bytes is stored once.
fn stored_form(slot: &WeightSlot, form: Form) -> Form {
    let row_bytes = slot.dtype.row_bytes(slot.cols);
    let same = slot.dtype.is_float() && row_bytes == Some(row_layout(slot.dtype, slot.cols).stride);
    match form {
        Form::Table if same => Form::Matrix,
        form => form,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(name: &str, dtype: DType, rows: usize, cols: usize) -> WeightSlot {
        let name = name.into();
        WeightSlot {
            name,
            dtype,
            rows,
            cols,
        }
    }

    #[test]
    fn pieces_follow_each_other_and_a_tied_table_is_stored_once_where_it_can_be() {
        let mut layout = WeightLayout::default();
        let check = |layout: &mut WeightLayout, slot: WeightSlot, pieces: usize| {
            layout.add(&slot, Form::Table);
            layout.add(&slot, Form::Matrix);
            layout.add(&slot, Form::Table);
            assert_eq!(layout.pieces.len(), pieces, "{}", slot.name);
        };
        check(&mut layout, slot("half", DType::F16, 3, 8), 1);
        check(&mut layout, slot("ragged", DType::F16, 3, 9), 3);
        check(&mut layout, slot("q4", DType::Q4_0, 5, 64), 5);
        let mut end = 0;
        for piece in &layout.pieces {
            assert!(piece.offset >= end && piece.offset % ALIGN == 0);
            end = piece.offset + piece.bytes();
        }
        assert!(layout.bytes >= end);
    }

    #[test]
    fn rows_can_be_written_in_parts() {
        let forms = [
            (Form::Vector, DType::F16, 4),
            (Form::Table, DType::Q8_0, 34),
            (Form::Matrix, DType::Q8_0, 48),
        ];
        for (form, dtype, row_bytes) in forms {
            let cols = if form == Form::Vector { 1 } else { 32 };
            let piece = Piece {
                name: "w".into(),
                form,
                dtype,
                rows: 5,
                cols,
                offset: 0,
            };
            assert_eq!(piece.bytes(), 5 * row_bytes);
            let file: Vec<u8> = (0..5 * piece.file_row_bytes()).map(|i| i as u8).collect();
            let mut whole = vec![0xff; piece.bytes()];
            piece.write(0..5, &file, &mut whole);
            let mut parts = vec![0xff; piece.bytes()];
            let (head, tail) = parts.split_at_mut(2 * row_bytes);
            piece.write(0..2, &file, head);
            piece.write(2..5, &file, tail);
            assert_eq!(whole, parts);
        }
    }
}

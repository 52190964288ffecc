//! Where each weight lies on the device: one allocation, in the order in which a step reads it.

use super::launch::{Arg, Form, KernelLaunch};
use super::pack::row_layout;
use super::repack::{self, Repack, repack};
use crate::dtype::DType;
use crate::graph::WeightId;
use crate::loader::{Blob, Tensor};
use crate::program::{Program, WeightSlot};
use std::collections::HashMap;
use std::io;

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
        repack::file_row_bytes(self.dtype, self.cols)
    }

    /// Whether a kernel writes the rows; otherwise they are copied as they are.
    pub fn is_repacked(&self) -> bool {
        self.form == Form::Matrix && repack::is_repacked(self.dtype, self.cols)
    }

    /// What repacks so many of its rows.
    pub fn repack(&self, rows: usize) -> Option<Repack> {
        self.is_repacked()
            .then(|| repack(self.dtype, self.cols, rows))
    }
}

/// A tensor that is sent to the device once, and the pieces that are made of it there.
pub struct Source<'l> {
    /// Its name in the checkpoint.
    pub name: &'l str,
    pub rows: usize,
    /// At least one; either none of them is a vector or all are.
    pub pieces: Vec<&'l Piece>,
}

impl Source<'_> {
    /// Bytes of a row as it is sent: vectors as f32, everything else as the file has it.
    pub fn row_bytes(&self) -> usize {
        match self.pieces[0].form {
            Form::Vector => self.pieces[0].row_bytes(),
            Form::Matrix | Form::Table => self.file_row_bytes(),
        }
    }

    /// Bytes of a row in the file.
    pub fn file_row_bytes(&self) -> usize {
        self.pieces[0].file_row_bytes()
    }

    /// Bytes in the file.
    pub fn file_bytes(&self) -> u64 {
        (self.rows * self.file_row_bytes()) as u64
    }

    /// Whether some piece is repacked.
    pub fn is_repacked(&self) -> bool {
        self.pieces.iter().any(|piece| piece.is_repacked())
    }

    /// The tensor's bytes as they are sent. Vectors are a few kilobytes, so the host widens them.
    pub fn bytes(&self, tensor: Tensor) -> io::Result<Blob> {
        let is_vector = self.pieces[0].form == Form::Vector;
        if !is_vector || tensor.dtype == DType::F32 {
            return Ok(tensor.data);
        }
        let mut file = vec![0; tensor.data.len()];
        tensor.data.read(&mut file)?;
        let mut values = vec![0.0; self.rows * self.pieces[0].cols];
        tensor.dtype.decode(&file, &mut values);
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Ok(Blob::from(bytes))
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

    /// The tensors behind the pieces, in the order of their first piece.
    pub fn sources(&self) -> Vec<Source<'_>> {
        let mut sources: Vec<Source<'_>> = Vec::new();
        let mut by_name = HashMap::new();
        for piece in &self.pieces {
            let key = (&piece.name, piece.form == Form::Vector);
            let index = *by_name.entry(key).or_insert(sources.len());
            if index == sources.len() {
                let (name, rows) = (&piece.name, piece.rows);
                let pieces = Vec::new();
                sources.push(Source { name, rows, pieces });
            }
            sources[index].pieces.push(piece);
        }
        sources
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
    fn a_tensor_is_sent_once_whatever_is_made_of_it() {
        let mut layout = WeightLayout::default();
        let tied = slot("tied", DType::Q8_0, 5, 64);
        layout.add(&tied, Form::Table);
        layout.add(&slot("norm", DType::F16, 1, 7), Form::Vector);
        layout.add(&slot("padded", DType::F16, 3, 9), Form::Matrix);
        layout.add(&slot("plain", DType::F32, 3, 8), Form::Matrix);
        layout.add(&tied, Form::Matrix);
        let check = |index: usize, name: &str, row_bytes: usize, repacked: &[bool]| {
            let source = &layout.sources()[index];
            let found: Vec<bool> = source.pieces.iter().map(|p| p.is_repacked()).collect();
            assert_eq!(
                (source.name, source.row_bytes(), &*found),
                (name, row_bytes, repacked)
            );
        };
        assert_eq!(layout.sources().len(), 4);
        check(0, "tied", 68, &[false, true]);
        check(1, "norm", 28, &[false]);
        check(2, "padded", 18, &[true]);
        check(3, "plain", 32, &[false]);
        let total: u64 = layout.sources().iter().map(Source::file_bytes).sum();
        assert_eq!(total, 5 * 68 + 14 + 3 * 18 + 3 * 32);
    }

    #[test]
    fn vectors_are_widened() {
        let mut layout = WeightLayout::default();
        layout.add(&slot("norm", DType::BF16, 1, 3), Form::Vector);
        let source = &layout.sources()[0];
        let tensor = Tensor {
            name: "norm".into(),
            dtype: DType::BF16,
            shape: vec![3],
            data: Blob::from(vec![0x80, 0x3f, 0x00, 0xc0, 0x00, 0x00]),
        };
        let bytes = source.bytes(tensor).expect("memory can be read");
        let wanted: Vec<u8> = [1.0f32, -2.0, 0.0]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        assert_eq!(bytes[..], wanted);
    }
}

//! Rows from the file's blocks to planes, against the host's packing, bit for bit.

use super::bench::{Arg, Bench};
use crate::support::planes::pack_rows;
use crate::support::rng::Rng;
use greta_infer::dtype::DType;
use greta_infer::gpu::pack::row_layout;
use greta_infer::gpu::repack::{is_repacked, repack};

/// What lies around the rows and must stay: weights of other tensors.
const MARGIN: usize = 64;

/// Every type at widths that leave planes ragged, and rows that leave blocks of threads so; a second run of rows goes
/// behind the first, as the next piece of a tensor does.
pub fn rows(bench: &Bench) {
    let mut rng = Rng::new(31);
    for &dtype in DType::RUNNABLE {
        let widths: &[usize] = match (dtype.is_float(), dtype.block_len()) {
            (true, _) => &[1, 3, 8, 9, 1030],
            (_, 32) => &[32, 96, 160, 256, 576, 2080, 4096],
            _ => &[256, 512, 768, 2304, 4096],
        };
        for &cols in widths {
            if !is_repacked(dtype, cols) {
                continue;
            }
            for (first, second) in [(1, 3), (4, 5), (9, 2)] {
                let place = format!("{dtype}, {cols} columns, {first} + {second} rows");
                let row_bytes = dtype.row_bytes(cols).expect("whole blocks");
                let stride = row_layout(dtype, cols).stride;
                // Random bits are what they are: nothing here is a number.
                let file: Vec<u8> = (0..(first + second) * row_bytes)
                    .map(|_| rng.byte())
                    .collect();
                let mut wanted = vec![0xff; MARGIN + (first + second) * stride + MARGIN];
                let to = bench.bytes(&wanted);
                let end = wanted.len() - MARGIN;
                pack_rows(dtype, cols, &file, &mut wanted[MARGIN..end]);
                let (head, tail) = file.split_at(first * row_bytes);
                let mut at = to.address() + MARGIN as u64;
                for (rows, file) in [(first, head), (second, tail)] {
                    let from = bench.bytes(file);
                    let launch = repack(dtype, cols, rows);
                    let sizes = launch.sizes.map(Arg::from);
                    let args = [&[Arg::from(&from), Arg::from(at)][..], &sizes].concat();
                    bench.launch(&launch.kernel, launch.geometry, &args);
                    at += (rows * stride) as u64;
                }
                let got = bench.read(&to);
                let differs = got.iter().zip(&wanted).position(|(got, want)| got != want);
                assert_eq!(differs, None, "{place}: the first byte that differs");
            }
        }
    }
}

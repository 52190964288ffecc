//! How far a launch's values may be from its twin's.

use greta_infer::cpu::half_rows::widen_row;
use greta_infer::graph::{Element, Op};
use greta_infer::program::{Launch, Slot};
use half::f16;
use std::collections::BTreeMap;

/// Bytes of a block of quantised activations, and where its parts lie.
const BLOCK_BYTES: usize = 80;
const SCALE_AT: usize = 64;

/// Differences relative to the root mean square of the twin's values: in root mean square, and the widest.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Distance {
    pub rms: f64,
    pub widest: f64,
}

/// What is allowed, from what each kernel rounds.
fn allowed(launch: &Launch, half: bool) -> Distance {
    let by = |rms: f64, widest: f64| Distance { rms, widest };
    let is_half = |slots: &[Slot]| slots.first().is_some_and(|s| s.element == Element::F16);
    if is_half(&launch.outputs) {
        // Values a little apart are rounded to different neighbours of eleven bits, and a row may have
        // few others.
        return by(1e-3, 4e-3);
    }
    if is_half(&launch.inputs) && matches!(launch.op, Op::GatedGemm(_)) {
        // As below, in both factors: where one is large, the other's error is, beside what most products are.
        return by(3e-3, 3e-2);
    }
    if is_half(&launch.inputs) || (half && matches!(launch.op, Op::Attention { .. })) {
        // Eleven bits of weights, or of queries and of what values are weighted by. Scale times code
        // and minimum are rounded each, and are several times their difference.
        return by(2e-3, 1e-2);
    }
    let quantizes = launch
        .outputs
        .first()
        .is_some_and(|s| s.element == Element::Q15A);
    if launch.op == Op::Quantize {
        // The same rounding, bit for bit.
        return by(0.0, 0.0);
    }
    if let Op::NormGatedGemm { .. } = launch.op
        && quantizes
    {
        // Rounded twice: the row that was normalised, and what came of it.
        return by(1e-4, 2e-3);
    }
    if quantizes {
        // Values a little apart fall on different sides of a boundary of 1/16256 of the largest.
        return by(5e-5, 1e-3);
    }
    match launch.op {
        // The few activations that fall on the other side of a boundary, seen through the weights.
        Op::NormGemm { .. } => by(2e-5, 4e-4),
        Op::Embed { .. } | Op::LastRow => by(0.0, 0.0),
        Op::Add | Op::AddBias | Op::Scale { .. } => by(0.0, 0.0),
        _ => by(5e-6, 1e-4),
    }
}

/// The worst that was found, by kernel.
#[derive(Default)]
pub struct Judge {
    /// Whether the program's products, and so its attention, take 16-bit floats.
    pub half: bool,
    worst: BTreeMap<String, Distance>,
    pub faults: Vec<String>,
}

impl Judge {
    /// Compares the live rows of what a launch wrote in two arenas.
    pub fn values(
        &mut self,
        launch: &Launch,
        live: usize,
        seen: usize,
        (cpu, gpu): (&[u8], &[u8]),
        place: &str,
    ) {
        let bound = allowed(launch, self.half);
        // What lies in the room for partial results is the kernel's own business.
        let private = usize::from(matches!(launch.op, Op::AttentionStep { .. }));
        for slot in &launch.outputs[..launch.outputs.len() - private] {
            let rows = live.min(slot.rows as usize);
            for row in 0..rows {
                let of = |arena: &[u8]| -> Vec<Vec<f64>> {
                    let bytes = &arena[slot.offset + row * slot.row_bytes()..][..slot.row_bytes()];
                    vectors(launch, slot, seen, bytes)
                };
                for (part, (want, got)) in of(cpu).iter().zip(&of(gpu)).enumerate() {
                    let found = distance(got, want);
                    self.judge(&launch.kernel, found, bound, || {
                        format!("{place}: {} row {row} part {part}", slot.value)
                    });
                }
            }
        }
    }

    /// Compares two caches; at most one unit in the last place where the step wrote.
    pub fn caches(&mut self, launch: &Launch, cpu: &[u8], gpu: &[u8], before: &[u8], place: &str) {
        let half = |b: &[u8], i: usize| u16::from_le_bytes([b[2 * i], b[2 * i + 1]]);
        for i in 0..cpu.len() / 2 {
            let (want, got, was) = (half(cpu, i), half(gpu, i), half(before, i));
            let near = i32::from(want).abs_diff(i32::from(got)) <= 1;
            if want != got && !(near && want != was) {
                let (want, got) = (f16::from_bits(want), f16::from_bits(got));
                let text = format!(
                    "{place}: {} cache [{i}]: {want}, on the GPU {got}",
                    launch.kernel
                );
                self.faults.push(text);
                return;
            }
        }
    }

    fn judge(
        &mut self,
        kernel: &str,
        found: Distance,
        bound: Distance,
        place: impl FnOnce() -> String,
    ) {
        let worst = self.worst.entry(kernel.into()).or_default();
        worst.rms = worst.rms.max(found.rms);
        worst.widest = worst.widest.max(found.widest);
        // Written so that NaN fails.
        if !(found.rms <= bound.rms && found.widest <= bound.widest) {
            let text = format!("{}: {kernel}: {found:?}, allowed {bound:?}", place());
            self.faults.push(text);
        }
    }

    /// Prints the worst of each kernel and fails if anything was out of bounds.
    pub fn conclude(self) {
        for (kernel, Distance { rms, widest }) in &self.worst {
            println!("  {kernel:<32} rms {rms:.1e} widest {widest:.1e}");
        }
        for fault in self.faults.iter().take(20) {
            println!("  FAULT {fault}");
        }
        assert!(self.faults.is_empty(), "{} faults", self.faults.len());
    }
}

/// The numbers of one row, in vectors of one size each: a row of floats, of dequantised blocks, or the
/// partial results of attention up to `seen` positions, sums apart from maxima.
fn vectors(launch: &Launch, slot: &Slot, seen: usize, row: &[u8]) -> Vec<Vec<f64>> {
    let float = |i: usize| {
        let bytes = row[4 * i..4 * i + 4].try_into().expect("four bytes");
        f64::from(f32::from_le_bytes(bytes))
    };
    let floats = |from: usize, n: usize| (from..from + n).map(float).collect::<Vec<_>>();
    if slot.element == Element::Q15A {
        let blocks = row
            .chunks_exact(BLOCK_BYTES)
            .take((slot.cols as usize).div_ceil(32));
        return vec![blocks.flat_map(dequantised).collect()];
    }
    if slot.element == Element::F16 {
        let mut values = vec![0.0; slot.cols as usize];
        widen_row(row, &mut values);
        return vec![values.into_iter().map(f64::from).collect()];
    }
    let Op::AttentionSplit { heads, split, .. } = launch.op else {
        return vec![floats(0, slot.cols as usize)];
    };
    let (len, size) = (heads.partial_len() as usize, heads.size as usize);
    let splits = slot.cols as usize / len / heads.query as usize;
    let live = seen.div_ceil(split as usize);
    let mut out = Vec::new();
    for head in 0..heads.query as usize {
        for part in 0..live {
            let at = (head * splits + part) * len;
            out.push(floats(at, size));
            out.push(floats(at + len - 16, 2));
        }
    }
    out
}

fn dequantised(block: &[u8]) -> Vec<f64> {
    let scale = f32::from_le_bytes(
        block[SCALE_AT..SCALE_AT + 4]
            .try_into()
            .expect("four bytes"),
    );
    let q = |i: usize| 128.0 * f64::from(block[i] as i8) + f64::from(block[32 + i] as i8);
    (0..32).map(|i| q(i) * f64::from(scale)).collect()
}

fn distance(got: &[f64], want: &[f64]) -> Distance {
    let n = want.len() as f64;
    let size = (want.iter().map(|x| x * x).sum::<f64>() / n).sqrt();
    let differences = || got.iter().zip(want).map(|(a, b)| a - b);
    let rms = (differences().map(|d| d * d).sum::<f64>() / n).sqrt();
    // `max` would drop a NaN.
    let widest = differences().fold(0.0, |m: f64, d| if d.abs() <= m { m } else { d.abs() });
    let relative = |x: f64| if x == 0.0 { 0.0 } else { x / size };
    Distance {
        rms: relative(rms),
        widest: relative(widest),
    }
}

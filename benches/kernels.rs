//! The quantised matrix kernels: one activation row in bytes of packed weights a second, 128 rows in products a second.
//! Each bench compares its answer with the portable path's before it is timed.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use greta_infer::cpu::activation::{quantise_row, row_bytes};
use greta_infer::cpu::gemm_q::quantised_kernel;
use greta_infer::cpu::isa::Isa;
use greta_infer::cpu::pack::{pack_panel, packed_panel_bytes};
use greta_infer::cpu::panel::{LANES, PanelKernel};
use greta_infer::dtype::DType;

/// Memory that no cache of a core holds: SmolLM2-135M's weights in four bits.
const WEIGHT_BYTES: usize = 96 << 20;
const ROWS: usize = 128;

/// Zeroed memory, aligned to cache lines.
fn aligned(bytes: usize) -> Vec<[u8; 64]> {
    vec![[0; 64]; bytes.div_ceil(64) + 1]
}

struct Bench {
    k: usize,
    panel_bytes: usize,
    panels: usize,
    weights: Vec<[u8; 64]>,
    /// What each instruction set multiplies.
    x: Vec<(Isa, Vec<[u8; 64]>)>,
    tile: Vec<[u8; 64]>,
    scratch: Vec<[u8; 64]>,
}

impl Bench {
    fn new(dtype: DType, k: usize) -> Bench {
        // Any bytes are weights, if a half's exponent is kept from its top: no byte here exceeds 60.
        let file: Vec<u8> = (0..LANES * dtype.row_bytes(k).expect("whole blocks"))
            .map(|i| (i * 7 % 61) as u8)
            .collect();
        let panel_bytes = packed_panel_bytes(dtype, k);
        let panels = WEIGHT_BYTES / panel_bytes;
        let mut weights = aligned(panels * panel_bytes);
        for panel in weights
            .as_flattened_mut()
            .chunks_exact_mut(panel_bytes)
            .take(panels)
        {
            pack_panel(dtype, &file, LANES, k, panel);
        }
        let rows = |isa| {
            let mut x = aligned(ROWS * row_bytes(k));
            let lines = x.as_flattened_mut().chunks_exact_mut(row_bytes(k));
            for (r, out) in lines.take(ROWS).enumerate() {
                let row: Vec<f32> = (0..k)
                    .map(|i| ((i * 37 + r * 11) % 101) as f32 / 50.0 - 1.0)
                    .collect();
                // SAFETY: `out` is a row long, and the machine runs the instruction set.
                unsafe { quantise_row(isa, &row, out.as_mut_ptr()) };
            }
            (isa, x)
        };
        let x = Isa::available().into_iter().map(rows).collect();
        let scratch = Isa::available()
            .into_iter()
            .filter_map(|isa| quantised_kernel(isa, dtype, k, ROWS))
            .map(|kernel| kernel.scratch_bytes)
            .max();
        let scratch = aligned(scratch.expect("a kernel"));
        Bench {
            k,
            panel_bytes,
            panels,
            weights,
            x,
            tile: aligned(ROWS * LANES * 4),
            scratch,
        }
    }

    fn run(&mut self, (isa, kernel): &(Isa, PanelKernel), panel: usize, rows: usize) {
        let x = self.x.iter().find(|(of, _)| of == isa);
        let (_, x) = x.expect("an instruction set of this machine");
        // SAFETY: the kernel is one this machine runs, for this type and `k`, and the buffers were made to its measure.
        unsafe {
            (kernel.func)(
                self.weights
                    .as_ptr()
                    .cast::<u8>()
                    .add(panel * self.panel_bytes),
                LANES,
                self.k,
                x.as_ptr().cast(),
                row_bytes(self.k),
                rows,
                self.tile.as_mut_ptr().cast(),
                self.scratch.as_mut_ptr().cast(),
            );
        }
    }

    fn answer(&mut self, kernel: &(Isa, PanelKernel), rows: usize) -> Vec<f32> {
        self.run(kernel, 1, rows);
        let bytes = &self.tile.as_flattened()[..rows * LANES * 4];
        bytes
            .as_chunks()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect()
    }
}

fn quantised(criterion: &mut Criterion) {
    let types = [
        DType::Q4_0,
        DType::Q4_1,
        DType::Q5_0,
        DType::Q5_1,
        DType::Q8_0,
        DType::Q2_K,
        DType::Q3_K,
        DType::Q4_K,
        DType::Q5_K,
        DType::Q6_K,
    ];
    for dtype in types {
        for k in [576, 1536] {
            if dtype.row_bytes(k).is_none() {
                continue;
            }
            let mut bench = Bench::new(dtype, k);
            let kernel = |isa| {
                let kernel = quantised_kernel(isa, dtype, k, ROWS);
                (isa, kernel.expect("a quantised type"))
            };
            for isa in Isa::available()
                .into_iter()
                .filter(|isa| *isa != Isa::Portable)
            {
                let (kernel, portable) = (kernel(isa), kernel(Isa::Portable));
                for rows in [1, ROWS] {
                    let want = bench.answer(&portable, rows);
                    let largest = want.iter().fold(0f32, |m, y| m.max(y.abs()));
                    for (got, want) in bench.answer(&kernel, rows).iter().zip(&want) {
                        let close = (got - want).abs() <= 1e-5 * largest;
                        assert!(close, "{dtype} {isa}: {got} is not {want}");
                    }
                }
                let mut group = criterion.benchmark_group(format!("{dtype}/{k}/{}", kernel.1.name));
                group.sample_size(10);
                group.throughput(Throughput::Bytes((bench.panels * bench.panel_bytes) as u64));
                group.bench_function("1 row", |bencher| {
                    bencher
                        .iter(|| (0..bench.panels).for_each(|panel| bench.run(&kernel, panel, 1)));
                });
                let panels = 256;
                group.throughput(Throughput::Elements((panels * LANES * k * ROWS) as u64));
                group.bench_function(format!("{ROWS} rows"), |bencher| {
                    bencher.iter(|| (0..panels).for_each(|panel| bench.run(&kernel, panel, ROWS)));
                });
                group.finish();
            }
        }
    }
}

criterion_group!(benches, quantised);
criterion_main!(benches);

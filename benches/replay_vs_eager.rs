//! One decode step of SmolLM2-135M's shape: the recording replayed against the same program run
//! launch by launch, in bytes that the program says it moves. Both must give the same bits at every
//! position before either is timed.

use bumpalo::Bump;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use greta_infer::cpu::isa::Isa;
use greta_infer::cpu::{Cpu, Setup};
use greta_infer::dtype::DType;
use greta_infer::model::{Extent, Hyperparameters, Logits, Model};
use greta_infer::program::{Step, Target};
use greta_infer::runtime::compile;

/// Positions in the cache when a step is timed.
const POSITION: u32 = 256;

fn smollm2() -> Hyperparameters {
    Hyperparameters {
        architecture: "llama".into(),
        layers: 30,
        embedding: 576,
        feed_forward: 1536,
        heads: 9,
        kv_heads: 3,
        head_size: 64,
        vocabulary: 49_152,
        context: 8192,
        rms_eps: 1e-5,
        rope_base: 100_000.0,
        rope_dims: None,
        rope_position_scale: 1.0,
        embedding_scale: 1.0,
        window: None,
    }
}

fn replay_vs_eager(criterion: &mut Criterion) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    for dtype in [DType::Q4_1, DType::F16] {
        let model = Model::random(smollm2(), None, dtype, 1).expect("a valid shape");
        let arena = Bump::new();
        let extent = Extent {
            rows: 1,
            context: 2 * POSITION,
            logits: Logits::Last,
        };
        let program = compile(&model, &arena, extent, Target::Cpu).expect("a program");
        let program = program.program;
        let setup = Setup {
            threads,
            isa: Isa::detect(),
            poison: false,
        };
        let fetch = |name: &str| model.tensor(name);
        let cpu = Cpu::new(setup, &[&program], &fetch, &|_, _| ()).expect("memory");
        let mut recording = cpu.record(program.clone()).expect("a recording");

        let step = |position: u32, token: &'static [u32]| Step {
            position,
            tokens: token,
        };
        let bits = |logits: &[f32]| logits.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        for position in 0..=POSITION {
            recording.replay(step(position, &[7]));
            if position % 32 == 0 {
                let replayed = bits(recording.result(0));
                assert!(replayed.iter().all(|&x| f32::from_bits(x).is_finite()));
                // The step only rewrites the cache row it wrote before.
                recording.run_eagerly(step(position, &[7])).expect("memory");
                assert_eq!(
                    bits(recording.result(0)),
                    replayed,
                    "{dtype} at position {position}"
                );
            }
        }

        let mut group = criterion.benchmark_group(format!("step/{dtype}/{threads} threads"));
        group.sample_size(20);
        group.throughput(Throughput::Bytes(program.bytes_at(u64::from(POSITION) + 1)));
        group.bench_function("replay", |bencher| {
            bencher.iter(|| recording.replay(step(POSITION, &[7])));
        });
        group.bench_function("eager", |bencher| {
            bencher.iter(|| recording.run_eagerly(step(POSITION, &[7])).expect("memory"));
        });
        group.finish();
    }
}

criterion_group!(benches, replay_vs_eager);
criterion_main!(benches);

//! One decode step of SmolLM2-135M's shape: the recording replayed against the same program run
//! launch by launch, in bytes that the program says it moves, on the CPU and on the best GPU if there
//! is one. Both must give the same bits at every position before either is timed.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use greta_infer::dtype::DType;
use greta_infer::model::{Hyperparameters, Model};
use greta_infer::runtime::{DeviceChoice, Session, SessionOptions};

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
        ..Hyperparameters::default()
    }
}

/// Logits of one token at `position`, both ways.
fn bits(session: &mut Session, position: u32, eager: bool) -> Vec<u32> {
    session.truncate(position);
    session.set_eager(eager);
    let logits = session.step(7).expect("a step");
    logits.iter().map(|x| x.to_bits()).collect()
}

fn replay_vs_eager(criterion: &mut Criterion) {
    for device in [DeviceChoice::Cpu, DeviceChoice::Hip(None)] {
        for dtype in [DType::Q4_1, DType::F16] {
            let model = Model::random(smollm2(), None, dtype, 1).expect("a valid shape");
            let options = SessionOptions {
                device,
                threads: std::thread::available_parallelism().map_or(1, usize::from),
                context: 2 * POSITION,
                ..SessionOptions::default()
            };
            match Session::build(&model, &options, &|_, _| ()) {
                Ok(session) => compare(criterion, session, dtype),
                Err(why) if device != DeviceChoice::Cpu => eprintln!("without a GPU: {why}"),
                Err(why) => panic!("{why}"),
            }
        }
    }
}

fn compare(criterion: &mut Criterion, mut session: Session, dtype: DType) {
    let device = session.report().device;
    for position in 0..=POSITION {
        let replayed = bits(&mut session, position, false);
        if position % 32 == 0 {
            assert!(replayed.iter().all(|&x| f32::from_bits(x).is_finite()));
            let eager = bits(&mut session, position, true);
            assert_eq!(eager, replayed, "{device}, {dtype} at position {position}");
        }
    }
    let mut group = criterion.benchmark_group(format!("step/{dtype}/{device}"));
    group.sample_size(20);
    let bytes = session.decode_program().bytes_at(u64::from(POSITION) + 1);
    group.throughput(Throughput::Bytes(bytes));
    for (name, eager) in [("replay", false), ("eager", true)] {
        session.set_eager(eager);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                session.truncate(POSITION);
                session.step(7).expect("a step");
            });
        });
    }
    group.finish();
}

criterion_group!(benches, replay_vs_eager);
criterion_main!(benches);

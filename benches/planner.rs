//! From a Definition to a program: build, optimise, plan and lower one decode step of two shapes,
//! without a weight being made. The plan is proved and every stage's size is known before timing.

use bumpalo::Bump;
use criterion::{Criterion, criterion_group, criterion_main};
use greta_infer::dtype::DType;
use greta_infer::graph::KvType;
use greta_infer::model::{Extent, Hyperparameters, Logits, Model};
use greta_infer::pass::{self, Gates, Options};
use greta_infer::plan::{assign, check, lifetimes};
use greta_infer::program::{Target, lower};
use std::hint::black_box;

const EXTENT: Extent = Extent {
    kv_type: KvType::F16,
    rows: 1,
    context: 4096,
    logits: Logits::Last,
};
const OPTIONS: Options = Options {
    attention_split: 64,
    attention_blocks: None,
    norm_cols: 0,
    gates: Gates::Any,
    gated_quantizes: true,
    half_rows: None,
};

/// Llama 3 of 8B and of 70B parameters.
fn shape(layers: u32) -> Hyperparameters {
    let large = layers == 80;
    Hyperparameters {
        architecture: "llama".into(),
        layers,
        embedding: if large { 8192 } else { 4096 },
        feed_forward: if large { 28_672 } else { 14_336 },
        heads: if large { 64 } else { 32 },
        kv_heads: 8,
        head_size: 128,
        vocabulary: 128_256,
        context: 8192,
        rms_eps: 1e-5,
        rope_base: 500_000.0,
        ..Hyperparameters::default()
    }
}

fn planner(criterion: &mut Criterion) {
    for layers in [32, 80] {
        let model = Model::random(shape(layers), None, DType::Q4_K, 1).expect("a valid shape");
        let arena = Bump::new();
        let built = model.graph(&arena, EXTENT).expect("a valid Definition");
        let layers = layers as usize;
        assert_eq!(built.nodes().len(), 2 + 16 * layers + 2, "nodes as built");
        let (fused, reports) = pass::optimise(built.clone(), OPTIONS).expect("a correct graph");
        let fired: usize = reports.iter().map(|r| r.fired).sum();
        // A layer: gate, q/k/v, two residuals, rope + append, split, four rounded activations; and the head's.
        assert_eq!(fired, 10 * layers + 1, "rewrites: {reports:?}");
        assert_eq!(fused.nodes().len(), 2 + 9 * layers + 2, "nodes when fused");
        let intervals = lifetimes(&fused);
        let plan = check(intervals.clone(), assign(&intervals)).expect("a proved plan");
        assert_eq!(
            plan.arena_bytes(),
            plan.peak_live_bytes(),
            "an optimal arena"
        );
        let program = lower(&fused, &plan, Target::Cpu, EXTENT.context);
        assert_eq!(program.launches.len(), fused.nodes().len());

        let mut group = criterion.benchmark_group(format!("planner/{layers} layers"));
        group.sample_size(20);
        group.bench_function("build", |bencher| {
            bencher.iter(|| {
                let arena = Bump::new();
                let graph = model.graph(&arena, EXTENT).expect("as above");
                black_box(graph.nodes().len())
            });
        });
        group.bench_function("optimise", |bencher| {
            bencher.iter(|| {
                let arena = Bump::new();
                let graph = model.graph(&arena, EXTENT).expect("as above");
                let (graph, _) = pass::optimise(graph, OPTIONS).expect("as above");
                black_box(graph.nodes().len())
            });
        });
        group.bench_function("assign", |bencher| {
            bencher.iter(|| black_box(assign(&intervals).arena_bytes));
        });
        group.bench_function("check", |bencher| {
            let placement = assign(&intervals);
            bencher.iter(|| check(intervals.clone(), placement.clone()).expect("as above"));
        });
        group.bench_function("lower", |bencher| {
            bencher.iter(|| lower(&fused, &plan, Target::Cpu, EXTENT.context));
        });
        group.finish();
    }
}

criterion_group!(benches, planner);
criterion_main!(benches);

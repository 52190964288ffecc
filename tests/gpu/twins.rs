//! One program on two devices, launch by launch: the CPU's arena and caches go to the GPU before each
//! launch, so that errors do not add up, and what the launch wrote is compared.

use super::judge::Judge;
use super::model::open;
use crate::support::family as families;
use crate::support::oracle::Format;
use crate::support::rng::Rng;
use crate::support::toy::{Recipe, recipes};
use bumpalo::Bump;
use greta_infer::cpu::{self, Cpu, activation::Form, isa::Isa};
use greta_infer::dtype::DType;
use greta_infer::gpu::geometry::{HalfChoice, Machine, half_tiles};
use greta_infer::gpu::tuning::{GemmRow, Tuning};
use greta_infer::gpu::{self, Found, Gpu, KernelLaunch};
use greta_infer::graph::{KvType, Op};
use greta_infer::hip::NodeKind;
use greta_infer::model::{Extent, Logits, Model};
use greta_infer::program::{Program, Step, Target};
use greta_infer::runtime::compile;
use half::f16;

/// Three splits of attention, the last a short one.
const CONTEXT: u32 = 160;

/// Both devices, holding one model.
struct Twins {
    cpu: cpu::Recording,
    gpu: Gpu,
    recording: gpu::Recording,
    program: Program,
    host: Cpu,
}

/// A program of `rows` rows for the device.
pub fn program(model: &Model, found: &Found, rows: u32, context: u32, logits: Logits) -> Program {
    let arena = Bump::new();
    let wave = found.info.wave;
    let extent = Extent {
        kv_type: KvType::F16,
        rows,
        context,
        logits,
    };
    let compiled = compile(model, &arena, extent, Target::Gpu { wave });
    compiled.unwrap_or_else(|e| panic!("{e}")).program
}

fn twins(model: &Model, found: &Found, program: Program) -> Twins {
    let fetch = |name: &str| model.tensor(name);
    // The twins exchange rounded activations, which a GPU keeps in planes.
    let isa = match Form::of(Isa::detect()) {
        Form::Planes => Isa::detect(),
        Form::Whole => Isa::Portable,
    };
    let setup = cpu::Setup {
        threads: 1,
        isa,
        poison: false,
    };
    let cpu = Cpu::new(setup, &[&program], &fetch, &|_, _| ()).unwrap_or_else(|e| panic!("{e}"));
    let setup = gpu::Setup {
        threads: 2,
        poison: false,
        overlap: true,
    };
    let gpu = Gpu::new(found, setup, &[&program], &fetch, &|_, _| ());
    let gpu = gpu.unwrap_or_else(|e| panic!("{e}"));
    let recording = gpu
        .record(program.clone())
        .unwrap_or_else(|e| panic!("{e}"));
    Twins {
        // SAFETY: it is the only one of this model on the CPU.
        cpu: unsafe { cpu.record(program.clone()) }.unwrap_or_else(|e| panic!("{e}")),
        gpu,
        recording,
        program,
        host: cpu,
    }
}

/// Caches with random numbers up to `position`, and NaN from there on.
fn fill_caches(twins: &mut Twins, position: u32, rng: &mut Rng) {
    for (index, state) in twins.program.states.iter().enumerate() {
        let (s, d) = (state.positions as usize, state.head_size as usize);
        let mut bytes = Vec::with_capacity(state.bytes());
        for element in 0..state.bytes() / 2 {
            let held = element / d % s < position as usize;
            let x = if held { rng.normal() as f32 } else { f32::NAN };
            bytes.extend(f16::from_f32(x).to_le_bytes());
        }
        twins.cpu.write_state(index, &bytes);
        twins
            .gpu
            .write_state(index, &bytes)
            .unwrap_or_else(|e| panic!("{e}"));
    }
}

/// Runs every launch of one step on both and compares.
fn check_step(twins: &mut Twins, step: Step<'_>, judge: &mut Judge, place: &str) {
    let program = twins.program.clone();
    let live = step.tokens.len();
    let seen = step.position as usize + live;
    twins.cpu.write_arena(&vec![0xff; program.arena_bytes]);
    for (index, launch) in program.launches.iter().enumerate() {
        let before = twins.cpu.read_arena();
        twins
            .gpu
            .write_arena(&before)
            .unwrap_or_else(|e| panic!("{e}"));
        let caches: Vec<Vec<u8>> = launch
            .states
            .iter()
            .map(|s| twins.cpu.read_state(s.index()))
            .collect();
        for (state, bytes) in launch.states.iter().zip(&caches) {
            let written = twins.gpu.write_state(state.index(), bytes);
            written.unwrap_or_else(|e| panic!("{e}"));
        }
        let place = format!("{place}, launch {index} at {} + {live}", step.position);
        let ran = twins.recording.run_launch(step, index);
        ran.unwrap_or_else(|e| panic!("{place}, {}: {e}", launch.kernel));
        twins
            .cpu
            .run_launch(step, index)
            .unwrap_or_else(|e| panic!("{e}"));

        let cpu = twins.cpu.read_arena();
        let gpu = twins.gpu.read_arena().unwrap_or_else(|e| panic!("{e}"));
        judge.values(launch, live, seen, (&cpu, &gpu), &place);
        for (state, before) in launch.states.iter().zip(&caches) {
            let cpu = twins.cpu.read_state(state.index());
            let gpu = twins.gpu.read_state(&program, state.index());
            let gpu = gpu.unwrap_or_else(|e| panic!("{e}"));
            judge.caches(launch, &cpu, &gpu, before, &place);
        }
        if launch.op == Op::Sample {
            // From the same logits the same token, whatever the distance of others is.
            let (at, token) = twins.host.chain().chosen();
            let told = twins.gpu.chosen(at).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!((at, told), (seen as u32, token), "{place}");
        }
        // Nothing but the live rows of its outputs may have changed.
        let mut allowed = vec![false; before.len()];
        for slot in &launch.outputs {
            let bytes = live.min(slot.rows as usize) * slot.row_bytes();
            allowed[slot.offset..slot.offset + bytes].fill(true);
        }
        let strayed = (0..before.len()).find(|&i| !allowed[i] && gpu[i] != before[i]);
        if let Some(at) = strayed {
            let kernel = &launch.kernel;
            judge
                .faults
                .push(format!("{place}: {kernel} wrote byte {at}, not its own"));
        }
    }
}

fn check(found: &Found, recipe: Recipe, rows: u32, starts: &[(u32, usize)], judge: &mut Judge) {
    let (toy, model) = open(recipe);
    let tokens = |position: u32, live| toy.tokens(u64::from(position) + 1, live);
    check_model(
        found,
        &model,
        rows,
        starts,
        &tokens,
        judge,
        &recipe.describe(),
    );
}

fn check_model(
    found: &Found,
    model: &Model,
    rows: u32,
    starts: &[(u32, usize)],
    tokens: &dyn Fn(u32, usize) -> Vec<u32>,
    judge: &mut Judge,
    place: &str,
) {
    let program = program(model, found, rows, CONTEXT, Logits::Last);
    judge.half = program.is_half();
    let mut twins = twins(model, found, program);
    let mut rng = Rng::new(5);
    for &(position, live) in starts {
        fill_caches(&mut twins, position, &mut rng);
        let tokens = tokens(position, live);
        let step = Step {
            position,
            tokens: &tokens,
        };
        check_step(&mut twins, step, judge, place);
    }
}

/// A step and a chunk of every family, past every window.
pub fn families(found: &Found) {
    let mut judge = Judge::default();
    for family in families::families() {
        let model = family.model(DType::F32);
        let tokens =
            |position: u32, live: usize| family.tokens[position as usize..][..live].to_vec();
        check_model(
            found,
            &model,
            1,
            &[(85, 1)],
            &tokens,
            &mut judge,
            family.name,
        );
        check_model(
            found,
            &model,
            8,
            &[(61, 5)],
            &tokens,
            &mut judge,
            family.name,
        );
    }
    judge.conclude();
}

/// Decode steps: the first, around the boundaries of splits, and the last of the context.
pub fn steps(found: &Found) {
    let mut judge = Judge::default();
    for recipe in recipes() {
        let starts = [(0, 1), (63, 1), (64, 1), (130, 1), (CONTEXT - 1, 1)];
        check(found, recipe, 1, &starts, &mut judge);
    }
    judge.conclude();
}

/// Chunks of a prompt: full and not, at the start and at the end, and one wider than a tile.
pub fn chunks(found: &Found) {
    let mut judge = Judge::default();
    for recipe in recipes() {
        let starts = [(0, 8), (61, 5), (CONTEXT - 8, 8), (3, 1)];
        check(found, recipe, 8, &starts, &mut judge);
        // Rounded to 16-bit floats, but for f32 weights.
        check(found, recipe, 70, &[(0, 70), (20, 66)], &mut judge);
    }
    judge.conclude();
}

/// Chunks whose products' tiles are each of those that there are, several blocks sharing the K of each.
pub fn shared_products(found: &Found) {
    let mut judge = Judge::default();
    let tiles = half_tiles(Machine::of(&found.info));
    for (name, parts) in [("Q4_1", 2), ("Q6_K", 3), ("F16", 5)] {
        for &tile in tiles {
            let recipe = Recipe::of(Format::by_name(name));
            let (toy, model) = open(recipe);
            let program = program(&model, found, 70, CONTEXT, Logits::Last);
            judge.half = program.is_half();
            let mut twins = twins(&model, found, program.clone());
            let table = Tuning::of_arch(&found.info.arch).expect("a table that holds");
            let table = table.with_gemm(vec![GemmRow::new(None, HalfChoice { tile, parts })]);
            let recording = twins.gpu.record_tuned(program, table);
            twins.recording = recording.unwrap_or_else(|e| panic!("{e}"));
            let shared = |l: &KernelLaunch| l.room.sums_bytes > 0 && l.room.tickets > 0;
            assert!(
                twins.recording.launches().iter().any(shared),
                "{name} {tile}"
            );
            fill_caches(&mut twins, 0, &mut Rng::new(5));
            let tokens = toy.tokens(1, 67);
            let step = Step {
                position: 0,
                tokens: &tokens,
            };
            let place = format!("{}, {tile} in {parts}", recipe.describe());
            check_step(&mut twins, step, &mut judge, &place);
        }
    }
    judge.conclude();
}

/// The driver's graph has the program's kernels and nothing else, one after the other.
pub fn captured(found: &Found) {
    let recipe = recipes()[0];
    let (_, model) = open(recipe);
    for rows in [1, 8] {
        let program = program(&model, found, rows, CONTEXT, Logits::Last);
        let mut twins = twins(&model, found, program);
        assert_eq!(twins.recording.fallback(), None);
        let captured = twins.recording.capture().unwrap_or_else(|e| panic!("{e}"));
        let n = twins.recording.launches().len();
        assert_eq!(captured.kinds, vec![NodeKind::Kernel; n]);
        let mut edges = captured.edges.clone();
        edges.sort_unstable();
        let chain: Vec<(usize, usize)> = (1..n).map(|i| (i - 1, i)).collect();
        assert_eq!(edges, chain);
        assert_eq!(captured.kernels.len(), n);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("graph.dot");
        captured.write_dot(&file).unwrap_or_else(|e| panic!("{e}"));
        let dot = std::fs::read_to_string(&file).expect("the driver wrote the file");
        assert!(dot.contains("digraph"), "{dot}");

        let tokens = vec![1; rows as usize];
        let step = Step {
            position: 0,
            tokens: &tokens,
        };
        let times = twins.recording.time_launches(step);
        assert_eq!(times.unwrap_or_else(|e| panic!("{e}")).len(), n);
    }
}

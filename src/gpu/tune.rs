//! Choosing how launches are laid out, by timing programs' own launches on the device.
//!
//! Each variant is a recording of a whole step with one choice for every launch. Launches are timed
//! one by one, so that each kind, type and class has its own best; how much to ask L2 for ahead shows
//! only between launches, and is chosen last by whole replays of what was best.
//!
//! A decode step has the `gemv` launches, prompts have the `gemm_half` ones. Those are compared with
//! the rule that counts without a row, and get one where something else is quicker.

use super::half::{HalfChoice, half_tiles};
use super::launch::{KernelLaunch, Tuned};
use super::recording::Recording;
use super::tuning::{Choice, Class, GemmKey, GemmRow, Kind, Row, Tuning};
use super::{Gpu, GpuError};
use crate::dtype::DType;
use crate::program::{Program, Step};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Steps of which each launch's shortest time counts.
const STEPS: usize = 5;
/// Replays that are timed together.
const REPLAYS: u32 = 40;
/// Threads of a block and blocks of a compute unit that are tried.
const SHAPES: &[(u32, u32)] = &[
    (256, 2),
    (256, 1),
    (256, 3),
    (256, 4),
    (128, 2),
    (128, 4),
    (128, 8),
    (64, 8),
];
/// KiB asked of L2 that are tried.
const HINTS: &[u32] = &[0, 4 << 10, 8 << 10, 16 << 10, 24 << 10, 32 << 10];
/// KiB of LDS of a block that are tried where weights can come through it.
const LDS: &[u32] = &[48, 64, 92, 110];
/// What is not better by this is noise, and stays as the general row has it.
const GAIN: f64 = 0.02;

/// Parts of K that are tried.
const PARTS: &[u32] = &[1, 2, 3, 4, 8];

/// One of the kernels through whose LDS weights come.
const STREAMING: &str = "gemv_stream_f32";

/// Launches that are tuned together.
type Key = (Kind, DType, Class);
type Times = BTreeMap<String, (Tuned, f64)>;

impl Gpu {
    /// Times variants of a decode step and of chunks of prompts, which are programs that [`Gpu::new`]
    /// allocated for, and gives the best as a table.
    pub fn tune(&self, decode: &Program, prompts: &[&Program]) -> Result<Tuning, GpuError> {
        let products = self.tune_products(prompts)?;
        Ok(self.tune_step(decode)?.with_gemm(products))
    }

    /// Rows for what is quicker another way than by the rule.
    fn tune_products(&self, prompts: &[&Program]) -> Result<Vec<GemmRow>, GpuError> {
        let tiles = half_tiles(self.shared.hardware.machine).iter();
        let choices = tiles.flat_map(|&tile| {
            let choice = move |&parts| Some(HalfChoice { tile, parts });
            PARTS.iter().map(choice)
        });
        let mut best: BTreeMap<String, (GemmKey, f64, Option<HalfChoice>)> = BTreeMap::new();
        for choice in std::iter::once(None).chain(choices) {
            for (name, (key, seconds)) in self.product_times(prompts, choice)? {
                let Tuned::Gemm(key) = key else { continue };
                let known = best.entry(name).or_insert((key, seconds, choice));
                if seconds < known.1 * (1.0 - GAIN) {
                    *known = (key, seconds, choice);
                }
            }
        }
        let rows = best.into_values();
        let rows = rows.filter_map(|(key, _, choice)| Some(GemmRow::new(Some(key), choice?)));
        Ok(rows.collect())
    }

    /// Seconds that the launches of each key take in all of these that have products of 16-bit floats,
    /// laid out by rule or as chosen.
    fn product_times(
        &self,
        prompts: &[&Program],
        choice: Option<HalfChoice>,
    ) -> Result<Times, GpuError> {
        let rows = choice.map(|choice| GemmRow::new(None, choice));
        let tuning = self.shared.hardware.tuning.clone();
        let tuning = tuning.with_gemm(rows.into_iter().collect());
        let mut sums = Times::new();
        for &program in prompts.iter().filter(|program| program.is_half()) {
            let mut recording = self.record_tuned(program.clone(), tuning.clone())?;
            for (name, (key, seconds)) in times(&mut recording, program)? {
                sums.entry(name).or_insert((key, 0.0)).1 += seconds;
            }
        }
        Ok(sums)
    }

    /// The table of a decode step.
    fn tune_step(&self, program: &Program) -> Result<Tuning, GpuError> {
        let general = |threads, blocks| Choice {
            lanes: 0,
            threads,
            blocks,
            hint_kib: 0,
            lds_kib: 0,
        };
        let mut best: BTreeMap<String, (Key, f64, Choice)> = BTreeMap::new();
        let mut overlaps = false;
        for &(threads, blocks) in SHAPES {
            let choice = general(threads, blocks);
            let mut recording = self.record_tuned(program.clone(), Tuning::uniform(choice))?;
            overlaps |= recording.overlaps();
            for (name, (key, seconds)) in times(&mut recording, program)? {
                let Tuned::Gemv(kind, dtype, class) = key else {
                    continue;
                };
                let key = (kind, dtype, class);
                let known = best.entry(name).or_insert((key, seconds, choice));
                if seconds < known.1 * (1.0 - GAIN) {
                    *known = (key, seconds, choice);
                }
            }
        }
        let table = |hint_kib: u32| {
            let (threads, blocks) = SHAPES[0];
            let usual = Choice {
                hint_kib,
                ..general(threads, blocks)
            };
            let rows = best
                .values()
                .filter(|(.., choice)| *choice != general(threads, blocks));
            let row = |(key, _, choice): &(Key, f64, Choice)| Row {
                kind: Some(key.0),
                dtype: Some(key.1.name().to_ascii_lowercase()),
                class: Some(key.2),
                lanes: choice.lanes,
                threads: choice.threads,
                blocks: choice.blocks,
                hint_kib,
                lds_kib: choice.lds_kib,
            };
            Tuning::uniform(usual).with(rows.map(row))
        };
        // Without overlap nothing is asked of L2 beforehand that the loads do not ask for at once.
        let hints = if overlaps { HINTS } else { &HINTS[..1] };
        let mut quickest: Option<(Duration, Tuning)> = None;
        for &hint_kib in hints {
            let table = table(hint_kib);
            let mut recording = self.record_tuned(program.clone(), table.clone())?;
            let time = replay_time(&mut recording, program)?;
            if quickest.as_ref().is_none_or(|(least, _)| time < *least) {
                quickest = Some((time, table));
            }
        }
        let (time, table) = quickest.expect("at least one hint is tried");
        let classes: BTreeSet<Class> = best.values().map(|(key, ..)| key.2).collect();
        self.tune_lds(program, &classes, (time, table))
    }

    /// The same table, or with rows for weights that come through LDS, where steps are quicker so: how the
    /// launches of a step overlap, and how evenly their blocks lie, shows only when they are replayed.
    fn tune_lds(
        &self,
        program: &Program,
        classes: &BTreeSet<Class>,
        (mut time, mut table): (Duration, Tuning),
    ) -> Result<Tuning, GpuError> {
        if self.shared.module.function(STREAMING).is_err() {
            return Ok(table);
        }
        let (threads, blocks) = SHAPES[0];
        for &class in classes {
            let mut quickest = None;
            for &lds_kib in LDS {
                let row = Row {
                    kind: None,
                    dtype: None,
                    class: Some(class),
                    lanes: 0,
                    threads,
                    blocks,
                    hint_kib: 0,
                    lds_kib,
                };
                let tried = table.clone().with([row.clone()]);
                let mut recording = self.record_tuned(program.clone(), tried)?;
                let taken = replay_time(&mut recording, program)?;
                if taken < time {
                    (time, quickest) = (taken, Some(row));
                }
            }
            table = table.with(quickest);
        }
        Ok(table)
    }
}

/// Where a step is timed: some context, as most steps have; chunks of prompts are the first.
fn position(program: &Program) -> u32 {
    match program.rows {
        1 => (program.context - 1).min(256),
        _ => 0,
    }
}

/// Seconds that the launches of each key take in a step, the shortest of a few times each.
fn times(recording: &mut Recording, program: &Program) -> Result<Times, GpuError> {
    let step = Step {
        position: position(program),
        tokens: &vec![0; program.rows as usize],
    };
    let mut least: Vec<Duration> = Vec::new();
    for _ in 0..STEPS {
        let times = recording.time_launches(step)?;
        match least.is_empty() {
            true => least = times,
            false => least
                .iter_mut()
                .zip(times)
                .for_each(|(least, time)| *least = time.min(*least)),
        }
    }
    let mut sums = Times::new();
    for (KernelLaunch { tuned, .. }, time) in recording.launches().iter().zip(least) {
        if let Some(key) = *tuned {
            let sum = sums.entry(format!("{key:?}")).or_insert((key, 0.0));
            sum.1 += time.as_secs_f64();
        }
    }
    Ok(sums)
}

fn replay_time(recording: &mut Recording, program: &Program) -> Result<Duration, GpuError> {
    let step = Step {
        position: position(program),
        tokens: &[0],
    };
    let mut least = Duration::MAX;
    for _ in 0..3 {
        let start = Instant::now();
        for _ in 0..REPLAYS {
            recording.replay(step)?;
        }
        least = least.min(start.elapsed());
    }
    Ok(least)
}

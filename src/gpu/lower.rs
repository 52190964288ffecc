//! Program → kernel launches, as data: names, geometry and arguments, everything but addresses.
//!
//! Most launches of a program are one kernel. A GEMM over one row is a `gemv`, and up to three of
//! one type that read the same row share a `gemv3`; over several rows each matrix has a `gemm` of
//! its own. In front of several rows stands `step_fetch`, which copies the step's words from pinned
//! host memory to the device, so that a recording holds kernels and nothing else; a step of one row
//! finds on the device what the step before it left there.

mod attention;
mod cache;
mod product;
mod rows;

use super::geometry::{self, ATTENTION_MAX_HEAD, GemvLaunch, Geometry, Machine};
use super::hardware::Hardware;
use super::launch::{Arg, Args, KernelLaunch, Link, RoomNeeds, Tuned};
use super::overlap;
use crate::dtype::DType;
use crate::graph::{Activation, Element, KvType, Op, RopeStyle, Section};
use crate::program::{Launch, Program};
use thiserror::Error;

/// Why there are no kernels for a program.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LowerError {
    #[error(
        "{section}, {op}: heads have {head_size} elements; GPU kernels take multiples of 8 up to {ATTENTION_MAX_HEAD}"
    )]
    HeadSize {
        section: Section,
        op: &'static str,
        head_size: u32,
    },
    #[error(
        "{section}, {op}: {rows} rows of a prompt at a time; GPU kernels take {most} of this length: set chunk_rows \
         to as many at most, or to 0"
    )]
    Rows {
        section: Section,
        op: &'static str,
        rows: u32,
        most: usize,
    },
    #[error(
        "{section}, {op}: `{kernel}` takes no {kv_type} KV cache; supported on a GPU: f16, q8_0"
    )]
    KvType {
        section: Section,
        op: &'static str,
        kernel: String,
        kv_type: KvType,
    },
}

/// Lowers a program for a kind of device.
pub fn lower(program: &Program, hardware: &Hardware) -> Result<Vec<KernelLaunch>, LowerError> {
    let mut lower = Lower {
        program,
        hardware,
        machine: hardware.machine,
        launch: None,
        out: Vec::new(),
    };
    let rows = program.rows;
    if rows > 1 {
        let mut args = Args(vec![Arg::HostStep, Arg::Step, Arg::U32(rows)]);
        args.link(Link::History);
        lower.push("step_fetch".into(), geometry::step_fetch(), args.0);
    }
    for (index, launch) in program.launches.iter().enumerate() {
        lower.launch = Some(index);
        check(launch)?;
        let before = lower.out.len();
        lower.one(launch);
        cache::of_its_caches(program, launch, &mut lower.out[before..])?;
    }
    // What earlier steps have left is there for all launches of this one (`kernels/common.h`).
    if let Some(first) = lower.out.first_mut() {
        first.overlaps = false;
    }
    Ok(lower.out)
}

/// What 32 bits count: the rows that `gemm_half` reads.
const X_BYTES_BELOW: usize = 1 << 32;

/// Blocks that a grid has in its second dimension at most on NVIDIA, where most kernels have their rows.
const ROWS_MOST: u32 = 65_535;

fn check(launch: &Launch) -> Result<(), LowerError> {
    let slots = launch.inputs.iter().chain(&launch.outputs);
    if let Some(x) = slots.max_by_key(|s| s.rows).filter(|s| s.rows > ROWS_MOST) {
        return Err(LowerError::Rows {
            section: launch.section,
            op: launch.op.name(),
            rows: x.rows,
            most: ROWS_MOST as usize,
        });
    }
    let halves = launch.inputs.first().filter(|x| x.element == Element::F16);
    if let Some(x) = halves.filter(|x| x.bytes() >= X_BYTES_BELOW) {
        return Err(LowerError::Rows {
            section: launch.section,
            op: launch.op.name(),
            rows: x.rows,
            most: (X_BYTES_BELOW - 1) / x.row_bytes(),
        });
    }
    let (Op::Attention { heads, .. }
    | Op::AttentionSplit { heads, .. }
    | Op::AttentionStep { heads, .. }
    | Op::AttentionCombine { heads, .. }) = launch.op
    else {
        return Ok(());
    };
    if geometry::attention_takes(heads.size) {
        return Ok(());
    }
    Err(LowerError::HeadSize {
        section: launch.section,
        op: launch.op.name(),
        head_size: heads.size,
    })
}

struct Lower<'p> {
    program: &'p Program,
    hardware: &'p Hardware,
    machine: Machine,
    launch: Option<usize>,
    out: Vec<KernelLaunch>,
}

impl Lower<'_> {
    fn push(&mut self, kernel: String, geometry: Geometry, args: Vec<Arg>) {
        let Geometry {
            grid,
            block,
            lds_bytes,
        } = geometry;
        self.out.push(KernelLaunch {
            overlaps: overlap::waits(&kernel),
            tuned: None,
            room: RoomNeeds::default(),
            kernel,
            grid,
            block,
            lds_bytes,
            args,
            launch: self.launch,
        });
    }

    /// A launch whose geometry the tuning table has a say in.
    fn push_tuned(&mut self, launch: GemvLaunch, args: Vec<Arg>) {
        self.push(launch.kernel(), launch.geometry, args);
        let pushed = self.out.last_mut().expect("it was just pushed");
        let (kind, dtype, class) = launch.key;
        pushed.tuned = Some(Tuned::Gemv(kind, dtype, class));
    }

    /// What the launch that was pushed last uses of the room that all share.
    fn needs_room(&mut self, room: RoomNeeds) {
        self.out.last_mut().expect("it was just pushed").room = room;
    }

    /// Arguments are in the order in which `kernels/*.hip` declare them.
    fn one(&mut self, launch: &Launch) {
        match launch.op {
            Op::Embed { scale } => self.embed(launch, scale),
            Op::RopeTable(rope) => self.rope_table(launch, rope),
            Op::RmsNorm { eps, groups } => self.rms_norm(launch, eps, groups),
            Op::Gemm { residual } => self.gemm(launch, residual),
            Op::NormGemm { eps } => {
                let norm = launch.weights.last().map(|&w| (w, eps));
                self.gemvs(launch, norm);
            }
            Op::GatedGemm(activation) if launch.inputs[0].element == Element::F16 => {
                self.gated_gemm(launch, activation);
            }
            Op::GatedGemm(activation) => self.gated_gemv(launch, activation, None),
            Op::NormGatedGemm { eps, activation } => {
                self.gated_gemv(launch, activation, Some((launch.weights[2], eps)));
            }
            Op::Quantize => self.quantize(launch),
            Op::LastRow => self.last_row(launch),
            Op::Sample => self.sample(launch.inputs[0]),
            Op::AddBias => self.add_bias(launch),
            Op::Add => self.add(launch),
            Op::Scale { by } => self.scale(launch, by),
            Op::GatedMul(activation) => self.gated_mul(launch, activation),
            Op::Rope {
                heads,
                head_size,
                dims,
                style,
            } => self.rope(launch, (heads, head_size), dims, style),
            Op::KvAppend {
                kv_heads,
                head_size,
            } => self.kv_append(launch, kv_heads, head_size),
            Op::RopeAppend { heads, dims, style } => self.rope_append(launch, heads, dims, style),
            Op::Attention {
                heads,
                scale,
                window,
            } => self.attention(launch, heads, scale, window),
            Op::AttentionStep { .. } => self.attention_step(launch),
            Op::AttentionSplit {
                heads,
                scale,
                window,
                split,
            } => self.attention_split(launch, heads, scale, (window, split)),
            Op::AttentionCombine {
                heads,
                window,
                split,
            } => self.attention_combine(launch, heads, (window, split)),
        }
    }
}

/// A kernel that there is for every type, by name.
pub(super) fn typed(kernel: &str, dtype: DType) -> String {
    format!("{kernel}_{}", dtype.name().to_ascii_lowercase())
}

fn activation_code(activation: Activation) -> u32 {
    match activation {
        Activation::Silu => 0,
        Activation::GeluTanh => 1,
    }
}

fn style_code(style: RopeStyle) -> u32 {
    match style {
        RopeStyle::Interleaved => 0,
        RopeStyle::Half => 1,
    }
}

//! Program → kernel launches, as data: names, geometry and arguments, everything but addresses.
//!
//! Most launches of a program are one kernel. A GEMM over one row is a `gemv`, and up to three of
//! one type that read the same row share a `gemv3`; over several rows each matrix has a `gemm` of
//! its own. In front of several rows stands `step_fetch`, which copies the step's words from pinned
//! host memory to the device, so that a recording holds kernels and nothing else; a step of one row
//! finds on the device what the step before it left there.

mod cache;
mod product;

use super::geometry::{self, ATTENTION_MAX_HEAD, GemvLaunch, Geometry, Machine};
use super::hardware::Hardware;
use super::launch::{Arg, Args, Form, KernelLaunch, Link, Shared, Tuned};
use super::overlap;
use crate::dtype::DType;
use crate::graph::{Activation, Element, KvType, Op, RopeStyle, Section};
use crate::program::{Launch, Program, Slot};
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
        "{section}, {op}: {rows} rows of a prompt at a time; GPU kernels take {most} of this length"
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

fn check(launch: &Launch) -> Result<(), LowerError> {
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
            shared: Shared::default(),
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

    /// What the launch that was pushed last uses of what all share.
    fn shares(&mut self, shared: Shared) {
        self.out.last_mut().expect("it was just pushed").shared = shared;
    }

    /// The first token of every part of the row, then one token of all.
    fn sample(&mut self, logits: Slot) {
        let (rows, n) = (self.program.rows, logits.cols);
        let mut args = Args::new();
        args.u32(rows).value(logits).u32(n).link(Link::Rule);
        args.link(Link::History)
            .link(Link::Scores)
            .link(Link::Firsts);
        self.push("sample_scan".into(), geometry::sample_scan(n), args.0);
        let mut args = Args::new();
        args.u32(rows).link(Link::Scores).u32(n).link(Link::Rule);
        args.link(Link::Firsts)
            .u32(geometry::sample_chunks(n, self.machine.wave()));
        args.link(Link::Next)
            .link(Link::History)
            .u32(self.program.context)
            .link(Link::Ring);
        self.push("sample_choose".into(), geometry::sample_choose(), args.0);
    }

    /// Arguments are in the order in which `kernels/*.hip` declare them.
    fn one(&mut self, launch: &Launch) {
        let input = |i: usize| launch.inputs[i];
        let rows = launch
            .outputs
            .first()
            .or(launch.inputs.first())
            .map_or(1, |s| s.rows);
        let quantizes = launch
            .outputs
            .first()
            .is_some_and(|s| s.element == Element::Q15A);
        let halves = launch
            .outputs
            .first()
            .is_some_and(|s| s.element == Element::F16);
        let name = |base: &str| match (quantizes, halves) {
            (true, _) => format!("{base}_quantize"),
            (_, true) => format!("{base}_half"),
            _ => base.to_string(),
        };
        let mut args = Args::new();
        match launch.op {
            Op::Embed { scale } => {
                let (table, y) = (launch.weights[0], launch.outputs[0]);
                let slot = &self.program.weights[table.index()];
                let row_bytes = slot.dtype.row_bytes(slot.cols);
                args.weight(table, Form::Table)
                    .size(row_bytes.expect("the model checked that rows are whole blocks"))
                    .f32(scale)
                    .rows(y)
                    .u32(y.cols)
                    .u32(rows);
                let kernel = typed("embed", slot.dtype);
                self.push(kernel, geometry::embed(y.cols, rows), args.0);
            }
            Op::RopeTable(rope) => {
                match launch.weights.first() {
                    Some(&factors) => args.weight(factors, Form::Vector),
                    None => args.null(),
                };
                args.rows(launch.outputs[0])
                    .u32(rope.dims)
                    .f64(rope.base)
                    .f64(rope.position_scale)
                    .f64(rope.yarn.first)
                    .f64(rope.yarn.last)
                    .f64(rope.yarn.keep)
                    .f32(rope.yarn.magnitude)
                    .u32(rows);
                self.push(
                    "rope_table".into(),
                    geometry::rope_table(rope.dims, rows),
                    args.0,
                );
            }
            Op::RmsNorm { eps, groups } => {
                let y = launch.outputs[0];
                args.rows(input(0))
                    .weight(launch.weights[0], Form::Vector)
                    .f32(eps)
                    .rows(y)
                    .u32(y.cols);
                let geometry = if quantizes {
                    geometry::rms_norm_quantize(y.cols, rows)
                } else if halves {
                    geometry::half_rows(y.cols, rows)
                } else {
                    args.u32(groups);
                    geometry::rms_norm(y.cols, groups, rows)
                };
                args.u32(rows);
                self.push(name("rms_norm"), geometry, args.0);
            }
            Op::Gemm { residual } => self.gemm(launch, residual),
            Op::NormGemm { eps } => {
                let norm = launch.weights.last().map(|&w| (w, eps));
                self.gemvs(launch, norm);
            }
            Op::GatedGemm(activation) if input(0).element == Element::F16 => {
                self.gated_gemm(launch, activation);
            }
            Op::GatedGemm(activation) => self.gated_gemv(launch, activation, None),
            Op::NormGatedGemm { eps, activation } => {
                self.gated_gemv(launch, activation, Some((launch.weights[2], eps)));
            }
            Op::Quantize => {
                let y = launch.outputs[0];
                args.rows(input(0)).rows(y).u32(y.cols).u32(rows);
                let (kernel, geometry) = match halves {
                    true => ("round_rows", geometry::half_rows(y.cols, rows)),
                    false => ("quantize", geometry::quantize(y.cols, rows)),
                };
                self.push(kernel.into(), geometry, args.0);
            }
            Op::LastRow => {
                let (x, y) = (input(0), launch.outputs[0]);
                args.rows(x).value(y).u32(y.cols).u32(x.rows);
                self.push("last_row".into(), geometry::last_row(y.cols), args.0);
            }
            Op::Sample => self.sample(input(0)),
            Op::AddBias => {
                let y = launch.outputs[0];
                args.rows(input(0))
                    .weight(launch.weights[0], Form::Vector)
                    .rows(y)
                    .u32(y.cols)
                    .u32(rows);
                self.push(
                    "add_bias".into(),
                    geometry::elementwise(y.cols, rows),
                    args.0,
                );
            }
            Op::Add => {
                let y = launch.outputs[0];
                args.rows(input(0))
                    .rows(input(1))
                    .rows(y)
                    .u32(y.cols)
                    .u32(rows);
                self.push("add".into(), geometry::elementwise(y.cols, rows), args.0);
            }
            Op::Scale { by } => {
                let y = launch.outputs[0];
                args.rows(input(0)).f32(by).rows(y).u32(y.cols).u32(rows);
                self.push("scale".into(), geometry::elementwise(y.cols, rows), args.0);
            }
            Op::GatedMul(activation) => {
                let y = launch.outputs[0];
                args.rows(input(0))
                    .rows(input(1))
                    .rows(y)
                    .u32(y.cols)
                    .u32(activation_code(activation))
                    .u32(rows);
                let geometry = match halves {
                    true => geometry::half_rows(y.cols, rows),
                    false => geometry::elementwise(y.cols, rows),
                };
                self.push(name("gated_mul"), geometry, args.0);
            }
            Op::Rope {
                heads,
                head_size,
                dims,
                style,
            } => {
                args.rows(input(0)).rows(input(1)).rows(launch.outputs[0]);
                args.u32(heads)
                    .u32(head_size)
                    .u32(dims)
                    .u32(style_code(style));
                args.u32(rows);
                self.push(
                    "rope".into(),
                    geometry::rope(heads, head_size, rows),
                    args.0,
                );
            }
            Op::KvAppend {
                kv_heads,
                head_size,
            } => {
                args.rows(input(0)).rows(input(1)).caches(launch);
                args.u32(kv_heads).u32(head_size).u32(self.program.context);
                args.u32(rows);
                self.push(
                    "kv_append".into(),
                    geometry::kv_append(kv_heads, head_size, rows),
                    args.0,
                );
            }
            Op::RopeAppend { heads, dims, style } => {
                for i in 0..4 {
                    args.rows(input(i));
                }
                args.rows(launch.outputs[0]).caches(launch);
                args.u32(heads.query).u32(heads.kv).u32(heads.size);
                args.u32(dims).u32(style_code(style));
                args.u32(self.program.context).u32(rows);
                self.push(
                    "rope_append".into(),
                    geometry::rope_append(heads.query, heads.kv, heads.size, rows),
                    args.0,
                );
            }
            Op::Attention {
                heads,
                scale,
                window,
            } => {
                args.rows(input(0)).caches(launch).rows(launch.outputs[0]);
                args.u32(heads.query).u32(heads.kv).u32(heads.size);
                args.u32(self.program.context).u32(window.unwrap_or(0));
                args.f32(scale).u32(rows);
                let kv_type = self.program.states[launch.states[0].index()].kv_type;
                let flash = self.program.is_half() && kv_type == KvType::F16;
                let columns = geometry::flash_columns(heads.size).filter(|_| flash);
                let (kernel, geometry) = match columns {
                    Some(columns) => (
                        format!("attention_flash_{columns}"),
                        geometry::attention_flash(
                            heads.query,
                            heads.kv,
                            columns,
                            rows,
                            self.machine,
                        ),
                    ),
                    None => (
                        "attention_rows".into(),
                        geometry::attention_rows(heads.query, heads.kv, rows),
                    ),
                };
                self.push(kernel, geometry, args.0);
            }
            Op::AttentionStep {
                heads,
                dims,
                style,
                scale,
                window,
                blocks,
            } => {
                let (y, partials) = (launch.outputs[0], launch.outputs[1]);
                for i in 0..4 {
                    args.value(input(i));
                }
                args.caches(launch).value(partials).tickets().value(y);
                args.u32(heads.query).u32(heads.kv).u32(heads.size);
                args.u32(dims).u32(style_code(style));
                args.u32(self.program.context).u32(window.unwrap_or(0));
                args.f32(scale).u32(quantizes.into());
                let (kernel, geometry) =
                    geometry::attention_step(heads.query, heads.kv, heads.size, blocks);
                self.push(kernel.into(), geometry, args.0);
                self.shares(Shared {
                    tickets: heads.query as usize,
                    ..Shared::default()
                });
            }
            Op::AttentionSplit {
                heads,
                scale,
                window,
                split,
            } => {
                args.value(input(0)).caches(launch).value(launch.outputs[0]);
                args.u32(heads.query).u32(heads.kv).u32(heads.size);
                args.u32(self.program.context)
                    .u32(split)
                    .u32(window.unwrap_or(0));
                args.f32(scale);
                self.push(
                    "attention_split".into(),
                    geometry::attention_split(heads.kv, self.program.context, split),
                    args.0,
                );
            }
            Op::AttentionCombine {
                heads,
                window,
                split,
            } => {
                args.value(input(0)).value(launch.outputs[0]);
                args.u32(heads.query).u32(heads.size);
                args.u32(self.program.context)
                    .u32(split)
                    .u32(window.unwrap_or(0));
                self.push(
                    name("attention_combine"),
                    geometry::attention_combine(heads.query, heads.size),
                    args.0,
                );
            }
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

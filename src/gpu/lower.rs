//! Program → kernel launches, as data: names, geometry and arguments, everything but addresses.
//!
//! Most launches of a program are one kernel. A GEMM over one row is a `gemv`, and up to three of
//! one type that read the same row share a `gemv3`; over several rows each matrix has a `gemm` of
//! its own. In front of everything stands `step_fetch`, which copies the step's words from pinned
//! host memory to the device, so that a recording holds kernels and nothing else.

use super::geometry::{self, Geometry};
use super::pack::row_layout;
use crate::dtype::DType;
use crate::graph::{Activation, Element, Op, RopeStyle, StateId, ValueId, WeightId};
use crate::program::{Launch, Program, Slot};
use std::fmt::{self, Write};

/// How a kernel reads a weight; each form is its own memory on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Form {
    /// Rows in planes ([`super::pack`]).
    Matrix,
    /// Rows as the file has them, for looking tokens up.
    Table,
    /// f32.
    Vector,
}

/// One argument of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arg {
    /// An address in the arena.
    Value {
        id: ValueId,
        offset: usize,
    },
    /// The first byte of a weight.
    Weight {
        id: WeightId,
        form: Form,
    },
    /// The first byte of a cache.
    State(StateId),
    /// The step on the device.
    Step,
    /// The step in pinned host memory, as the device addresses it.
    HostStep,
    /// An operand that is not there.
    Null,
    U32(u32),
    F32(f32),
    F64(f64),
}

/// One kernel with everything but addresses.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelLaunch {
    pub kernel: String,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub lds_bytes: u32,
    pub args: Vec<Arg>,
    /// The program's launch that this is a part of; `None` for the step's own copy.
    pub launch: Option<usize>,
}

/// Lowers a program for waves of `wave` lanes.
pub fn lower(program: &Program, wave: u32) -> Vec<KernelLaunch> {
    let mut lower = Lower {
        program,
        wave,
        launch: None,
        out: Vec::new(),
    };
    let rows = program.rows;
    lower.push(
        "step_fetch".into(),
        geometry::step_fetch(rows),
        vec![Arg::HostStep, Arg::Step, Arg::U32(rows)],
    );
    for (index, launch) in program.launches.iter().enumerate() {
        lower.launch = Some(index);
        lower.one(launch);
    }
    lower.out
}

struct Lower<'p> {
    program: &'p Program,
    wave: u32,
    launch: Option<usize>,
    out: Vec<KernelLaunch>,
}

/// Three weights at most share one `gemv3`.
const MERGED: usize = 3;

impl Lower<'_> {
    fn push(&mut self, kernel: String, geometry: Geometry, args: Vec<Arg>) {
        let Geometry {
            grid,
            block,
            lds_bytes,
        } = geometry;
        self.out.push(KernelLaunch {
            kernel,
            grid,
            block,
            lds_bytes,
            args,
            launch: self.launch,
        });
    }

    /// Arguments are in the order in which `kernels/*.hip` declare them.
    fn one(&mut self, launch: &Launch) {
        let wave = self.wave;
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
        let name = |base: &str| format!("{base}{}", if quantizes { "_quantize" } else { "" });
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
                self.push(kernel, geometry::rows(rows, y.cols, wave), args.0);
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
                    .u32(rows);
                self.push(
                    "rope_table".into(),
                    geometry::rows(rows, rope.dims / 2, wave),
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
                if !quantizes {
                    args.u32(groups);
                }
                args.u32(rows);
                self.push(name("rms_norm"), geometry::norm(rows, y.cols, wave), args.0);
            }
            Op::Gemm { residual } => self.gemm(launch, residual),
            Op::GatedGemm(activation) => self.gated_gemv(launch, activation),
            Op::Quantize | Op::LastRow => {
                let y = launch.outputs[0];
                let rows = input(0).rows;
                args.rows(input(0)).rows(y).u32(y.cols).u32(rows);
                self.push(
                    launch.op.name().into(),
                    geometry::rows(rows, y.cols, wave),
                    args.0,
                );
            }
            Op::AddBias => {
                let y = launch.outputs[0];
                args.rows(input(0))
                    .weight(launch.weights[0], Form::Vector)
                    .rows(y)
                    .u32(y.cols)
                    .u32(rows);
                self.push(
                    "add_bias".into(),
                    geometry::rows(rows, y.cols, wave),
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
                self.push("add".into(), geometry::rows(rows, y.cols, wave), args.0);
            }
            Op::Scale { by } => {
                let y = launch.outputs[0];
                args.rows(input(0)).f32(by).rows(y).u32(y.cols).u32(rows);
                self.push("scale".into(), geometry::rows(rows, y.cols, wave), args.0);
            }
            Op::GatedMul(activation) => {
                let y = launch.outputs[0];
                args.rows(input(0))
                    .rows(input(1))
                    .rows(y)
                    .u32(y.cols)
                    .u32(activation_code(activation))
                    .u32(rows);
                self.push(
                    "gated_mul".into(),
                    geometry::rows(rows, y.cols, wave),
                    args.0,
                );
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
                    geometry::heads(rows, heads, head_size, wave),
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
                    geometry::heads(rows, kv_heads, head_size, wave),
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
                    geometry::heads(rows, heads.query + 2 * heads.kv, heads.size, wave),
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
                self.push(
                    "attention_rows".into(),
                    geometry::attention_rows(rows, heads, wave),
                    args.0,
                );
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
                let splits = self.program.context.div_ceil(split);
                self.push(
                    "attention_split".into(),
                    geometry::attention_split(heads, splits, wave),
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
                    geometry::attention_combine(heads, wave),
                    args.0,
                );
            }
        }
    }

    fn gemm(&mut self, launch: &Launch, residual: bool) {
        let x = launch.inputs[0];
        let products: Vec<(WeightId, Slot)> = launch
            .weights
            .iter()
            .copied()
            .zip(launch.outputs.iter().copied())
            .collect();
        if x.rows == 1 && !residual {
            let dtype = |p: &(WeightId, Slot)| self.program.weights[p.0.index()].dtype;
            let alike: Vec<Vec<(WeightId, Slot)>> = products
                .chunk_by(|a, b| dtype(a) == dtype(b))
                .flat_map(|run| run.chunks(MERGED))
                .map(<[_]>::to_vec)
                .collect();
            for run in alike {
                match run[..] {
                    [(weight, y)] => self.product(x, weight, None, y),
                    _ => self.gemv3(x, &run),
                }
            }
            return;
        }
        let added = residual.then(|| launch.inputs[1]);
        for (weight, y) in products {
            self.product(x, weight, added, y);
        }
    }

    /// One matrix: a `gemv` for one row, else a `gemm`.
    fn product(&mut self, x: Slot, weight: WeightId, added: Option<Slot>, y: Slot) {
        let (dtype, n, k) = self.matrix(weight);
        let mut args = Args::new();
        args.rows(x).matrix(weight, self.row_stride(weight));
        match added {
            Some(added) => args.rows(added),
            None => args.null().u32(0),
        };
        args.rows(y).u32(n).u32(k);
        if x.rows == 1 {
            let geometry = geometry::gemv(dtype, n, k, self.wave);
            self.push(typed("gemv", dtype), geometry, args.0);
        } else {
            args.u32(x.rows);
            let geometry = geometry::gemm(dtype, x.rows, n, k, self.wave);
            self.push(typed("gemm", dtype), geometry, args.0);
        }
    }

    /// Two or three matrices of one type over one row; a missing third has no rows.
    fn gemv3(&mut self, x: Slot, products: &[(WeightId, Slot)]) {
        let (dtype, _, k) = self.matrix(products[0].0);
        let mut args = Args::new();
        args.rows(x);
        let mut total = 0;
        for index in 0..MERGED {
            match products.get(index) {
                Some(&(weight, y)) => {
                    let n = self.matrix(weight).1;
                    total += n;
                    args.weight(weight, Form::Matrix).value(y).u32(n);
                }
                None => {
                    args.null().null().u32(0);
                }
            }
        }
        args.u32(self.row_stride(products[0].0)).u32(k);
        let geometry = geometry::gemv(dtype, total, k, self.wave);
        self.push(typed("gemv3", dtype), geometry, args.0);
    }

    fn gated_gemv(&mut self, launch: &Launch, activation: Activation) {
        let (x, y) = (launch.inputs[0], launch.outputs[0]);
        let (gate, up) = (launch.weights[0], launch.weights[1]);
        let (dtype, n, k) = self.matrix(gate);
        let one = x.rows == 1 && self.matrix(up) == (dtype, n, k);
        assert!(one, "the passes fuse gates of one row and one type only");
        let mut args = Args::new();
        args.rows(x)
            .weight(gate, Form::Matrix)
            .matrix(up, self.row_stride(gate))
            .rows(y)
            .u32(n)
            .u32(k)
            .u32(activation_code(activation));
        let geometry = geometry::gated_gemv(dtype, n, k, self.wave);
        self.push(typed("gated_gemv", dtype), geometry, args.0);
    }

    fn matrix(&self, id: WeightId) -> (DType, u32, u32) {
        let slot = &self.program.weights[id.index()];
        (slot.dtype, size(slot.rows), size(slot.cols))
    }

    fn row_stride(&self, id: WeightId) -> u32 {
        let slot = &self.program.weights[id.index()];
        size(row_layout(slot.dtype, slot.cols).stride)
    }
}

/// Arguments in the order of the kernel's parameters; the step comes first in all of these.
struct Args(Vec<Arg>);

impl Args {
    fn new() -> Self {
        Args(vec![Arg::Step])
    }

    fn push(&mut self, arg: Arg) -> &mut Self {
        self.0.push(arg);
        self
    }

    fn value(&mut self, slot: Slot) -> &mut Self {
        let Slot {
            value: id, offset, ..
        } = slot;
        self.push(Arg::Value { id, offset })
    }

    /// A value and the bytes from one of its rows to the next.
    fn rows(&mut self, slot: Slot) -> &mut Self {
        self.value(slot).size(slot.row_bytes())
    }

    fn weight(&mut self, id: WeightId, form: Form) -> &mut Self {
        self.push(Arg::Weight { id, form })
    }

    fn matrix(&mut self, id: WeightId, stride: u32) -> &mut Self {
        self.weight(id, Form::Matrix).u32(stride)
    }

    /// A layer's keys and values.
    fn caches(&mut self, launch: &Launch) -> &mut Self {
        self.push(Arg::State(launch.states[0]))
            .push(Arg::State(launch.states[1]))
    }

    fn null(&mut self) -> &mut Self {
        self.push(Arg::Null)
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.push(Arg::U32(value))
    }

    fn size(&mut self, value: usize) -> &mut Self {
        self.u32(size(value))
    }

    fn f32(&mut self, value: f32) -> &mut Self {
        self.push(Arg::F32(value))
    }

    fn f64(&mut self, value: f32) -> &mut Self {
        self.push(Arg::F64(value.into()))
    }
}

fn size(value: usize) -> u32 {
    u32::try_from(value).expect("rows and dimensions are far below 4 GiB")
}

fn typed(kernel: &str, dtype: DType) -> String {
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

impl fmt::Display for Arg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Arg::Value { id, offset } => write!(f, "{id}@{offset}"),
            Arg::Weight {
                id,
                form: Form::Matrix,
            } => write!(f, "{id}"),
            Arg::Weight {
                id,
                form: Form::Table,
            } => write!(f, "{id}.table"),
            Arg::Weight {
                id,
                form: Form::Vector,
            } => write!(f, "{id}.vector"),
            Arg::State(id) => write!(f, "{id}"),
            Arg::Step => f.write_str("step"),
            Arg::HostStep => f.write_str("host_step"),
            Arg::Null => f.write_str("null"),
            Arg::U32(n) => write!(f, "{n}"),
            Arg::F32(x) => write!(f, "{x:?}f"),
            Arg::F64(x) => write!(f, "{x:?}"),
        }
    }
}

/// The launches as text, one a line.
pub fn text(launches: &[KernelLaunch]) -> String {
    let mut out = String::new();
    for (index, launch) in launches.iter().enumerate() {
        let dims = |d: [u32; 3]| d.map(|n| n.to_string()).join("×");
        let of = launch.launch.map_or("-".into(), |l| l.to_string());
        let args: Vec<String> = launch.args.iter().map(Arg::to_string).collect();
        writeln!(
            out,
            "{index} ({of}) {}<<<{}, {}, {}>>>({})",
            launch.kernel,
            dims(launch.grid),
            dims(launch.block),
            launch.lds_bytes,
            args.join(", "),
        )
        .expect("writing to a string");
    }
    out
}

//! What is done to rows by themselves: looking them up, norms, element by element, rounding and rotating.

use super::{Lower, activation_code, style_code, typed};
use crate::gpu::geometry;
use crate::gpu::launch::{Args, Form, Link};
use crate::graph::{Activation, Element, Heads, Rope, RopeStyle};
use crate::program::{Launch, Slot};

/// Rows of a launch.
pub(super) fn rows_of(launch: &Launch) -> u32 {
    let first = launch.outputs.first().or(launch.inputs.first());
    first.map_or(1, |s| s.rows)
}

/// What a launch writes.
fn element(launch: &Launch) -> Element {
    launch.outputs[0].element
}

/// The kernel that rounds what it writes as the launch's output wants it.
pub(super) fn rounding(base: &str, launch: &Launch) -> String {
    match element(launch) {
        Element::Q15A => format!("{base}_quantize"),
        Element::F16 => format!("{base}_half"),
        Element::F32 => base.into(),
    }
}

impl Lower<'_> {
    pub(super) fn embed(&mut self, launch: &Launch, scale: f32) {
        let (table, y, rows) = (launch.weights[0], launch.outputs[0], rows_of(launch));
        let slot = &self.program.weights[table.index()];
        let row_bytes = slot.dtype.row_bytes(slot.cols);
        let kernel = typed("embed", slot.dtype);
        let mut args = Args::new();
        args.weight(table, Form::Table)
            .size(row_bytes.expect("the model checked that rows are whole blocks"))
            .f32(scale)
            .rows(y)
            .u32(y.cols)
            .u32(rows);
        self.push(kernel, geometry::embed(y.cols, rows), args.0);
    }

    pub(super) fn rope_table(&mut self, launch: &Launch, rope: Rope) {
        let rows = rows_of(launch);
        let mut args = Args::new();
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
        let geometry = geometry::rope_table(rope.dims, rows);
        self.push("rope_table".into(), geometry, args.0);
    }

    pub(super) fn rms_norm(&mut self, launch: &Launch, eps: f32, groups: u32) {
        let (y, rows) = (launch.outputs[0], rows_of(launch));
        let mut args = Args::new();
        args.rows(launch.inputs[0])
            .weight(launch.weights[0], Form::Vector)
            .f32(eps)
            .rows(y)
            .u32(y.cols);
        let geometry = match element(launch) {
            Element::Q15A => geometry::rms_norm_quantize(y.cols, rows),
            Element::F16 => geometry::half_rows(y.cols, rows),
            Element::F32 => {
                args.u32(groups);
                geometry::rms_norm(y.cols, groups, rows)
            }
        };
        args.u32(rows);
        self.push(rounding("rms_norm", launch), geometry, args.0);
    }

    pub(super) fn quantize(&mut self, launch: &Launch) {
        let (y, rows) = (launch.outputs[0], rows_of(launch));
        let mut args = Args::new();
        args.rows(launch.inputs[0]).rows(y).u32(y.cols).u32(rows);
        let (kernel, geometry) = match element(launch) {
            Element::F16 => ("round_rows", geometry::half_rows(y.cols, rows)),
            Element::Q15A | Element::F32 => ("quantize", geometry::quantize(y.cols, rows)),
        };
        self.push(kernel.into(), geometry, args.0);
    }

    pub(super) fn last_row(&mut self, launch: &Launch) {
        let (x, y) = (launch.inputs[0], launch.outputs[0]);
        let mut args = Args::new();
        args.rows(x).value(y).u32(y.cols).u32(x.rows);
        self.push("last_row".into(), geometry::last_row(y.cols), args.0);
    }

    pub(super) fn add_bias(&mut self, launch: &Launch) {
        let mut args = Args::new();
        args.rows(launch.inputs[0])
            .weight(launch.weights[0], Form::Vector);
        self.elementwise("add_bias", launch, args);
    }

    pub(super) fn add(&mut self, launch: &Launch) {
        let mut args = Args::new();
        args.rows(launch.inputs[0]).rows(launch.inputs[1]);
        self.elementwise("add", launch, args);
    }

    pub(super) fn scale(&mut self, launch: &Launch, by: f32) {
        let mut args = Args::new();
        args.rows(launch.inputs[0]).f32(by);
        self.elementwise("scale", launch, args);
    }

    /// A kernel that writes each element by itself, behind its operands.
    fn elementwise(&mut self, kernel: &str, launch: &Launch, mut args: Args) {
        let (y, rows) = (launch.outputs[0], rows_of(launch));
        args.rows(y).u32(y.cols).u32(rows);
        let geometry = geometry::elementwise(y.cols, rows);
        self.push(kernel.into(), geometry, args.0);
    }

    pub(super) fn gated_mul(&mut self, launch: &Launch, activation: Activation) {
        let (y, rows) = (launch.outputs[0], rows_of(launch));
        let mut args = Args::new();
        args.rows(launch.inputs[0])
            .rows(launch.inputs[1])
            .rows(y)
            .u32(y.cols)
            .u32(activation_code(activation))
            .u32(rows);
        let geometry = match element(launch) {
            Element::F16 => geometry::half_rows(y.cols, rows),
            Element::Q15A | Element::F32 => geometry::elementwise(y.cols, rows),
        };
        self.push(rounding("gated_mul", launch), geometry, args.0);
    }

    pub(super) fn rope(
        &mut self,
        launch: &Launch,
        (heads, head_size): (u32, u32),
        dims: u32,
        style: RopeStyle,
    ) {
        let rows = rows_of(launch);
        let mut args = Args::new();
        args.rows(launch.inputs[0])
            .rows(launch.inputs[1])
            .rows(launch.outputs[0]);
        args.u32(heads).u32(head_size).u32(dims);
        args.u32(style_code(style)).u32(rows);
        let geometry = geometry::rope(heads, head_size, rows);
        self.push("rope".into(), geometry, args.0);
    }

    pub(super) fn kv_append(&mut self, launch: &Launch, kv_heads: u32, head_size: u32) {
        let rows = rows_of(launch);
        let mut args = Args::new();
        args.rows(launch.inputs[0]).rows(launch.inputs[1]);
        args.caches(launch).u32(kv_heads).u32(head_size);
        args.u32(self.program.context).u32(rows);
        let geometry = geometry::kv_append(kv_heads, head_size, rows);
        self.push("kv_append".into(), geometry, args.0);
    }

    pub(super) fn rope_append(
        &mut self,
        launch: &Launch,
        heads: Heads,
        dims: u32,
        style: RopeStyle,
    ) {
        let rows = rows_of(launch);
        let mut args = Args::new();
        for &input in &launch.inputs[..4] {
            args.rows(input);
        }
        args.rows(launch.outputs[0]).caches(launch).heads(heads);
        args.u32(dims).u32(style_code(style));
        args.u32(self.program.context).u32(rows);
        let geometry = geometry::rope_append(heads.query, heads.kv, heads.size, rows);
        self.push("rope_append".into(), geometry, args.0);
    }

    /// The first token of every part of the row, then one token of all.
    pub(super) fn sample(&mut self, logits: Slot) {
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
}

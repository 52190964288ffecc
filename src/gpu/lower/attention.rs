//! Attention: of several rows, of one in a launch of its own, and of one in parts that are combined.

use super::rows::{rounding, rows_of};
use super::{Lower, style_code};
use crate::gpu::geometry;
use crate::gpu::launch::{Args, RoomNeeds};
use crate::graph::{Element, Heads, KvType, Op};
use crate::program::Launch;

impl Lower<'_> {
    pub(super) fn attention(
        &mut self,
        launch: &Launch,
        heads: Heads,
        scale: f32,
        window: Option<u32>,
    ) {
        let rows = rows_of(launch);
        let mut args = Args::new();
        args.rows(launch.inputs[0]).caches(launch);
        args.rows(launch.outputs[0]).heads(heads);
        args.u32(self.program.context).u32(window.unwrap_or(0));
        args.f32(scale).u32(rows);
        let kv_type = self.program.states[launch.states[0].index()].kv_type;
        let flash = self.program.is_half() && kv_type == KvType::F16;
        let columns = geometry::flash_columns(heads.size).filter(|_| flash);
        let Heads { query, kv, .. } = heads;
        let (kernel, geometry) = match columns {
            Some(columns) => (
                format!("attention_flash_{columns}"),
                geometry::attention_flash(query, kv, columns, rows, self.machine),
            ),
            None => (
                "attention_rows".into(),
                geometry::attention_rows(query, kv, rows),
            ),
        };
        self.push(kernel, geometry, args.0);
    }

    /// One row's rotation, append and attention.
    pub(super) fn attention_step(&mut self, launch: &Launch) {
        let Op::AttentionStep {
            heads,
            dims,
            style,
            scale,
            window,
            blocks,
        } = launch.op
        else {
            unreachable!("only an attention step is lowered as one");
        };
        let (y, partials) = (launch.outputs[0], launch.outputs[1]);
        let mut args = Args::new();
        for &input in &launch.inputs[..4] {
            args.value(input);
        }
        args.caches(launch).value(partials).tickets().value(y);
        args.heads(heads).u32(dims).u32(style_code(style));
        args.u32(self.program.context).u32(window.unwrap_or(0));
        let quantizes = y.element == Element::Q15A;
        args.f32(scale).u32(quantizes.into());
        let (kernel, geometry) =
            geometry::attention_step(heads.query, heads.kv, heads.size, blocks);
        self.push(kernel.into(), geometry, args.0);
        self.needs_room(RoomNeeds {
            tickets: heads.query as usize,
            ..RoomNeeds::default()
        });
    }

    pub(super) fn attention_split(
        &mut self,
        launch: &Launch,
        heads: Heads,
        scale: f32,
        (window, split): (Option<u32>, u32),
    ) {
        let context = self.program.context;
        let mut args = Args::new();
        args.value(launch.inputs[0]).caches(launch);
        args.value(launch.outputs[0]).heads(heads);
        args.u32(context).u32(split).u32(window.unwrap_or(0));
        args.f32(scale);
        let geometry = geometry::attention_split(heads.kv, context, split);
        self.push("attention_split".into(), geometry, args.0);
    }

    pub(super) fn attention_combine(
        &mut self,
        launch: &Launch,
        heads: Heads,
        (window, split): (Option<u32>, u32),
    ) {
        let mut args = Args::new();
        args.value(launch.inputs[0]).value(launch.outputs[0]);
        args.u32(heads.query).u32(heads.size);
        args.u32(self.program.context)
            .u32(split)
            .u32(window.unwrap_or(0));
        let geometry = geometry::attention_combine(heads.query, heads.size);
        self.push(rounding("attention_combine", launch), geometry, args.0);
    }
}

//! A compiled step for people and for other programs: DOT, JSON or text of each stage.

use super::compile::Compiled;
use crate::gpu;
use crate::graph::{self, Graph, NodeId, ValueId};
use crate::plan;
use crate::program::{Cost, Target, cost};
use serde_json::{Value as Json, json};
use std::fmt::Write;

/// How far the pipeline has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// As the Definition says it.
    Built,
    /// After the passes.
    Fused,
    /// With arena offsets and kernels.
    Planned,
}

/// What a dump is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Dot,
    Json,
    Text,
}

/// One stage of a compiled step. Every node carries its operands' shapes and types, the bytes it
/// moves and its FLOPs; at [`Stage::Planned`] also its kernel and its outputs' arena offsets.
pub fn dump(compiled: &Compiled<'_>, stage: Stage, format: Format) -> String {
    let dump = Dump { compiled, stage };
    match format {
        Format::Dot => dump.dot(),
        Format::Json => dump.json(),
        Format::Text => dump.text(),
    }
}

struct Dump<'d, 'a> {
    compiled: &'d Compiled<'a>,
    stage: Stage,
}

impl<'d, 'a> Dump<'d, 'a> {
    fn graph(&self) -> &'d Graph<'a> {
        match self.stage {
            Stage::Built => &self.compiled.built,
            Stage::Fused | Stage::Planned => &self.compiled.fused,
        }
    }

    fn offset(&self, value: ValueId) -> Option<usize> {
        if self.stage == Stage::Planned {
            self.compiled.plan.offset(value)
        } else {
            None
        }
    }

    fn cost(&self, node: NodeId) -> Cost {
        cost(self.graph(), self.graph().node(node))
    }

    fn dot(&self) -> String {
        let node = |id: NodeId| {
            let mut lines = vec![cost_text(&self.cost(id))];
            if self.stage == Stage::Planned {
                let launch = &self.compiled.program.launches[id.index()];
                lines.push(format!("{} × {}", launch.kernel, launch.units));
            }
            lines
        };
        let value = |id: ValueId| self.offset(id).map(|offset| format!("@{offset}"));
        graph::dot::dot(
            self.graph(),
            &graph::dot::Notes {
                node: &node,
                value: &value,
            },
        )
    }

    fn text(&self) -> String {
        let mut out = graph::text(self.graph());
        if self.stage != Stage::Built {
            out.push('\n');
            for report in &self.compiled.reports {
                writeln!(out, "{report}").expect("writing to a string");
            }
        }
        if self.stage == Stage::Planned {
            let plan = plan::text(self.graph(), &self.compiled.plan);
            write!(out, "\n{plan}\n{}", self.compiled.program.text()).expect("writing to a string");
            if let Target::Gpu { wave } = self.compiled.program.target {
                let hardware = gpu::Hardware::typical(wave);
                let launches = gpu::lower(&self.compiled.program, &hardware);
                let text = launches.map_or_else(|e| format!("{e}\n"), |l| gpu::text(&l));
                write!(out, "\n{text}").expect("writing to a string");
            }
        }
        out
    }

    fn json(&self) -> String {
        let graph = self.graph();
        let program = &self.compiled.program;
        let values = graph.values().iter().enumerate().map(|(index, value)| {
            let id = ValueId::new(index);
            json!({
                "id": id.to_string(), "name": value.name, "dtype": value.element.to_string(),
                "shape": [value.rows, value.cols], "bytes": value.bytes(),
                "arena_offset": self.offset(id),
            })
        });
        let weights = graph.weights().iter().enumerate().map(|(index, weight)| {
            json!({
                "id": format!("w{index}"), "name": weight.name, "dtype": weight.dtype.name(),
                "shape": weight.shape, "bytes": weight.bytes(),
            })
        });
        let states = graph.states().iter().enumerate().map(|(index, state)| {
            json!({
                "id": format!("s{index}"), "kind": format!("{:?}", state.kind).to_lowercase(),
                "layer": state.layer, "dtype": state.kv_type.name(), "bytes": state.bytes(),
                "shape": [state.kv_heads, state.positions, state.head_size],
            })
        });
        let nodes = (0..graph.nodes().len()).map(|index| self.node_json(NodeId::new(index)));
        let passes = self.compiled.reports.iter().map(|report| {
            let skipped = report.skipped.iter();
            json!({
                "pass": report.pass, "fired": report.fired,
                "left": skipped.map(|(why, n)| json!({ "why": why, "count": n })).collect::<Json>(),
            })
        });
        let planned = self.stage == Stage::Planned;
        let document = json!({
            "stage": format!("{:?}", self.stage).to_lowercase(),
            "target": program.target, "rows": program.rows, "context": program.context,
            "nodes": nodes.collect::<Json>(), "values": values.collect::<Json>(),
            "weights": weights.collect::<Json>(), "states": states.collect::<Json>(),
            "result": graph.result().map(|v| v.to_string()),
            "passes": if self.stage == Stage::Built { json!([]) } else { passes.collect() },
            "arena_bytes": planned.then_some(program.arena_bytes),
        });
        serde_json::to_string_pretty(&document).expect("a document of plain values") + "\n"
    }

    fn node_json(&self, id: NodeId) -> Json {
        let node = self.graph().node(id);
        let cost = self.cost(id);
        let names = |ids: &[ValueId]| ids.iter().map(|v| v.to_string()).collect::<Vec<_>>();
        let mut entry = json!({
            "id": id.to_string(), "section": node.section.to_string(), "op": node.op.name(),
            "attributes": node.op.attributes(),
            "inputs": names(node.inputs), "outputs": names(node.outputs),
            "weights": node.weights.iter().map(|w| w.to_string()).collect::<Vec<_>>(),
            "states": node.states.iter().map(|s| s.to_string()).collect::<Vec<_>>(),
            "bytes": cost.bytes_at(0),
            "bytes_per_position": cost.cache_read_bytes_per_position,
            "flops": cost.flops, "flops_per_position": cost.flops_per_position,
        });
        if self.stage == Stage::Planned {
            let launch = &self.compiled.program.launches[id.index()];
            entry["kernel"] = launch.kernel.clone().into();
            entry["units"] = launch.units.into();
        }
        entry
    }
}

/// `1.2 MB + 512 B/pos · 3.4 MFLOP + 1 kFLOP/pos`
fn cost_text(cost: &Cost) -> String {
    let mut bytes = scaled(cost.bytes_at(0), "B");
    let mut flops = scaled(cost.flops, "FLOP");
    if cost.cache_read_bytes_per_position > 0 {
        bytes += &format!(" + {}/pos", scaled(cost.cache_read_bytes_per_position, "B"));
        flops += &format!(" + {}/pos", scaled(cost.flops_per_position, "FLOP"));
    }
    format!("{bytes} · {flops}")
}

pub(super) fn scaled(amount: u64, unit: &str) -> String {
    let amount_f = amount as f64;
    match amount {
        0..1_000 => format!("{amount} {unit}"),
        1_000..1_000_000 => format!("{:.1} k{unit}", amount_f / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} M{unit}", amount_f / 1e6),
        _ => format!("{:.1} G{unit}", amount_f / 1e9),
    }
}

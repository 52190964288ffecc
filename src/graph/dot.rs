//! A graph as Graphviz DOT: layers as clusters, an edge for every value and cache that is read.

use super::{Graph, NodeId, Op, Section, StateId, ValueId};
use std::fmt::Write;

/// What later stages know and the drawing adds: lines under a node, a word behind a value.
pub struct Notes<'f> {
    /// Extra lines of a node (its kernel, bytes, FLOPs).
    pub node: &'f dyn Fn(NodeId) -> Vec<String>,
    /// Where a value lies, once planned.
    pub value: &'f dyn Fn(ValueId) -> Option<String>,
}

impl Notes<'_> {
    /// No notes: the graph as it is.
    pub const NONE: Notes<'static> = Notes {
        node: &|_| Vec::new(),
        value: &|_| None,
    };
}

/// The whole graph as one `digraph`.
pub fn dot(graph: &Graph<'_>, notes: &Notes<'_>) -> String {
    let mut out = String::from(
        "digraph step {\n  rankdir=TB; compound=true; fontname=\"Helvetica\";\n  \
         node [shape=box, style=\"rounded,filled\", fillcolor=white, fontname=\"Helvetica\", \
         fontsize=10];\n  edge [fontname=\"Helvetica\", fontsize=8, color=\"#555555\"];\n",
    );
    let mut section = None;
    for (index, node) in graph.nodes().iter().enumerate() {
        if section != Some(node.section) {
            if section.is_some() {
                out.push_str("  }\n");
            }
            open_cluster(&mut out, node.section);
            section = Some(node.section);
        }
        let id = NodeId::new(index);
        let label = escape(&label(graph, id, notes));
        let fill = colour(&node.op);
        line(
            &mut out,
            format_args!("    {id} [label=\"{label}\", fillcolor=\"{fill}\"];"),
        );
    }
    if section.is_some() {
        out.push_str("  }\n");
    }
    edges(graph, &mut out);
    out.push_str("}\n");
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("writing to a string");
}

fn open_cluster(out: &mut String, section: Section) {
    let name = section.to_string();
    let id = name.replace(' ', "_");
    line(
        out,
        format_args!(
            "  subgraph cluster_{id} {{\n    label=\"{name}\"; labeljust=l; color=\"#bbbbbb\"; \
             style=\"rounded,filled\"; fillcolor=\"#f6f6f6\"; fontsize=12;"
        ),
    );
}

fn label(graph: &Graph<'_>, id: NodeId, notes: &Notes<'_>) -> String {
    let node = graph.node(id);
    let mut lines = vec![format!("{id} {}", node.op.name())];
    let attributes = node.op.attributes();
    if !attributes.is_empty() {
        lines.push(attributes);
    }
    for &w in node.weights {
        let weight = graph.weight(w);
        lines.push(format!(
            "{} {}{:?}",
            weight.name,
            weight.dtype.name(),
            weight.shape
        ));
    }
    for &v in node.outputs {
        let value = graph.value(v);
        let mut text = format!(
            "{v} {} {}[{}, {}]",
            value.name, value.element, value.rows, value.cols
        );
        if let Some(note) = (notes.value)(v) {
            text += &format!(" {note}");
        }
        lines.push(text);
    }
    lines.extend((notes.node)(id));
    lines.join("\n")
}

/// Lines as a DOT string wants them; `\l` ends a left-aligned one.
fn escape(text: &str) -> String {
    text.lines().map(|line| quoted(line) + "\\l").collect()
}

/// A name as a DOT string wants it.
fn quoted(name: &str) -> String {
    let name = name.replace('\\', "\\\\").replace('"', "\\\"");
    name.replace('\n', "\\n")
}

fn edges(graph: &Graph<'_>, out: &mut String) {
    let producers = graph.producers();
    let mut appender: Vec<Option<NodeId>> = vec![None; graph.states().len()];
    for (index, node) in graph.nodes().iter().enumerate() {
        let id = NodeId::new(index);
        for &value in node.inputs {
            if let Some(from) = producers[value.index()] {
                let name = quoted(graph.value(value).name);
                line(
                    out,
                    format_args!("  {from} -> {id} [label=\"{value} {name}\"];"),
                );
            }
        }
        for &state in node.states {
            match appender[state.index()] {
                None => appender[state.index()] = Some(id),
                Some(from) => {
                    let name = quoted(&cache_name(graph, state));
                    line(
                        out,
                        format_args!("  {from} -> {id} [label=\"{name}\", style=dashed];"),
                    );
                }
            }
        }
    }
}

fn cache_name(graph: &Graph<'_>, id: StateId) -> String {
    let state = graph.state(id);
    let kind = format!("{:?}", state.kind).to_lowercase();
    format!(
        "{id} {kind} {}[{}, {}, {}]",
        state.kv_type, state.kv_heads, state.positions, state.head_size
    )
}

/// One colour a kind of work, so that a layer's shape is seen before it is read.
fn colour(op: &Op) -> &'static str {
    match op {
        Op::Gemm { .. } | Op::GatedGemm(_) | Op::NormGemm { .. } | Op::NormGatedGemm { .. } => {
            "#cfe3f7"
        }
        Op::Attention { .. }
        | Op::AttentionSplit { .. }
        | Op::AttentionCombine { .. }
        | Op::AttentionStep { .. } => "#fbe0c3",
        Op::KvAppend { .. } | Op::RopeAppend { .. } | Op::Rope { .. } | Op::RopeTable(_) => {
            "#e3d9f2"
        }
        Op::RmsNorm { .. } => "#d8efd3",
        Op::Embed { .. }
        | Op::AddBias
        | Op::GatedMul(_)
        | Op::Add
        | Op::Scale { .. }
        | Op::Quantize
        | Op::LastRow
        | Op::Sample => "#ffffff",
    }
}

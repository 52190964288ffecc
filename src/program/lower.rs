//! Graph + Plan → Program.

use super::{Launch, Program, Slot, Target, WeightSlot, cost};
use crate::graph::{Element, Graph, KvType, Node, NodeId, Op, ValueId, Verified};
use crate::plan::Plan;

/// Output columns of a GEMM that one unit computes: two panels of 16, the width of one
/// quantisation group, so that a unit can quantise what it made.
pub const GEMM_UNIT_COLS: usize = 32;

/// Queries (rows times query heads of one KV head) that one unit of several-row attention gathers:
/// eight register tiles of six, so that converting a tile of K and V costs little beside using it.
pub const ATTENTION_UNIT_QUERIES: u32 = 48;

/// Lowers every node to one launch. The graph and the plan belong together: the plan's values are
/// the graph's.
pub fn lower(graph: &Verified<'_>, plan: &Plan, target: Target, context: u32) -> Program {
    let slot = |id: ValueId| {
        let value = graph.value(id);
        let offset = plan
            .offset(id)
            .expect("the plan places every value that a node writes");
        let (rows, cols, element) = (value.rows, value.cols, value.element);
        Slot {
            value: id,
            offset,
            rows,
            cols,
            element,
        }
    };
    let slots = |ids: &[ValueId]| ids.iter().map(|&id| slot(id)).collect::<Vec<_>>();
    let launches = graph
        .nodes()
        .iter()
        .enumerate()
        .map(|(index, node)| Launch {
            node: NodeId::new(index),
            section: node.section,
            kernel: kernel_name(graph, node),
            op: node.op,
            inputs: slots(node.inputs),
            weights: node.weights.to_vec(),
            states: node.states.to_vec(),
            outputs: slots(node.outputs),
            units: units(graph, node),
            cost: cost(graph, node),
        });
    let launches: Vec<Launch> = launches.collect();
    let weight = |w: &crate::graph::Weight<'_>| WeightSlot {
        name: w.name.to_string(),
        dtype: w.dtype,
        rows: w.rows(),
        cols: w.cols(),
    };
    let widest = launches
        .iter()
        .flat_map(|l| &l.outputs)
        .map(|s| s.rows)
        .max();
    Program {
        target,
        launches,
        weights: graph.weights().iter().map(weight).collect(),
        states: graph.states().to_vec(),
        arena_bytes: plan.arena_bytes(),
        rows: widest.unwrap_or(1),
        context,
        result: slot(graph.result().expect("a verified graph has a result")),
    }
}

fn kernel_name(graph: &Graph<'_>, node: &Node<'_>) -> String {
    let mut name = node.op.name().to_string();
    let mut types: Vec<&str> = Vec::new();
    if matches!(
        node.op,
        Op::Embed { .. }
            | Op::Gemm { .. }
            | Op::GatedGemm(_)
            | Op::NormGemm { .. }
            | Op::NormGatedGemm { .. }
    ) {
        let matrices = node.weights.iter().map(|&w| graph.weight(w));
        types.extend(
            matrices
                .filter(|w| w.shape.len() > 1)
                .map(|w| w.dtype.name()),
        );
        types.dedup();
    }
    // The caches of a node are of one type, and the usual one goes without saying.
    let kv_type = node.states.first().map(|&s| graph.state(s).kv_type);
    types.extend(kv_type.filter(|&t| t != KvType::F16).map(KvType::name));
    for part in types {
        name += &format!("_{}", part.to_ascii_lowercase());
    }
    let element = |ids: &[ValueId]| ids.first().map(|&v| graph.value(v).element);
    let rounded = match (node.op, element(node.outputs), element(node.inputs)) {
        (Op::Quantize, Some(Element::F16), _) => "_half",
        (Op::Gemm { .. } | Op::GatedGemm(_), _, Some(Element::F16)) => "_half",
        (Op::Quantize, ..) => "",
        (_, Some(Element::Q15A), _) => "_quantize",
        (_, Some(Element::F16), _) => "_half",
        _ => "",
    };
    name + rounded
}

/// How many pieces a launch falls into at full rows and full context.
fn units(graph: &Graph<'_>, node: &Node<'_>) -> u32 {
    let rows = |id: ValueId| graph.value(id).rows;
    match node.op {
        Op::Gemm { .. } | Op::NormGemm { .. } => {
            let panels = |&v: &ValueId| (graph.value(v).cols as usize).div_ceil(GEMM_UNIT_COLS);
            node.outputs.iter().map(panels).sum::<usize>() as u32
        }
        Op::GatedGemm(_) | Op::NormGatedGemm { .. } => graph
            .weight(node.weights[0])
            .rows()
            .div_ceil(GEMM_UNIT_COLS) as u32,
        Op::Attention { heads, .. } => {
            let unit_rows = (ATTENTION_UNIT_QUERIES / (heads.query / heads.kv)).max(1);
            heads.kv * rows(node.inputs[0]).div_ceil(unit_rows)
        }
        Op::AttentionSplit { heads, .. } => {
            let partials = graph.value(node.outputs[0]).cols / heads.partial_len();
            partials / (heads.query / heads.kv)
        }
        Op::AttentionStep { heads, blocks, .. } => heads.kv * blocks,
        Op::AttentionCombine { .. } | Op::LastRow | Op::Sample => 1,
        Op::KvAppend { .. } => rows(node.inputs[0]),
        _ => node.outputs.first().map_or(1, |&v| rows(v)),
    }
}

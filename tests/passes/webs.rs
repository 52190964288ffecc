//! Random webs of nodes over values of one shape: every way in which products, sums and gates can
//! share what they read, which no Definition would write.

use crate::definitions::VOCABULARY;
use crate::support::rng::Rng;
use bumpalo::Bump;
use greta_infer::dtype::DType;
use greta_infer::graph::{Activation, Element, Graph, Node, Op, Section, Value, ValueId, WeightId};

const WIDTH: usize = 8;

pub fn random<'a>(rng: &mut Rng, arena: &'a Bump) -> Graph<'a> {
    let mut graph = Graph::new(arena);
    let mut values: Vec<ValueId> = Vec::new();
    let mut multiplied = None;
    let count = 3 + rng.below(14);
    for index in 0..count + 3 {
        let op = match (index, rng.below(9)) {
            (0, _) => Op::Embed { scale: 2.0 },
            // The last three gather what is there, so that little of a web is dead.
            _ if index >= count => Op::Add,
            (_, 0..4) => Op::Gemm { residual: false },
            (_, 4) => Op::Add,
            (_, 5) => Op::GatedMul([Activation::Silu, Activation::GeluTanh][rng.below(2)]),
            (_, 6) => {
                let groups = 1 + rng.below(2) as u32;
                Op::RmsNorm { eps: 1e-5, groups }
            }
            (_, 7) => Op::Add,
            _ => Op::AddBias,
        };
        let arity = match op {
            Op::Embed { .. } => 0,
            Op::Add | Op::GatedMul(_) => 2,
            _ => 1,
        };
        // Mostly the latest values, so that long chains appear and not only stars.
        let pick = |rng: &mut Rng| values[values.len() - 1 - rng.below(values.len().min(4))];
        let mut inputs: Vec<ValueId> = (0..arity).map(|_| pick(rng)).collect();
        // Pairs as gates have them: products of one value, and what reads the latest two.
        let plain = matches!(op, Op::Gemm { .. });
        if let (true, Some(shared), 0..2) = (plain, multiplied, rng.below(3)) {
            inputs[0] = shared;
        } else if let ([a, b], [.., c, d], 0) = (&mut inputs[..], &values[..], rng.below(2)) {
            (*a, *b) = (*c, *d);
        }
        if index >= count {
            inputs = vec![values[values.len() - 1], values[rng.below(values.len())]];
        }
        if plain {
            multiplied = Some(inputs[0]);
        }
        let name = format!("w{index}");
        let kind = [DType::F32, DType::Q8_0, DType::Q8_0, DType::Q4_0][rng.below(4)];
        let mut weight = |dtype, shape: &[usize]| vec![graph.add_weight(&name, dtype, shape)];
        let weights: Vec<WeightId> = match op {
            Op::Embed { .. } => weight(kind, &[VOCABULARY, WIDTH]),
            Op::Gemm { .. } => weight(kind, &[WIDTH, WIDTH]),
            Op::RmsNorm { groups, .. } => weight(DType::F32, &[WIDTH / groups as usize]),
            Op::AddBias => weight(DType::F32, &[WIDTH]),
            _ => Vec::new(),
        };
        let out = graph.add_value(Value {
            name: "x",
            rows: 3,
            cols: WIDTH as u32,
            element: Element::F32,
        });
        graph.push(Node {
            op,
            section: Section::Layer(0),
            inputs: &inputs,
            weights: &weights,
            states: &[],
            outputs: &[out],
        });
        values.push(out);
    }
    let last = values.len() - 1;
    graph.set_result(values[last - rng.below(2)]);
    graph
}

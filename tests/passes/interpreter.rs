//! What a graph means, in f64: each op by its formula, one element after the other. It shares no
//! code with the kernels. A rounded activation is the activation itself, and a weight's numbers
//! follow from its name, so that any two graphs over the same weights can be compared.

use crate::support::rng::Rng;
use greta_infer::graph::{Activation, Graph, Heads, Node, Op, RopeStyle, StateKind, ValueId};

/// Rows of numbers, `[R, N]`.
type Rows = Vec<Vec<f64>>;

/// A sequence in the middle of a graph: its caches, `[state][position]` → `[G·D]`.
pub struct Interpreter<'g, 'a> {
    graph: &'g Graph<'a>,
    caches: Vec<Vec<Option<Vec<f64>>>>,
}

/// Numbers of a weight called `name`, near 1/√K for matrices and near 1 for vectors.
fn numbers(name: &str, shape: &[usize]) -> Vec<f64> {
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut rng = Rng::new(seed);
    let scale = 1.0 / (shape[shape.len() - 1] as f64).sqrt();
    let one = |rng: &mut Rng| match shape.len() {
        1 => rng.uniform(0.5, 1.5),
        _ => rng.normal() * scale,
    };
    (0..shape.iter().product()).map(|_| one(&mut rng)).collect()
}

fn act(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
            0.5 * x * (1.0 + inner.tanh())
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Turns every head of a row by a row of the table, `cos, sin` for each pair.
fn turn(row: &[f64], table: &[f64], head_size: usize, dims: usize, style: RopeStyle) -> Vec<f64> {
    let mut out = row.to_vec();
    for head in out.chunks_mut(head_size) {
        let old = head.to_vec();
        for pair in 0..dims / 2 {
            let (a, b) = match style {
                RopeStyle::Interleaved => (2 * pair, 2 * pair + 1),
                RopeStyle::Half => (pair, pair + dims / 2),
            };
            let (cos, sin) = (table[2 * pair], table[2 * pair + 1]);
            head[a] = old[a] * cos - old[b] * sin;
            head[b] = old[a] * sin + old[b] * cos;
        }
    }
    out
}

impl<'g, 'a> Interpreter<'g, 'a> {
    pub fn new(graph: &'g Graph<'a>) -> Self {
        let cache = |positions: u32| vec![None; positions as usize];
        let caches = graph.states().iter().map(|s| cache(s.positions)).collect();
        Interpreter { graph, caches }
    }

    /// The result's live rows after one step.
    pub fn step(&mut self, position: usize, tokens: &[usize]) -> Rows {
        let mut values: Vec<Option<Rows>> = vec![None; self.graph.values().len()];
        for node in self.graph.nodes() {
            let inputs: Vec<Rows> = node
                .inputs
                .iter()
                .map(|v| {
                    values[v.index()]
                        .clone()
                        .expect("written before it is read")
                })
                .collect();
            let outputs = self.node(node, inputs, position, tokens);
            assert_eq!(outputs.len(), node.outputs.len(), "{}", node.op.name());
            for (&id, rows) in node.outputs.iter().zip(outputs) {
                self.shape(id, &rows);
                values[id.index()] = Some(rows);
            }
        }
        let result = self.graph.result().expect("a result");
        values[result.index()].take().expect("somebody writes it")
    }

    fn shape(&self, id: ValueId, rows: &Rows) {
        let value = self.graph.value(id);
        assert!(rows.len() <= value.rows as usize, "rows of {id}");
        let wide = |row: &Vec<f64>| row.len() == value.cols as usize;
        assert!(rows.iter().all(wide), "columns of {id}");
    }

    fn weight(&self, node: &Node<'_>, index: usize) -> Vec<f64> {
        let weight = self.graph.weight(node.weights[index]);
        numbers(weight.name, weight.shape)
    }

    fn product(&self, node: &Node<'_>, index: usize, x: &Rows) -> Rows {
        let weight = self.weight(node, index);
        let row = |x: &Vec<f64>| weight.chunks(x.len()).map(|w| dot(w, x)).collect();
        x.iter().map(row).collect()
    }

    /// A node's input normalised by its last weight.
    fn normalised(&self, node: &Node<'_>, x: &Rows, eps: f32) -> Rows {
        let weight = self.weight(node, node.weights.len() - 1);
        let row = |x: &Vec<f64>| {
            let square = dot(x, x) / x.len() as f64;
            let factor = 1.0 / (square + f64::from(eps)).sqrt();
            x.iter().zip(&weight).map(|(x, w)| x * factor * w).collect()
        };
        x.iter().map(row).collect()
    }

    fn node(
        &mut self,
        node: &Node<'_>,
        mut inputs: Vec<Rows>,
        position: usize,
        tokens: &[usize],
    ) -> Vec<Rows> {
        let pairs = |a: &Rows, b: &Rows, f: &dyn Fn(f64, f64) -> f64| -> Rows {
            let row =
                |(a, b): (&Vec<f64>, &Vec<f64>)| a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect();
            a.iter().zip(b).map(row).collect()
        };
        let out = match node.op {
            Op::Embed { scale } => {
                let table = self.weight(node, 0);
                let width = self.graph.value(node.outputs[0]).cols as usize;
                let row = |&t: &usize| table[t * width..][..width].iter();
                let scaled = |t| row(t).map(|x| x * f64::from(scale)).collect();
                tokens.iter().map(scaled).collect()
            }
            Op::RopeTable(rope) => {
                let dims = rope.dims as usize;
                let divisors = match node.weights.len() {
                    0 => vec![1.0; dims / 2],
                    _ => self.weight(node, 0),
                };
                let row = |r: usize| {
                    let at = (position + r) as f64;
                    let scale = f64::from(rope.position_scale);
                    let angle = |i: usize| {
                        let exponent = -2.0 * i as f64 / dims as f64;
                        let scale = scale + (1.0 - scale) * rope.yarn.kept(i as u32);
                        at * scale * f64::from(rope.base).powf(exponent) / divisors[i]
                    };
                    let magnitude = f64::from(rope.yarn.magnitude);
                    let pair = |i| [f64::cos(angle(i)), f64::sin(angle(i))].map(|x| x * magnitude);
                    (0..dims / 2).flat_map(pair).collect()
                };
                (0..tokens.len()).map(row).collect()
            }
            Op::RmsNorm { eps, groups } => {
                let weight = self.weight(node, 0);
                let slice = |x: &[f64]| -> Vec<f64> {
                    let square = dot(x, x) / x.len() as f64;
                    let factor = 1.0 / (square + f64::from(eps)).sqrt();
                    x.iter().zip(&weight).map(|(x, w)| x * factor * w).collect()
                };
                let row = |x: &Vec<f64>| {
                    x.chunks(x.len() / groups as usize)
                        .flat_map(slice)
                        .collect()
                };
                inputs[0].iter().map(row).collect()
            }
            Op::Gemm { residual: true } => {
                let product = self.product(node, 0, &inputs[0]);
                pairs(&product, &inputs[1], &|a, b| a + b)
            }
            Op::Gemm { residual: false } => {
                let one = |index| self.product(node, index, &inputs[0]);
                return (0..node.weights.len()).map(one).collect();
            }
            Op::GatedGemm(activation) => {
                let [gate, up] = [0, 1].map(|i| self.product(node, i, &inputs[0]));
                pairs(&gate, &up, &|g, u| act(activation, g) * u)
            }
            Op::NormGemm { eps } => {
                let x = self.normalised(node, &inputs[0], eps);
                let one = |index| self.product(node, index, &x);
                return (0..node.outputs.len()).map(one).collect();
            }
            Op::NormGatedGemm { eps, activation } => {
                let x = self.normalised(node, &inputs[0], eps);
                let [gate, up] = [0, 1].map(|i| self.product(node, i, &x));
                pairs(&gate, &up, &|g, u| act(activation, g) * u)
            }
            Op::AttentionStep {
                heads,
                dims,
                style,
                scale,
                window,
                ..
            } => {
                let (size, dims) = (heads.size as usize, dims as usize);
                let row = |(x, t): (&Vec<f64>, &Vec<f64>)| turn(x, t, size, dims, style);
                let turned = |x: &Rows| -> Rows { x.iter().zip(&inputs[3]).map(row).collect() };
                self.append(node, &turned(&inputs[1]), &inputs[2], position);
                let q = &turned(&inputs[0])[0];
                let head = |h: usize| -> Vec<f64> {
                    let all = 0..position + 1;
                    let (sum, weighted) =
                        self.attend(node, q, heads, h, scale, window, position, all);
                    weighted.into_iter().map(|x| x / sum.1).collect()
                };
                let y = (0..heads.query as usize).flat_map(head).collect();
                let partials = self.graph.value(node.outputs[1]).cols as usize;
                return vec![vec![y], vec![vec![f64::NAN; partials]]];
            }
            Op::GatedMul(activation) => {
                pairs(&inputs[0], &inputs[1], &|g, u| act(activation, g) * u)
            }
            Op::Add => pairs(&inputs[0], &inputs[1], &|a, b| a + b),
            Op::AddBias => {
                let bias = vec![self.weight(node, 0); inputs[0].len()];
                pairs(&inputs[0], &bias, &|a, b| a + b)
            }
            Op::Scale { by } => pairs(&inputs[0], &inputs[0], &|x, _| x * f64::from(by)),
            Op::Quantize => inputs.swap_remove(0),
            Op::LastRow => vec![inputs[0].last().expect("a live row").clone()],
            // Which token follows is no number of this step.
            Op::Sample => return Vec::new(),
            Op::Rope {
                head_size,
                dims,
                style,
                ..
            } => {
                let row = |(x, t): (&Vec<f64>, &Vec<f64>)| {
                    turn(x, t, head_size as usize, dims as usize, style)
                };
                inputs[0].iter().zip(&inputs[1]).map(row).collect()
            }
            Op::KvAppend { .. } => {
                self.append(node, &inputs[0], &inputs[1], position);
                return Vec::new();
            }
            Op::RopeAppend { heads, dims, style } => {
                let (size, dims) = (heads.size as usize, dims as usize);
                let row = |(x, t): (&Vec<f64>, &Vec<f64>)| turn(x, t, size, dims, style);
                let turned = |x: &Rows| -> Rows { x.iter().zip(&inputs[3]).map(row).collect() };
                self.append(node, &turned(&inputs[1]), &inputs[2], position);
                turned(&inputs[0])
            }
            Op::Attention {
                heads,
                scale,
                window,
            } => {
                let row = |(r, q): (usize, &Vec<f64>)| -> Vec<f64> {
                    let all = 0..position + r + 1;
                    let head = |h| {
                        let (sum, weighted) = self.attend(
                            node,
                            q,
                            heads,
                            h,
                            scale,
                            window,
                            position + r,
                            all.clone(),
                        );
                        weighted
                            .into_iter()
                            .map(move |x| x / sum.1)
                            .collect::<Vec<_>>()
                    };
                    (0..heads.query as usize).flat_map(head).collect()
                };
                inputs[0].iter().enumerate().map(row).collect()
            }
            Op::AttentionSplit {
                heads,
                scale,
                window,
                split,
            } => {
                let cols = self.graph.value(node.outputs[0]).cols as usize;
                let (len, size) = (heads.partial_len() as usize, heads.size as usize);
                let mut row = vec![f64::NAN; cols];
                for (index, partial) in row.chunks_mut(len).enumerate() {
                    let (part, head) = (index / heads.query as usize, index % heads.query as usize);
                    let from = part * split as usize;
                    let positions = from..(position + 1).min(from + split as usize);
                    let q = &inputs[0][0];
                    let (sum, weighted) =
                        self.attend(node, q, heads, head, scale, window, position, positions);
                    partial[..size].copy_from_slice(&weighted);
                    (partial[len - 2], partial[len - 1]) = sum;
                }
                vec![row]
            }
            Op::AttentionCombine { heads, .. } => {
                let (len, size) = (heads.partial_len() as usize, heads.size as usize);
                let partials: Vec<&[f64]> = inputs[0][0].chunks(len).collect();
                let head = |h: usize| {
                    let mine = || partials.iter().skip(h).step_by(heads.query as usize);
                    let top = mine().map(|p| p[len - 2]).fold(f64::MIN, f64::max);
                    let share = |p: &&&[f64]| (p[len - 2] - top).exp();
                    let sum: f64 = mine().map(|p| share(&p) * p[len - 1]).sum();
                    let element = move |i: usize| {
                        let weighted: f64 = mine().map(|p| share(&p) * p[i]).sum();
                        weighted / sum
                    };
                    (0..size).map(element).collect::<Vec<_>>()
                };
                vec![(0..heads.query as usize).flat_map(head).collect()]
            }
        };
        vec![out]
    }

    fn append(&mut self, node: &Node<'_>, k: &Rows, v: &Rows, position: usize) {
        for (state, rows) in node.states.iter().zip([k, v]) {
            for (r, row) in rows.iter().enumerate() {
                self.caches[state.index()][position + r] = Some(row.clone());
            }
        }
    }

    /// One query head at position `at` over some of the cache: the largest score and the sum of
    /// its exponentials, and the values weighted by them.
    #[allow(clippy::too_many_arguments)]
    fn attend(
        &self,
        node: &Node<'_>,
        q: &[f64],
        heads: Heads,
        head: usize,
        scale: f32,
        window: Option<u32>,
        at: usize,
        positions: std::ops::Range<usize>,
    ) -> ((f64, f64), Vec<f64>) {
        let size = heads.size as usize;
        let kv = head / (heads.query / heads.kv) as usize;
        let cached = |which: usize, p: usize| -> &[f64] {
            let id = node.states[which];
            let kind = [StateKind::Keys, StateKind::Values][which];
            assert_eq!(self.graph.state(id).kind, kind);
            let row = self.caches[id.index()][p].as_ref();
            &row.expect("appended before it is read")[kv * size..][..size]
        };
        let seen = |p: &usize| window.is_none_or(|w| at - p < w as usize);
        let positions: Vec<usize> = positions.filter(seen).collect();
        let q = &q[head * size..][..size];
        let score = |p: &usize| f64::from(scale) * dot(q, cached(0, *p));
        let top = positions.iter().map(score).fold(f64::MIN, f64::max);
        let (mut sum, mut weighted) = (0.0, vec![0.0; size]);
        for p in positions {
            let weight = (score(&p) - top).exp();
            sum += weight;
            for (out, v) in weighted.iter_mut().zip(cached(1, p)) {
                *out += weight * v;
            }
        }
        ((top, sum), weighted)
    }
}

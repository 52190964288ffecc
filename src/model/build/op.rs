//! What each op of a Definition takes, and what it makes of its input.

use super::Builder;
use crate::graph::{Heads, Op, Section, ValueId, WeightId};
use crate::model::ModelError;
use crate::model::definition::{NodeEntry, RopeSet};

/// Rows and columns of what an op writes; `None` if it writes no value.
type Shape = Option<(u32, u32)>;

impl Builder<'_, '_, '_> {
    /// The op that an entry names, and what it writes. `input` is its first.
    pub(super) fn op(
        &self,
        entry: &NodeEntry,
        section: Section,
        input: Option<ValueId>,
        weight: Option<WeightId>,
    ) -> Result<(Op, Shape), ModelError> {
        let hyper = self.hyper;
        let (rows, cols) = match input {
            Some(input) => {
                let value = self.graph.value(input);
                (value.rows, value.cols)
            }
            None => (self.extent.rows, 0),
        };
        let same = Some((rows, cols));
        let scale = hyper.embedding_scale;
        Ok(match entry.op.get_ref().as_str() {
            "embed" => (Op::Embed { scale }, Some((rows, hyper.embedding))),
            "rope_table" => {
                let rope = match entry.rope.unwrap_or_default() {
                    RopeSet::Global => hyper.rope(),
                    RopeSet::Local => hyper.local_rope(),
                };
                (Op::RopeTable(rope), Some((rows, rope.dims)))
            }
            "rms_norm" => (self.rms_norm(entry)?, same),
            "gemm" => {
                let weight = weight.ok_or_else(|| self.wrong(entry, "needs `weight`"))?;
                let outputs = self.graph.weight(weight).rows();
                let outputs = u32::try_from(outputs).expect("checked against the shape's letters");
                (Op::Gemm { residual: false }, Some((rows, outputs)))
            }
            "add_bias" => (Op::AddBias, same),
            "rope" => (self.rope(entry)?, same),
            "kv_append" => {
                let Heads { kv, size, .. } = hyper.attention_heads();
                let (kv_heads, head_size) = (kv, size);
                let op = Op::KvAppend {
                    kv_heads,
                    head_size,
                };
                (op, None)
            }
            "attention" => (self.attention(entry, section)?, same),
            "gated_mul" => {
                let activation = entry.activation;
                let needed = || self.wrong(entry, "needs `activation`");
                (Op::GatedMul(activation.ok_or_else(needed)?), same)
            }
            "add" => (Op::Add, same),
            "scale" => (Op::Scale { by: scale }, same),
            "last_row" => (Op::LastRow, Some((1, cols))),
            other => {
                let message = format!("unknown op `{other}`; known: {}", KNOWN_OPS.join(", "));
                return Err(self.wrong(entry, &message));
            }
        })
    }

    fn rms_norm(&self, entry: &NodeEntry) -> Result<Op, ModelError> {
        let groups = match entry.heads {
            Some(_) => self.heads(entry)?,
            None => 1,
        };
        let eps = self.hyper.rms_eps;
        Ok(Op::RmsNorm { eps, groups })
    }

    fn rope(&self, entry: &NodeEntry) -> Result<Op, ModelError> {
        let style = entry.style;
        let style = style.ok_or_else(|| self.wrong(entry, "needs `style`"))?;
        Ok(Op::Rope {
            heads: self.heads(entry)?,
            head_size: self.hyper.head_size,
            dims: self.hyper.rope().dims,
            style,
        })
    }

    fn attention(&self, entry: &NodeEntry, section: Section) -> Result<Op, ModelError> {
        let window = match (entry.window.as_deref(), section) {
            (Some("W"), Section::Layer(layer)) => self.hyper.window_of(layer),
            (Some("W") | None, _) => None,
            (Some(_), _) => return Err(self.wrong(entry, "`window` can only be \"W\"")),
        };
        Ok(Op::Attention {
            heads: self.hyper.attention_heads(),
            scale: self.hyper.attention_scale(),
            window,
        })
    }

    fn heads(&self, entry: &NodeEntry) -> Result<u32, ModelError> {
        match entry.heads.as_deref() {
            Some("H") => Ok(self.hyper.heads),
            Some("G") => Ok(self.hyper.kv_heads),
            _ => Err(self.wrong(entry, "needs `heads`, \"H\" or \"G\"")),
        }
    }

    /// Refuses fields that the op does not take, so that a misplaced one is never ignored.
    pub(super) fn expect_fields(&self, entry: &NodeEntry, op: &str) -> Result<(), ModelError> {
        for (field, present, takers) in [
            ("weight", entry.weight.is_some(), WEIGHT_TAKERS),
            ("bias", entry.bias.is_some(), &["gemm"][..]),
            ("rope", entry.rope.is_some(), &["rope_table"]),
            ("heads", entry.heads.is_some(), &["rms_norm", "rope"]),
            ("style", entry.style.is_some(), &["rope"]),
            ("activation", entry.activation.is_some(), &["gated_mul"]),
            ("window", entry.window.is_some(), &["attention"]),
        ] {
            if present && !takers.contains(&op) {
                return Err(self.wrong(entry, &format!("takes no `{field}`")));
            }
        }
        let arity = match op {
            "embed" | "rope_table" => 0,
            "rope" | "kv_append" | "gated_mul" | "add" => 2,
            _ => 1,
        };
        let found = entry.inputs.len();
        if found != arity {
            let message = format!("needs {arity} names in `in`, found {found}");
            return Err(self.wrong(entry, &message));
        }
        if entry.out.is_some() && op == "kv_append" {
            return Err(self.wrong(entry, "takes no `out`"));
        }
        Ok(())
    }
}

const WEIGHT_TAKERS: &[&str] = &["embed", "rope_table", "rms_norm", "gemm", "add_bias"];

const KNOWN_OPS: &[&str] = &[
    "embed",
    "rope_table",
    "rms_norm",
    "gemm",
    "add_bias",
    "rope",
    "kv_append",
    "attention",
    "gated_mul",
    "add",
    "scale",
    "last_row",
];

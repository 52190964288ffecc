//! Which check is whose: every op's operands, in number and in shape.

use super::{Check, Element, Op, Verdict};
use crate::graph::Rope;

impl Check<'_, '_> {
    pub(super) fn shapes(&self) -> Verdict {
        match self.node.op {
            Op::Embed { .. } => self.embed(),
            Op::RopeTable(rope) => self.rope_table(rope),
            Op::RmsNorm { groups, .. } => self.rms_norm(groups),
            Op::Gemm { residual } => self.gemm(residual),
            Op::GatedGemm(_) => self.gated_gemm(),
            Op::NormGemm { .. } => self.norm_gemm(),
            Op::NormGatedGemm { .. } => self.norm_gated_gemm(),
            Op::AddBias => self.add_bias(),
            Op::Rope {
                heads,
                head_size,
                dims,
                ..
            } => self.rope(heads, head_size, dims),
            Op::KvAppend {
                kv_heads,
                head_size,
            } => self.kv_append(kv_heads, head_size),
            Op::RopeAppend { heads, dims, .. } => self.rope_append(heads, dims),
            Op::Attention { heads, .. } => self.attention(heads),
            Op::AttentionSplit {
                heads,
                window,
                split,
                ..
            } => self.attention_split(heads, window, split),
            Op::AttentionCombine {
                heads,
                window,
                split,
            } => self.attention_combine(heads, window, split),
            Op::AttentionStep {
                heads,
                dims,
                blocks,
                ..
            } => self.attention_step(heads, dims, blocks),
            Op::GatedMul(_) => self.gated_mul(),
            Op::Add => self.alike_of(2),
            Op::Scale { .. } => self.alike_of(1),
            Op::Quantize => self.quantize(),
            Op::LastRow => self.last_row(),
            Op::Sample => self.sample(),
        }
    }

    fn embed(&self) -> Verdict {
        self.arity(0, 1, 1)?;
        self.same("dimensions of the table", 2, self.weight(0).shape.len())?;
        self.float("output", self.output(0))?;
        self.cols("columns", self.output(0), self.weight(0).cols())
    }

    fn rope_table(&self, rope: Rope) -> Verdict {
        let weights = self.node.weights.len();
        self.holds("weights", "0 or 1", weights, weights <= 1)?;
        self.arity(0, weights, 1)?;
        self.rotated(rope.dims, rope.dims)?;
        if weights == 1 {
            self.vector(0, rope.dims as usize / 2)?;
        }
        self.uniform(rope.dims as usize)
    }

    fn rms_norm(&self, groups: u32) -> Verdict {
        self.arity(1, 1, 1)?;
        let (x, y) = (self.input(0), self.output(0));
        self.float("input", x)?;
        self.same("rows", x.rows, y.rows)?;
        self.same("columns", x.cols, y.cols)?;
        let divides = groups > 0 && x.cols.is_multiple_of(groups);
        let wanted = format!("a divisor of {}", x.cols);
        self.holds("groups", &wanted, groups, divides)?;
        let whole = y.element == Element::F32 || groups == 1;
        self.holds("output of several groups", "f32", y.element, whole)?;
        self.vector(0, (x.cols / groups) as usize)
    }

    fn add_bias(&self) -> Verdict {
        self.arity(1, 1, 1)?;
        self.uniform(self.input(0).cols as usize)?;
        self.vector(0, self.input(0).cols as usize)
    }

    fn gated_mul(&self) -> Verdict {
        self.arity(2, 0, 1)?;
        if self.output(0).element != Element::F16 {
            return self.alike_of(2);
        }
        for index in 0..2 {
            self.float("input", self.input(index))?;
            self.same("columns", self.output(0).cols, self.input(index).cols)?;
            self.same("rows", self.output(0).rows, self.input(index).rows)?;
        }
        Ok(())
    }

    /// So many inputs and an output, all of one shape.
    fn alike_of(&self, inputs: usize) -> Verdict {
        self.arity(inputs, 0, 1)?;
        self.uniform(self.output(0).cols as usize)
    }

    fn quantize(&self) -> Verdict {
        self.arity(1, 0, 1)?;
        let (x, y) = (self.input(0), self.output(0));
        self.float("input", x)?;
        let rounded = y.element != Element::F32;
        self.holds("output", "q15a or f16", y.element, rounded)?;
        self.same("rows", x.rows, y.rows)?;
        self.same("columns", x.cols, y.cols)
    }

    fn last_row(&self) -> Verdict {
        self.arity(1, 0, 1)?;
        self.float("input", self.input(0))?;
        self.float("output", self.output(0))?;
        self.same("rows", 1, self.output(0).rows)?;
        self.same("columns", self.input(0).cols, self.output(0).cols)
    }

    fn sample(&self) -> Verdict {
        self.arity(1, 0, 0)?;
        self.float("logits", self.input(0))?;
        self.same("rows", 1, self.input(0).rows)
    }
}

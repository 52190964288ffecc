//! Matrix products: what their weights, activations and results have to be.

use super::{Check, Element, Op, Value, Verdict};
use crate::dtype::DType;

impl Check<'_, '_> {
    pub(super) fn gemm(&self, residual: bool) -> Verdict {
        let outputs = if residual { 1 } else { self.node.outputs.len() };
        self.holds("outputs", "at least 1", outputs, outputs > 0)?;
        self.arity(1 + usize::from(residual), outputs, outputs)?;
        for index in 0..outputs {
            self.matrix(index, self.input(0), self.output(index))?;
        }
        self.one_kind()?;
        if residual {
            let (added, y) = (self.input(1), self.output(0));
            self.float("residual", added)?;
            self.same("columns of the residual", y.cols, added.cols)?;
            self.same("rows of the residual", y.rows, added.rows)?;
        }
        Ok(())
    }

    pub(super) fn gated_gemm(&self) -> Verdict {
        self.arity(1, 2, 1)?;
        self.matrix(0, self.input(0), self.output(0))?;
        self.matrix(1, self.input(0), self.output(0))?;
        self.one_kind()
    }

    pub(super) fn norm_gemm(&self) -> Verdict {
        let outputs = self.node.outputs.len();
        self.holds("outputs", "at least 1", outputs, outputs > 0)?;
        self.arity(1, outputs + 1, outputs)?;
        for index in 0..outputs {
            self.matrix(index, self.input(0), self.output(index))?;
        }
        self.normed(outputs)
    }

    pub(super) fn norm_gated_gemm(&self) -> Verdict {
        self.arity(1, 3, 1)?;
        self.matrix(0, self.input(0), self.output(0))?;
        self.matrix(1, self.input(0), self.output(0))?;
        self.normed(2)
    }

    /// `y [R, N] = x [R, K] · Wᵀ` with the weight at `index`.
    fn matrix(&self, index: usize, x: &Value<'_>, y: &Value<'_>) -> Verdict {
        let weight = self.weight(index);
        let expected = format!("[{}, {}]", y.cols, x.cols);
        self.same(weight.name, expected, format!("{:?}", weight.shape))?;
        self.same("rows", x.rows, y.rows)?;
        let (fits, wanted) = match x.element {
            Element::F32 => (true, ""),
            Element::Q15A => (
                !weight.dtype.is_float(),
                "f32 or f16 activations for a float weight",
            ),
            Element::F16 => {
                let product =
                    matches!(self.node.op, Op::Gemm { .. } | Op::GatedGemm(_)) && x.rows > 1;
                let fits = product && weight.dtype != DType::F32;
                (fits, "f16 activations for several rows and no f32 weight")
            }
        };
        self.holds(weight.name, wanted, x.element, fits)?;
        let gated = matches!(self.node.op, Op::GatedGemm(_) | Op::NormGatedGemm { .. });
        let y_fits = y.element == Element::F32 || gated;
        self.holds("output", "f32", y.element, y_fits)
    }

    /// All weights float or all quantised, since they share one activation, unless that suits both.
    fn one_kind(&self) -> Verdict {
        if self.input(0).element == Element::F16 {
            return Ok(());
        }
        self.kinds(self.node.weights.len())
    }

    /// The first `matrices` weights.
    fn kinds(&self, matrices: usize) -> Verdict {
        let kind = |index: usize| match self.weight(index).dtype.is_float() {
            true => "float",
            false => "quantised",
        };
        (1..matrices).try_for_each(|i| self.same("weights", kind(0), kind(i)))
    }

    /// `matrices` matrices of an f32 input that is normalised by the weight after them.
    fn normed(&self, matrices: usize) -> Verdict {
        self.float("input", self.input(0))?;
        self.vector(matrices, self.input(0).cols as usize)?;
        self.kinds(matrices)
    }
}

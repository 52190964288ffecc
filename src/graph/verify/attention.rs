//! Heads: rotating and appending them, and attention whole, split and in one step.

use super::{Check, Element, Heads, Value, Verdict};

impl Check<'_, '_> {
    pub(super) fn rope(&self, heads: u32, head_size: u32, dims: u32) -> Verdict {
        self.arity(2, 0, 1)?;
        self.rotated(dims, head_size)?;
        self.turned(heads, head_size)?;
        self.table(1, dims)
    }

    pub(super) fn kv_append(&self, kv_heads: u32, head_size: u32) -> Verdict {
        self.arity(2, 0, 0)?;
        for index in 0..2 {
            self.float("input", self.input(index))?;
            self.width("columns", kv_heads, head_size, self.input(index))?;
        }
        self.same("rows", self.input(0).rows, self.input(1).rows)
    }

    pub(super) fn rope_append(&self, heads: Heads, dims: u32) -> Verdict {
        self.arity(4, 0, 1)?;
        self.heads(heads)?;
        self.rotated(dims, heads.size)?;
        self.turned(heads.query, heads.size)?;
        for index in 1..3 {
            self.float("input", self.input(index))?;
            self.width("columns", heads.kv, heads.size, self.input(index))?;
            self.same("rows", self.input(0).rows, self.input(index).rows)?;
        }
        self.table(3, dims)
    }

    pub(super) fn attention(&self, heads: Heads) -> Verdict {
        self.arity(1, 0, 1)?;
        self.heads(heads)?;
        self.turned(heads.query, heads.size)
    }

    pub(super) fn attention_split(&self, heads: Heads, window: Option<u32>, split: u32) -> Verdict {
        self.arity(1, 0, 1)?;
        self.heads(heads)?;
        self.same("rows", 1, self.input(0).rows)?;
        self.width("columns", heads.query, heads.size, self.input(0))?;
        self.float("input", self.input(0))?;
        self.partials(self.output(0), heads, window, split)
    }

    pub(super) fn attention_combine(
        &self,
        heads: Heads,
        window: Option<u32>,
        split: u32,
    ) -> Verdict {
        self.arity(1, 0, 1)?;
        self.heads(heads)?;
        self.same("rows", 1, self.output(0).rows)?;
        self.width("columns", heads.query, heads.size, self.output(0))?;
        self.partials(self.input(0), heads, window, split)
    }

    pub(super) fn attention_step(&self, heads: Heads, dims: u32, blocks: u32) -> Verdict {
        self.arity(4, 0, 2)?;
        self.heads(heads)?;
        self.rotated(dims, heads.size)?;
        self.same("rows", 1, self.input(0).rows)?;
        for (index, count) in [(0, heads.query), (1, heads.kv), (2, heads.kv)] {
            self.float("input", self.input(index))?;
            self.width("columns", count, heads.size, self.input(index))?;
            self.same("rows", 1, self.input(index).rows)?;
        }
        self.table(3, dims)?;
        let y = self.output(0);
        self.width("columns of the output", heads.query, heads.size, y)?;
        self.same("rows", 1, y.rows)?;
        // A KV head's columns are rounded by themselves.
        let whole = (heads.query / heads.kv * heads.size).is_multiple_of(32);
        let fits = y.element == Element::F32 || whole;
        self.holds("output", "f32, or whole blocks a KV head", y.element, fits)?;
        self.holds("blocks", "at least 1", blocks, blocks > 0)?;
        self.partials(self.output(1), heads, None, 1)?;
        self.partials_of(self.output(1), heads, blocks)
    }

    /// Input and output alike, f32 or (the output) quantised, `heads` of `size` wide.
    fn turned(&self, heads: u32, size: u32) -> Verdict {
        let (x, y) = (self.input(0), self.output(0));
        self.float("input", x)?;
        self.width("columns", heads, size, x)?;
        self.width("columns of the output", heads, size, y)?;
        self.float("output", y)?;
        self.same("rows", x.rows, y.rows)
    }

    fn table(&self, index: usize, dims: u32) -> Verdict {
        self.float("table", self.input(index))?;
        self.same(
            "rows of the table",
            self.input(0).rows,
            self.input(index).rows,
        )?;
        self.same("columns of the table", dims, self.input(index).cols)
    }

    /// Partial results: one a query head and split of the cache.
    fn partials(
        &self,
        value: &Value<'_>,
        heads: Heads,
        window: Option<u32>,
        split: u32,
    ) -> Verdict {
        let found = u64::from(value.cols);
        self.float("partials", value)?;
        self.same("rows of the partials", 1, value.rows)?;
        self.holds("split", "at least 1", split, split > 0)?;
        let row = u64::from(heads.query) * u64::from(heads.partial_len());
        let whole = found > 0 && found.is_multiple_of(row);
        let span = window.map_or(String::new(), |w| format!(" within a window of {w}"));
        self.holds(
            "partials",
            &format!("a multiple of {row}{span}"),
            found,
            whole,
        )
    }

    /// Room for `parts` partial results of every query head, counted here in more bits than columns have.
    pub(super) fn partials_of(&self, value: &Value<'_>, heads: Heads, parts: u32) -> Verdict {
        let row = u128::from(heads.query) * u128::from(heads.partial_len());
        let cols = u128::from(parts) * row;
        self.same("columns of the partials", cols, value.cols.into())
    }
}

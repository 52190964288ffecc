//! Caches: whose they are, and that each is appended to once before it is read.

use super::{Check, Op, Verdict};
use crate::graph::{State, StateKind};

impl Check<'_, '_> {
    /// What of a cache's geometry an op says, `G` and `D`, and whether it appends; `None` for an op without caches.
    fn touched(&self) -> Option<((u32, u32), bool)> {
        match self.node.op {
            Op::KvAppend {
                kv_heads,
                head_size,
            } => Some(((kv_heads, head_size), true)),
            Op::RopeAppend { heads, .. } | Op::AttentionStep { heads, .. } => {
                Some(((heads.kv, heads.size), true))
            }
            Op::Attention { heads, .. } | Op::AttentionSplit { heads, .. } => {
                Some(((heads.kv, heads.size), false))
            }
            _ => None,
        }
    }

    pub(super) fn states(&self, appended: &mut [bool]) -> Verdict {
        let Some(((kv_heads, head_size), appends)) = self.touched() else {
            return self.same("states", 0, self.node.states.len());
        };
        self.same("states", 2, self.node.states.len())?;
        for (id, kind) in self
            .node
            .states
            .iter()
            .zip([StateKind::Keys, StateKind::Values])
        {
            let state = self.graph.state(*id);
            let (wanted, found) = (format!("{kind:?}"), format!("{:?}", state.kind));
            self.holds("cache", &wanted, found, state.kind == kind)?;
            self.same("KV heads of the cache", kv_heads, state.kv_heads)?;
            self.same("head size of the cache", head_size, state.head_size)?;
            let seen = std::mem::replace(&mut appended[id.index()], true);
            let (wanted, found) = if appends {
                ("appended to once", "a second append")
            } else {
                ("appended to before it is read", "a read before")
            };
            self.holds(&format!("cache {id}"), wanted, found, seen != appends)?;
        }
        let [keys, values] = [0, 1].map(|i| self.graph.state(self.node.states[i]));
        self.alike(keys, values)?;
        if let Op::AttentionSplit { heads, split, .. } = self.node.op {
            let splits = keys.positions.div_ceil(split);
            self.partials_of(self.output(0), heads, splits)?;
        }
        Ok(())
    }

    /// A layer's keys and values, in whole blocks of one type.
    fn alike(&self, keys: &State, values: &State) -> Verdict {
        self.same("layer of the value cache", keys.layer, values.layer)?;
        self.same(
            "positions of the value cache",
            keys.positions,
            values.positions,
        )?;
        self.same("type of the value cache", keys.kv_type, values.kv_type)?;
        let block = keys.kv_type.block_len();
        self.holds(
            &format!("head size of a {} cache", keys.kv_type),
            &format!("a multiple of {block}"),
            keys.head_size,
            keys.head_size.is_multiple_of(block),
        )
    }
}

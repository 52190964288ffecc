//! What a model takes of a device's memory, worked out before anything is allocated.

use super::chain::chain_bytes;
use super::launch::RoomNeeds;
use super::upload;
use super::weights::WeightLayout;
use crate::program::Program;
use std::fmt;
use thiserror::Error;

/// Caches begin at multiples of this.
const STATE_ALIGN: usize = 256;

/// What the driver is left for the recorded graphs, the code and its own bookkeeping.
const RESERVE_BYTES: usize = 64 << 20;

/// Words of a step in front of its tokens: position, rows and two that are reserved.
pub const STEP_HEAD_WORDS: usize = 4;

/// Bytes of a step of `rows` tokens.
pub fn step_bytes(rows: u32) -> usize {
    (STEP_HEAD_WORDS + rows as usize) * 4
}

/// Where each cache begins, and the bytes of all.
pub fn state_offsets(program: &Program) -> (Vec<usize>, usize) {
    let mut bytes = 0;
    let mut offsets = Vec::with_capacity(program.states.len());
    for state in &program.states {
        offsets.push(bytes);
        bytes += state.bytes().next_multiple_of(STATE_ALIGN);
    }
    (offsets, bytes)
}

/// Positions and logits that steps tell each other of: those of all these programs of one model.
pub fn chained(programs: &[&Program]) -> (u32, u32) {
    let context = programs.iter().map(|p| p.context).max();
    let vocabulary = programs.iter().map(|p| p.result.cols).max();
    (context.unwrap_or(0), vocabulary.unwrap_or(0))
}

/// What a model needs of a device, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    pub weights: usize,
    pub states: usize,
    /// The temporaries of the largest program, its logits among them.
    pub arena: usize,
    /// What blocks of a launch leave each other, and a launch the next.
    pub room: usize,
    /// What steps are told and tell each other, and what choosing tokens takes.
    pub steps: usize,
    /// What uploading the weights takes until it is done.
    pub staging: usize,
}

impl Needs {
    /// What these programs of one model need.
    pub fn of(programs: &[&Program], weights: &WeightLayout, room: RoomNeeds, wave: u32) -> Self {
        let arena = programs.iter().map(|p| p.arena_bytes).max();
        let (context, vocabulary) = chained(programs);
        let steps: usize = programs.iter().map(|p| step_bytes(p.rows)).sum();
        Needs {
            weights: weights.bytes,
            states: programs.first().map_or(0, |p| state_offsets(p).1),
            arena: arena.unwrap_or(0),
            room: 4 * room.tickets + room.sums_bytes + room.expanded_bytes,
            steps: steps + chain_bytes(context, vocabulary, wave),
            staging: upload::device_bytes(weights),
        }
    }

    /// What is needed in all, what the driver is left included.
    pub fn total(&self) -> usize {
        self.rows().iter().map(|row| row.1).sum()
    }

    /// Compares with what is free on `device`.
    pub fn check(self, device: &str, free: usize, total: usize) -> Result<(), Shortage> {
        if self.total() <= free {
            return Ok(());
        }
        Err(Shortage {
            device: device.into(),
            needs: self,
            free,
            total,
        })
    }

    fn rows(&self) -> [(&'static str, usize); 6] {
        [
            ("weights", self.weights),
            ("KV cache", self.states),
            ("arena and logits", self.arena + self.room),
            ("steps, sampling", self.steps),
            ("while loading", self.staging),
            ("for the driver", RESERVE_BYTES),
        ]
    }
}

/// A model that does not fit into a device's memory. `Display` is a table; on one line it still reads.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct Shortage {
    pub device: String,
    pub needs: Needs,
    /// Bytes that are free.
    pub free: usize,
    /// Bytes that the device has.
    pub total: usize,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gb = |bytes: usize| bytes as f64 / 1e9;
        let needed = self.needs.total();
        writeln!(
            f,
            "{}: the model needs {:.3} GB, {:.3} GB more than are free (a smaller --ctx needs less):",
            self.device,
            gb(needed),
            gb(needed.saturating_sub(self.free)),
        )?;
        for (what, bytes) in self.needs.rows() {
            writeln!(f, "  {what:<16} {:>9.3} GB,", gb(bytes))?;
        }
        writeln!(f, "  {:<16} {:>9.3} GB;", "needed", gb(needed))?;
        let (free, total) = (gb(self.free), gb(self.total));
        write!(f, "  {:<16} {free:>9.3} GB of {total:.3} GB", "free")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_is_a_table() {
        let needs = Needs {
            weights: 70_000_000_000,
            states: 10_000_000_000,
            arena: 3_000_000,
            room: 2_000_000,
            steps: 600,
            staging: 32 << 20,
        };
        assert_eq!(needs.check("hip:0", needs.total(), 1 << 40), Ok(()));
        let error = needs
            .check("hip:0 (toy)", 79_000_000_000, 80_000_000_000)
            .expect_err("1 GB too much");
        let text = error.to_string();
        assert_eq!(text.lines().count(), 9, "{text}");
        for part in [
            "hip:0 (toy): the model needs 80.106 GB, 1.106 GB more",
            "  weights             70.000 GB,",
            "  KV cache            10.000 GB,",
            "  while loading        0.034 GB,",
            "  needed              80.106 GB;",
            "  free                79.000 GB of 80.000 GB",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
    }
}

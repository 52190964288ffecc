//! The CPU backend: it replays a program on a resident team of threads with SIMD kernels.
//!
//! [`Cpu::new`] prepares everything that steps share: the team, the weights (packed where that
//! pays), one arena for all programs, the caches. [`Cpu::record`] resolves a program against them.
//! Kernels are chosen once, by the instruction sets of the machine ([`isa::Isa`]); each has a
//! portable twin. File names match the kernels' of the GPU backends.
//!
//! Kernels are functions of raw pointers and dimensions, because a recorded program resolves every
//! argument once and replays the calls; each states the memory it touches. None looks at the
//! machine: the `Isa` they receive is the promise. None knows of threads: those worth sharing take
//! `(part, parts)` or a unit's number, and their results do not depend on how units were shared.

pub mod activation;
pub mod attention;
pub mod clock;
pub mod elementwise;
pub mod embed;
mod fused;
mod gemm;
pub mod gemm_f;
pub mod gemm_q;
pub mod half_rows;
mod inspect;
pub mod isa;
pub mod kv;
pub mod memory;
pub mod norm;
pub mod pack;
pub mod panel;
mod product;
mod recording;
mod resolve;
pub mod rope;
pub mod sample;
pub mod silu;
pub(crate) mod simd;
#[cfg(test)]
mod softmax;
pub mod stream;
mod task;
pub mod team;
#[cfg(test)]
mod test_data;
pub(crate) mod tile;
mod weights;

pub use recording::Recording;

use crate::loader::{Loading, Tensor};
use crate::program::Program;
use isa::Isa;
use memory::Pages;
use sample::Chain;
use std::sync::Arc;
use std::time::Instant;
use team::Team;
use thiserror::Error;
use weights::Weights;

/// Why the CPU cannot run a program.
#[derive(Debug, Error)]
pub enum CpuError {
    #[error("{what}: the system has no room for {bytes} bytes: {source}")]
    Memory {
        what: &'static str,
        bytes: u64,
        source: std::io::Error,
    },
    #[error("the system starts no {threads} threads: {source}; ask for fewer with --threads")]
    Threads {
        threads: usize,
        source: std::io::Error,
    },
    #[error("weight {name} is in the program but not in the model")]
    MissingWeight { name: String },
    #[error("{kernel}: no CPU kernel for {what} with instruction set {isa}")]
    NoKernel {
        kernel: String,
        what: String,
        isa: &'static str,
    },
}

/// What the recordings of one model share.
struct Shared {
    isa: Isa,
    team: Team,
    weights: Weights,
    arena: Pages,
    /// The caches, one after the other.
    states: Pages,
    state_offsets: Vec<usize>,
    chain: Arc<Chain>,
}

/// A model's memory and threads on the CPU.
pub struct Cpu {
    shared: Arc<Shared>,
    poison: bool,
    loading: Loading,
}

/// How a [`Cpu`] is set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Threads of the team, the caller included.
    pub threads: usize,
    pub isa: Isa,
    /// Fill the arena with NaN before every step.
    pub poison: bool,
}

impl Cpu {
    /// Allocates and prepares everything for `programs`, which are programs of one model over the
    /// same caches. `progress(done, total)` counts weight bytes.
    ///
    /// # Errors
    /// Where the system lacks the memory or the threads, or the model a weight.
    ///
    /// # Panics
    /// When the machine does not run the setup's instruction set, or the programs have different caches.
    pub fn new(
        setup: Setup,
        programs: &[&Program],
        fetch: &dyn Fn(&str) -> Option<Tensor>,
        progress: &dyn Fn(u64, u64),
    ) -> Result<Self, CpuError> {
        let isa = setup.isa;
        assert!(isa.is_available(), "this machine does not run {isa}");
        let pages = |what, len: usize| {
            let bytes = len as u64;
            Pages::zeroed(len).map_err(|source| CpuError::Memory {
                what,
                bytes,
                source,
            })
        };
        let arena = pages(
            "arena",
            programs.iter().map(|p| p.arena_bytes).max().unwrap_or(0),
        )?;
        let states = programs.first().map_or(&[][..], |p| &p.states);
        assert!(
            programs.iter().all(|p| p.states == states),
            "programs of different caches"
        );
        let mut state_offsets = Vec::new();
        let mut state_bytes = 0;
        for state in states {
            state_offsets.push(state_bytes);
            state_bytes += state.bytes().next_multiple_of(64);
        }
        let states = pages("KV cache", state_bytes)?;
        let team = Team::new(setup.threads).map_err(|source| CpuError::Threads {
            threads: setup.threads,
            source,
        })?;
        let begin = Instant::now();
        let weights = Weights::prepare(programs, &team, fetch, progress)?;
        let loading = Loading {
            file_bytes: weights.file_bytes,
            time: begin.elapsed(),
        };
        let context = programs.iter().map(|p| p.context as usize).max();
        let vocabulary = programs.iter().map(|p| p.result.cols as usize).max();
        let chain = Chain::new(context.unwrap_or(0), vocabulary.unwrap_or(0));
        let shared = Shared {
            isa: setup.isa,
            team,
            weights,
            arena,
            states,
            state_offsets,
            chain: Arc::new(chain),
        };
        Ok(Cpu {
            shared: Arc::new(shared),
            poison: setup.poison,
            loading,
        })
    }

    /// Resolves one of the programs that [`Cpu::new`] prepared for.
    ///
    /// # Safety
    /// The recordings of a [`Cpu`] share its arena and caches. While a step of one of them runs, no step of another may,
    /// nothing may look into another, and no slice of a [`Recording::result`] may be in use.
    pub unsafe fn record(&self, program: Program) -> Result<Recording, CpuError> {
        Recording::new(Arc::clone(&self.shared), program, self.poison)
    }

    /// How tokens are chosen, and which was.
    pub fn chain(&self) -> &Chain {
        &self.shared.chain
    }

    /// Threads of the team.
    pub fn threads(&self) -> usize {
        self.shared.team.count()
    }

    /// The instruction set the kernels use.
    pub fn isa(&self) -> Isa {
        self.shared.isa
    }

    /// Bytes of weights that steps read.
    pub fn weight_bytes(&self) -> u64 {
        self.shared.weights.bytes()
    }

    /// What the weights were made of, and how long that took.
    pub fn loading(&self) -> Loading {
        self.loading
    }

    /// Bytes a second that this team reads from memory, measured now over as many bytes as the
    /// weights have.
    pub fn stream_bytes_per_second(&self) -> Result<f64, CpuError> {
        let bytes = usize::try_from(self.weight_bytes()).unwrap_or(usize::MAX);
        let (team, isa) = (&self.shared.team, self.shared.isa);
        stream::read_bytes_per_second(team, isa, bytes.clamp(64 << 20, 1 << 30))
    }
}

//! How a session is set up.

use crate::cpu::isa::Isa;
use crate::graph::KvType;
use crate::hip::Search;
use crate::model::Logits;
use crate::runtime::{DeviceChoice, PromptPrecision};

/// How a session is set up.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Where to compute.
    pub device: DeviceChoice,
    /// Where GPU drivers are looked for before the system is asked.
    pub drivers: Search,
    /// Threads of the CPU backend, the caller included; for a GPU, those that read its weights, which the device itself
    /// lays out.
    pub threads: usize,
    /// `S`, positions of the cache.
    pub context: u32,
    /// What the cache's elements are.
    pub kv_type: KvType,
    /// Rows of the largest prompt chunk; 0: 512 on a GPU, 256 on the CPU.
    pub chunk_rows: u32,
    /// What a GPU computes long prompts with.
    pub prompt_precision: PromptPrecision,
    /// Run every step launch by launch instead of replaying the recording.
    pub eager: bool,
    /// Let a GPU's launches begin before their predecessors have finished, where it can.
    pub overlap: bool,
    /// Which rows get logits; `All` only for measuring perplexity.
    pub logits: Logits,
    /// Fill the arena with NaN before every step (tests).
    pub poison: bool,
    /// Instruction set of the CPU's kernels; the machine's best unless said.
    pub isa: Option<Isa>,
}

impl Default for SessionOptions {
    fn default() -> Self {
        SessionOptions {
            device: DeviceChoice::Cpu,
            drivers: Search::default(),
            threads: 1,
            context: 2048,
            kv_type: KvType::F16,
            chunk_rows: 0,
            prompt_precision: PromptPrecision::default(),
            eager: false,
            overlap: true,
            logits: Logits::Last,
            poison: false,
            isa: None,
        }
    }
}

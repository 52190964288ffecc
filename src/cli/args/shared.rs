//! The groups of arguments that several commands have.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{positive, runnable_type};
use crate::dtype::DType;
use crate::graph::KvType;
use crate::runtime::{DeviceChoice, PromptPrecision};

/// Which model, and which configuration around it.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// The model, which replaces the sources of the configuration: a GGUF file, any part of a split one, a folder of
    /// SafeTensors files with its config.json and tokenizer.json, or one of those files.
    #[arg(long, value_name = "FILE|FOLDER")]
    pub model: Option<PathBuf>,
    /// Configuration file (TOML) [default: the built-in smollm2-135m.toml].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Graph definition (TOML) that replaces the built-in one of the model's family.
    #[arg(long, value_name = "FILE")]
    pub graph: Option<PathBuf>,
    /// Round the model's matrices to this type at load: f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q2_k, q3_k, q4_k,
    /// q5_k or q6_k, as llama.cpp rounds them.
    #[arg(long, value_name = "TYPE", value_parser = runnable_type)]
    pub quantize: Option<DType>,
}

/// How the session is built.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Session")]
pub struct SessionArgs {
    /// Threads that compute, this one included; 0 takes one a core, within affinity and quota.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub threads: Option<usize>,
    /// Context capacity in tokens.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = positive)]
    pub ctx: Option<usize>,
    /// Element type of the KV cache: f16; q8_0, which takes a little more than half of the memory; or, on the CPU, f32,
    /// which takes twice and rounds nothing.
    #[arg(long, value_name = "TYPE")]
    pub kv_type: Option<KvType>,
    /// Where to compute: auto (the best device present), cpu, hip (the best GPU) or hip:N.
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceChoice>,
    /// What a GPU computes prompts of more than 32 tokens with: fast (16-bit floats on the matrix cores), or exact, as
    /// single steps are computed.
    #[arg(long, value_name = "PRECISION")]
    pub prompt_precision: Option<PromptPrecision>,
    /// Launch every step anew instead of replaying the recording.
    #[arg(long)]
    pub eager: bool,
    /// Whether a GPU's launches may begin before their predecessors have finished, where it can (NVIDIA from sm_90 on).
    #[arg(long, value_name = "on|off")]
    pub overlap: Option<Switch>,
}

/// `on` or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

/// How a token is chosen.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Sampling")]
pub struct SamplingArgs {
    /// Seed of the sampler; the same seed gives the same text.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub seed: Option<u64>,
    /// Temperature; 0 takes the most likely token.
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    pub temp: Option<f32>,
    /// Keep the N most likely tokens; 0 keeps all.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub top_k: Option<u32>,
    /// Keep the smallest set of tokens with this much probability; 1 keeps all.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub top_p: Option<f32>,
    /// Keep tokens at least this likely relative to the likeliest; 0 keeps all.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub min_p: Option<f32>,
    /// Penalty on tokens that occurred recently; 1 is none.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub repeat_penalty: Option<f32>,
    /// Subtracted from the logit of a token for each time it occurred recently; 0 is none.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub frequency_penalty: Option<f32>,
    /// Subtracted from the logit of a token that occurred recently; 0 is none.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub presence_penalty: Option<f32>,
    /// How many recent tokens the penalties look at.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub repeat_last_n: Option<usize>,
}

/// How results are shown.
#[derive(Clone, Copy, Debug, Default, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Output format.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: Format,
    /// Print no progress and no statistics.
    #[arg(long)]
    pub quiet: bool,
}

/// Text for people or JSON for scripts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// How a conversation becomes a prompt.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Conversation")]
pub struct TemplateArgs {
    /// The system message.
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Chat template: a name of one of the model's own, a built-in one (chatml, llama2, llama3, mistral, gemma), or a
    /// file [default: the model's].
    #[arg(long, value_name = "NAME|FILE")]
    pub template: Option<String>,
    /// Tell the template whether the model is to think before it answers (`enable_thinking`).
    #[arg(long, value_name = "BOOL")]
    pub thinking: Option<bool>,
}

/// What happens when the context is full.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Context")]
pub struct FullArgs {
    /// When the context is full: stop, or slide (forget the oldest turns, or half of a plain text, and go on).
    #[arg(long, value_name = "ACTION")]
    pub on_full: Option<OnFull>,
    /// Tokens at the beginning that sliding keeps [default: the system turn of a conversation, BOS of a text].
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub keep: Option<usize>,
}

/// What happens when the context is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OnFull {
    /// The text ends.
    #[default]
    Stop,
    /// The oldest whole pieces are dropped and the text goes on.
    Slide,
}

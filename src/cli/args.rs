//! The *low* arguments: the command line exactly as it was typed.
//!
//! Nothing here knows a default that a configuration file may also set: such flags are `Option`s, and
//! [`super::config`] merges them over the file and the built-in values. That is what makes "flags win over the file"
//! one rule in one place.

mod measure;
mod shared;

use std::path::PathBuf;

use crate::dtype::DType;
use crate::graph::KvType;
use clap::{Args, Parser, Subcommand};

pub use measure::{BenchArgs, GraphArgs, GraphFormat, Stage};
pub use shared::{
    Format, FullArgs, ModelArgs, OnFull, OutputArgs, SamplingArgs, SessionArgs, Switch,
    TemplateArgs,
};

const EXIT_CODES: &str = "\
Exit codes:
  0    success
  1    runtime error
  2    wrong usage
  3    bad input: a model, a configuration or a prompt that cannot be used
  130  interrupted by Ctrl-C

Environment:
  GRETA_CACHE  where downloaded models are kept (default: $XDG_CACHE_HOME/greta_infer or ~/.cache/greta_infer)
  ROCM_PATH, HIP_PATH  where AMD's driver is looked for first, in lib (then /opt/rocm/lib and the system's libraries)";

const THROUGH_A_PIPE: &str = "\
Through a pipe each line of standard input is said, and answers alone go to standard output. A line that
fails is told on standard error, those after it are read, and the exit code is that of the first failure.";

/// Run Llama-family language models from a decode step that is planned and recorded once.
#[derive(Debug, Parser)]
#[command(name = "greta_infer", version, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// One variant a subcommand.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Continue a prompt and stream the text.
    Generate(GenerateArgs),
    /// Talk with a model.
    Chat(ChatArgs),
    /// Show the tokens of a text.
    Tokenize(TokenizeArgs),
    /// Measure how well the model predicts a text (llama.cpp's method).
    Perplexity(PerplexityArgs),
    /// Print the graph of one decode step.
    Graph(GraphArgs),
    /// Measure load time, prompt and decode speed.
    Bench(BenchArgs),
    /// Describe a model.
    Info(InfoArgs),
    /// Write a model as one GGUF file, in its own or in another type.
    Convert(ConvertArgs),
    /// List the devices this build can run on.
    Devices(DevicesArgs),
}

/// `chat`.
#[derive(Debug, Args)]
#[command(after_help = THROUGH_A_PIPE)]
pub struct ChatArgs {
    /// Go on with a conversation that /save has written.
    #[arg(long, value_name = "FILE")]
    pub load: Option<PathBuf>,
    /// Stop an answer after N tokens [default: where the context ends].
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub max_tokens: Option<usize>,
    /// Stop an answer before this text; may be given more than once and replaces the configuration's list.
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Print answers and errors only.
    #[arg(long)]
    pub quiet: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub template: TemplateArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub full: FullArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sampling: SamplingArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: ModelArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub session: SessionArgs,
}

/// `generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// The prompt; `-` reads it from standard input.
    #[arg(
        required_unless_present = "prompt_file",
        conflicts_with = "prompt_file"
    )]
    pub prompt: Option<String>,
    /// Read the prompt from a file.
    #[arg(long, value_name = "FILE")]
    pub prompt_file: Option<PathBuf>,
    /// Do not read special tokens such as <|im_start|> in the prompt: treat them as plain text.
    #[arg(long)]
    pub no_special: bool,
    /// Take the prompt as what a person says in a conversation, and answer it.
    #[arg(long, conflicts_with = "no_special")]
    pub chat: bool,
    /// Stop after N tokens.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub max_tokens: Option<usize>,
    /// Stop before this text; may be given more than once and replaces the configuration's list.
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Continue past end-of-generation tokens.
    #[arg(long)]
    pub ignore_eos: bool,
    /// Report the N likeliest tokens at each position (needs --format json).
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        default_value_t = 0,
        hide_default_value = true
    )]
    pub logprobs: usize,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub template: TemplateArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub full: FullArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sampling: SamplingArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: ModelArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub session: SessionArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: OutputArgs,
}

/// `tokenize`.
#[derive(Debug, Args)]
pub struct TokenizeArgs {
    /// The text; `-` reads it from standard input.
    #[arg(
        required_unless_present = "prompt_file",
        conflicts_with = "prompt_file"
    )]
    pub prompt: Option<String>,
    /// Read the text from a file.
    #[arg(long, value_name = "FILE")]
    pub prompt_file: Option<PathBuf>,
    /// Do not read special tokens in the text: treat them as plain text.
    #[arg(long)]
    pub no_special: bool,
    /// Do not add the tokens that the model wants at the beginning and the end.
    #[arg(long)]
    pub no_bos: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: ModelArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: OutputArgs,
}

/// `perplexity`.
#[derive(Debug, Args)]
pub struct PerplexityArgs {
    /// The text to score; `-` reads it from standard input. One newline at its end is dropped, as llama.cpp does.
    pub file: PathBuf,
    /// Score only the first N chunks.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = positive)]
    pub chunks: Option<usize>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: ModelArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub session: SessionArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: OutputArgs,
}

/// `info`.
#[derive(Debug, Args)]
pub struct InfoArgs {
    /// Model file or folder [default: the configuration's].
    #[arg(value_name = "MODEL", conflicts_with = "model")]
    pub file: Option<PathBuf>,
    /// List every tensor.
    #[arg(long)]
    pub tensors: bool,
    /// Context capacity in tokens, for the memory estimate.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = positive)]
    pub ctx: Option<usize>,
    /// Element type of the KV cache, f32, f16 or q8_0, for the memory estimate.
    #[arg(long, value_name = "TYPE")]
    pub kv_type: Option<KvType>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: ModelArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: OutputArgs,
}

/// `convert`.
#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// The model: a GGUF file, any part of a split one, or a folder of SafeTensors files.
    #[arg(value_name = "MODEL")]
    pub input: PathBuf,
    /// The GGUF file to write. It appears under this name only when it is whole.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// The type of the matrices: f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q2_k, q3_k, q4_k, q5_k or q6_k, as
    /// llama.cpp rounds them [default: as they are].
    #[arg(long = "type", value_name = "TYPE", value_parser = runnable_type)]
    pub dtype: Option<DType>,
    /// Replace the output if it exists.
    #[arg(long)]
    pub force: bool,
    /// Threads that round; 0 takes every core.
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        default_value_t = 0
    )]
    pub threads: usize,
    /// Graph definition (TOML) that replaces the built-in one of the model's family; it names a folder's tensors.
    #[arg(long, value_name = "FILE")]
    pub graph: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub out: OutputArgs,
}

/// `devices`.
#[derive(Debug, Args)]
pub struct DevicesArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: OutputArgs,
}

/// A type that weights may have to run.
fn runnable_type(text: &str) -> Result<DType, String> {
    match text.parse::<DType>() {
        Ok(dtype) if dtype.is_runnable() => Ok(dtype),
        Ok(dtype) => Err(format!(
            "{dtype} does not run; those that do: {}",
            DType::runnable_names()
        )),
        Err(error) => Err(error.to_string()),
    }
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_string()),
        Ok(n) => Ok(n),
        Err(error) => Err(format!("{error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_forms_that_scripts_rely_on_parse() {
        let check = |line: &str, parses: bool| {
            let words = line.split(' ').filter(|word| !word.is_empty());
            let result = Cli::try_parse_from(std::iter::once("greta_infer").chain(words));
            assert_eq!(result.is_ok(), parses, "{line}: {:?}", result.err());
        };
        check(
            "generate hello --model m.gguf --threads 2 --ctx 512 --seed 7 --temp 0",
            true,
        );
        check(
            "generate - --max-tokens 9 --ignore-eos --format json --logprobs 5",
            true,
        );
        check(
            "generate --prompt-file p.txt --stop a --stop b --top-k 40 --top-p 0.9",
            true,
        );
        check(
            "generate x --min-p 0.1 --repeat-penalty 1.1 --repeat-last-n 64 --no-special",
            true,
        );
        check(
            "generate x --frequency-penalty -0.5 --presence-penalty 1.5",
            true,
        );
        check(
            "generate x --device hip --eager --quiet --config c.toml",
            true,
        );
        check("generate x --device hip:1", true);
        check("generate x --device tpu", false);
        check("generate", false);
        check("generate x --prompt-file p.txt", false);
        check("generate x --ctx 0", false);
        check("generate x --format xml", false);
        check("generate x --temperature 1", false);
        check("generate x --chat --system s --template chatml", true);
        check("generate x --chat --no-special", false);
        check("generate x --on-full slide --keep 4", true);
        check("generate x --on-full wrap", false);
        check(
            "chat --model m.gguf --system s --thinking false --load c.json",
            true,
        );
        check("chat --on-full slide --temp 1 --max-tokens 9 --quiet", true);
        check("chat hello", false);
        check("tokenize - --format json", true);
        check("perplexity wiki.txt --ctx 512 --format json", true);
        check("perplexity", false);
        check("graph --stage fused --format dot", true);
        check(
            "bench --random-weights --weights-type Q8_0 --config c.toml",
            true,
        );
        check("bench --weights-type Q8_0", false);
        check("graph --stage recorded --profile --layers 2", true);
        check("graph --profile --position 9 --repeat 3", true);
        check("graph --position 9", true);
        check("graph --stage planned --profile", true);
        check("bench --compare replay,eager --plot a.svg --profile", true);
        check("bench --compare eager,replay", true);
        check("bench --compare replay", false);
        check("bench --compare replay,replay", false);
        check("bench --compare replay,eager --eager", false);
        check("bench --plot a.svg", false);
        check("info m.gguf --tensors --ctx 128", true);
        check("devices --format json", true);
        check("convert folder -o out.gguf --type q4_k --force", true);
        check("convert folder -o out.gguf --type q4_9", false);
        check("convert folder -o out.gguf --type iq4_xs", false);
        check("convert folder", false);
        check("generate x --quantize q8_0", true);
        check("", false);
    }
}

//! The arguments of the commands that measure and draw: `graph` and `bench`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{ModelArgs, OutputArgs, SamplingArgs, SessionArgs, positive};

const GRAPH_KEYS: &str = "\
JSON of --stage recorded (null where nothing was measured or it is not known):
  device, target, rows, context, position, launches
  nodes   [{index, kind, kernel, section, role, launch, node, program_kernel,
          bytes, flops, us, share_percent, gb_per_s, tflop_per_s}]
  edges   [[before, after]]
  roles   [{role, nodes, bytes, flops, us, share_percent, gb_per_s, tflop_per_s}], the slowest first
  profile {repetitions, total_us, replay_us, gb_per_s, stream_gb_per_s, stream_percent}";

const BENCH_KEYS: &str = "\
JSON, besides what the table shows:
  weights_ms, weights_gb_per_s, copy_gb_per_s  the part of load_ms until the device had the weights, bytes of
           the file in that time, and what copies to a GPU reach (null on the CPU)
  runs     [{prompt_tokens_per_s, decode_tokens_per_s}]
  first_tokens  [{prompt_tokens, ms, tokens_per_s, limit_ms, limit_percent}]; the limit is the time in which
           the device reads every weight once; ms is null where a prompt would take too long
  compare  {replay, eager, ratio, stream_gb_per_s, contexts}; ratio is eager's median step over replay's
    replay, eager  {steps, step_ms_p50, step_ms_p90, step_ms_p99, tokens_per_s, launches_per_step,
                   launch_calls_per_step, host_us_per_step, host_us_per_launch, nodes, replays,
                   eager_steps, gb_per_s, stream_percent, logits_hash}
    host_us_*      on a GPU the time in the driver's launch calls; on the CPU host_us_per_step is
                   null and host_us_per_launch the step's time over its launches
    contexts       [{position, replay_ms_p50, eager_ms_p50}], with --plot
  profile  as `graph --stage recorded --format json`, with --profile
  prompt_profile  the same of the largest prompt chunk, from an empty context";

/// `graph`.
#[derive(Debug, Args)]
#[command(after_help = GRAPH_KEYS)]
pub struct GraphArgs {
    /// Which graph: as unrolled from the definition, after fusion, with its memory plan, or as recorded
    /// [default: planned, or recorded with --profile].
    #[arg(long, value_name = "STAGE")]
    pub stage: Option<Stage>,
    /// Time every recorded node on the device.
    #[arg(long)]
    pub profile: bool,
    /// Tokens in the cache when the recorded step begins [default: 256, or as many as fit].
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub position: Option<usize>,
    /// Steps of which --profile takes the median.
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 20, value_parser = positive)]
    pub repeat: usize,
    /// Layers that the drawing of the recorded stage shows by themselves; those beyond that do the same are summed.
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        default_value_t = 0
    )]
    pub layers: u32,
    /// Have the GPU's driver draw what it recorded, in DOT, into FILE.
    #[arg(long, value_name = "FILE")]
    pub driver_dot: Option<PathBuf>,
    /// Output format.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: GraphFormat,
    /// Rows that are computed at once: 1 is the decode step, more is a chunk of the prompt.
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 1, value_parser = positive)]
    pub rows: usize,
    /// Draw the configuration's [model.shape] instead of a model file.
    #[arg(long)]
    pub random_weights: bool,
    /// Element type of the weights with --random-weights.
    #[arg(
        long,
        value_name = "TYPE",
        default_value = "Q4_0",
        requires = "random_weights"
    )]
    pub weights_type: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: ModelArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub session: SessionArgs,
    /// Print no progress.
    #[arg(long)]
    pub quiet: bool,
}

/// The stages of a graph that can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// As unrolled from the definition.
    Built,
    /// After the fusion passes.
    Fused,
    /// With arena offsets, bytes and FLOPs.
    Planned,
    /// As the device holds it, beside the program.
    Recorded,
}

/// The forms in which a graph can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    /// Graphviz, with layers as clusters.
    Dot,
    /// One JSON object.
    Json,
    /// One line a node.
    Text,
}

/// The modes to compare: there are two, in either order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BothModes;

fn both(text: &str) -> Result<BothModes, String> {
    match text {
        "replay,eager" | "eager,replay" => Ok(BothModes),
        _ => Err("the modes to compare are replay,eager".to_string()),
    }
}

/// `bench`.
#[derive(Debug, Args)]
#[command(after_help = BENCH_KEYS)]
pub struct BenchArgs {
    /// Tokens in the prompt that is timed.
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 512, value_parser = positive)]
    pub prompt_tokens: usize,
    /// Tokens that are decoded.
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 128, value_parser = positive)]
    pub tokens: usize,
    /// Runs; speeds are their median, latencies over all.
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 3, value_parser = positive)]
    pub repeat: usize,
    /// Time the decode step replayed and launched anew, in turn, once both gave the same logits.
    #[arg(long, value_name = "replay,eager", value_parser = both, conflicts_with = "eager")]
    pub compare: Option<BothModes>,
    /// Draw the compared times a token at contexts up to --ctx, as SVG.
    #[arg(long, value_name = "FILE", requires = "compare")]
    pub plot: Option<PathBuf>,
    /// Time every recorded node of the decode step and of a prompt chunk (see `graph --profile`).
    #[arg(long)]
    pub profile: bool,
    /// Tokens in the cache when the profiled step begins [default: 256, or as many as fit].
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        requires = "profile"
    )]
    pub position: Option<usize>,
    /// Time how the products of steps and prompts can be laid out on this GPU, and write the best to FILE: a table
    /// for kernels/tuning, which the next build takes in. Nothing else is timed.
    #[arg(long, value_name = "FILE")]
    pub tune: Option<PathBuf>,
    /// Make up weights of the configuration's [model.shape] instead of reading a model file.
    #[arg(long)]
    pub random_weights: bool,
    /// Element type of the weights with --random-weights.
    #[arg(
        long,
        value_name = "TYPE",
        default_value = "Q4_0",
        requires = "random_weights"
    )]
    pub weights_type: String,
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

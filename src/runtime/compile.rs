//! Model + extent + target → everything up to the program.

use crate::graph::{Graph, Verified, VerifyError};
use crate::model::{Extent, Model, ModelError};
use crate::pass::{self, Gates, Report};
use crate::plan::{Plan, PlanError, plan};
use crate::program::{Program, Target, lower};
use bumpalo::Bump;
use std::str::FromStr;
use thiserror::Error;

/// Why a model could not be compiled. Past [`CompileError::Model`] these are faults of a Definition
/// or of this crate, never of the weights.
#[derive(Debug, Error)]
pub enum CompileError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error("the graph does not hold together: {0}")]
    Verify(#[from] VerifyError),
    #[error("the plan does not hold: {0}")]
    Plan(#[from] PlanError),
}

/// What long prompts are computed with on a GPU. The CPU and short prompts are exact either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptPrecision {
    /// Activations and weights rounded to 16-bit floats, sums in f32: the speed of matrix cores.
    #[default]
    Fast,
    /// Activations of 15 bits and weights as they are: the text of single steps, at half the speed
    /// or less.
    Exact,
}

/// A name that is no precision.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("unknown precision \"{name}\"; supported: fast, exact")]
pub struct UnknownPrecision {
    /// The name as it was written.
    pub name: String,
}

impl FromStr for PromptPrecision {
    type Err = UnknownPrecision;

    fn from_str(name: &str) -> Result<Self, UnknownPrecision> {
        match name {
            "fast" => Ok(PromptPrecision::Fast),
            "exact" => Ok(PromptPrecision::Exact),
            _ => Err(UnknownPrecision { name: name.into() }),
        }
    }
}

/// From how many rows on [`PromptPrecision::Fast`] counts: below, reading the weights takes as long as
/// multiplying exactly does.
pub const FAST_ROWS: u32 = 33;

/// Every stage of one step, for running it and for looking at it.
pub struct Compiled<'a> {
    /// As the Definition says it.
    pub built: Graph<'a>,
    /// After the passes.
    pub fused: Verified<'a>,
    /// What the passes did.
    pub reports: Vec<Report>,
    pub plan: Plan,
    pub program: Program,
}

/// Runs the pipeline; the graphs live in `arena`. Long prompts are [`PromptPrecision::Fast`].
pub fn compile<'a>(
    model: &Model,
    arena: &'a Bump,
    extent: Extent,
    target: Target,
) -> Result<Compiled<'a>, CompileError> {
    compile_with(model, arena, extent, target, PromptPrecision::default())
}

/// The same with the precision of long prompts chosen.
pub fn compile_with<'a>(
    model: &Model,
    arena: &'a Bump,
    extent: Extent,
    target: Target,
    precision: PromptPrecision,
) -> Result<Compiled<'a>, CompileError> {
    let built = model.graph(arena, extent)?;
    let attention_split = attention_split(extent.context);
    let cpu = pass::Options {
        attention_split,
        gates: Gates::Any,
        gated_quantizes: true,
        norm_cols: 0,
        attention_blocks: None,
        half_rows: None,
    };
    let options = match target {
        Target::Cpu => cpu,
        Target::Gpu { .. } => pass::Options {
            gates: Gates::OneType,
            norm_cols: GPU_NORM_COLS,
            attention_blocks: Some(GPU_ATTENTION_BLOCKS),
            half_rows: (precision == PromptPrecision::Fast).then_some(FAST_ROWS),
            ..cpu
        },
    };
    let (fused, reports) = pass::optimise(built.clone(), options)?;
    let plan = plan(&fused)?;
    let program = lower(&fused, &plan, target, extent.context);
    Ok(Compiled {
        built,
        fused,
        reports,
        plan,
        program,
    })
}

/// Columns of a norm that a GPU's products make themselves, each block anew. On NVIDIA they are copied to
/// LDS as f32 with the norm's weights, 64 KiB beside at most 32 of activations: of 99 that every SM has.
const GPU_NORM_COLS: u32 = 8192;

/// Blocks that share one row's attention on a GPU: about one for each of a large device's compute
/// units or two. Not the device's own number, so that tokens do not depend on the device.
const GPU_ATTENTION_BLOCKS: u32 = 256;

/// Positions a split of single-row attention covers, by the cache's capacity alone: short enough to
/// give a few threads units of work at short contexts, long enough that combining stays cheap.
fn attention_split(context: u32) -> u32 {
    (context / 64).next_power_of_two().clamp(64, 512)
}

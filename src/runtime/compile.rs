//! Model + extent + target → everything up to the program.

use crate::graph::{Graph, Verified, VerifyError};
use crate::model::{Extent, Model, ModelError};
use crate::pass::{self, Gates, Report};
use crate::plan::{Plan, PlanError, plan};
use crate::program::{Program, Target, lower};
use bumpalo::Bump;
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

/// Runs the pipeline; the graphs live in `arena`.
pub fn compile<'a>(
    model: &Model,
    arena: &'a Bump,
    extent: Extent,
    target: Target,
) -> Result<Compiled<'a>, CompileError> {
    let built = model.graph(arena, extent)?;
    let attention_split = attention_split(extent.context);
    let options = match target {
        Target::Cpu => pass::Options {
            attention_split,
            gates: Gates::Any,
            gated_quantizes: true,
            norm_cols: 0,
            attention_blocks: None,
        },
        Target::Gpu { .. } => pass::Options {
            attention_split,
            gates: Gates::OneRowOneType,
            gated_quantizes: true,
            norm_cols: GPU_NORM_COLS,
            attention_blocks: Some(GPU_ATTENTION_BLOCKS),
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

/// Columns of a norm that a GPU's products make themselves: as f32 they are 32 KiB of LDS, and each
/// block does it anew.
const GPU_NORM_COLS: u32 = 8192;

/// Blocks that share one row's attention on a GPU: about one for each of a large device's compute
/// units or two. Not the device's own number, so that tokens do not depend on the device.
const GPU_ATTENTION_BLOCKS: u32 = 256;

/// Positions a split of single-row attention covers, by the cache's capacity alone: short enough to
/// give a few threads units of work at short contexts, long enough that combining stays cheap.
fn attention_split(context: u32) -> u32 {
    (context / 64).next_power_of_two().clamp(64, 512)
}

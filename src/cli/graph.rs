//! `graph`: print the graph of one decode step, or of a prompt chunk, at any stage.

use bumpalo::Bump;

use super::args::{self, GraphArgs, GraphFormat};
use super::config::Config;
use super::error::CliError;
use super::progress::Progress;
use super::{load, output};
use crate::model::{Extent, Logits, Model};
use crate::program::Target;
use crate::runtime::{DeviceChoice, Format, Stage, compile, dump};

/// Lanes of a wave where no device is asked: CDNA's.
const WAVE: u32 = 64;

pub fn run(args: &GraphArgs) -> Result<(), CliError> {
    let mut config = Config::load(&args.model).map_err(CliError::input)?;
    config
        .apply_session(&args.session)
        .map_err(CliError::input)?;
    let model = if args.random_weights {
        load::random_model(&config, &args.weights_type)?
    } else {
        let checkpoint = load::checkpoint(&config, &Progress::new(args.quiet))?;
        Model::from_checkpoint(checkpoint, load::definition(&config)?).map_err(CliError::input)?
    };
    let trained = model.hyperparameters().context as usize;
    let context = config
        .context
        .unwrap_or_else(|| config.context_for(Some(trained)));
    let extent = Extent {
        rows: number("--rows", args.rows)?,
        context: number("--ctx", context)?,
        logits: Logits::Last,
    };
    let target = match config.device {
        DeviceChoice::Hip(_) => Target::Gpu { wave: WAVE },
        DeviceChoice::Cpu | DeviceChoice::Auto => Target::Cpu,
    };
    let arena = Bump::new();
    let step = compile(&model, &arena, extent, target).map_err(CliError::input)?;
    let stage = match args.stage {
        args::Stage::Built => Stage::Built,
        args::Stage::Fused => Stage::Fused,
        args::Stage::Planned => Stage::Planned,
    };
    let format = match args.format {
        GraphFormat::Dot => Format::Dot,
        GraphFormat::Json => Format::Json,
        GraphFormat::Text => Format::Text,
    };
    output::text(&dump(&step, stage, format))
}

fn number(flag: &str, value: usize) -> Result<u32, CliError> {
    let too_large = || CliError::Usage(format!("{flag} {value} is too large"));
    u32::try_from(value).map_err(|_| too_large())
}

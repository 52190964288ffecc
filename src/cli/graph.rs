//! `graph`: print the graph of one decode step, or of a prompt chunk, at any stage.
//!
//! Up to the planned stage that takes no device and no weights. The recorded stage builds a session and asks the device
//! what it holds, and with `--profile` how long each node takes.

use bumpalo::Bump;

use super::args::{self, GraphArgs, GraphFormat};
use super::config::Config;
use super::error::CliError;
use super::load::{self, Wanted};
use super::progress::Progress;
use super::{output, profile};
use crate::model::{Extent, Logits, Model};
use crate::program::Target;
use crate::runtime::{DeviceChoice, Format, Part, Stage, compile_with, dump, recorded};

/// Lanes of a wave where no device is asked: CDNA's.
const WAVE: u32 = 64;

pub fn run(args: &GraphArgs) -> Result<(), CliError> {
    let mut config = Config::load(&args.model).map_err(CliError::input)?;
    config
        .apply_session(&args.session)
        .map_err(CliError::input)?;
    let format = match args.format {
        GraphFormat::Dot => Format::Dot,
        GraphFormat::Json => Format::Json,
        GraphFormat::Text => Format::Text,
    };
    let measures = args.profile || args.position.is_some() || args.driver_dot.is_some();
    let stage = match args.stage {
        Some(args::Stage::Recorded) => return print_recorded(args, config, format),
        None if measures => return print_recorded(args, config, format),
        Some(_) if measures => {
            let text = "--profile, --position and --driver-dot need --stage recorded";
            return Err(CliError::Usage(text.into()));
        }
        Some(args::Stage::Built) => Stage::Built,
        Some(args::Stage::Fused) => Stage::Fused,
        Some(args::Stage::Planned) | None => Stage::Planned,
    };
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
        context: number(&config.context_name(), context)?,
        kv_type: config.kv_type,
        logits: Logits::Last,
    };
    let target = match config.device {
        DeviceChoice::Hip(_) => Target::Gpu { wave: WAVE },
        DeviceChoice::Cpu | DeviceChoice::Auto => Target::Cpu,
    };
    let arena = Bump::new();
    let step = compile_with(&model, &arena, extent, target, config.prompt_precision)
        .map_err(CliError::input)?;
    output::text(&dump(&step, stage, format))
}

/// The recorded stage: of the decode step, or of a prompt chunk of `--rows` rows.
fn print_recorded(args: &GraphArgs, mut config: Config, format: Format) -> Result<(), CliError> {
    let (part, rows) = match number("--rows", args.rows)? {
        1 => (Part::Decode, 1),
        rows => (Part::Prompt, rows),
    };
    if part == Part::Prompt {
        config.chunk_rows = args.rows;
    }
    let progress = Progress::new(args.quiet);
    let wanted = Wanted {
        context_at_least: args.position.unwrap_or(0).saturating_add(args.rows),
        logits: Logits::Last,
        progress: &progress,
    };
    let mut session = if args.random_weights {
        load::load_random(&config, &args.weights_type, &wanted)?.0
    } else {
        load::load(&config, &wanted)?.session
    };
    let position = profile::position(args.position, rows, session.context())?;
    if let Some(file) = &args.driver_dot {
        let drawn = session.write_driver_dot(part, file);
        if !drawn.map_err(CliError::runtime)? {
            let device = session.report().device;
            let text = format!("--driver-dot: no driver records for {device}; give --device hip");
            return Err(CliError::Input(text));
        }
    }
    let measured = if args.profile {
        let stream = session.stream_bytes_per_second();
        let stream = stream.map_err(CliError::runtime)?;
        profile::measure(&mut session, part, position, args.repeat, stream)?
    } else {
        profile::look(&mut session, part, position)?
    };
    let recorded = measured.recorded(&session, part);
    output::text(&recorded::dump(&recorded, format, args.layers))
}

fn number(flag: &str, value: usize) -> Result<u32, CliError> {
    let too_large = || CliError::Usage(format!("{flag} {value} is too large"));
    u32::try_from(value).map_err(|_| too_large())
}

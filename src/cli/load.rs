//! From a configuration to something that runs: source → checkpoint → model and tokenizer → session.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::config::Config;
use super::error::CliError;
use super::output;
use super::progress::Progress;
use super::source::{self, Cache, Source};
use crate::dtype::DType;
use crate::import;
use crate::loader::{Checkpoint, Metadata};
use crate::model::{Definition, Logits, Model};
use crate::runtime::{BackendError, Session, SessionError, SessionOptions};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// Far beyond any machine's cores and any model's context: what is larger is a slip of the finger.
const THREADS_MAX: u32 = 1024;
const CONTEXT_MAX: u32 = 1 << 24;

/// A session and the tokenizer that belongs to it.
pub struct Loaded {
    /// Ready for the first token.
    pub session: Session,
    /// Of the same file.
    pub tokenizer: Tokenizer,
    /// What else the file says.
    pub metadata: Metadata,
    /// From the open file to the recorded session; downloads do not count.
    pub load_time: Duration,
}

/// What differs between the commands that load a model.
pub struct Wanted<'a> {
    /// Positions the session must hold even if the configuration asks for fewer by default.
    pub context_at_least: usize,
    /// Which rows need logits.
    pub logits: Logits,
    /// Where progress is shown.
    pub progress: &'a Progress,
}

/// The model file that the configuration's sources give.
pub fn model_file(sources: &[Source], progress: &Progress) -> Result<PathBuf, CliError> {
    source::obtain(sources, Cache::of_user().as_ref(), progress).map_err(CliError::input)
}

/// Opens the model, to be rounded to the configuration's type if it has one.
pub fn checkpoint(config: &Config, progress: &Progress) -> Result<Checkpoint, CliError> {
    let file = model_file(&config.sources, progress)?;
    open(&file, config, progress)
}

/// Opens the model at `file`, says what there is to say about it, and has it rounded when its tensors are fetched.
fn open(file: &Path, config: &Config, progress: &Progress) -> Result<Checkpoint, CliError> {
    let definition = definition(config)?;
    let checkpoint = import::open(file, definition.as_ref()).map_err(CliError::input)?;
    tell(checkpoint.notes(), progress);
    match config.quantize {
        None => Ok(checkpoint),
        Some(dtype) => import::requantize(checkpoint, dtype, None, config.thread_count())
            .map_err(CliError::input),
    }
}

/// Prints notes. They may quote what a file says.
fn tell(notes: &[String], progress: &Progress) {
    for line in notes {
        let line = format!("note: {}", output::printable(line));
        output::note(!progress.is_wanted(), &line);
    }
}

/// The tokenizer alone.
pub fn tokenizer(config: &Config, progress: &Progress) -> Result<Tokenizer, CliError> {
    let checkpoint = checkpoint(config, progress)?;
    let tokenizer = Tokenizer::from_metadata(checkpoint.metadata()).map_err(CliError::input)?;
    tell(tokenizer.notes(), progress);
    Ok(tokenizer)
}

/// Tries the tokenizer of a model that has one: what is wrong with it.
pub fn check_tokenizer(metadata: &Metadata) -> Result<(), TokenizerError> {
    match metadata.get("tokenizer.ggml.model") {
        Some(_) => Tokenizer::from_metadata(metadata).map(drop),
        None => Ok(()),
    }
}

/// Loads everything. The tokenizer is built on its own thread meanwhile, from the same mapped file.
pub fn load(config: &Config, wanted: &Wanted) -> Result<Loaded, CliError> {
    let file = model_file(&config.sources, wanted.progress)?;
    let begin = Instant::now();
    let checkpoint = open(&file, config, wanted.progress)?;
    let metadata: Metadata = checkpoint.metadata().clone();
    let (session, tokenizer) = thread::scope(|scope| {
        let tokenizer = scope.spawn(|| Tokenizer::from_metadata(&metadata));
        let model =
            Model::from_checkpoint(checkpoint, definition(config)?).map_err(CliError::input)?;
        let session = session(&model, config, wanted)?;
        let tokenizer = match tokenizer.join() {
            Ok(result) => result.map_err(CliError::input)?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        tell(tokenizer.notes(), wanted.progress);
        let (tokens, rows) = (tokenizer.vocab_size(), session.vocabulary());
        if tokens > rows as usize {
            let file = file.display();
            let text = format!(
                "{file}: the tokenizer has {tokens} tokens, but the model only {rows} of them"
            );
            return Err(CliError::Input(text));
        }
        Ok((session, tokenizer))
    })?;
    Ok(Loaded {
        session,
        tokenizer,
        metadata,
        load_time: begin.elapsed(),
    })
}

/// A session over made-up weights of the configuration's shape.
pub fn load_random(
    config: &Config,
    weights_type: &str,
    wanted: &Wanted,
) -> Result<(Session, Duration), CliError> {
    let begin = Instant::now();
    let model = random_model(config, weights_type)?;
    let session = session(&model, config, wanted)?;
    Ok((session, begin.elapsed()))
}

/// A model with made-up weights of the configuration's shape.
pub fn random_model(config: &Config, weights_type: &str) -> Result<Model, CliError> {
    let Some(shape) = config.shape.clone() else {
        let text =
            "--random-weights needs a configuration with a [model.shape] table: give --config FILE";
        return Err(CliError::Input(text.into()));
    };
    let dtype: DType = weights_type.parse().map_err(CliError::input)?;
    Model::random(shape, definition(config)?, dtype, config.sampling.seed).map_err(CliError::input)
}

/// The graph definition that the configuration names, if it does.
pub fn definition(config: &Config) -> Result<Option<Definition>, CliError> {
    let Some(file) = &config.graph else {
        return Ok(None);
    };
    let text = super::text::read(file)?;
    let definition = Definition::parse(&file.display().to_string(), &text);
    definition.map(Some).map_err(CliError::input)
}

/// Builds a session, with a bar for what is packed on the way.
fn session(model: &Model, config: &Config, wanted: &Wanted) -> Result<Session, CliError> {
    let trained = model.hyperparameters().context as usize;
    let context = match config.context {
        Some(context) => context,
        None => config
            .context_for(Some(trained))
            .max(wanted.context_at_least),
    };
    if context > trained {
        let line = format!(
            "warning: a context of {context} is beyond the {trained} positions the model was trained for"
        );
        output::note(!wanted.progress.is_wanted(), &line);
    }
    let threads = config.thread_count();
    let limited = |what: &str, n: usize, most: u32| match u32::try_from(n) {
        Ok(n) if n <= most => Ok(n),
        _ => Err(CliError::Input(format!(
            "{what} {n} is too large; at most {most}"
        ))),
    };
    limited(&config.threads_name(), threads, THREADS_MAX)?;
    let options = SessionOptions {
        device: config.device,
        drivers: super::devices::drivers(),
        threads,
        context: limited(&config.context_name(), context, CONTEXT_MAX)?,
        kv_type: config.kv_type,
        chunk_rows: limited("chunk_rows", config.chunk_rows, CONTEXT_MAX)?,
        prompt_precision: config.prompt_precision,
        eager: config.eager,
        overlap: config.overlap,
        logits: wanted.logits,
        ..SessionOptions::default()
    };
    let bar = wanted.progress.bytes("loading", 0);
    let session = Session::build(model, &options, &|done, total| bar.set(done, total));
    let session = session.map_err(|error| match &error {
        // A device that fails midway is not the input's fault.
        SessionError::Backend(BackendError::Gpu(gpu)) if !gpu.is_refusal() => {
            CliError::runtime(error)
        }
        // A tensor that could not be made is missing for the backend; the reason is kept by whoever tried.
        _ => match model.checkpoint().and_then(Checkpoint::failure) {
            Some(reason) => CliError::input(reason),
            None => CliError::input(error),
        },
    })?;
    let report = session.report();
    if let Some(why) = report.device_fallback {
        let line = format!("warning: the processor computes, since no GPU could be used: {why}");
        output::note(!wanted.progress.is_wanted(), &line);
    }
    if let Some(why) = report.graph_fallback {
        let line = format!("warning: nothing was recorded, every step is launched anew: {why}");
        output::note(!wanted.progress.is_wanted(), &line);
    }
    for shortfall in report.shortfalls {
        output::note(
            !wanted.progress.is_wanted(),
            &format!("warning: {shortfall}"),
        );
    }
    Ok(session)
}

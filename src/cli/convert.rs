//! `convert`: a model, whatever it came as, → one GGUF file.
//!
//! The file is written as a [`Part`], which takes its name only when it is whole and on the disk. An error, Ctrl-C or
//! SIGTERM removes it.

use std::fs;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::time::Instant;

use indexmap::IndexMap;
use serde::Serialize;

use super::args::{ConvertArgs, Format};
use super::config::Config;
use super::error::CliError;
use super::output::{self, bytes};
use super::progress::Progress;
use super::whole_file::Part;
use super::{interrupt, load};
use crate::dtype::DType;
use crate::import;
use crate::loader::{Checkpoint, LoadError, Metadata, TensorInfo, WriteError, write_gguf};
use crate::model::Model;

/// `general.quantization_version`: ggml's block layouts since 2023.
const QUANTIZATION_VERSION: u32 = 2;

/// Keys that change what is computed, and the architectures that llama.cpp reads them for.
const READ_BY_LLAMA_CPP: &[(&str, &[&str])] = &[
    ("attention.sliding_window", &["gemma3"]),
    ("attention.rope_pattern", &[]),
    ("attention.scale", &[]),
    ("rope.scaling.yarn_attn_factor", &[]),
    ("rope.scaling.yarn_beta_fast", &["mistral3"]),
    ("rope.scaling.yarn_beta_slow", &["mistral3"]),
];

#[derive(Serialize)]
struct Json {
    output: String,
    file_bytes: u64,
    tensors: usize,
    /// Tensors by type.
    types: IndexMap<&'static str, usize>,
    /// Tensors whose rows are no whole blocks of the type that was asked for.
    fallbacks: usize,
    seconds: f64,
}

pub fn run(args: &ConvertArgs) -> Result<(), CliError> {
    let begin = Instant::now();
    if args.output.is_dir() {
        let path = args.output.display();
        return Err(CliError::Input(format!(
            "{path}: is a folder; name the file to write"
        )));
    }
    // The new file would take the place of a device or a pipe, and not be written to it.
    if fs::metadata(&args.output).is_ok_and(|there| !there.is_file()) {
        let path = args.output.display();
        return Err(CliError::Input(format!(
            "{path}: is no file; name the file to write"
        )));
    }
    if !args.force && fs::symlink_metadata(&args.output).is_ok() {
        return Err(exists(&args.output));
    }
    let mut config = Config {
        graph: args.graph.clone(),
        threads: args.threads,
        ..Config::default()
    };
    config.sources = vec![super::source::Origin::Path(args.input.clone()).into()];
    let progress = Progress::new(args.out.quiet);
    let checkpoint = load::checkpoint(&config, &progress)?;
    keep_input(&args.output, &checkpoint)?;
    let stored: Vec<(String, Vec<usize>)> = checkpoint
        .tensors()
        .map(|tensor| (tensor.name.clone(), tensor.shape.clone()))
        .collect();
    // GGUF's readers expect F32 of whatever has one dimension; without a type only that is changed.
    let checkpoint = match args.dtype {
        Some(dtype) => {
            import::requantize(checkpoint, dtype, Some(DType::F32), config.thread_count())
        }
        None => import::vectors_to(checkpoint, DType::F32, config.thread_count()),
    };
    let checkpoint = checkpoint.map_err(CliError::input)?;
    let fallbacks = args.dtype.map_or(0, |wanted| {
        let fell_back = |(name, shape): &&(String, Vec<usize>)| {
            let given = import::type_for(name, DType::F32, shape, wanted);
            given != wanted && given != DType::F32
        };
        stored.iter().filter(fell_back).count()
    });
    // A file that would not run is found before it is written.
    let metadata = described(checkpoint.metadata(), args.dtype, &checkpoint);
    let tensors: Vec<TensorInfo> = checkpoint.tensors().cloned().collect();
    Model::from_checkpoint(checkpoint, load::definition(&config)?).map_err(CliError::input)?;
    load::check_tokenizer(&metadata).map_err(CliError::input)?;

    if let Some(keys) = unread_elsewhere(&metadata).map_err(CliError::input)? {
        let file = args.output.display();
        let line = format!(
            "note: {file}: {keys} change what is computed, and llama.cpp does not read them"
        );
        output::note(!progress.is_wanted(), &line);
    }
    let file_bytes = write(args, &metadata, &tensors, &progress)?;
    let mut types: IndexMap<&'static str, usize> = IndexMap::new();
    for tensor in &tensors {
        *types.entry(tensor.dtype.name()).or_default() += 1;
    }
    let json = Json {
        output: args.output.display().to_string(),
        file_bytes,
        tensors: tensors.len(),
        types,
        fallbacks,
        seconds: begin.elapsed().as_secs_f64(),
    };
    match args.out.format {
        Format::Json => output::json(&json),
        Format::Text => output::text(&text(&json, args.dtype)),
    }
}

/// The keys of a file that llama.cpp would pass over.
fn unread_elsewhere(metadata: &Metadata) -> Result<Option<String>, LoadError> {
    let Some(architecture) = metadata.str("general.architecture")? else {
        return Ok(None);
    };
    let unread: Vec<String> = READ_BY_LLAMA_CPP
        .iter()
        .filter(|(_, readers)| !readers.contains(&architecture))
        .map(|(key, _)| format!("{architecture}.{key}"))
        .filter(|key| metadata.get(key).is_some())
        .collect();
    Ok((!unread.is_empty()).then(|| unread.join(", ")))
}

/// The metadata with what describes this file.
fn described(metadata: &Metadata, dtype: Option<DType>, checkpoint: &Checkpoint) -> Metadata {
    let mut metadata = metadata.clone();
    let matrices = || checkpoint.tensors().filter(|tensor| tensor.shape.len() > 1);
    let most = || {
        let mut bytes: IndexMap<DType, u64> = IndexMap::new();
        matrices().for_each(|tensor| *bytes.entry(tensor.dtype).or_default() += tensor.bytes());
        bytes
            .into_iter()
            .max_by_key(|&(_, bytes)| bytes)
            .map(|(dtype, _)| dtype)
    };
    let is_new = dtype.is_some() || metadata.get("general.file_type").is_none();
    if let Some(number) = dtype.or_else(most).filter(|_| is_new).and_then(file_type) {
        metadata.insert("general.file_type", number);
    }
    if matrices().any(|tensor| !tensor.dtype.is_float()) {
        metadata.insert("general.quantization_version", QUANTIZATION_VERSION);
    }
    metadata
}

/// `general.file_type`, llama.cpp's number for files that are mostly of one type. Of the K-types it is that of the plain
/// mixture.
fn file_type(dtype: DType) -> Option<u32> {
    Some(match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::Q4_0 => 2,
        DType::Q4_1 => 3,
        DType::Q8_0 => 7,
        DType::Q5_0 => 8,
        DType::Q5_1 => 9,
        DType::Q2_K => 10,
        DType::Q3_K => 11,
        DType::Q4_K => 14,
        DType::Q5_K => 16,
        DType::Q6_K => 18,
        DType::BF16 => 32,
        _ => return None,
    })
}

/// Writes the file; its bytes.
fn write(
    args: &ConvertArgs,
    metadata: &Metadata,
    tensors: &[TensorInfo],
    progress: &Progress,
) -> Result<u64, CliError> {
    let output = &args.output;
    let refused = |error: io::Error| {
        CliError::Runtime(format!("{}: cannot write: {error}", output.display()))
    };
    // Caught before there is a file to leave behind.
    interrupt::catch()?;
    interrupt::catch_termination()?;
    let part = Part::create(output).map_err(refused)?;

    let total = tensors.iter().map(TensorInfo::bytes).sum();
    let bar = progress.bytes("writing", total);
    let mut writer = BufWriter::with_capacity(1 << 20, part.file());
    let report = |done| {
        bar.set(done, total);
        !interrupt::asked()
    };
    let written =
        write_gguf(&mut writer, metadata, tensors, &report).map_err(|error| match error {
            WriteError::Interrupted => CliError::Interrupted,
            WriteError::Load(error) => CliError::input(error),
            WriteError::Io(error) => refused(error),
        })?;
    let file = writer
        .into_inner()
        .map_err(|error| refused(error.into_error()))?;
    let on_disk = file.metadata().map_err(refused)?.len();
    if on_disk != written {
        let text = format!(
            "{}: {written} bytes were written, and the disk has {on_disk}",
            output.display()
        );
        return Err(CliError::Runtime(text));
    }
    if interrupt::asked() {
        return Err(CliError::Interrupted);
    }
    part.publish(args.force)
        .map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => exists(output),
            _ => refused(error),
        })?;
    Ok(written)
}

/// Refuses to replace a file of the model that is converted, by whatever name.
fn keep_input(output: &Path, checkpoint: &Checkpoint) -> Result<(), CliError> {
    let Ok(target) = fs::canonicalize(output) else {
        return Ok(()); // Nothing is there to be replaced.
    };
    let is_target = |file: &PathBuf| fs::canonicalize(file).is_ok_and(|file| file == target);
    if !checkpoint.files().iter().any(is_target) {
        return Ok(());
    }
    let output = output.display();
    let text = format!("{output}: is a file of the model that is converted; name another to write");
    Err(CliError::Input(text))
}

fn exists(path: &Path) -> CliError {
    let path = path.display();
    CliError::Input(format!("{path}: exists already; --force replaces it"))
}

fn text(json: &Json, dtype: Option<DType>) -> String {
    let types: Vec<String> = json
        .types
        .iter()
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    let mut line = format!(
        "{}: {}, {} tensors ({})",
        json.output,
        bytes(json.file_bytes),
        json.tensors,
        types.join(", ")
    );
    if let Some(dtype) = dtype.filter(|_| json.fallbacks > 0) {
        let count = json.fallbacks;
        line += &format!(
            "; the rows of {count} are no whole blocks of {dtype}, so they have another type"
        );
    }
    line + "\n"
}

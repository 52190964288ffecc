//! `info`: describe a model file.
//!
//! Everything is read from the metadata and the tensor list, so that a model which this version cannot run can still be
//! looked at; whether it runs is one of the lines.

use indexmap::IndexMap;
use serde::Serialize;

use super::args::{Format, InfoArgs};
use super::config::Config;
use super::error::{CliError, chain};
use super::load;
use super::output::{self, bytes, printable};
use super::progress::Progress;
use super::source::{Origin, Source};
use crate::dtype::DType;
use crate::loader::{Checkpoint, Metadata, Value};
use crate::model::{Definition, Hyperparameters, Model};

#[derive(Serialize)]
struct Json {
    file: String,
    file_bytes: u64,
    name: Option<String>,
    architecture: Option<String>,
    runs: bool,
    /// Why it does not run.
    problem: Option<String>,
    hyperparameters: IndexMap<String, serde_json::Value>,
    tokenizer: Option<String>,
    pre_tokenizer: Option<String>,
    vocabulary: Option<usize>,
    context_trained: Option<usize>,
    memory: Memory,
    parameters: u64,
    types: Vec<TypeRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tensors: Option<Vec<TensorRow>>,
}

/// What a session takes, in bytes.
#[derive(Serialize)]
struct Memory {
    context: usize,
    kv_type: &'static str,
    weight_bytes: u64,
    kv_bytes: Option<u64>,
}

#[derive(Serialize)]
struct TypeRow {
    #[serde(rename = "type")]
    name: &'static str,
    tensors: usize,
    bytes: u64,
    runs: bool,
}

#[derive(Serialize)]
struct TensorRow {
    name: String,
    #[serde(rename = "type")]
    dtype: &'static str,
    shape: Vec<usize>,
    bytes: u64,
}

pub fn run(args: &InfoArgs) -> Result<(), CliError> {
    let mut config = Config::load(&args.model).map_err(CliError::input)?;
    if let Some(file) = &args.file {
        config.sources = vec![Source::from(Origin::Path(file.clone()))];
    }
    config.apply_context(args.ctx);
    if let Some(kv_type) = args.kv_type {
        config.kv_type = kv_type;
    }
    let checkpoint = load::checkpoint(&config, &Progress::new(args.output.quiet))?;
    let json = describe(checkpoint, &config, args.tensors)?;
    match args.output.format {
        Format::Json => output::json(&json),
        Format::Text => output::text(&text(&json)),
    }
}

fn describe(checkpoint: Checkpoint, config: &Config, tensors: bool) -> Result<Json, CliError> {
    let metadata = checkpoint.metadata();
    let text = |key: &str| {
        let text = metadata.str(key).map_err(CliError::input)?;
        Ok::<_, CliError>(text.map(str::to_string))
    };
    let architecture = text("general.architecture")?;
    let hyperparameters = hyperparameters(metadata, architecture.as_deref());
    let trained = hyperparameters
        .get("context_length")
        .and_then(serde_json::Value::as_u64)
        .and_then(|trained| usize::try_from(trained).ok());
    let tokens = metadata.get("tokenizer.ggml.tokens");
    let vocabulary = match tokens {
        Some(Value::Array(tokens)) => Some(tokens.len()),
        _ => None,
    };
    let context = config.context_for(trained);
    let family = metadata.str("general.architecture").ok().flatten();
    let kv_bytes = Definition::built_in(family.unwrap_or_default(), "")
        .ok()
        .and_then(|family| Hyperparameters::from_metadata(metadata, &family).ok())
        .and_then(|hyper| {
            let position = hyper.kv_bytes_per_position(config.kv_type);
            position.checked_mul(context as u64)
        });
    let rows = checkpoint.tensors().map(|tensor| TensorRow {
        name: tensor.name.clone(),
        dtype: tensor.dtype.name(),
        shape: tensor.shape.clone(),
        bytes: tensor.bytes(),
    });
    let mut json = Json {
        file: checkpoint.path().display().to_string(),
        file_bytes: checkpoint.file_bytes(),
        name: text("general.name")?,
        architecture,
        runs: true,
        problem: None,
        hyperparameters,
        tokenizer: text("tokenizer.ggml.model")?,
        pre_tokenizer: text("tokenizer.ggml.pre")?,
        vocabulary,
        context_trained: trained,
        memory: Memory {
            context,
            kv_type: config.kv_type.name(),
            weight_bytes: checkpoint.tensors().map(|t| t.bytes()).sum(),
            kv_bytes,
        },
        parameters: checkpoint.tensors().map(|t| t.element_count() as u64).sum(),
        types: types(&checkpoint),
        tensors: tensors.then(|| rows.collect()),
    };
    let definition = load::definition(config)?;
    let tokenizer = load::check_tokenizer(metadata).map_err(|error| chain(&error));
    let model = Model::from_checkpoint(checkpoint, definition).map_err(|error| chain(&error));
    json.problem = model.err().or(tokenizer.err());
    json.runs = json.problem.is_none();
    Ok(json)
}

/// The scalar entries under the architecture's name.
fn hyperparameters(
    metadata: &Metadata,
    architecture: Option<&str>,
) -> IndexMap<String, serde_json::Value> {
    let prefix = architecture.map(|architecture| format!("{architecture}."));
    let entry = |(key, value): (&str, &Value)| {
        let key = key.strip_prefix(prefix.as_deref()?)?;
        let value = match value {
            Value::F32(value) => shortest(*value),
            Value::F64(value) => serde_json::Value::from(*value),
            Value::Bool(value) => serde_json::Value::from(*value),
            Value::String(value) => serde_json::Value::from(value.to_str().ok()?),
            Value::Array(_) => return None,
            integer => serde_json::Value::from(i64::try_from(integer.as_integer()?).ok()?),
        };
        Some((key.to_string(), value))
    };
    metadata.iter().filter_map(entry).collect()
}

/// `1e-5` rather than the digits of the nearest f64 to the f32.
fn shortest(value: f32) -> serde_json::Value {
    let digits = value.to_string().parse::<f64>();
    digits.map_or(serde_json::Value::Null, serde_json::Value::from)
}

/// Tensors and bytes by type, largest first.
fn types(checkpoint: &Checkpoint) -> Vec<TypeRow> {
    let mut rows: IndexMap<DType, TypeRow> = IndexMap::new();
    for tensor in checkpoint.tensors() {
        let dtype = tensor.dtype;
        let row = rows.entry(dtype).or_insert_with(|| TypeRow {
            name: dtype.name(),
            tensors: 0,
            bytes: 0,
            runs: dtype.is_runnable(),
        });
        row.tensors += 1;
        row.bytes += tensor.bytes();
    }
    let mut rows: Vec<TypeRow> = rows.into_values().collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.bytes));
    rows
}

fn text(json: &Json) -> String {
    let unknown = || "unknown".to_string();
    let row = |name: &str, value: String| format!("{name:<16} {}\n", printable(&value));
    let mut out = String::new();
    out += &row(
        "file",
        format!("{} ({})", json.file, bytes(json.file_bytes)),
    );
    out += &row("name", json.name.clone().unwrap_or_else(unknown));
    out += &row(
        "architecture",
        json.architecture.clone().unwrap_or_else(unknown),
    );
    let runs = json
        .problem
        .as_ref()
        .map(|problem| format!("no: {problem}"));
    out += &row("runs here", runs.unwrap_or_else(|| "yes".into()));
    out += &row(
        "parameters",
        format!("{:.1} M", json.parameters as f64 / 1e6),
    );
    let trained = json.context_trained.map(|trained| trained.to_string());
    out += &row("context", trained.unwrap_or_else(unknown));
    let tokenizer = match (&json.tokenizer, &json.pre_tokenizer) {
        (Some(kind), Some(pre)) => format!("{kind}, pre-tokenizer {pre}"),
        (Some(kind), None) => kind.clone(),
        (None, _) => "none".to_string(),
    };
    let size = json.vocabulary.map(|size| format!(", {size} tokens"));
    out += &row("tokenizer", tokenizer + &size.unwrap_or_default());
    let memory = &json.memory;
    let kv = memory.kv_bytes.map_or_else(unknown, bytes);
    let total = memory.kv_bytes.map(|kv| kv + memory.weight_bytes);
    out += &row(
        "memory",
        format!(
            "weights {} + {} KV cache {kv} at --ctx {} = {}",
            bytes(memory.weight_bytes),
            memory.kv_type,
            memory.context,
            total.map_or_else(unknown, bytes)
        ),
    );
    out += "\nhyperparameters\n";
    for (key, value) in &json.hyperparameters {
        // JSON leaves some control characters as they are.
        let value = printable(&value.to_string());
        out += &format!("  {:<36} {value}\n", printable(key));
    }
    out += "\ntensor types\n";
    for row in &json.types {
        let note = if row.runs { "" } else { "  (does not run)" };
        out += &format!(
            "  {:<8} {:>5} {:>10}{note}\n",
            row.name,
            row.tensors,
            bytes(row.bytes)
        );
    }
    if let Some(tensors) = &json.tensors {
        out += "\ntensors\n";
        for row in tensors {
            let shape = format!("{:?}", row.shape);
            out += &format!(
                "  {:<32} {:<8} {shape:<18} {:>10}\n",
                printable(&row.name),
                row.dtype,
                bytes(row.bytes)
            );
        }
    }
    out
}

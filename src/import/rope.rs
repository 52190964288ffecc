//! Rotary embeddings: bases and scalings under GGUF's names, and Llama 3's factors as the tensor that GGUF has.
//!
//! Files of Hugging Face's version 5 have all of it in `rope_parameters`, for Gemma once for each kind of layer; older
//! ones have `rope_theta`, `rope_local_base_freq` and `rope_scaling`.

use super::ImportError;
use super::config::{Config, number};
use super::error::{short, unsupported, value};
use super::family::{Family, Kind, Shape};
use crate::dtype::DType;
use crate::loader::{Contents, TensorInfo};
use serde_json::{Map, Value};

/// Keys that every scaling may have.
const COMMON: &[&str] = &["rope_type", "type", "rope_theta", "partial_rotary_factor"];

/// The rotation of the layers that see everything, and the key it stands under.
struct Rope {
    key: &'static str,
    values: Map<String, Value>,
}

impl Rope {
    fn read(config: &Config) -> Result<Rope, ImportError> {
        // Both are asked for, so that neither counts as unknown.
        let (new, old) = (config.get("rope_parameters"), config.get("rope_scaling"));
        let (key, found) = match (new, old) {
            (Some(found), _) => ("rope_parameters", found),
            (None, Some(found)) => ("rope_scaling", found),
            (None, None) => ("rope_scaling", &Value::Object(Map::new())),
        };
        let Some(map) = found.as_object() else {
            return Err(value(config.file(), key, "an object", found));
        };
        let values = match map.get("full_attention").and_then(Value::as_object) {
            Some(full) => full.clone(),
            None => map.clone(),
        };
        let values = values
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .collect();
        Ok(Rope { key, values })
    }

    fn kind(&self) -> &str {
        let found = self.values.get("rope_type").or(self.values.get("type"));
        found.and_then(Value::as_str).unwrap_or("default")
    }

    fn number(&self, config: &Config, name: &str) -> Result<Option<f32>, ImportError> {
        let key = format!("{}.{name}", self.key);
        self.values
            .get(name)
            .map(|found| number(config.file(), &key, found))
            .transpose()
    }

    fn need(&self, config: &Config, name: &str) -> Result<f32, ImportError> {
        self.number(config, name)?
            .ok_or_else(|| ImportError::MissingKey {
                file: config.file().to_owned(),
                key: format!("{}.{name}", self.key),
                why: "this scaling needs it",
            })
    }

    /// Refuses keys that a scaling has besides those of `known`.
    fn only(&self, config: &Config, known: &[&str]) -> Result<(), ImportError> {
        let unknown = self
            .values
            .iter()
            .find(|(name, _)| !COMMON.contains(&name.as_str()) && !known.contains(&name.as_str()));
        match unknown {
            None => Ok(()),
            Some((name, found)) => {
                let supported = format!(
                    "with {}: {}",
                    self.kind(),
                    [COMMON, known].concat().join(", ")
                );
                Err(unsupported(
                    config.file(),
                    format!("{}.{name}", self.key),
                    short(found),
                    supported,
                ))
            }
        }
    }
}

/// Writes the base and the scaling. `local` says whether there is a second base, for the layers with a window.
pub(super) fn translate(
    config: &Config,
    base_default: f32,
    local: bool,
    put: &mut impl FnMut(&str, crate::loader::Value),
) -> Result<(), ImportError> {
    let rope = Rope::read(config)?;
    let refuse = |name: &str, found: String, supported: &str| {
        Err(unsupported(
            config.file(),
            format!("{}.{name}", rope.key),
            found,
            supported,
        ))
    };
    if let Some(part) = rope
        .number(config, "partial_rotary_factor")?
        .filter(|&part| part != 1.0)
    {
        return refuse("partial_rotary_factor", part.to_string(), "1");
    }
    let written = config.number("rope_theta")?;
    let base = rope
        .number(config, "rope_theta")?
        .or(written)
        .unwrap_or(base_default);
    put("rope.freq_base", base.into());
    match rope.kind() {
        "default" => rope.only(config, &[])?,
        "linear" => {
            rope.only(config, &["factor"])?;
            put("rope.scaling.type", "linear".into());
            put("rope.scaling.factor", rope.need(config, "factor")?.into());
        }
        "llama3" if !local => {
            rope.only(
                config,
                &[
                    "factor",
                    "low_freq_factor",
                    "high_freq_factor",
                    "original_max_position_embeddings",
                ],
            )?;
        }
        "yarn" if !local => yarn(config, &rope, put)?,
        other => {
            let supported = if local {
                "default, linear"
            } else {
                "default, linear, llama3, yarn"
            };
            return refuse("rope_type", other.to_owned(), supported);
        }
    }
    if local {
        let sliding = config
            .get("rope_parameters")
            .and_then(|found| found.get("sliding_attention"));
        let kind = sliding
            .and_then(|found| found.get("rope_type"))
            .and_then(Value::as_str);
        if let Some(kind) = kind.filter(|&kind| kind != "default") {
            return refuse("sliding_attention.rope_type", kind.to_owned(), "default");
        }
        let found = sliding.and_then(|found| found.get("rope_theta"));
        let key = "rope_parameters.sliding_attention.rope_theta";
        let found = found
            .map(|found| number(config.file(), key, found))
            .transpose()?;
        let written = config.number("rope_local_base_freq")?;
        put(
            "rope.freq_base_swa",
            found.or(written).unwrap_or(1e4).into(),
        );
    }
    Ok(())
}

fn yarn(
    config: &Config,
    rope: &Rope,
    put: &mut impl FnMut(&str, crate::loader::Value),
) -> Result<(), ImportError> {
    rope.only(
        config,
        &[
            "factor",
            "original_max_position_embeddings",
            "attention_factor",
            "beta_fast",
            "beta_slow",
            "truncate",
        ],
    )?;
    let factor = rope.need(config, "factor")?;
    let refuse = |name: &str, found: String, supported: String| {
        Err(unsupported(
            config.file(),
            format!("{}.{name}", rope.key),
            found,
            supported,
        ))
    };
    // GGUF's attention factor multiplies the one that follows from `factor`; Hugging Face's replaces it.
    let usual = 0.1 * factor.ln() + 1.0;
    if let Some(found) = rope.number(config, "attention_factor")?
        && (found - usual).abs() > 1e-5
    {
        return refuse(
            "attention_factor",
            found.to_string(),
            format!("{usual}, which follows from the factor {factor}"),
        );
    }
    if rope.values.get("truncate") == Some(&Value::Bool(false)) {
        return refuse("truncate", "false".into(), "true".into());
    }
    let original = match rope.number(config, "original_max_position_embeddings")? {
        Some(original) => original as u32,
        None => config.need_count("max_position_embeddings")?,
    };
    put("rope.scaling.type", "yarn".into());
    put("rope.scaling.factor", factor.into());
    put("rope.scaling.original_context_length", original.into());
    for (name, key) in [
        ("beta_fast", "rope.scaling.yarn_beta_fast"),
        ("beta_slow", "rope.scaling.yarn_beta_slow"),
    ] {
        if let Some(found) = rope.number(config, name)? {
            put(key, found.into());
        }
    }
    Ok(())
}

/// `rope_freqs.weight [D / 2]`: what Llama 3's scaling divides each frequency by.
pub(super) fn factors_tensor(
    config: &Config,
    family: &Family,
    shape: &Shape,
) -> Result<Option<TensorInfo>, ImportError> {
    let rope = Rope::read(config)?;
    if rope.kind() != "llama3" {
        return Ok(None);
    }
    let base_default = if family.kind == Kind::SmolLm3 {
        2e6
    } else {
        1e4
    };
    let written = config.number("rope_theta")?;
    let base = rope
        .number(config, "rope_theta")?
        .or(written)
        .unwrap_or(base_default);
    let (low, high) = (
        rope.need(config, "low_freq_factor")?,
        rope.need(config, "high_freq_factor")?,
    );
    if low >= high {
        let found = low.to_string().into();
        let expected = format!("less than high_freq_factor {high}");
        return Err(value(
            config.file(),
            format!("{}.low_freq_factor", rope.key),
            expected,
            &found,
        ));
    }
    let scaling = Scaling {
        base,
        factor: rope.need(config, "factor")?,
        low,
        high,
        original: rope.need(config, "original_max_position_embeddings")?,
    };
    let factors = scaling.factors(shape.head_size);
    let data: Vec<u8> = factors
        .iter()
        .flat_map(|factor| factor.to_le_bytes())
        .collect();
    Ok(Some(TensorInfo {
        name: "rope_freqs.weight".into(),
        dtype: DType::F32,
        shape: vec![factors.len()],
        contents: Contents::Stored(data.into()),
    }))
}

/// Llama 3.1's scaling.
struct Scaling {
    base: f32,
    factor: f32,
    low: f32,
    high: f32,
    original: f32,
}

impl Scaling {
    /// For each frequency of a head of `head_size`: 1 where waves are short, `factor` where they are long, and a smooth
    /// passage between.
    fn factors(&self, head_size: u32) -> Vec<f32> {
        let factor = |pair: u32| {
            let frequency = 1.0 / self.base.powf((2 * pair) as f32 / head_size as f32);
            let wave = 2.0 * std::f32::consts::PI / frequency;
            if wave < self.original / self.high {
                1.0
            } else if wave > self.original / self.low {
                self.factor
            } else {
                let smooth = (self.original / wave - self.low) / (self.high - self.low);
                1.0 / ((1.0 - smooth) / self.factor + smooth)
            }
        };
        (0..head_size / 2).map(factor).collect()
    }
}

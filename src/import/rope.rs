//! Rotary embeddings: bases and scalings under GGUF's names, and Llama 3's factors as the tensor that GGUF has.
//!
//! Files of Hugging Face's version 5 have all of it in `rope_parameters`, for Gemma once for each kind of layer; older
//! ones have `rope_theta`, `rope_local_base_freq` and `rope_scaling`.

use super::ImportError;
use super::class::Class;
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
    fn read(config: &Config, family: &Family) -> Result<Rope, ImportError> {
        // Both are asked for, so that neither counts as unknown.
        let (new, old) = (config.get("rope_parameters"), config.get("rope_scaling"));
        let (key, found) = match (new, old) {
            (Some(new), Some(old)) if new != old => {
                // Which one counts, and what of the other stays, depends on the version that reads the file.
                let supported = "one of rope_parameters and rope_scaling, not two that differ";
                let found = short(old);
                return Err(unsupported(config.file(), "rope_scaling", found, supported));
            }
            (Some(found), _) => ("rope_parameters", found),
            (None, Some(found)) => ("rope_scaling", found),
            (None, None) => ("rope_scaling", &Value::Object(Map::new())),
        };
        let Some(map) = found.as_object() else {
            return Err(value(config.file(), key, "an object", found));
        };
        let by_layers = ["full_attention", "sliding_attention"];
        let nested = by_layers.iter().any(|kind| map.contains_key(*kind));
        // Of Gemma's class, `rope_parameters` has one set for each kind of layer, and nothing else is read.
        let gemma = family.kind == Kind::Gemma3;
        if !gemma && nested || gemma && new.is_some() && !nested && !map.is_empty() {
            let supported = match nested {
                true => "one set of values for all layers",
                false => "full_attention and sliding_attention",
            };
            return Err(unsupported(config.file(), key, short(found), supported));
        }
        let values = match map.get("full_attention").and_then(Value::as_object) {
            Some(full) => full.clone(),
            None if nested => Map::new(),
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

    fn base(&self, config: &Config, family: &Family) -> Result<f32, ImportError> {
        let written = config.number("rope_theta")?;
        let base = self.number(config, "rope_theta")?.or(written);
        Ok(base.unwrap_or(Class::of(family.kind).rope_base))
    }

    /// [`Rope::number`] where 0 says no more than an absent key.
    fn number_or_zero(&self, config: &Config, name: &str) -> Result<Option<f32>, ImportError> {
        match self.values.get(name).and_then(Value::as_f64) {
            Some(0.0) => Ok(None),
            _ => self.number(config, name),
        }
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

/// Writes the bases and the scaling.
pub(super) fn translate(
    config: &Config,
    family: &Family,
    shape: &Shape,
    put: &mut impl FnMut(&str, crate::loader::Value),
) -> Result<(), ImportError> {
    let rope = Rope::read(config, family)?;
    // A second base, for the layers with a window.
    let local = family.kind == Kind::Gemma3;
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
    put("rope.freq_base", rope.base(config, family)?.into());
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
        "yarn" => yarn(config, &rope, shape, put)?,
        other => {
            let supported = if local {
                "default, linear, yarn"
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
    shape: &Shape,
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
            "mscale",
            "mscale_all_dim",
            "truncate",
        ],
    )?;
    let factor = rope.need(config, "factor")?;
    if let Some(found) = rope.values.get("truncate")
        && *found != Value::Bool(true)
    {
        let key = format!("{}.truncate", rope.key);
        return Err(unsupported(config.file(), key, short(found), "true"));
    }
    let original = match rope.number(config, "original_max_position_embeddings")? {
        Some(original) => original as u32,
        None => shape.context,
    };
    put("rope.scaling.type", "yarn".into());
    put("rope.scaling.factor", factor.into());
    put("rope.scaling.original_context_length", original.into());
    let said = rope.number(config, "attention_factor")?;
    let scales = [
        rope.number_or_zero(config, "mscale")?,
        rope.number_or_zero(config, "mscale_all_dim")?,
    ];
    // What cosines and sines are multiplied by, where it is not what follows from `factor` alone.
    let sharpened = |scale: f32| match factor > 1.0 {
        true => 0.1 * scale * factor.ln() + 1.0,
        false => 1.0,
    };
    let magnitude = match (said, scales) {
        (Some(said), _) => Some(said),
        (None, [Some(one), Some(all)]) => Some(sharpened(one) / sharpened(all)),
        (None, _) => None,
    };
    for (key, found) in [
        ("rope.scaling.yarn_attn_factor", magnitude),
        (
            "rope.scaling.yarn_beta_fast",
            rope.number_or_zero(config, "beta_fast")?,
        ),
        (
            "rope.scaling.yarn_beta_slow",
            rope.number_or_zero(config, "beta_slow")?,
        ),
    ] {
        if let Some(found) = found {
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
    let rope = Rope::read(config, family)?;
    if rope.kind() != "llama3" {
        return Ok(None);
    }
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
        base: rope.base(config, family)?,
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

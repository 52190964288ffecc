//! Sliding windows: which layers have one, and how wide it is.

use super::ImportError;
use super::config::Config;
use super::error::{short, unsupported, value};
use super::family::{Family, Kind, Shape};
use crate::loader::Value as Entry;
use serde_json::Value;

impl Family {
    /// Writes the window, or refuses a pattern of layers that GGUF has no key for here.
    pub(super) fn window(
        &self,
        config: &Config,
        shape: &Shape,
        put: &mut impl FnMut(&str, Entry),
    ) -> Result<(), ImportError> {
        let uses = config.flag("use_sliding_window")?;
        let size = config.count("sliding_window")?;
        let types = config.get("layer_types");
        let slides = |found: &Value| match found.as_str() {
            Some("sliding_attention") => Ok(true),
            Some("full_attention") => Ok(false),
            _ => {
                let supported = "full_attention, sliding_attention";
                Err(unsupported(
                    config.file(),
                    "layer_types",
                    short(found),
                    supported,
                ))
            }
        };
        let list = types
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let layers = list.iter().map(slides).collect::<Result<Vec<bool>, _>>()?;
        if types.is_some() && layers.len() != shape.layers as usize {
            let found = format!("{} entries", layers.len()).into();
            let expected = format!("one entry for each of the {} layers", shape.layers);
            return Err(value(config.file(), "layer_types", expected, &found));
        }
        let windowed = |key: &str, found: String, supported: &str| {
            Err(unsupported(config.file(), key, found, supported))
        };
        match self.kind {
            Kind::Gemma3 => {
                let pattern = config
                    .count("sliding_window_pattern")?
                    .or(config.count("_sliding_window_pattern")?);
                let every = pattern.unwrap_or(6) as usize;
                let expected = (0..shape.layers as usize).map(|layer| (layer + 1) % every != 0);
                if !layers.is_empty() && !layers.iter().copied().eq(expected) {
                    let found = types.map(short).unwrap_or_default();
                    return windowed(
                        "layer_types",
                        found,
                        &format!("full_attention in every {every}th layer"),
                    );
                }
                if every != 6 {
                    return windowed("sliding_window_pattern", every.to_string(), "6");
                }
                put("attention.sliding_window", size.unwrap_or(4096).into());
            }
            Kind::Mistral => {
                if uses != Some(false) && !layers.iter().all(|slides| *slides) {
                    return windowed(
                        "layer_types",
                        types.map(short).unwrap_or_default(),
                        "sliding_attention in every layer",
                    );
                }
                // Absent is not null: the class has a default.
                let size = match config.is_null("sliding_window") {
                    true => None,
                    false => Some(size.unwrap_or(4096)),
                };
                let context = config.need_count("max_position_embeddings")?;
                // A window of the whole context is none.
                if let Some(size) = size.filter(|&size| uses != Some(false) && size < context) {
                    put("attention.sliding_window", size.into());
                }
            }
            _ => {
                if layers.contains(&true) {
                    return windowed(
                        "layer_types",
                        types.map(short).unwrap_or_default(),
                        "full_attention in every layer",
                    );
                }
                let first = config.count("max_window_layers")?.unwrap_or(28);
                if uses == Some(true) && types.is_none() && first < shape.layers {
                    return windowed("use_sliding_window", "true".into(), "false");
                }
                if self.kind == Kind::Llama && size.is_some() && uses != Some(false) {
                    return windowed(
                        "sliding_window",
                        size.unwrap_or(0).to_string(),
                        "a Llama without one",
                    );
                }
            }
        }
        Ok(())
    }
}

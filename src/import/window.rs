//! Sliding windows: which layers have one, and how wide it is.

use super::ImportError;
use super::config::Config;
use super::error::{short, unsupported, value};
use super::family::{Family, Kind, Shape};
use crate::loader::{Array, Value as Entry};
use serde_json::Value;

/// The window that Hugging Face's classes have where `sliding_window` is absent.
const USUAL: u32 = 4096;

impl Family {
    /// Writes the window and the layers that have it, as Hugging Face's class would find them.
    pub(super) fn window(
        &self,
        config: &Config,
        shape: &Shape,
        put: &mut impl FnMut(&str, Entry),
    ) -> Result<(), ImportError> {
        let uses = config.flag("use_sliding_window")?;
        let size = config.count("sliding_window")?;
        // Absent is not null: most classes have a default.
        let size_or_usual = match config.is_null("sliding_window") {
            true => None,
            false => size.or(Some(USUAL)),
        };
        let types = layer_types(config, shape)?;
        let refuse = |key: &str, found: String, supported: &str| {
            Err(unsupported(config.file(), key, found, supported))
        };
        let every = |has: bool| vec![has; shape.layers as usize];
        let (size, layers) = match self.kind {
            Kind::Gemma3 => {
                let period = config.count("sliding_window_pattern")?.unwrap_or(6);
                let by_period = || {
                    (1..=shape.layers)
                        .map(|n| !n.is_multiple_of(period))
                        .collect()
                };
                (size_or_usual, types.unwrap_or_else(by_period))
            }
            Kind::Ministral => {
                let all = || every(size_or_usual.is_some());
                (size_or_usual, types.unwrap_or_else(all))
            }
            Kind::Mistral => {
                // The class reads neither of these; a file in which they say something else is not one of its models.
                let size = size_or_usual.filter(|&size| size < shape.context);
                if size.is_some() && uses == Some(false) {
                    return refuse(
                        "use_sliding_window",
                        "false".into(),
                        "true, or a sliding_window of null",
                    );
                }
                // Where the window holds the whole context, a layer with it and one without it do the same.
                let wanted = match (size, size_or_usual) {
                    (Some(_), _) => Some((true, "sliding_attention in every layer")),
                    (None, None) => Some((false, "full_attention in every layer")),
                    (None, Some(_)) => None,
                };
                if let (Some((slides, supported)), Some(types)) = (wanted, types)
                    && types.contains(&!slides)
                {
                    let found = config.get("layer_types").map(short).unwrap_or_default();
                    return refuse("layer_types", found, supported);
                }
                let all = every(size.is_some());
                (size, all)
            }
            Kind::Qwen2 | Kind::Qwen3 => {
                let size = size_or_usual.filter(|_| uses == Some(true));
                let first = config.count_or_zero("max_window_layers")?.unwrap_or(28);
                let later = || {
                    (0..shape.layers)
                        .map(|n| size.is_some() && n >= first)
                        .collect()
                };
                (size, types.unwrap_or_else(later))
            }
            Kind::SmolLm3 => {
                let size = size.filter(|_| uses == Some(true));
                let turned = super::family::turned_layers(config, shape)?;
                let unturned = || {
                    turned
                        .iter()
                        .map(|&turned| size.is_some() && !turned)
                        .collect()
                };
                (size, types.unwrap_or_else(unturned))
            }
            Kind::Llama => {
                if let Some(size) = size.filter(|_| uses != Some(false)) {
                    return refuse("sliding_window", size.to_string(), "a Llama without one");
                }
                (None, types.unwrap_or_else(|| every(false)))
            }
        };
        if !layers.contains(&true) {
            return Ok(());
        }
        let Some(size) = size else {
            let found = config.get("layer_types").map(short).unwrap_or_default();
            let supported =
                "full_attention in every layer, since the model has no sliding_window in use";
            return refuse("layer_types", found, supported);
        };
        put("attention.sliding_window", size.into());
        // What a family's Definition takes by itself needs no key.
        let usual: Vec<bool> = match self.kind {
            Kind::Gemma3 => (1..=shape.layers).map(|n| n % 6 != 0).collect(),
            _ => every(true),
        };
        if layers != usual {
            put(
                "attention.sliding_window_pattern",
                Array::from(&layers[..]).into(),
            );
        }
        Ok(())
    }
}

/// `layer_types`: whether each layer has a window.
fn layer_types(config: &Config, shape: &Shape) -> Result<Option<Vec<bool>>, ImportError> {
    const KEY: &str = "layer_types";
    let Some(found) = config.get(KEY) else {
        return Ok(None);
    };
    let slides = |found: &Value| match found.as_str() {
        Some("sliding_attention") => Ok(true),
        Some("full_attention") => Ok(false),
        _ => {
            let supported = "full_attention, sliding_attention";
            Err(unsupported(config.file(), KEY, short(found), supported))
        }
    };
    let expected = || format!("one entry for each of the {} layers", shape.layers);
    let Some(list) = found.as_array() else {
        return Err(value(config.file(), KEY, expected(), found));
    };
    let layers = list.iter().map(slides).collect::<Result<Vec<bool>, _>>()?;
    if layers.len() != shape.layers as usize {
        let found = format!("{} entries", layers.len()).into();
        return Err(value(config.file(), KEY, expected(), &found));
    }
    Ok(Some(layers))
}

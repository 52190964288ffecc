//! Sliding windows: which layers have one, and how wide it is.

use super::ImportError;
use super::config::Config;
use super::error::{short, unsupported, value};
use super::family::{Family, Kind, Shape};
use crate::loader::{Array, Value as Entry};
use serde_json::Value;

/// The window that Hugging Face's classes have where `sliding_window` is absent.
const USUAL: u32 = 4096;

/// The width of a model's windows, and which layers have one.
type Windows = (Option<u32>, Vec<bool>);

impl Family {
    /// Writes the window and the layers that have it, as Hugging Face's class would find them.
    pub(super) fn window(
        &self,
        config: &Config,
        shape: &Shape,
        put: &mut impl FnMut(&str, Entry),
    ) -> Result<(), ImportError> {
        let said = Said::read(config, shape)?;
        let (size, layers) = match self.kind {
            Kind::Gemma3 => said.gemma3(),
            Kind::Ministral => Ok(said.ministral()),
            Kind::Mistral => said.mistral(),
            Kind::Qwen2 | Kind::Qwen3 => said.qwen(),
            Kind::SmolLm3 => said.smollm3(),
            Kind::Llama => said.llama(),
        }?;
        if !layers.contains(&true) {
            return Ok(());
        }
        let Some(size) = size else {
            let found = config.get("layer_types").map(short).unwrap_or_default();
            let supported =
                "full_attention in every layer, since the model has no sliding_window in use";
            return Err(unsupported(config.file(), "layer_types", found, supported));
        };
        put("attention.sliding_window", size.into());
        // What a family's Definition takes by itself needs no key.
        let usual: Vec<bool> = match self.kind {
            Kind::Gemma3 => (1..=shape.layers).map(|n| n % 6 != 0).collect(),
            _ => vec![true; shape.layers as usize],
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

/// What a `config.json` says of windows.
struct Said<'c> {
    config: &'c Config,
    shape: &'c Shape,
    /// `use_sliding_window`.
    uses: Option<bool>,
    /// `sliding_window`.
    size: Option<u32>,
    /// The same for the classes that have a default: absent is not `null`.
    size_or_usual: Option<u32>,
    /// `layer_types`.
    types: Option<Vec<bool>>,
}

impl<'c> Said<'c> {
    fn read(config: &'c Config, shape: &'c Shape) -> Result<Said<'c>, ImportError> {
        let uses = config.flag("use_sliding_window")?;
        let size = config.count("sliding_window")?;
        let size_or_usual = match config.is_null("sliding_window") {
            true => None,
            false => size.or(Some(USUAL)),
        };
        Ok(Said {
            config,
            shape,
            uses,
            size,
            size_or_usual,
            types: layer_types(config, shape)?,
        })
    }

    fn every(&self, has: bool) -> Vec<bool> {
        vec![has; self.shape.layers as usize]
    }

    fn refuse<T>(&self, key: &str, found: String, supported: &str) -> Result<T, ImportError> {
        Err(unsupported(self.config.file(), key, found, supported))
    }

    /// All but every sixth layer, or another period.
    fn gemma3(self) -> Result<Windows, ImportError> {
        let period = self.config.count("sliding_window_pattern")?.unwrap_or(6);
        let layers = 1..=self.shape.layers;
        let by_period = || layers.map(|n| !n.is_multiple_of(period)).collect();
        Ok((self.size_or_usual, self.types.unwrap_or_else(by_period)))
    }

    fn ministral(self) -> Windows {
        let all = self.every(self.size_or_usual.is_some());
        (self.size_or_usual, self.types.unwrap_or(all))
    }

    /// All layers or none. The class reads neither `use_sliding_window` nor `layer_types`; a file in which they say
    /// something else is not one of its models.
    fn mistral(self) -> Result<Windows, ImportError> {
        let size = self.size_or_usual.filter(|&size| size < self.shape.context);
        if size.is_some() && self.uses == Some(false) {
            let supported = "true, or a sliding_window of null";
            return self.refuse("use_sliding_window", "false".into(), supported);
        }
        // Where the window holds the whole context, a layer with it and one without it do the same.
        let wanted = match (size, self.size_or_usual) {
            (Some(_), _) => Some((true, "sliding_attention in every layer")),
            (None, None) => Some((false, "full_attention in every layer")),
            (None, Some(_)) => None,
        };
        if let (Some((slides, supported)), Some(types)) = (wanted, &self.types)
            && types.contains(&!slides)
        {
            let found = self.config.get("layer_types").map(short);
            return self.refuse("layer_types", found.unwrap_or_default(), supported);
        }
        Ok((size, self.every(size.is_some())))
    }

    /// The layers from `max_window_layers` on.
    fn qwen(self) -> Result<Windows, ImportError> {
        let size = self.size_or_usual.filter(|_| self.uses == Some(true));
        let first = self.config.count_or_zero("max_window_layers")?;
        let first = first.unwrap_or(28);
        let layers = 0..self.shape.layers;
        let later = || layers.map(|n| size.is_some() && n >= first).collect();
        Ok((size, self.types.unwrap_or_else(later)))
    }

    /// The layers without positions.
    fn smollm3(self) -> Result<Windows, ImportError> {
        let size = self.size.filter(|_| self.uses == Some(true));
        let turned = super::family::turned_layers(self.config, self.shape)?;
        let has = |turned: &bool| size.is_some() && !turned;
        let unturned = || turned.iter().map(has).collect();
        Ok((size, self.types.unwrap_or_else(unturned)))
    }

    fn llama(self) -> Result<Windows, ImportError> {
        if let Some(size) = self.size.filter(|_| self.uses != Some(false)) {
            return self.refuse("sliding_window", size.to_string(), "a Llama without one");
        }
        let none = self.every(false);
        Ok((None, self.types.unwrap_or(none)))
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

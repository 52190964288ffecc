//! Metadata → hyperparameters: the keys as the GGUF specification and llama.cpp name them, and what a
//! family's Definition says for those that its files leave out.

use super::definition::{DefaultValue, Definition, LayerKind, NamedNumber};
use super::{Hyperparameters, LayerPattern, ModelError};
use crate::graph::Yarn;
use crate::loader::{LoadError, Metadata, Value, ValueType};

/// Numbers that change what a model computes in ways that no node here has: `(key, the values at
/// which it changes nothing, what is supported)`.
#[rustfmt::skip]
const REFUSED_NUMBERS: &[(&str, &[f32], &str)] = &[
    ("attn_logit_softcapping", &[0.0], "no soft-capping (0)"),
    ("final_logit_softcapping", &[0.0], "no soft-capping (0)"),
    ("attention.max_alibi_bias", &[0.0], "rotary positions, no ALiBi (0)"),
    ("attention.clamp_kqv", &[0.0], "no clamping (0)"),
    ("attention.temperature_scale", &[0.0], "no scaling by position (0)"),
    ("attention.output_scale", &[0.0, 1.0], "no scale (1)"),
    ("attention.value_scale", &[0.0, 1.0], "no scale (1)"),
    ("rope.scaling.alpha", &[0.0], "no alpha (0)"),
    ("logit_scale", &[0.0, 1.0], "no scale (1)"),
    ("residual_scale", &[0.0, 1.0], "no scale (1)"),
];

/// The same for switches: `(key, the value that changes nothing, what is supported)`.
const REFUSED_SWITCHES: &[(&str, bool, &str)] = &[
    ("attention.causal", true, "causal attention (true)"),
    (
        "use_parallel_residual",
        false,
        "blocks one after the other (false)",
    ),
];

/// A model's keys: the file's, and behind them its Definition's defaults.
struct Keys<'m> {
    file: &'m Metadata,
    defaults: Metadata,
    architecture: String,
}

impl Keys<'_> {
    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    /// Whichever of file and defaults has the key.
    fn holder(&self, name: &str) -> &Metadata {
        match self.file.get(name) {
            Some(_) => self.file,
            None => &self.defaults,
        }
    }

    fn u32(&self, key: &str) -> Result<Option<u32>, LoadError> {
        let name = self.name(key);
        self.holder(&name).u32(&name)
    }

    fn f32(&self, key: &str) -> Result<Option<f32>, LoadError> {
        let name = self.name(key);
        self.holder(&name).f32(&name)
    }

    fn need(&self, key: &str) -> Result<u32, ModelError> {
        self.u32(key)?.ok_or_else(|| self.missing(&self.name(key)))
    }

    fn need_f32(&self, key: &str) -> Result<f32, ModelError> {
        self.f32(key)?.ok_or_else(|| self.missing(&self.name(key)))
    }

    fn missing(&self, name: &str) -> ModelError {
        ModelError::MissingKey {
            file: self.file.file().display().to_string(),
            key: name.into(),
        }
    }

    fn refuse(&self, key: &str, found: String, supported: &str) -> ModelError {
        ModelError::UnsupportedKey {
            file: self.file.file().display().to_string(),
            key: self.name(key),
            found,
            supported: supported.into(),
        }
    }

    /// A pattern of layers: a period, or a list of flags, which files write as bools or as integers.
    fn pattern(&self, key: &str) -> Result<Option<LayerPattern>, ModelError> {
        let name = self.name(key);
        let holder = self.holder(&name);
        let Some(Value::Array(list)) = holder.get(&name) else {
            return Ok(holder.u32(&name)?.map(LayerPattern::AllButEvery));
        };
        let flags = if list.item_type() == ValueType::Bool {
            holder.bools(&name)?
        } else {
            let numbers = holder.i32s(&name)?;
            numbers.map(|list| list.iter().map(|&n| n != 0).collect())
        };
        Ok(flags.map(LayerPattern::Each))
    }
}

impl Hyperparameters {
    /// Reads `{arch}.block_count`, `{arch}.attention.head_count`, … as the GGUF specification
    /// names them; for those that are absent, what `definition` says.
    ///
    /// # Errors
    /// One line that names the key, what was found and what is supported.
    pub fn from_metadata(metadata: &Metadata, definition: &Definition) -> Result<Self, ModelError> {
        let file = &metadata.file().display().to_string();
        let mut keys = Keys {
            file: metadata,
            defaults: Metadata::new(metadata.file()),
            architecture: String::new(),
        };
        let architecture = metadata.str("general.architecture")?;
        keys.architecture = architecture
            .ok_or_else(|| keys.missing("general.architecture"))?
            .to_string();
        refuse_foreign(&keys)?;

        let (layers, embedding) = (keys.need("block_count")?, keys.need("embedding_length")?);
        let heads = keys.need("attention.head_count")?;
        keys.defaults = defaults(&keys, definition, layers, embedding, heads);
        let key_length = keys.u32("attention.key_length")?;
        let head_size = key_length.unwrap_or_else(|| embedding.checked_div(heads).unwrap_or(0));
        let rope_dims = keys.u32("rope.dimension_count")?;
        for (key, wanted, supported) in [
            (
                "attention.value_length",
                head_size,
                "values as long as keys",
            ),
            ("attention.key_length_swa", head_size, "heads of one size"),
            ("attention.value_length_swa", head_size, "heads of one size"),
            (
                "rope.dimension_count_swa",
                rope_dims.unwrap_or(head_size),
                "heads turned alike",
            ),
        ] {
            if let Some(found) = keys.u32(key)?.filter(|&n| n != wanted) {
                return Err(keys.refuse(key, found.to_string(), supported));
            }
        }
        let vocabulary = match keys.u32("vocab_size")? {
            Some(size) => size,
            None => {
                let tokens = metadata.strings("tokenizer.ggml.tokens")?;
                let missing = || keys.missing(&keys.name("vocab_size"));
                u32::try_from(tokens.ok_or_else(missing)?.len()).unwrap_or(u32::MAX)
            }
        };
        let mut hyper = Hyperparameters {
            layers,
            embedding,
            feed_forward: keys.need("feed_forward_length")?,
            heads,
            kv_heads: keys.u32("attention.head_count_kv")?.unwrap_or(heads),
            head_size,
            vocabulary,
            context: keys.need("context_length")?,
            rms_eps: keys.need_f32("attention.layer_norm_rms_epsilon")?,
            rope_dims,
            attention_scale: keys.f32("attention.scale")?.filter(|&scale| scale != 0.0),
            window: keys.u32("attention.sliding_window")?.filter(|&n| n > 0),
            architecture: keys.architecture.clone(),
            ..Hyperparameters::default()
        };
        if let Some(base) = keys.f32("rope.freq_base")? {
            hyper.rope_base = base;
        }
        if let Some(base) = keys.f32("rope.freq_base_swa")? {
            hyper.rope_base_local = base;
        }
        if let Some(scale) = keys.f32("embedding_scale")? {
            hyper.embedding_scale = scale;
        }
        if let Some(pattern) = keys.pattern("attention.sliding_window_pattern")? {
            hyper.windowed_layers = pattern;
        }
        if let Some(pattern) = keys.pattern("attention.rope_pattern")? {
            hyper.rotated_layers = pattern;
        }
        scale_positions(&keys, &mut hyper)?;
        hyper.check(file)?;

        // What the Definition has no node for must not be passed over.
        if let Some(window) = hyper.window.filter(|_| !definition.has_windows()) {
            let supported = format!("none, in definition `{}`", definition.family);
            return Err(keys.refuse("attention.sliding_window", window.to_string(), &supported));
        }
        let unturned = (0..layers).any(|layer| !hyper.rotated_layers.holds(layer));
        if unturned && !definition.tells_apart(LayerKind::Rotated) {
            let supported = format!("all layers turned, in definition `{}`", definition.family);
            let found = "for some layers only".to_string();
            return Err(keys.refuse("attention.rope_pattern", found, &supported));
        }
        Ok(hyper)
    }
}

/// Refuses models that compute something else.
fn refuse_foreign(keys: &Keys<'_>) -> Result<(), ModelError> {
    if let Some(experts) = keys.u32("expert_count")?.filter(|&n| n > 0) {
        let supported = "dense models (0 experts)";
        return Err(keys.refuse("expert_count", experts.to_string(), supported));
    }
    // They are counted as blocks, and are not part of a step.
    if let Some(more) = keys.u32("nextn_predict_layers")?.filter(|&n| n > 0) {
        let supported = "no layers that predict further tokens (0)";
        return Err(keys.refuse("nextn_predict_layers", more.to_string(), supported));
    }
    for &(key, neutral, supported) in REFUSED_NUMBERS {
        if let Some(found) = keys.f32(key)?.filter(|found| !neutral.contains(found)) {
            return Err(keys.refuse(key, found.to_string(), supported));
        }
    }
    for &(key, neutral, supported) in REFUSED_SWITCHES {
        if let Some(found) = keys.file.bool(&keys.name(key))?.filter(|&b| b != neutral) {
            return Err(keys.refuse(key, found.to_string(), supported));
        }
    }
    if keys
        .file
        .get(&keys.name("rope.dimension_sections"))
        .is_some()
    {
        let supported = "one position a token, no sections";
        return Err(keys.refuse("rope.dimension_sections", "a list".into(), supported));
    }
    Ok(())
}

/// The Definition's defaults as metadata of a model with these dimensions.
fn defaults(
    keys: &Keys<'_>,
    definition: &Definition,
    layers: u32,
    embedding: u32,
    heads: u32,
) -> Metadata {
    let mut defaults = Metadata::new(keys.file.file());
    let variant = definition.variants.iter().find(|v| v.layers == layers);
    let special = variant.into_iter().flat_map(|v| &v.defaults);
    // A variant's come last and replace the family's.
    for (key, value) in definition.defaults.iter().chain(special) {
        let value = match *value {
            DefaultValue::Integer(value) => Value::from(value),
            DefaultValue::Number(value) => Value::from(value),
            DefaultValue::Named(name) => {
                let (e, h) = (f64::from(embedding), f64::from(heads));
                Value::from(match name {
                    NamedNumber::SqrtE => e.sqrt() as f32,
                    NamedNumber::RsqrtEPerH => (e / h).powf(-0.5) as f32,
                })
            }
        };
        defaults.insert(keys.name(key), value);
    }
    defaults
}

/// Reads `rope.scaling.*`: none, linear, or YaRN (arXiv:2309.00071).
fn scale_positions(keys: &Keys<'_>, hyper: &mut Hyperparameters) -> Result<(), ModelError> {
    let number = |key: &str| keys.f32(&format!("rope.scaling.{key}"));
    let factor = match number("factor")? {
        // The key's name in old files.
        None => keys.f32("rope.scale_linear")?,
        found => found,
    };
    // As in llama.cpp: a factor without a type is a linear one, and a factor of 0 is none.
    let factor = factor.filter(|&factor| factor != 0.0);
    let kind_name = keys.name("rope.scaling.type");
    let kind = keys.file.str(&kind_name)?.unwrap_or("linear");
    hyper.rope_yarn.magnitude = number("attn_factor")?.unwrap_or(1.0);
    match (kind, factor) {
        ("none", _) | ("linear", None) => {}
        ("linear", Some(factor)) => hyper.rope_position_scale = 1.0 / factor,
        ("yarn", None) => return Err(keys.missing(&keys.name("rope.scaling.factor"))),
        ("yarn", Some(factor)) => {
            hyper.rope_position_scale = 1.0 / factor;
            let trained = keys.u32("rope.scaling.original_context_length")?;
            let trained = f64::from(trained.unwrap_or(hyper.context));
            let rope = hyper.rope();
            let (dims, base) = (f64::from(rope.dims), f64::from(rope.base));
            // The pair that turns so many times within the context the model was trained for.
            let pair = |turns: f32| {
                let wave = trained / (f64::from(turns) * std::f64::consts::TAU);
                dims * wave.ln() / (2.0 * base.ln())
            };
            let turns = |key: &str, usual: f32| match number(key)?.unwrap_or(usual) {
                turns if turns.is_finite() && turns > 0.0 => Ok(turns),
                turns => {
                    let name = format!("rope.scaling.{key}");
                    Err(keys.refuse(&name, turns.to_string(), "a positive finite number"))
                }
            };
            let fast = turns("yarn_beta_fast", 32.0)?;
            let slow = turns("yarn_beta_slow", 1.0)?;
            let keep = number("yarn_ext_factor")?.filter(|keep| keep.is_nan() || *keep >= 0.0);
            // Longer contexts flatten attention; this sharpens it again (the paper's √(1/t)).
            let sharpen = |weight: f32| match factor {
                factor if factor <= 1.0 => 1.0,
                factor => 0.1 * weight * factor.ln() + 1.0,
            };
            let magnitude = match (number("yarn_attn_factor")?, number("yarn_log_multiplier")?) {
                (Some(said), _) => said,
                (None, Some(weight)) if weight != 0.0 => sharpen(1.0) / sharpen(weight),
                (None, _) => sharpen(1.0),
            };
            hyper.rope_yarn = Yarn {
                first: pair(fast).floor().max(0.0) as f32,
                last: pair(slow).ceil().min(dims - 1.0) as f32,
                keep: keep.unwrap_or(1.0),
                magnitude: magnitude * hyper.rope_yarn.magnitude,
            };
        }
        (other, _) => {
            let supported = "none, linear, yarn, and Llama 3's rope_freqs.weight";
            return Err(keys.refuse("rope.scaling.type", other.into(), supported));
        }
    }
    Ok(())
}

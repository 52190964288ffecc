use std::collections::BTreeSet;
use std::path::Path;

use toml::Spanned;

use super::*;

/// `default.toml` with the keys that have no default switched on: `#key = …` and `#[table]`, but not `# prose`.
fn uncommented() -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => {
            format!("{rest}\n")
        }
        _ => format!("{line}\n"),
    };
    DEFAULT_TOML.lines().map(line).collect()
}

/// Every key as `table.key`, whatever list it is in.
fn keys(prefix: &str, value: &toml::Value, found: &mut BTreeSet<String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let path = format!("{prefix}.{key}");
                keys(&path, value, found);
                found.insert(path);
            }
        }
        toml::Value::Array(items) => items.iter().for_each(|item| keys(prefix, item, found)),
        _ => {}
    }
}

/// The keys of `[model.shape]`; the compiler asks for those that are added to the struct.
fn shape_keys(shape: &Hyperparameters) -> Vec<&'static str> {
    macro_rules! names {
        ($($key:ident),* $(,)?) => {{
            let Hyperparameters { $($key: _),* } = shape;
            vec![$(stringify!($key)),*]
        }};
    }
    names!(
        architecture,
        layers,
        embedding,
        feed_forward,
        heads,
        kv_heads,
        head_size,
        vocabulary,
        context,
        rms_eps,
        rope_base,
        rope_dims,
        rope_position_scale,
        rope_yarn,
        rope_base_local,
        rotated_layers,
        embedding_scale,
        attention_scale,
        window,
        windowed_layers,
    )
}

/// A file with every key except those of the shape; the compiler asks for those that are added to the structs.
fn complete() -> File {
    let text = || Some("x".to_string());
    let spanned = || Some(Spanned::new(0..0, "x".to_string()));
    File {
        model: ModelSection {
            name: text(),
            sha256: spanned(),
            graph: text(),
            quantize: spanned(),
            source: vec![Spanned::new(
                0..0,
                SourceEntry {
                    path: text(),
                    pypi: text(),
                    member: text(),
                    huggingface: text(),
                    file: text(),
                    revision: text(),
                    sha256: text(),
                },
            )],
            shape: None,
        },
        session: SessionSection {
            device: spanned(),
            threads: Some(1),
            context: Some(1),
            kv_type: spanned(),
            chunk_rows: Some(1),
            prompt_precision: spanned(),
            eager: Some(true),
            overlap: Some(true),
        },
        sampling: SamplingSection {
            temperature: Some(1.0),
            top_k: Some(1),
            top_p: Some(1.0),
            min_p: Some(1.0),
            repeat_penalty: Some(1.0),
            frequency_penalty: Some(1.0),
            presence_penalty: Some(1.0),
            repeat_last_n: Some(1),
            seed: Some(1),
        },
        generate: GenerateSection {
            max_tokens: Some(1),
            stop: Some(Spanned::new(0..0, vec!["x".into()])),
            ignore_eos: Some(true),
            special: Some(true),
            on_full: spanned(),
            keep: Some(1),
        },
        chat: ChatSection {
            system: text(),
            template: text(),
            thinking: Some(true),
        },
    }
}

#[test]
fn default_toml_is_the_default() {
    // Anything the file left out would keep these values.
    let mut config = Config {
        threads: 77,
        context: Some(77),
        chunk_rows: 77,
        prompt_precision: PromptPrecision::Exact,
        eager: true,
        overlap: false,
        ignore_eos: true,
        special: false,
        on_full: OnFull::Slide,
        max_tokens: 77,
        stop: vec!["x".into()],
        device: DeviceChoice::Cpu,
        sampling: Sampling {
            temperature: 7.0,
            top_k: 7,
            top_p: 0.7,
            min_p: 0.7,
            repeat_penalty: 7.0,
            frequency_penalty: 7.0,
            presence_penalty: 7.0,
            repeat_last_n: 7,
            seed: 7,
        },
        ..Config::default()
    };
    config
        .apply_file(Path::new("default.toml"), DEFAULT_TOML)
        .unwrap();
    assert_eq!(config, Config::default());
}

#[test]
fn default_toml_mentions_every_key_and_no_other() {
    let text = uncommented();
    let mut config = Config::default();
    config.apply_file(Path::new("default.toml"), &text).unwrap();
    assert_eq!(config.sources.len(), 3);
    let shape = config.shape.unwrap();

    let (mut documented, mut known) = (BTreeSet::new(), BTreeSet::new());
    keys("", &toml::from_str(&text).unwrap(), &mut documented);
    keys("", &toml::Value::try_from(complete()).unwrap(), &mut known);
    let shape_keys = shape_keys(&shape).into_iter();
    known.extend(shape_keys.map(|key| format!(".model.shape.{key}")));
    known.insert(".model.shape".into());
    let yarn = ["first", "last", "keep", "magnitude"];
    known.extend(yarn.map(|key| format!(".model.shape.rope_yarn.{key}")));
    assert_eq!(documented, known);
}

#[test]
fn shipped_configurations_are_read() {
    let check = |text: &str, layers: u32, sources: usize, checked: bool| {
        let mut config = Config::default();
        config.apply_file(Path::new("shipped.toml"), text).unwrap();
        assert_eq!(config.shape.unwrap().layers, layers);
        assert_eq!(config.sources.len(), sources);
        assert_eq!(config.sources[0].digest.is_some(), checked);
    };
    check(SMOLLM2_TOML, 30, 1, true);
    check(
        include_str!("../../../configs/llama-2-7b.toml"),
        32,
        2,
        false,
    );
    check(
        include_str!("../../../configs/llama-3-8b.toml"),
        32,
        2,
        false,
    );
}

#[test]
fn errors_have_a_line_and_a_column() {
    let check = |text: &str, place: &str, part: &str| {
        let mut config = Config::default();
        let error = config.apply_file(Path::new("c.toml"), text).unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with(&format!("c.toml:{place}: ")), "{error}");
        assert!(error.contains(part) && !error.contains('\n'), "{error}");
    };
    check("[sampling]\ntemprature = 1\n", "2:1", "temprature");
    check("\n[sampler]\n", "2:2", "sampler");
    check("[session]\nthreads = \"two\"\n", "2:11", "string");
    check("[session]\nthreads = -1\n", "2:11", "-1");
    check(
        "[session]\nkv_type = \"q4_0\"\n",
        "2:11",
        "supported: f32, f16, q8_0",
    );
    check(
        "[session]\ndevice = \"tpu\"\n",
        "2:10",
        "supported: auto, cpu, hip",
    );
    check("[session]\nchunk_rows = -1\n", "2:14", "-1");
    check(
        "[session]\nprompt_precision = \"half\"\n",
        "2:20",
        "supported: fast, exact",
    );
    check(
        "[generate]\non_full = \"wrap\"\n",
        "2:11",
        "supported: stop, slide",
    );
    check("[chat]\nsystems = \"x\"\n", "2:1", "systems");
    check("[generate]\nstop = [\"é\", \"\"]\n", "2:8", "empty");
    check("[model]\nsha256 = \"12\"\n", "2:10", "64 hexadecimal");
    check(
        "[[model.source]]\npath = \"a\"\npypi = \"b==1\"\n",
        "1:1",
        "either",
    );
    check(
        "[[model.source]]\npypi = \"b\"\nmember = \"m\"\n",
        "1:1",
        "name==version",
    );
    check("[model.shape]\nlayers = 3\n", "1:1", "missing field");
    check(
        "\"é\" = = 1
",
        "1:7",
        "=",
    );
}

#[test]
fn flags_win_over_the_file_and_the_file_over_defaults() {
    let mut config = Config::default();
    let text = "[sampling]\ntemperature = 0.5\nseed = 3\n[session]\nthreads = 2\ncontext = 99\n";
    config.apply_file(Path::new("c.toml"), text).unwrap();
    config.apply_sampling(&SamplingArgs {
        seed: Some(4),
        ..SamplingArgs::default()
    });
    let session = SessionArgs {
        ctx: Some(100),
        ..SessionArgs::default()
    };
    config.apply_session(&session).unwrap();
    assert_eq!(config.sampling.temperature, 0.5);
    assert_eq!(config.sampling.seed, 4);
    assert_eq!(config.threads, 2);
    assert_eq!(config.context_for(Some(50)), 100);
    assert_eq!(config.context_name(), "--ctx");

    let hip = SessionArgs {
        device: Some(DeviceChoice::Hip(Some(1))),
        ..SessionArgs::default()
    };
    config.apply_session(&hip).unwrap();
    assert_eq!(config.device, DeviceChoice::Hip(Some(1)));
    let text = "[session]\ndevice = \"hip\"\n";
    config.apply_file(Path::new("c.toml"), text).unwrap();
    assert_eq!(config.device, DeviceChoice::Hip(None));
}

#[test]
fn context_follows_the_model_unless_asked() {
    let config = Config::default();
    assert_eq!(config.context_for(Some(8192)), DEFAULT_CONTEXT);
    assert_eq!(config.context_for(Some(64)), 64);
    assert_eq!(config.context_for(None), DEFAULT_CONTEXT);
}

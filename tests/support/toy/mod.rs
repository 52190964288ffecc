//! Toy Llama models with random weights of any runnable format, as GGUF files and as the oracle's tensors.

pub mod vocabulary;
pub mod weights;

use super::gguf_writer::{self, GgufWriter};
use super::oracle::{FORMATS, Format, Hyper, Llama, RawTensor, Rope};
use super::rng::Rng;
use std::path::{Path, PathBuf};
use vocabulary::Vocabulary;
use weights::random_blocks;

/// The dimensions of a toy.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// A word for file names.
    pub name: &'static str,
    /// Transformer layers.
    pub layers: usize,
    /// `E`: hidden size.
    pub hidden: usize,
    /// `H`.
    pub heads: usize,
    /// `G`.
    pub kv_heads: usize,
    /// `D`.
    pub head_size: usize,
    /// `F`.
    pub feed_forward: usize,
    /// `V`.
    pub vocabulary: usize,
}

/// Every row a multiple of 256, for all formats.
pub const WIDE: Shape = Shape {
    name: "wide",
    layers: 2,
    hidden: 256,
    heads: 4,
    kv_heads: 2,
    head_size: 64,
    feed_forward: 512,
    vocabulary: 320,
};

/// Rows that are odd multiples of 32 and a vocabulary that is a multiple of nothing, for formats of 32 or fewer.
pub const ODD: Shape = Shape {
    name: "odd",
    layers: 2,
    hidden: 96,
    heads: 3,
    kv_heads: 1,
    head_size: 32,
    feed_forward: 160,
    vocabulary: 131,
};

/// Heads that together are wider than the hidden size, each with a key head of its own.
pub const BROAD_HEADS: Shape = Shape {
    name: "broad",
    layers: 2,
    hidden: 64,
    heads: 5,
    kv_heads: 5,
    head_size: 32,
    feed_forward: 96,
    vocabulary: 131,
};

/// What a toy is made of.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// Its dimensions.
    pub shape: Shape,
    /// The format of every matrix, the embedding included.
    pub format: Format,
    /// Whether the output matrix is the embedding.
    pub tied: bool,
    /// Decides every weight.
    pub seed: u64,
}

impl Recipe {
    /// `format` in the wide shape if its blocks need it and in the odd shape otherwise; tied embeddings for every
    /// second format, so that both kinds are covered.
    pub fn of(format: Format) -> Recipe {
        Recipe {
            shape: if format.elements > 32 { WIDE } else { ODD },
            format,
            tied: format.id % 2 == 1,
            seed: 20_261_100 + u64::from(format.id),
        }
    }

    /// One line for messages: everything needed to build the same toy again.
    pub fn describe(&self) -> String {
        format!(
            "{} toy of {}, {}, seed {}",
            self.shape.name,
            self.format.name,
            if self.tied { "tied" } else { "untied" },
            self.seed
        )
    }

    /// Build it. Prints the recipe, which a failing test then shows.
    pub fn build(self) -> Toy {
        println!("{}", self.describe());
        let s = self.shape;
        let mut rng = Rng::new(self.seed);
        let mut tensors = Vec::new();
        let mut matrix =
            |rng: &mut Rng, name: &str, rows: usize, columns: usize, deviation: f64| {
                tensors.push(RawTensor {
                    name: format!("{name}.weight"),
                    ggml_id: self.format.id,
                    shape: vec![rows, columns],
                    bytes: random_blocks(rng, self.format, rows * columns, deviation),
                });
            };
        let root = |k: usize| 1.0 / (k as f64).sqrt();
        matrix(&mut rng, "token_embd", s.vocabulary, s.hidden, 1.0);
        if !self.tied {
            matrix(
                &mut rng,
                "output",
                s.vocabulary,
                s.hidden,
                2.0 * root(s.hidden),
            );
        }
        let (q, kv) = (s.heads * s.head_size, s.kv_heads * s.head_size);
        for layer in 0..s.layers {
            let mut block = |part: &str, rows: usize, columns: usize| {
                let name = format!("blk.{layer}.{part}");
                matrix(&mut rng, &name, rows, columns, root(columns));
            };
            block("attn_q", q, s.hidden);
            block("attn_k", kv, s.hidden);
            block("attn_v", kv, s.hidden);
            block("attn_output", s.hidden, q);
            block("ffn_gate", s.feed_forward, s.hidden);
            block("ffn_up", s.feed_forward, s.hidden);
            block("ffn_down", s.hidden, s.feed_forward);
        }
        let norms = (0..s.layers)
            .flat_map(|l| [format!("blk.{l}.attn_norm"), format!("blk.{l}.ffn_norm")])
            .chain(["output_norm".to_string()]);
        // A tied embedding of deviation 1 would give logits of deviation sqrt(E): the last norm takes that back.
        let last = if self.tied { 2.0 * root(s.hidden) } else { 1.0 };
        for name in norms {
            let scale = if name == "output_norm" { last } else { 1.0 };
            let values = (0..s.hidden).map(|_| (scale * rng.uniform(0.5, 1.5)) as f32);
            tensors.push(RawTensor {
                name: format!("{name}.weight"),
                ggml_id: 0,
                shape: vec![s.hidden],
                bytes: values.flat_map(f32::to_le_bytes).collect(),
            });
        }
        Toy {
            recipe: self,
            vocabulary: Vocabulary::new(s.vocabulary),
            tensors,
        }
    }
}

/// Every format once, and the shapes and ties that this leaves out.
pub fn recipes() -> Vec<Recipe> {
    let mut all: Vec<Recipe> = FORMATS.iter().map(|f| Recipe::of(*f)).collect();
    for (shape, name, tied) in [
        (WIDE, "Q4_0", false),
        (WIDE, "F32", true),
        (WIDE, "Q8_0", true),
        (BROAD_HEADS, "F32", false),
        (BROAD_HEADS, "Q4_1", true),
    ] {
        all.push(Recipe {
            shape,
            tied,
            ..Recipe::of(Format::by_name(name))
        });
    }
    all
}

/// A built toy.
pub struct Toy {
    /// What it was built from.
    pub recipe: Recipe,
    /// Its tokenizer.
    pub vocabulary: Vocabulary,
    /// Its tensors.
    pub tensors: Vec<RawTensor>,
}

/// Every toy's RMSNorm epsilon.
pub const EPS: f32 = 1e-5;
/// Every toy's RoPE base.
pub const THETA: f32 = 10_000.0;
/// Every toy's trained context.
pub const CONTEXT: usize = 256;

impl Toy {
    /// The same model for the oracle.
    pub fn oracle(&self) -> Llama {
        let s = self.recipe.shape;
        let hyper = Hyper {
            layers: s.layers,
            heads: s.heads,
            kv_heads: s.kv_heads,
            head_size: s.head_size,
            eps: f64::from(EPS),
            theta: f64::from(THETA),
            rope: Rope::Interleaved,
        };
        Llama::new(hyper, &self.tensors)
    }

    /// `count` random token ids, control tokens among them.
    pub fn tokens(&self, seed: u64, count: usize) -> Vec<u32> {
        let mut rng = Rng::new(seed);
        (0..count)
            .map(|_| rng.below(self.recipe.shape.vocabulary) as u32)
            .collect()
    }

    /// The whole file.
    pub fn gguf(&self) -> GgufWriter {
        let (s, v) = (self.recipe.shape, &self.vocabulary);
        let sizes = [
            ("llama.block_count", s.layers),
            ("llama.context_length", CONTEXT),
            ("llama.embedding_length", s.hidden),
            ("llama.feed_forward_length", s.feed_forward),
            ("llama.attention.head_count", s.heads),
            ("llama.attention.head_count_kv", s.kv_heads),
            ("llama.attention.key_length", s.head_size),
            ("llama.attention.value_length", s.head_size),
            ("llama.rope.dimension_count", s.head_size),
            ("llama.vocab_size", s.vocabulary),
        ];
        let mut file = GgufWriter::new()
            .meta_str("general.architecture", "llama")
            .meta_str("general.name", &self.recipe.describe())
            .meta_f32("llama.rope.freq_base", THETA)
            .meta_f32("llama.attention.layer_norm_rms_epsilon", EPS)
            .meta_str("tokenizer.ggml.model", "gpt2")
            .meta_str("tokenizer.ggml.pre", "smollm")
            .meta_strings("tokenizer.ggml.tokens", &v.tokens)
            .meta_i32s("tokenizer.ggml.token_type", &v.types)
            .meta_strings("tokenizer.ggml.merges", &v.merges)
            .meta_u32("tokenizer.ggml.bos_token_id", v.end_of_text)
            .meta_u32("tokenizer.ggml.eos_token_id", v.im_end)
            .meta_bool("tokenizer.ggml.add_bos_token", false);
        for (key, size) in sizes {
            file = file.meta_u32(key, size as u32);
        }
        for t in &self.tensors {
            file = file.tensor_raw(gguf_writer::RawTensor {
                name: t.name.clone().into_bytes(),
                dimensions: t.shape.iter().rev().map(|n| *n as u64).collect(),
                type_id: t.ggml_id,
                offset: None,
                bytes: t.bytes.clone(),
            });
        }
        file
    }

    /// Write the file into `folder` and say where it is.
    pub fn write(&self, folder: &Path) -> PathBuf {
        let r = self.recipe;
        let tie = if r.tied { "tied" } else { "untied" };
        let path = folder.join(format!("{}-{}-{tie}.gguf", r.shape.name, r.format.name));
        self.gguf().write(&path);
        path
    }
}

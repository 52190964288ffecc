//! What the tests of broken files share.

use crate::gguf_writer::GgufWriter;
use greta_infer::dtype::DType;
use greta_infer::loader::{Checkpoint, LoadError};
use std::path::PathBuf;

/// A directory of its own for each test, and files in it.
pub struct Desk(tempfile::TempDir);

impl Desk {
    pub fn new() -> Desk {
        Desk(tempfile::tempdir().expect("a directory"))
    }

    pub fn open(&self, bytes: &[u8]) -> Result<Checkpoint, LoadError> {
        // A new name every time: writing into a file that is still mapped is what the loader's contract excludes.
        let path = self.path("broken.gguf");
        std::fs::remove_file(&path).ok();
        std::fs::write(&path, bytes).expect("written");
        Checkpoint::open(&path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// The name of an error's variant.
pub fn kind(error: &LoadError) -> String {
    let text = format!("{error:?}");
    text.split([' ', '{', '('])
        .next()
        .expect("a word")
        .to_owned()
}

/// A small model-like file with every kind of value.
pub fn toy() -> GgufWriter {
    GgufWriter::new()
        .meta_str("general.architecture", "llama")
        .meta_u32("llama.block_count", 2)
        .meta_f32("llama.eps", 1e-5)
        .meta_bool("flag", true)
        .meta_strings("tokenizer.ggml.tokens", &["<s>", "</s>", "a", "b"])
        .meta_f32s("tokenizer.ggml.scores", &[0.0, 0.0, -1.0, -2.0])
        .meta_i32s("tokenizer.ggml.token_type", &[3, 3, 1, 1])
        .meta_bools("flags", &[true, false])
        .tensor("token_embd.weight", DType::Q8_0, &[4, 64], vec![1; 4 * 68])
        .tensor(
            "blk.0.attn_q.weight",
            DType::Q4_1,
            &[8, 64],
            vec![2; 8 * 40],
        )
        .tensor("output_norm.weight", DType::F32, &[64], vec![3; 256])
}

//! Chat templates and conversations at the border of the library: renderings against Hugging Face's, tokens, sliding.

mod chat {
    pub mod renderings;
}

//! Chat templates and conversations at the border of the library: renderings against Hugging Face's, tokens, sliding;
//! and the `chat` command through a pipe.

mod support;

mod chat {
    pub mod command;
    pub mod prompts;
    pub mod renderings;
    pub mod sessions;
    pub mod toy;
}

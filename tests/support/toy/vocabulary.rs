//! A small byte-level BPE vocabulary of a chosen size, in the form GGUF metadata holds.

/// A vocabulary and its merges. Control tokens come last.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    /// Token strings in GPT-2's printable alphabet.
    pub tokens: Vec<String>,
    /// ggml token types: 1 for a normal token, 3 for a control token.
    pub types: Vec<i32>,
    /// Merges, best first, as `left right`.
    pub merges: Vec<String>,
    /// The id of `<|endoftext|>`, both beginning and end.
    pub end_of_text: u32,
    /// The id of `<|im_end|>`.
    pub im_end: u32,
}

const CONTROL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
const LETTERS: &str = "etaoinshrdlucmfwygpbvk";
const WORDS: [&str; 12] = [
    "the", "and", "ing", "that", "once", "upon", "time", "with", "have", "there", "hello", "world",
];

impl Vocabulary {
    /// `size` tokens: all 256 bytes if they fit, else printable ASCII with tab and newline; then merges that spell some
    /// words; then letter pairs. Panics if `size` is too small for the alphabet.
    pub fn new(size: usize) -> Vocabulary {
        let all_bytes = size >= 256 + CONTROL.len() + 16;
        let mut tokens: Vec<String> = (0..=255u8)
            .filter(|b| all_bytes || matches!(b, b'\t' | b'\n' | b' '..=b'~'))
            .map(|b| printable(b).to_string())
            .collect();
        let normal = size
            .checked_sub(CONTROL.len())
            .filter(|n| *n >= tokens.len())
            .unwrap_or_else(|| panic!("{size} tokens cannot hold {} bytes", tokens.len()));

        let mut merges = Vec::new();
        let words = WORDS
            .iter()
            .flat_map(|w| [format!("{}{w}", printable(b' ')), w.to_string()]);
        let spelled = words.flat_map(|w| {
            let ends: Vec<usize> = w.char_indices().skip(1).map(|(i, _)| i).collect();
            ends.into_iter()
                .map(|at| {
                    let next = w[at..].chars().next().expect("a character starts here");
                    (w[..at].to_string(), next.to_string())
                })
                .collect::<Vec<_>>()
        });
        let pairs = LETTERS
            .chars()
            .flat_map(|a| LETTERS.chars().map(move |b| (a.to_string(), b.to_string())));
        for (left, right) in spelled.chain(pairs) {
            let joined = format!("{left}{right}");
            if tokens.len() < normal && !tokens.contains(&joined) {
                merges.push(format!("{left} {right}"));
                tokens.push(joined);
            }
        }
        assert_eq!(tokens.len(), normal, "too few merges for {size} tokens");
        let mut types = vec![1; normal];
        tokens.extend(CONTROL.map(String::from));
        types.extend([3; CONTROL.len()]);
        Vocabulary {
            tokens,
            types,
            merges,
            end_of_text: normal as u32,
            im_end: normal as u32 + 2,
        }
    }
}

/// GPT-2's printable stand-in for a byte: itself if it is a visible Latin-1 character, else one from U+0100 up.
fn printable(byte: u8) -> char {
    let visible = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if visible(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|b| !visible(*b)).count() as u32;
    char::from_u32(256 + before).expect("a code point below U+0200")
}

//! Text that comes token by token: whole characters only, and the same in the end.

use super::{Fixture, PLAIN, toy};
use greta_infer::loader::Array;
use greta_infer::tokenizer::{Tokenizer, WHOLE_IDS};

/// The text that each id releases, and what is left at the end.
fn released(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
    let mut stream = tokenizer.detokenizer();
    let mut parts: Vec<String> = ids.iter().map(|&id| stream.push(id).to_owned()).collect();
    parts.push(stream.finish().to_owned());
    parts
}

/// The token of each byte, in a vocabulary that spells every byte by itself.
fn bytes(tokenizer: &Tokenizer, bytes: &[u8]) -> Vec<u32> {
    let count = tokenizer.vocab_size() as u32;
    let find = |byte: u8| (0..count).find(|&id| tokenizer.piece(id) == [byte]);
    let ids = bytes.iter().map(|&byte| find(byte));
    ids.collect::<Option<_>>().expect("every byte has a token")
}

#[test]
fn no_half_character_is_ever_released() {
    let tokenizer = toy("scored.json", 0);
    let check = |raw: &[u8], expected: &[&str]| {
        let ids = bytes(&tokenizer, raw);
        assert_eq!(released(&tokenizer, &ids), expected, "{raw:x?}");
        assert_eq!(tokenizer.decode(&ids, false), expected.concat(), "{raw:x?}");
    };
    check(b"ab", &["a", "b", ""]);
    check("é".as_bytes(), &["", "é", ""]);
    check("😁!".as_bytes(), &["", "", "", "😁", "!", ""]);
    // Interrupted, then complete.
    check(b"\xF0\x9F\x98A", &["", "", "", "\u{FFFD}A", ""]);
    check(b"\xE4\xBD\xE4\xBD\xA0", &["", "", "\u{FFFD}", "", "你", ""]);
    // Never completed.
    check(b"a\xF0\x9F\x98", &["a", "", "", "", "\u{FFFD}"]);
    // Cannot begin a character, or cannot follow where they stand.
    check(b"\x80\xFFa", &["\u{FFFD}", "\u{FFFD}", "a", ""]);
    check(b"\xED\xA0\x80", &["", "\u{FFFD}\u{FFFD}", "\u{FFFD}", ""]);
}

#[test]
fn a_finished_stream_can_be_used_again() {
    let tokenizer = toy("scored.json", 0);
    let mut stream = tokenizer.detokenizer();
    let ids = bytes(&tokenizer, "é".as_bytes());
    assert_eq!(stream.push(ids[0]), "");
    assert_eq!(stream.finish(), "\u{FFFD}");
    assert_eq!(stream.finish(), "");
    assert_eq!(stream.push(ids[0]), "");
    assert_eq!(stream.push(ids[1]), "é");
}

#[test]
fn random_texts_come_back_whole_from_every_split() {
    let seed = 20261123u64;
    let mut state = seed;
    let mut next = move || {
        // SplitMix64.
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    println!("seed {seed}");
    let tokenizers = [
        toy("byte_level.json", 1),
        toy("byte_level.json", 3),
        toy("byte_level.json", 5),
        toy("scored.json", 0),
        toy("scored.json", 1),
    ];
    for _ in 0..400 {
        let length = next() % 40;
        let text: String = (0..length)
            .filter_map(|_| {
                let limit = [0x80, 0x250, 0x3100, 0xA000, 0x1FAFF][(next() % 5) as usize];
                char::from_u32((next() % limit) as u32)
            })
            .filter(|&c| c != '▁')
            .collect();
        for tokenizer in &tokenizers {
            let ids = tokenizer.encode(&text, PLAIN).unwrap();
            let decoded = tokenizer.decode(&ids, true);
            let mut stream = tokenizer.detokenizer().at_text_start().print_special(true);
            let mut streamed = String::new();
            ids.iter().for_each(|&id| streamed += stream.push(id));
            streamed += stream.finish();
            assert_eq!(streamed, decoded, "seed {seed}");
            if tokenizer.unspellable(&text).is_none() {
                assert_eq!(decoded, text, "seed {seed}");
            }
        }
    }
}

#[test]
fn the_space_before_a_text_is_removed_at_its_start_only() {
    let tokenizer = toy("scored.json", 0);
    let ids = tokenizer.encode("the the", PLAIN).unwrap();
    assert_eq!(tokenizer.decode(&ids, false), "the the");
    let with_bos = [&[1], &ids[..]].concat();
    assert_eq!(tokenizer.decode(&with_bos, false), "the the");
    assert_eq!(tokenizer.decode(&with_bos, true), "<s> the the");
    // A continuation keeps its space: it separates the new text from the old.
    assert_eq!(released(&tokenizer, &ids).concat(), " the the");
    // None was put before a token that is taken whole, and so none is removed.
    let fixture = Fixture::read("scored.json");
    let mut metadata = fixture.metadata(&fixture.cases[0]);
    let spaces = fixture.tokens.iter().position(|token| token == "▁▁");
    let spaces = spaces.expect("it is there") as u32;
    metadata.insert(WHOLE_IDS, Array::from(&[spaces][..]));
    let whole = Tokenizer::from_metadata(&metadata).unwrap();
    assert_eq!(whole.encode("▁▁", PLAIN).unwrap(), [spaces]);
    assert_eq!(whole.decode(&[spaces], false), "  ");
    let bare = toy("scored.json", 1);
    let ids = bare.encode(" the", PLAIN).unwrap();
    assert_eq!(bare.decode(&ids, false), " the");
}

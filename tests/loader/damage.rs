//! Damage of any kind: cut short anywhere, or changed at random. It may be refused or not, but nothing may panic.

use crate::desk::{Desk, kind, toy};
use greta_infer::loader::Checkpoint;

#[test]
fn the_toy_is_fine() {
    let file = Desk::new().open(&toy().to_bytes()).expect("it opens");
    assert_eq!((file.metadata().len(), file.tensors().len()), (8, 3));
}

#[test]
fn truncation_is_an_error_wherever_it_falls() {
    let desk = Desk::new();
    let bytes = toy().to_bytes();
    for end in 0..bytes.len() {
        let error = desk.open(&bytes[..end]).expect_err("cut short");
        let expected: &[&str] = match end {
            0 => &["Format"],
            _ => &["Truncated", "Count", "OutOfRange"],
        };
        assert!(expected.contains(&kind(&error).as_str()), "{end}: {error}");
        assert!(error.to_string().contains("broken.gguf: "), "{error}");
    }
}

/// Walks everything a file hands out, as its users would.
fn read_everything(file: &Checkpoint) -> usize {
    let mut sum = 0;
    for (key, value) in file.metadata().iter() {
        sum += format!("{value}").len();
        let data = file.metadata();
        sum += usize::from(data.str(key).is_ok()) + usize::from(data.u32(key).is_ok());
        if let Ok(Some(strings)) = data.strings(key) {
            sum += strings.iter().map(str::len).sum::<usize>();
        }
        sum += data
            .f32s(key)
            .map_or(0, |items| items.map_or(0, |items| items.len()));
        sum += data
            .i32s(key)
            .map_or(0, |items| items.map_or(0, |items| items.len()));
        sum += data
            .bools(key)
            .map_or(0, |items| items.map_or(0, |items| items.len()));
    }
    for info in file.tensors() {
        let tensor = info.fetch().expect("a mapped tensor");
        sum += tensor.element_count();
        sum += tensor
            .data
            .iter()
            .map(|&byte| usize::from(byte))
            .sum::<usize>();
        if tensor.dtype.is_runnable() {
            tensor
                .dtype
                .decode(&tensor.data, &mut vec![0.0; tensor.element_count()]);
        }
    }
    sum
}

/// Damages the toy in a few random places and opens it: it may be refused or not, but nothing may panic.
#[test]
fn random_damage_never_panics() {
    let seed = match std::env::var("GRETA_FUZZ_SEED") {
        Ok(text) => text.parse().expect("GRETA_FUZZ_SEED is a number"),
        Err(_) => std::process::id().into(),
    };
    let rounds =
        std::env::var("GRETA_FUZZ_ROUNDS").map_or(4000, |text| text.parse().expect("a number"));
    println!("GRETA_FUZZ_SEED={seed}");
    let mut random = Random(seed);
    let desk = Desk::new();
    let toy = toy().to_bytes();
    let header_bytes = toy.len() - (4 * 68 + 8 * 40 + 256) - 32;
    let (mut opened, mut refused) = (0, 0);
    for _ in 0..rounds {
        let mut bytes = toy.clone();
        for _ in 0..1 + random.below(3) {
            damage(&mut bytes, header_bytes, &mut random);
        }
        match desk.open(&bytes) {
            Ok(file) => {
                read_everything(&file);
                opened += 1;
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                refused += 1;
            }
        }
    }
    assert!(
        opened > rounds / 100 && refused > rounds / 10,
        "{opened} opened, {refused} refused"
    );
}

/// One change to the first `header_bytes` of a file: a byte, or a word that is likely to matter.
fn damage(bytes: &mut [u8], header_bytes: usize, random: &mut Random) {
    const WORDS: &[u64] = &[
        0,
        1,
        7,
        8,
        9,
        31,
        32,
        255,
        65_536,
        1 << 31,
        1 << 32,
        1 << 61,
        1 << 63,
        u64::MAX - 1,
        u64::MAX,
    ];
    let at = random.below(header_bytes);
    match random.below(4) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.below(256) as u8,
        2 => bytes[at] = bytes[at].wrapping_add(1),
        _ => {
            let word = WORDS[random.below(WORDS.len())].to_le_bytes();
            let length = [4, 8][random.below(2)].min(bytes.len() - at);
            bytes[at..at + length].copy_from_slice(&word[..length]);
        }
    }
}

/// SplitMix64: enough for choosing damage, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }
}

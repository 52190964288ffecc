use super::*;

#[test]
fn the_hash_is_fnv_1a_over_the_bits() {
    assert_eq!(hash_logits(&[]), 0xcbf2_9ce4_8422_2325);
    assert_ne!(hash_logits(&[0.0]), hash_logits(&[-0.0]));
    // FNV-1a of the bytes 00 00 80 3f, by the reference parameters.
    assert_eq!(hash_logits(&[1.0]), fnv_1a(&[0x00, 0x00, 0x80, 0x3f]));
}

/// The published algorithm, spelled in 128 bits to share nothing with the one above.
fn fnv_1a(bytes: &[u8]) -> u64 {
    let mut hash: u128 = 14_695_981_039_346_656_037;
    for &byte in bytes {
        hash ^= u128::from(byte);
        hash = hash * 1_099_511_628_211 % (1 << 64);
    }
    hash as u64
}

#[test]
fn finish_reasons_are_named_as_in_json() {
    for finish in [
        Finish::EndOfGeneration,
        Finish::Stop,
        Finish::Length,
        Finish::Context,
        Finish::Interrupted,
    ] {
        let json = serde_json::to_string(&finish).unwrap();
        assert_eq!(json, format!("\"{}\"", finish.name()));
    }
}

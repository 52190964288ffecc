use super::DType;

/// Ids, block lengths and bytes as ggml's headers have them, typed in a second time.
const GGML: &[(u32, &str, usize, usize)] = &[
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (2, "Q4_0", 32, 2 + 16),
    (3, "Q4_1", 32, 4 + 16),
    (6, "Q5_0", 32, 2 + 4 + 16),
    (7, "Q5_1", 32, 4 + 4 + 16),
    (8, "Q8_0", 32, 2 + 32),
    (9, "Q8_1", 32, 4 + 32),
    (10, "Q2_K", 256, 4 + 16 + 64),
    (11, "Q3_K", 256, 2 + 64 + 32 + 12),
    (12, "Q4_K", 256, 4 + 12 + 128),
    (13, "Q5_K", 256, 4 + 12 + 128 + 32),
    (14, "Q6_K", 256, 2 + 16 + 192),
    (15, "Q8_K", 256, 4 + 256 + 32),
    (16, "IQ2_XXS", 256, 2 + 64),
    (17, "IQ2_XS", 256, 2 + 64 + 8),
    (18, "IQ3_XXS", 256, 2 + 96),
    (19, "IQ1_S", 256, 2 + 32 + 16),
    (20, "IQ4_NL", 32, 2 + 16),
    (21, "IQ3_S", 256, 2 + 13 * 8 + 4),
    (22, "IQ2_S", 256, 2 + 64 + 16),
    (23, "IQ4_XS", 256, 2 + 2 + 4 + 128),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 32 + 16 + 8),
    (30, "BF16", 1, 2),
    (34, "TQ1_0", 256, 2 + 4 + 48),
    (35, "TQ2_0", 256, 2 + 64),
    (39, "MXFP4", 32, 1 + 16),
    (40, "NVFP4", 64, 4 + 32),
    (41, "Q1_0", 128, 2 + 16),
    (42, "Q2_0", 64, 2 + 16),
];

#[test]
fn every_ggml_type_is_named_and_sized() {
    assert_eq!(DType::ALL.len(), GGML.len());
    for &(id, name, len, bytes) in GGML {
        let dtype = DType::from_ggml(id).unwrap_or_else(|| panic!("{name} has no type"));
        assert_eq!((dtype.ggml_id(), dtype.name()), (id, name));
        assert_eq!(
            (dtype.block_len(), dtype.block_bytes()),
            (len, bytes),
            "{name}"
        );
        assert_eq!(name.to_lowercase().parse(), Ok(dtype));
        assert_eq!(dtype.to_string(), name);
        assert!(DType::removed_name(id).is_none());
    }
    for id in 0..1000 {
        let known = GGML.iter().any(|row| row.0 == id);
        assert_eq!(DType::from_ggml(id).is_some(), known, "{id}");
        assert_eq!(DType::removed_name(id).is_some(), !known && id < 43, "{id}");
    }
    assert!("Q4_M".parse::<DType>().is_err());
}

#[test]
fn rows_are_whole_blocks() {
    assert_eq!(DType::Q4_1.row_bytes(576), Some(576 / 32 * 20));
    assert_eq!(DType::Q4_K.row_bytes(576), None);
    assert_eq!(DType::Q4_K.row_bytes(0), Some(0));
    assert_eq!(DType::F32.row_bytes(usize::MAX), None);
}

#[test]
#[should_panic(expected = "19 bytes do not hold 32 elements")]
fn decoding_checks_lengths() {
    DType::Q4_0.decode(&[0; 19], &mut [0.0; 32]);
}

#[test]
#[should_panic(expected = "IQ4_NL cannot be decoded")]
fn decoding_checks_the_type() {
    DType::IQ4_NL.decode(&[0; 18], &mut [0.0; 32]);
}

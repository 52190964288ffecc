//! What is appended, bit for bit: as it was for f32, against the crate `half` for f16, against PyPI's `gguf` for Q8_0.

use super::*;
use crate::cpu::test_data::Random;
use half::f16;

const UNTOUCHED: u8 = 0xda;

/// Appends with every part in turn; the cache's bytes after it.
fn appended(
    isa: Isa,
    shape: CacheShape,
    (x, stride): (&[f32], usize),
    position: usize,
    rows: usize,
    parts: usize,
) -> Vec<u8> {
    let mut cache = vec![u16::from_ne_bytes([UNTOUCHED; 2]); shape.bytes() / 2];
    for part in 0..parts {
        // SAFETY: the buffers have the sizes of the shape and `isa` is available.
        unsafe {
            kv_append(
                isa,
                x.as_ptr(),
                stride,
                cache.as_mut_ptr().cast(),
                shape,
                position,
                rows,
                (part, parts),
            );
        }
    }
    cache.into_iter().flat_map(u16::to_ne_bytes).collect()
}

fn check(isa: Isa, shape: CacheShape, position: usize, rows: usize, parts: usize) {
    let mut random = Random::from_clock();
    let width = shape.heads * shape.head;
    let stride = width + 3;
    let x: Vec<f32> = random
        .normal(rows * stride)
        .iter()
        .map(|x| x * 1e-3)
        .collect();
    let cache = appended(isa, shape, (&x, stride), position, rows, parts);
    for g in 0..shape.heads {
        for s in 0..shape.capacity {
            for d in 0..shape.head {
                let bytes = shape.kv_type.bytes(1) as usize;
                let expected = if (position..position + rows).contains(&s) {
                    let x = x[(s - position) * stride + g * shape.head + d];
                    match shape.kv_type {
                        KvType::F32 => x.to_ne_bytes().to_vec(),
                        _ => f16::from_f32(x).to_ne_bytes().to_vec(),
                    }
                } else {
                    vec![UNTOUCHED; bytes]
                };
                let at = bytes * (shape.row(g, s) + d);
                let what = format!("{isa} {} [{g}, {s}, {d}]", shape.kv_type);
                assert_eq!(cache[at..at + bytes], expected, "{what}");
            }
        }
    }
}

#[test]
fn writes_its_rows_bit_for_bit_and_no_other() {
    for isa in Isa::available() {
        for kv_type in [KvType::F32, KvType::F16] {
            for head in [1, 8, 20, 64, 80] {
                let shape = CacheShape {
                    heads: 3,
                    capacity: 9,
                    head,
                    kv_type,
                };
                check(isa, shape, 0, 1, 1);
                check(isa, shape, 8, 1, 2);
                check(isa, shape, 2, 5, 3);
                check(isa, shape, 0, 9, 2);
            }
        }
    }
}

/// `tests/fixtures/make_kv_rows.py`: rows of f32, and behind each what `gguf` makes of it, block by block as files have
/// them: the scale, then the bytes.
const ROWS: &[u8] = include_bytes!("../../../tests/fixtures/kv_rows.bin");
const ROW: usize = 192;
const ROW_BYTES: usize = ROW * 4 + ROW / 32 * 34;

#[test]
fn q8_0_is_what_gguf_makes_of_the_same_rows() {
    let rows: Vec<&[u8]> = ROWS.chunks_exact(ROW_BYTES).collect();
    assert!(rows.len() >= 8 && ROWS.len().is_multiple_of(ROW_BYTES));
    let x: Vec<f32> = rows
        .iter()
        .flat_map(|row| row[..ROW * 4].as_chunks::<4>().0)
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect();
    for isa in Isa::available() {
        for (heads, head) in [(6, 32), (3, 64), (2, 96), (1, 192)] {
            let (position, capacity) = (3, rows.len() + 5);
            let shape = CacheShape {
                heads,
                capacity,
                head,
                kv_type: KvType::Q8_0,
            };
            let cache = appended(isa, shape, (&x, ROW), position, rows.len(), 3);
            for g in 0..heads {
                for s in 0..capacity {
                    let expected = s
                        .checked_sub(position)
                        .and_then(|r| rows.get(r))
                        .map(|row| &row[ROW * 4..]);
                    for block in 0..head / 32 {
                        let what = format!("{isa} D={head} [{g}, {s}] block {block}");
                        let element = shape.row(g, s) + block * 32;
                        let q = &cache[element..element + 32];
                        let scale = shape.elements() + element / 32 * 2;
                        let scale = &cache[scale..scale + 2];
                        if let Some(row) = expected {
                            let want = &row[(g * head / 32 + block) * 34..][..34];
                            assert_eq!((scale, q), want.split_at(2), "{what}");
                        } else {
                            let all = q.iter().chain(scale);
                            assert!(all.into_iter().all(|&b| b == UNTOUCHED), "{what}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn q8_0_shows_what_is_not_finite() {
    for isa in Isa::available() {
        for special in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let shape = CacheShape {
                heads: 1,
                capacity: 1,
                head: 64,
                kv_type: KvType::Q8_0,
            };
            let mut x = [0.5f32; 64];
            x[40] = special;
            let cache = appended(isa, shape, (&x, 64), 0, 1, 1);
            let scale = |block: usize| {
                let at = 64 + 2 * block;
                f16::from_ne_bytes([cache[at], cache[at + 1]])
            };
            assert_eq!(scale(0), f16::from_f32(0.5 / 127.0), "{isa}");
            assert!(scale(1).is_nan(), "{isa} {special}");
        }
    }
}

//! How a prompt is cut: which recordings there are, and which takes the next tokens.

/// Rows of the smaller recordings on a GPU, where one that is partly empty costs nearly as much as a
/// full one: blocks without live rows leave early, but those that are left do not fill the device.
///
/// Llama-2-7B Q4_0 on an H100, ms a chunk: 512 rows 30, 128 rows 12, 32 rows (computed as single steps
/// are) 43, a single step 2.2. F16: 24, 10, 44 and 5.3.
const SMALLER: [u32; 2] = [128, 32];

/// As many tokens or fewer are single steps on a GPU: no recording of several rows is quicker, and the
/// bits are those of decoding.
pub const STEPPED: usize = 8;

/// Rows of the prompt recordings, the largest first. On the CPU one does for all: its kernels walk the
/// live rows only.
pub fn sizes(largest: u32, on_gpu: bool) -> Vec<u32> {
    let smaller = SMALLER.into_iter().filter(|&rows| on_gpu && rows < largest);
    std::iter::once(largest).chain(smaller).collect()
}

/// Which of the recordings takes the next of `left` tokens of a prompt of `prompt`, and how many. The
/// smallest recording is for prompts that fit into it. Of the others, one that would be more than half
/// full takes all tokens, the smallest that can; otherwise the largest that they fill does, and the
/// rest is cut in turn. Where none is filled, the smallest takes what there is.
///
/// # Panics
/// When there are no recordings or no tokens.
pub fn next(left: usize, prompt: usize, sizes: &[u32]) -> (usize, usize) {
    assert!(left > 0, "nothing is left to cut");
    let last = sizes.len() - 1;
    let smallest = match prompt <= sizes[last] as usize {
        true => last,
        false => last.saturating_sub(1),
    };
    let sizes = &sizes[..=smallest];
    let holds = |rows: &u32| *rows as usize >= left;
    match sizes.iter().rposition(holds) {
        Some(index) if index == smallest || 2 * left > sizes[index] as usize => (index, left),
        _ => {
            let filled = sizes.iter().position(|&rows| rows as usize <= left);
            let index = filled.expect("a smaller recording than the one that is not half full");
            (index, sizes[index] as usize)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(prompt: usize, sizes: &[u32]) -> Vec<(u32, usize)> {
        let mut left = prompt;
        let mut cuts = Vec::new();
        while left > 0 {
            let (index, rows) = next(left, prompt, sizes);
            assert!(rows <= left && rows <= sizes[index] as usize);
            cuts.push((sizes[index], rows));
            left -= rows;
        }
        cuts
    }

    #[test]
    fn a_prompt_is_padded_where_a_recording_is_more_than_half_full() {
        let check = |left: usize, expected: &[(u32, usize)]| {
            assert_eq!(cut(left, &sizes(512, true)), expected, "{left}");
        };
        check(9, &[(32, 9)]);
        check(32, &[(32, 32)]);
        check(33, &[(128, 33)]);
        check(128, &[(128, 128)]);
        check(200, &[(128, 128), (128, 72)]);
        check(257, &[(512, 257)]);
        check(512, &[(512, 512)]);
        check(520, &[(512, 512), (128, 8)]);
        check(600, &[(512, 512), (128, 88)]);
        check(1024, &[(512, 512), (512, 512)]);
    }

    #[test]
    fn every_token_is_taken_whatever_the_largest() {
        for largest in [1, 2, 7, 8, 9, 100, 128, 512] {
            for on_gpu in [false, true] {
                let sizes = sizes(largest, on_gpu);
                assert!(sizes.is_sorted_by(|a, b| a > b), "{sizes:?}");
                for left in 1..1100 {
                    let cuts = cut(left, &sizes);
                    assert_eq!(cuts.iter().map(|c| c.1).sum::<usize>(), left);
                }
            }
        }
        assert_eq!(sizes(256, false), [256]);
    }
}

//! A share of the time as a colour.
//!
//! Matplotlib's "magma" from its light end: its lightness falls evenly, so that twice the share looks
//! twice as dark, in print and to the colour-blind as well. The last quarter is left out, where black
//! on black would begin.

/// Anchors of the map, from a share of nothing to the largest one, and the colours between them are
/// mixed.
const ANCHORS: [[u8; 3]; 7] = [
    [0xfc, 0xfd, 0xbf],
    [0xfe, 0xc4, 0x88],
    [0xfb, 0x88, 0x61],
    [0xe7, 0x52, 0x63],
    [0xb7, 0x37, 0x79],
    [0x83, 0x26, 0x81],
    [0x51, 0x12, 0x7c],
];

/// The colour of a `part` of the whole ramp, `0..=1`.
pub fn colour(part: f64) -> String {
    let [r, g, b] = mixed(part);
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// What is read on [`colour`].
pub fn ink(part: f64) -> &'static str {
    if luminance(mixed(part)) > 0.18 {
        "#000000"
    } else {
        "#ffffff"
    }
}

fn mixed(part: f64) -> [u8; 3] {
    let place = part.clamp(0.0, 1.0) * (ANCHORS.len() - 1) as f64;
    let below = (place as usize).min(ANCHORS.len() - 2);
    let toward = place - below as f64;
    std::array::from_fn(|channel| {
        let (a, b) = (ANCHORS[below][channel], ANCHORS[below + 1][channel]);
        (f64::from(a) + toward * (f64::from(b) - f64::from(a))).round() as u8
    })
}

/// Relative luminance by WCAG; at 0.18 black and white contrast equally.
fn luminance(colour: [u8; 3]) -> f64 {
    let [r, g, b] = colour.map(|c| (f64::from(c) / 255.0).powf(2.2));
    0.2126 * r + 0.7152 * g + 0.0722 * b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_is_darker_and_can_be_read() {
        let parts = || (0..=100).map(|percent| f64::from(percent) / 100.0);
        let lights: Vec<f64> = parts().map(|part| luminance(mixed(part))).collect();
        assert!(
            lights.windows(2).all(|pair| pair[1] < pair[0]),
            "{lights:?}"
        );
        for (part, light) in parts().zip(lights) {
            let contrast = match ink(part) {
                "#000000" => (light + 0.05) / 0.05,
                _ => 1.05 / (light + 0.05),
            };
            assert!(contrast > 4.5, "{part}: {contrast}");
        }
        assert_eq!(colour(-1.0), "#fcfdbf");
        assert_eq!(colour(2.0), "#51127c");
    }
}

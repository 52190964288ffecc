//! Line charts as SVG: axes with round ticks and units, a legend, readable on light and on dark.
//!
//! Colours are presentation attributes for a light page, which every renderer understands; a style
//! sheet replaces them where a viewer prefers dark.

use std::fmt::{Arguments, Write};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;

/// The plotted area: left, top, right, bottom.
const AREA: [f64; 4] = [76.0, 76.0, 736.0, 380.0];

/// A line's colour on light and on dark, and the attribute for dashes that tell it apart without colour.
const INKS: [(&str, &str, &str); 2] = [
    ("#0b62a4", "#6db6f2", ""),
    ("#b3480b", "#f2a36d", " stroke-dasharray=\"7 4\""),
];

/// Ticks an axis has at most.
const TICKS: usize = 6;

/// A chart of lines over one x axis. Both axes begin at zero.
pub struct Chart {
    pub title: String,
    /// A second, smaller line.
    pub subtitle: String,
    /// With its unit, as the one below.
    pub x_label: String,
    pub y_label: String,
    /// At most two lines.
    pub lines: Vec<Line>,
}

/// One line.
pub struct Line {
    pub name: String,
    /// In the order of x.
    pub points: Vec<(f64, f64)>,
}

/// The chart as a document.
///
/// # Panics
/// When there are more lines than colours.
pub fn svg(chart: &Chart) -> String {
    assert!(chart.lines.len() <= INKS.len(), "a colour a line");
    let points = || chart.lines.iter().flat_map(|line| &line.points);
    let (x_ticks, x_end) = ticks(points().map(|p| p.0).fold(0.0, f64::max));
    let (y_ticks, y_end) = ticks(points().map(|p| p.1).fold(0.0, f64::max));
    let [left, top, right, bottom] = AREA;
    let x = |value: f64| left + value / x_end * (right - left);
    let y = |value: f64| bottom - value / y_end * (bottom - top);
    let mut out = open(chart);
    for tick in y_ticks {
        let (at, label) = (y(tick), number(tick));
        put(
            &mut out,
            format_args!("<path class=\"grid\" stroke=\"#d9d9d9\" d=\"M{left} {at:.1}H{right}\"/>"),
        );
        let (tx, ty) = (left - 8.0, at + 4.0);
        text(&mut out, tx, ty, "end", 12, &label);
    }
    for tick in x_ticks {
        let (at, label) = (x(tick), number(tick));
        let end = bottom + 5.0;
        put(
            &mut out,
            format_args!("<path class=\"axis\" stroke=\"#555555\" d=\"M{at:.1} {bottom}V{end}\"/>"),
        );
        text(&mut out, at, bottom + 20.0, "middle", 12, &label);
    }
    put(
        &mut out,
        format_args!(
            "<path class=\"axis\" stroke=\"#555555\" fill=\"none\" d=\"M{left} {top}V{bottom}H{right}\"/>"
        ),
    );
    for (index, line) in chart.lines.iter().enumerate() {
        let (ink, _, dashes) = INKS[index];
        let path: Vec<String> = line
            .points
            .iter()
            .map(|p| format!("{:.1} {:.1}", x(p.0), y(p.1)))
            .collect();
        put(
            &mut out,
            format_args!(
                "<path class=\"line{index}\" stroke=\"{ink}\" fill=\"none\" stroke-width=\"2\"{dashes} d=\"M{}\"/>",
                path.join("L")
            ),
        );
        for p in &line.points {
            let (cx, cy) = (x(p.0), y(p.1));
            put(
                &mut out,
                format_args!(
                    "<circle class=\"dot{index}\" fill=\"{ink}\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"3.5\"><title>{}: {} at {}</title></circle>",
                    escape(&line.name),
                    number(p.1),
                    number(p.0)
                ),
            );
        }
    }
    legend(&mut out, chart);
    out.push_str("</svg>\n");
    out
}

fn open(chart: &Chart) -> String {
    let dark = INKS.iter().enumerate().map(|(index, (_, dark, _))| {
        format!(".line{index}{{stroke:{dark}}}.dot{index}{{fill:{dark}}}")
    });
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
         height=\"{HEIGHT}\" font-family=\"Helvetica, Arial, sans-serif\">\n<title>{}</title>\n\
         <style>@media (prefers-color-scheme: dark){{.page{{fill:#16181c}}.ink{{fill:#e6e6e6}}\
         .grid{{stroke:#3a3d42}}.axis{{stroke:#a8a8a8}}{}}}</style>\n\
         <rect class=\"page\" fill=\"#ffffff\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\n",
        escape(&chart.title),
        dark.collect::<String>()
    );
    let [left, top, right, bottom] = AREA;
    text(&mut out, left, 28.0, "start", 16, &chart.title);
    text(&mut out, left, 47.0, "start", 12, &chart.subtitle);
    text(
        &mut out,
        f64::midpoint(left, right),
        bottom + 44.0,
        "middle",
        13,
        &chart.x_label,
    );
    let middle = f64::midpoint(top, bottom);
    let label = escape(&chart.y_label);
    put(
        &mut out,
        format_args!(
            "<text class=\"ink\" fill=\"#222222\" text-anchor=\"middle\" font-size=\"13\" transform=\"translate(22 {middle}) rotate(-90)\">{label}</text>"
        ),
    );
    out
}

/// Names beside samples of their lines, above the plotted area.
fn legend(out: &mut String, chart: &Chart) {
    let mut at = AREA[0];
    for (index, line) in chart.lines.iter().enumerate() {
        let (ink, _, dashes) = INKS[index];
        let end = at + 30.0;
        put(
            out,
            format_args!(
                "<path class=\"line{index}\" stroke=\"{ink}\" stroke-width=\"2\"{dashes} d=\"M{at} 63H{end}\"/>"
            ),
        );
        text(out, end + 6.0, 67.0, "start", 12, &line.name);
        // Wide enough for any sans-serif at this size.
        at = end + 30.0 + 7.5 * line.name.chars().count() as f64;
    }
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, size: u32, words: &str) {
    let words = escape(words);
    put(
        out,
        format_args!(
            "<text class=\"ink\" fill=\"#222222\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\">{words}</text>"
        ),
    );
}

fn put(out: &mut String, element: Arguments<'_>) {
    writeln!(out, "{element}").expect("writing to a string");
}

/// Round numbers from zero up to the first that is not below `most`, which ends the axis.
fn ticks(most: f64) -> (Vec<f64>, f64) {
    let most = if most > 0.0 { most } else { 1.0 };
    let power = 10f64.powf((most / TICKS as f64).log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|factor| factor * power);
    let fits = |step: &&f64| most / **step <= TICKS as f64;
    let step = steps.iter().find(fits).copied().unwrap_or(10.0 * power);
    let count = (most / step - 1e-9).ceil() as usize;
    let ticks = (0..=count).map(|index| index as f64 * step);
    (ticks.collect(), count as f64 * step)
}

/// Without the zeros that say nothing.
fn number(value: f64) -> String {
    let text = format!("{value:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    text.to_string()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        let check = |most: f64, step: f64, end: f64| {
            let (ticks, last) = ticks(most);
            assert!((last - end).abs() < 1e-9 * end, "{most}: {last}");
            assert!((ticks[1] - step).abs() < 1e-9 * end, "{most}: {ticks:?}");
            assert!(
                ticks.len() <= TICKS + 1 && last >= most * (1.0 - 1e-9),
                "{most}: {ticks:?}"
            );
        };
        check(2048.0, 500.0, 2500.0);
        check(3.1, 1.0, 4.0);
        check(0.6, 0.1, 0.6);
        check(7.0, 2.0, 8.0);
        check(0.0, 0.2, 1.0);
    }

    #[test]
    fn what_is_drawn_lies_on_the_page_and_is_escaped() {
        let line = |name: &str, points: &[(f64, f64)]| Line {
            name: name.into(),
            points: points.to_vec(),
        };
        let chart = Chart {
            title: "a < b & \"c\"".into(),
            subtitle: String::new(),
            x_label: "x (tokens)".into(),
            y_label: "y (ms)".into(),
            lines: vec![
                line("one", &[(0.0, 3.0), (4096.0, 9.9)]),
                line("two", &[(0.0, 0.001)]),
            ],
        };
        let text = svg(&chart);
        assert!(text.contains("a &lt; b &amp; &quot;c&quot;"), "{text}");
        for part in text.split("cy=\"").skip(1) {
            let at: f64 = part.split('"').next().unwrap().parse().expect("a number");
            assert!((AREA[1]..=AREA[3]).contains(&at), "{at}");
        }
    }
}

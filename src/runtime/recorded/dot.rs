//! The recording as Graphviz DOT: nodes coloured by their share of the step's time.

use super::fold::{Cluster, fold};
use super::ramp::{colour, ink};
use super::{Recorded, Row, Sum, Time, by_role, headline, method};
use std::collections::BTreeMap;
use std::fmt::{Arguments, Write};

/// Roles listed in the legend; the rest is one line.
const LEGEND_ROLES: usize = 14;

/// Length of a legend's bar for the largest share, in points.
const BAR_POINTS: f64 = 120.0;

pub fn dot(recorded: &Recorded<'_>, layers: u32) -> String {
    let rows = recorded.rows();
    let clusters = fold(&rows, layers);
    let total_us = recorded.profile.map(|p| p.total_us());
    let sum = |node: &[usize]| Sum::of(node.iter().map(|&row| &rows[row]));
    let nodes = clusters.iter().flat_map(|c| &c.nodes);
    let shares = nodes.map(|node| sum(node).share(total_us.unwrap_or(0.0)));
    let scale = Scale {
        total_us,
        largest: shares.fold(0.0, f64::max),
    };
    let mut out = String::from(
        "digraph recorded {\n  rankdir=TB; bgcolor=white; fontname=\"Helvetica\"; nodesep=0.3; \
         ranksep=0.22;\n  node [shape=box, style=\"rounded,filled\", fontname=\"Helvetica\", \
         fontsize=10, color=\"#777777\"];\n  edge [color=\"#555555\", arrowsize=0.6, \
         fontname=\"Helvetica\", fontsize=9];\n",
    );
    out.push_str("  labelloc=t; labeljust=l; label=<\n");
    legend(&mut out, recorded, &rows, &scale);
    out.push_str("  >;\n");
    for (index, cluster) in clusters.iter().enumerate() {
        let title = escape(&cluster.title);
        line(
            &mut out,
            format_args!(
                "  subgraph cluster_{index} {{\n    label=\"{title}\"; labeljust=l; \
                 color=\"#bbbbbb\"; style=\"rounded,filled\"; fillcolor=\"#f6f6f6\"; fontsize=12;"
            ),
        );
        for node in &cluster.nodes {
            draw(&mut out, &rows, node, &sum(node), &scale);
        }
        out.push_str("  }\n");
    }
    edges(&mut out, recorded, &clusters, rows.len());
    out.push_str("}\n");
    out
}

/// How time becomes colour.
struct Scale {
    total_us: Option<f64>,
    /// The largest share of a drawn node, which gets the darkest colour.
    largest: f64,
}

impl Scale {
    /// Where a share lies on the ramp.
    fn part(&self, share: f64) -> f64 {
        if self.largest > 0.0 {
            share / self.largest
        } else {
            0.0
        }
    }
}

fn draw(out: &mut String, rows: &[Row<'_>], node: &[usize], sum: &Sum, scale: &Scale) {
    let first = &rows[node[0]];
    let mut lines = vec![format!("<b>{}</b>", escape(first.kernel_name()))];
    let times = if node.len() > 1 {
        format!(" × {}", node.len())
    } else {
        String::new()
    };
    lines.push(match &first.launch {
        None => format!("{} {}, no launch of the program", first.kind, first.index),
        Some(launch) => {
            let mut text = format!("{} {} = {}", first.kind, first.index, launch.node);
            if launch.kernel != first.kernel_name() {
                text += &format!(" {}", launch.kernel);
            }
            escape(&(text + &times))
        }
    });
    if let Some(launch) = first.launch.as_ref().filter(|l| !l.weights.is_empty()) {
        lines.push(escape(&launch.weights));
    }
    lines.extend(sum.price());
    let (mut fill, mut font) = ("#ffffff".to_string(), "#000000");
    if let Some(total_us) = scale.total_us {
        let share = sum.share(total_us);
        let mut text = format!("<b>{:.1} %</b>  {}", 100.0 * share, Time(sum.us));
        if node.len() > 1 {
            text += &format!(", {} each", Time(sum.us / node.len() as f64));
        }
        if let Some(rate) = sum.gb_per_s() {
            text += &format!(", {rate:.1} GB/s");
        }
        lines.push(text);
        (fill, font) = (colour(scale.part(share)), ink(scale.part(share)));
    }
    let label: String = lines
        .iter()
        .map(|line| format!("{line}<br align=\"left\"/>"))
        .collect();
    line(
        out,
        format_args!(
            "    r{} [label=<{label}>, fillcolor=\"{fill}\", fontcolor=\"{font}\"];",
            first.index
        ),
    );
}

/// The edges between drawn nodes. One that runs from a later node to an earlier one is the way from
/// a folded layer to the next.
fn edges(out: &mut String, recorded: &Recorded<'_>, clusters: &[Cluster], rows: usize) {
    let mut drawn = vec![0; rows];
    for node in clusters.iter().flat_map(|c| &c.nodes) {
        for &row in node {
            drawn[row] = node[0];
        }
    }
    let mut counts: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    for &(from, to) in &recorded.contents.edges {
        *counts.entry((drawn[from], drawn[to])).or_default() += 1;
    }
    for ((from, to), count) in counts {
        let attributes = if from >= to {
            format!(" [style=dashed, constraint=false, label=\"× {count}\"]")
        } else {
            String::new()
        };
        line(out, format_args!("  r{from} -> r{to}{attributes};"));
    }
}

/// What the colours mean, what the step takes in all, and which kinds of work take most of it.
fn legend(out: &mut String, recorded: &Recorded<'_>, rows: &[Row<'_>], scale: &Scale) {
    out.push_str("    <table border=\"0\" cellborder=\"0\" cellspacing=\"1\" cellpadding=\"3\">\n");
    let mut wide = |text: &str| {
        line(
            out,
            format_args!("    <tr><td colspan=\"5\" align=\"left\">{text}</td></tr>"),
        );
    };
    let title = format!("{} on {}", recorded.what(), recorded.device);
    wide(&format!(
        "<font point-size=\"14\"><b>{}</b></font>",
        escape(&title)
    ));
    wide(&escape(&headline(recorded, rows)));
    let (Some(total_us), Some(profile)) = (scale.total_us, recorded.profile) else {
        out.push_str("    </table>\n");
        return;
    };
    wide(&escape(&method(profile)));
    wide("colour: a drawn node's share of the step's time");
    out.push_str(
        "    <tr><td colspan=\"5\" align=\"left\"><table align=\"left\" border=\"0\" \
         cellspacing=\"0\" cellpadding=\"3\"><tr>",
    );
    for step in 0..7 {
        let part = f64::from(step) / 6.0;
        let percent = 100.0 * part * scale.largest;
        let (fill, font) = (colour(part), ink(part));
        write!(
            out,
            "<td bgcolor=\"{fill}\" width=\"60\"><font color=\"{font}\">{percent:.1} %</font></td>"
        )
        .expect("writing to a string");
    }
    out.push_str("</tr></table></td></tr>\n");
    let roles = by_role(rows);
    let (named, rest) = roles.split_at(roles.len().min(LEGEND_ROLES));
    let most = named.first().map_or(0.0, |(_, sum)| sum.us);
    for (role, sum) in named {
        legend_row(out, &format!("{} × {role}", sum.nodes), sum, total_us, most);
    }
    if !rest.is_empty() {
        let us = rest.iter().map(|(_, sum)| sum.us).sum();
        let sum = Sum {
            us,
            ..Sum::default()
        };
        legend_row(
            out,
            &format!("{} other kinds", rest.len()),
            &sum,
            total_us,
            most,
        );
    }
    out.push_str("    </table>\n");
}

fn legend_row(out: &mut String, name: &str, sum: &Sum, total_us: f64, most: f64) {
    let share = sum.share(total_us);
    let points = if most > 0.0 {
        (BAR_POINTS * sum.us / most).max(1.0)
    } else {
        1.0
    };
    let rate = sum
        .gb_per_s()
        .map_or(String::new(), |r| format!("{r:.1} GB/s"));
    let bar = format!(
        "<table align=\"left\" border=\"0\" cellspacing=\"0\" cellpadding=\"0\"><tr><td bgcolor=\"#b73779\" \
         width=\"{points:.0}\" height=\"9\" fixedsize=\"true\"></td></tr></table>"
    );
    line(
        out,
        format_args!(
            "    <tr><td align=\"left\">{bar}</td><td align=\"right\">{:.1} %</td>\
             <td align=\"right\">{}</td><td align=\"right\">{rate}</td>\
             <td align=\"left\">{}</td></tr>",
            100.0 * share,
            Time(sum.us),
            escape(name)
        ),
    );
}

fn line(out: &mut String, text: Arguments<'_>) {
    writeln!(out, "{text}").expect("writing to a string");
}

/// As DOT's HTML-like labels and quoted strings both take it.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

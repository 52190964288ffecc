//! A plan as text, for reading and for goldens.

use super::Plan;
use crate::graph::Graph;
use std::fmt::Write;

/// One value a line, in the order of the writes: where it lies and from which node to which.
pub fn text(graph: &Graph<'_>, plan: &Plan) -> String {
    let mut out = String::new();
    for interval in plan.intervals() {
        let value = graph.value(interval.value);
        let offset = plan
            .offset(interval.value)
            .expect("a plan places its own intervals");
        writeln!(
            out,
            "{} {} {}[{}, {}]: bytes {} at {}, alive n{} to n{}",
            interval.value,
            value.name,
            value.element,
            value.rows,
            value.cols,
            interval.bytes,
            offset,
            interval.first,
            interval.last,
        )
        .expect("writing to a string");
    }
    writeln!(
        out,
        "arena {} bytes, most alive at once {}, unshared {}",
        plan.arena_bytes(),
        plan.peak_live_bytes(),
        plan.unshared_bytes()
    )
    .expect("writing to a string");
    out
}

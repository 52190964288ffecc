//! Kernels that may begin before their predecessors have finished wait for them: the compiled code of each one that
//! `gpu::overlap` lists is looked at.
//!
//! What is read or written before the wait is argued in the kernels; here is only what a machine can see. Code for a
//! device whose launches do not overlap has no waits, and no kernel outside the list has any: it would be launched
//! plainly, and a wait in it would say something else than the list.

#[path = "support/skip.rs"]
mod skip;

use greta_infer::gpu::overlap::waits;
use greta_infer::kernels::{absence, code_object};
use skip::skip;

/// The kernels of a PTX module: name and body.
fn entries(ptx: &str) -> Vec<(&str, &str)> {
    let entry = |text: &'static str| text;
    let parts = ptx.split(entry(".entry ")).skip(1);
    parts
        .map(|part| {
            let name = part.split(['(', ' ', '\n']).next().unwrap_or_default();
            let end = part.find("\n}").unwrap_or(part.len());
            (name, &part[..end])
        })
        .collect()
}

fn ptx(arch: &str) -> Option<&'static str> {
    let Some(object) = code_object(arch) else {
        skip(&format!("GPU kernels: {}", absence().expect("a reason")));
        return None;
    };
    Some(std::str::from_utf8(object).expect("PTX is text"))
}

#[test]
fn listed_kernels_wait_and_no_others() {
    // That architecture's own code, and what those after it get.
    for arch in ["sm_90", "sm_100"] {
        check(arch);
    }
}

fn check(arch: &str) {
    let Some(ptx) = ptx(arch) else { return };
    let entries = entries(ptx);
    assert!(entries.len() > 50, "{} kernels", entries.len());
    let mut listed = 0;
    for (name, body) in entries {
        let waiting = body.contains("griddepcontrol.wait");
        assert_eq!(waiting, waits(name), "{name}: listed as one that waits?");
        let Some(at) = body.find("griddepcontrol.wait") else {
            continue;
        };
        listed += 1;
        let before = &body[..at];
        let writes = |word: &&str| {
            ["st.global", "atom.", "red."]
                .iter()
                .any(|w| word.starts_with(w))
        };
        let write = before.split_whitespace().find(writes);
        assert_eq!(write, None, "{name}: before the wait");
        // A block that leaves earlier would break the chain of waits.
        assert!(!before.contains("\tret;"), "{name}: leaves before the wait");
    }
    assert!(listed > 40, "{listed} kernels wait");
}

#[test]
fn older_devices_are_not_asked_to_wait() {
    let Some(ptx) = ptx("sm_80") else { return };
    assert!(!ptx.contains("griddepcontrol"));
}

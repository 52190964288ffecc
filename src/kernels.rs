//! The GPU kernels, compiled by `build.rs` from `kernels/` and embedded: an AMD code object an architecture, and PTX.

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// What is embedded: `gfx…` and `sm_…a` are exact; other `sm_…` are PTX, good for that and everything after it. The best
/// for a device comes first. Empty when the program was built without a suitable clang.
pub const ARCHS: &[&str] = EMBEDDED;

/// Why some or all architectures are missing, as the build found; a sentence to go after "GPU kernels:".
pub fn absence() -> Option<&'static str> {
    ABSENCE
}

/// What to load on a device that calls itself `arch`: `gfx942`, `gfx90a:sramecc+:xnack-`, `sm_90`. PTX ends with a NUL,
/// as the driver wants it.
pub fn code_object(arch: &str) -> Option<&'static [u8]> {
    let bare = arch.split(':').next()?;
    let own = bare.trim_end_matches('a');
    let embedded = |name: &str| match (name.strip_suffix('a'), compute_capability(name)) {
        (None, Some(least)) => compute_capability(bare).is_some_and(|has| has >= least),
        (Some(of), Some(_)) => of == own,
        (_, None) => name == bare,
    };
    let found = OBJECTS.iter().find(|(name, _)| embedded(name))?;
    Some(found.1)
}

/// Whether launches on a device that calls itself `arch` can begin before their predecessors have finished: the kernels
/// it gets have been compiled to wait for them.
pub fn overlaps(arch: &str) -> bool {
    let bare = arch.split(':').next().unwrap_or(arch);
    compute_capability(bare).is_some_and(|has| has >= OVERLAP_FROM)
}

/// The first compute capability with programmatic dependent launches.
const OVERLAP_FROM: u32 = 90;

/// 90 of `sm_90` and of `sm_90a`.
fn compute_capability(arch: &str) -> Option<u32> {
    let digits = arch.strip_prefix("sm_")?;
    digits
        .trim_end_matches(|c: char| !c.is_ascii_digit())
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_get_what_they_can_run() {
        assert!(
            code_object("gfx803").is_none()
                && code_object("sm_75").is_none()
                && code_object("").is_none()
        );
        if ARCHS.is_empty() {
            eprintln!(
                "SKIPPED: no kernels are embedded: {}",
                absence().expect("a reason")
            );
            return;
        }
        let ptx = |arch: &str| code_object(arch).expect("PTX runs on every later device");
        for (arch, target) in [
            ("sm_80", "sm_80"),
            ("sm_89", "sm_80"),
            ("sm_90", "sm_90a"),
            ("sm_90a", "sm_90a"),
            ("sm_100", "sm_90"),
            ("sm_120", "sm_90"),
        ] {
            let text = std::str::from_utf8(ptx(arch)).expect("PTX is text");
            assert!(text.ends_with('\0') && text.contains(&format!(".target {target}\n")));
            assert_eq!(overlaps(arch), target != "sm_80");
        }
        if ARCHS.contains(&"gfx942") {
            let object = code_object("gfx942:sramecc+:xnack-").expect("features are any");
            assert!(object.starts_with(b"\x7fELF"));
        }
    }
}

//! The GPU kernels, compiled by `build.rs` from `kernels/` and embedded: an AMD code object an architecture, and PTX.

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// What is embedded: `gfx…` are exact; `sm_…` are PTX, good for that and everything after it, the newest first. Empty
/// when the program was built without a suitable clang.
pub const ARCHS: &[&str] = EMBEDDED;

/// Why some or all architectures are missing, as the build found; a sentence to go after "GPU kernels:".
pub fn absence() -> Option<&'static str> {
    ABSENCE
}

/// What to load on a device that calls itself `arch`: `gfx942`, `gfx90a:sramecc+:xnack-`, `sm_90`. PTX ends with a NUL,
/// as the driver wants it.
pub fn code_object(arch: &str) -> Option<&'static [u8]> {
    let bare = arch.split(':').next()?;
    let embedded = |name: &str| match compute_capability(name) {
        Some(least) => compute_capability(bare).is_some_and(|has| has >= least),
        None => name == bare,
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
            ("sm_80", b".target sm_80\n"),
            ("sm_89", b".target sm_80\n"),
            ("sm_90a", b".target sm_90\n"),
            ("sm_120", b".target sm_90\n"),
        ] {
            let ptx = ptx(arch);
            assert!(ptx.ends_with(b"\0") && ptx.windows(14).any(|w| w == target));
            assert_eq!(overlaps(arch), target == b".target sm_90\n");
        }
        if ARCHS.contains(&"gfx942") {
            let object = code_object("gfx942:sramecc+:xnack-").expect("features are any");
            assert!(object.starts_with(b"\x7fELF"));
        }
    }
}

//! What every GPU kernel occupies, against the table in `kernels/resources.toml`: no scratch, no spills, and no more
//! registers or LDS, nor fewer waves, than the table allows.
//!
//! The figures are read from the embedded code objects' own metadata. `UPDATE_GOLDEN=1` rewrites the table after a
//! change that is worth its price. The figures are clang 19's, which is what CI has: another clang allots registers
//! its own way.

#[path = "support/code_object.rs"]
mod code_object;
#[path = "support/skip.rs"]
mod skip;

use code_object::{Kernel, kernels};
use greta_infer::kernels::{ARCHS, absence, code_object as embedded};
use serde::{Deserialize, Serialize};
use skip::skip;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/resources.toml");

/// A line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Figures {
    /// At most.
    vgprs: u32,
    sgprs: u32,
    /// Static LDS, in bytes; a GEMV's activations come on top, as its launch says.
    lds: u32,
    /// Waves that a SIMD holds at least, by registers and static LDS.
    waves: u32,
}

type Table = BTreeMap<String, BTreeMap<String, Figures>>;

fn figures(arch: &str, kernel: &Kernel) -> Figures {
    // Registers of a SIMD lane, their granule, waves of a SIMD at most, and SIMDs that share 64 KiB of LDS.
    let (registers, granule, most, simds) = match arch {
        "gfx90a" | "gfx942" => (512, 8, 8, 4),
        "gfx1100" => (1536, 24, 16, 2),
        _ => panic!("{arch}: what does a SIMD of it hold?"),
    };
    let by_registers = registers / kernel.vgprs.max(1).next_multiple_of(granule);
    let block_waves = kernel.threads.div_ceil(kernel.wave);
    let blocks = 65_536u32.checked_div(kernel.lds_bytes.next_multiple_of(512));
    let by_lds = blocks.map_or(most, |blocks| blocks * block_waves / simds);
    Figures {
        vgprs: kernel.vgprs,
        sgprs: kernel.sgprs,
        lds: kernel.lds_bytes,
        waves: most.min(by_registers).min(by_lds),
    }
}

fn measured() -> Table {
    let amd = ARCHS.iter().filter(|arch| arch.starts_with("gfx"));
    amd.map(|&arch| {
        let object = embedded(arch).expect("it is embedded");
        let kernels = kernels(object).into_iter();
        let figures = kernels.map(|kernel| (kernel.name.clone(), figures(arch, &kernel)));
        (arch.to_owned(), figures.collect())
    })
    .collect()
}

fn text(table: &Table) -> String {
    let mut text = String::from(
        "# What each kernel may occupy: VGPRs (unified with AGPRs on CDNA), SGPRs and static LDS bytes at most, waves a\n\
         # SIMD at least. Scratch and spills are always 0. Checked by tests/kernel_resources.rs, which rewrites this file\n\
         # when UPDATE_GOLDEN=1 is set.\n",
    );
    for (arch, kernels) in table {
        writeln!(text, "\n[{arch}]").expect("a string");
        for (name, f) in kernels {
            writeln!(
                text,
                "{name} = {{ vgprs = {}, sgprs = {}, lds = {}, waves = {} }}",
                f.vgprs, f.sgprs, f.lds, f.waves
            )
            .expect("a string");
        }
    }
    text
}

/// Whether there is anything to look at; says why not.
fn skipped() -> bool {
    let none = !ARCHS.iter().any(|arch| arch.starts_with("gfx"));
    if none {
        skip(&format!("GPU kernels: {}", absence().expect("a reason")));
    }
    none
}

#[test]
fn nothing_spills_or_uses_scratch() {
    if skipped() {
        return;
    }
    for arch in ARCHS.iter().filter(|arch| arch.starts_with("gfx")) {
        for kernel in kernels(embedded(arch).expect("it is embedded")) {
            assert_eq!(
                (kernel.scratch_bytes, kernel.spills),
                (0, 0),
                "{arch} {kernel:?}"
            );
        }
    }
}

#[test]
fn ptx_keeps_everything_in_registers() {
    let Some(ptx) = embedded("sm_80") else {
        skip(&format!("GPU kernels: {}", absence().expect("a reason")));
        return;
    };
    let ptx = std::str::from_utf8(ptx).expect("PTX is text");
    assert!(!ptx.contains(".local "), "an array lies in local memory");
    assert!(
        !ptx.contains("call.uni"),
        "a function is called that nobody links"
    );
}

#[test]
fn figures_are_within_the_table() {
    if skipped() {
        return;
    }
    let measured = measured();
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|v| v == "1") {
        std::fs::write(TABLE, text(&measured)).expect("the table is writable");
        return;
    }
    let table = std::fs::read_to_string(TABLE).expect("kernels/resources.toml");
    let table: Table = toml::from_str(&table).expect("a table as this test writes it");
    let mut faults = String::new();
    for (arch, kernels) in &measured {
        let allowed = &table[arch];
        for (name, found) in kernels {
            let Some(limit) = allowed.get(name) else {
                writeln!(
                    faults,
                    "{arch} {name}: not in the table, occupies {found:?}"
                )
                .expect("a string");
                continue;
            };
            let fits =
                found.vgprs <= limit.vgprs && found.sgprs <= limit.sgprs && found.lds <= limit.lds;
            if !fits || found.waves < limit.waves {
                writeln!(faults, "{arch} {name}: allowed {limit:?}, found {found:?}")
                    .expect("a string");
            }
        }
        for name in allowed.keys().filter(|name| !kernels.contains_key(*name)) {
            writeln!(faults, "{arch} {name}: in the table, but no such kernel").expect("a string");
        }
    }
    let path = Path::new(TABLE).display();
    assert!(
        faults.is_empty(),
        "{path} (UPDATE_GOLDEN=1 rewrites it):\n{faults}"
    );
}

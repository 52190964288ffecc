//! The tuning table of an architecture: `kernels/tuning/<arch>.toml`, compiled in.
//!
//! A row chooses how one kind of launch is laid out, for a weight type (or all) and classes of sizes
//! (or all); of the rows that fit a launch the last one counts. The first row for `gemv` fits every
//! launch; a prompt's product that no row for `gemm` fits is laid out by rule (`half.rs`).
//! `bench --tune` writes the table of the device it runs on. Rows are checked when they are read: one
//! that the kernels could not run is an error that names it, not a launch.

mod gemm;
#[cfg(test)]
mod tests;

pub use gemm::{Cols, Depth, GemmKey, GemmRow, Rows};

use super::gemv::THREADS;
use super::geometry::Machine;
use super::half::HalfChoice;
use crate::dtype::DType;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};
use thiserror::Error;

/// Tables by the architectures they are for. Others have the table of the last that is no newer, or
/// of the same maker.
const TABLES: &[(&str, &str)] = &[
    ("gfx90a", include_str!("../../kernels/tuning/gfx90a.toml")),
    ("gfx942", include_str!("../../kernels/tuning/gfx942.toml")),
    ("gfx1100", include_str!("../../kernels/tuning/gfx1100.toml")),
    ("sm_80", include_str!("../../kernels/tuning/sm_80.toml")),
    ("sm_90", include_str!("../../kernels/tuning/sm_90.toml")),
];

/// What a `gemv` launch does beside multiplying.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Plain,
    /// Normalises the row on the way.
    Normed,
    /// Gate and up.
    Gated,
}

/// How large the weights of a launch are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Up to 4 MB: latency is what it takes.
    Small,
    /// More: bandwidth is.
    Large,
}

impl Class {
    pub fn of_bytes(bytes: u64) -> Self {
        match bytes {
            ..=4_000_000 => Class::Small,
            _ => Class::Large,
        }
    }
}

/// How a launch is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Choice {
    /// Lanes to a row, at most a wave's; 0: by the length of the row.
    pub lanes: u32,
    /// Threads of a block.
    pub threads: u32,
    /// Blocks of a compute unit at most.
    pub blocks: u32,
    /// KiB of weights that L2 is asked for ahead, over the whole device; 0 where the hardware has no
    /// such request.
    pub hint_kib: u32,
    /// KiB of LDS that a block has where its weights come through it, beside the activations; 0: they
    /// come to registers.
    pub lds_kib: u32,
}

/// A row of a table. What it does not say (`kind`, `type`, `class`) it holds for all of.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub dtype: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    pub lanes: u32,
    pub threads: u32,
    pub blocks: u32,
    pub hint_kib: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lds_kib: u32,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl Row {
    fn choice(&self) -> Choice {
        Choice {
            lanes: self.lanes,
            threads: self.threads,
            blocks: self.blocks,
            hint_kib: self.hint_kib,
            lds_kib: self.lds_kib,
        }
    }

    fn fits(&self, kind: Kind, dtype: DType, class: Class) -> bool {
        let named = |name: &String| name.eq_ignore_ascii_case(dtype.name());
        self.kind.is_none_or(|k| k == kind)
            && self.dtype.as_ref().is_none_or(named)
            && self.class.is_none_or(|c| c == class)
    }

    /// What is wrong with it.
    fn fault(&self, arch: &str) -> Option<Fault> {
        let power = |n: u32, from: u32, to: u32| n.is_power_of_two() && (from..=to).contains(&n);
        if self.lanes != 0 && !power(self.lanes, 8, 64) {
            let allowed = "0, 8, 16, 32 or 64".to_string();
            return Some(("lanes", allowed, self.lanes.to_string()));
        }
        if !power(self.threads, 64, THREADS) {
            let allowed = format!("a power of two from 64 to {THREADS}");
            return Some(("threads", allowed, self.threads.to_string()));
        }
        if !(1..=16).contains(&self.blocks) {
            return Some(("blocks", "1 to 16".into(), self.blocks.to_string()));
        }
        if self.hint_kib > 1 << 20 {
            return Some((
                "hint_kib",
                "at most 1048576".into(),
                self.hint_kib.to_string(),
            ));
        }
        let most = most_lds_kib(arch);
        if self.lds_kib > most {
            let allowed = format!("at most {most} on this architecture");
            return Some(("lds_kib", allowed, self.lds_kib.to_string()));
        }
        type_fault(self.dtype.as_ref())
    }
}

/// A field, what it may be, and what it is.
type Fault = (&'static str, String, String);

fn type_fault(name: Option<&String>) -> Option<Fault> {
    let known = |name: &String| {
        let mut all = DType::RUNNABLE.iter();
        all.any(|d| name.eq_ignore_ascii_case(d.name()))
    };
    let unknown = name.filter(|name| !known(name));
    unknown.map(|name| ("type", "a weight type".into(), name.clone()))
}

/// Which rows of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    Gemv,
    Gemm,
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kernel::Gemv => "gemv",
            Kernel::Gemm => "gemm",
        })
    }
}

/// Why a table does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TuningError {
    #[error("tuning table of {arch}: {what}")]
    Syntax { arch: String, what: String },
    #[error(
        "tuning table of {arch}, {kernel} row {row}: {field}: expected {expected}, found {found}"
    )]
    Row {
        arch: String,
        kernel: Kernel,
        /// Counted from 1.
        row: u32,
        field: &'static str,
        expected: String,
        found: String,
    },
    #[error("tuning table of {arch}: the first gemv row has to fit every launch")]
    NoDefault { arch: String },
}

/// A table that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    gemv: Vec<Row>,
    gemm: Vec<GemmRow>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct File {
    gemv: Vec<Row>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    gemm: Vec<GemmRow>,
}

impl Tuning {
    /// The table for an architecture that a driver names, features and all.
    pub fn of_arch(arch: &str) -> Result<Self, TuningError> {
        let bare = arch.split(':').next().unwrap_or(arch);
        let (name, text) = table_for(bare);
        let mut table = Tuning::parse(name, text)?;
        for row in &mut table.gemv {
            row.lds_kib = row.lds_kib.min(most_lds_kib(bare));
        }
        Ok(table)
    }

    /// Reads and checks a table.
    pub fn parse(arch: &str, text: &str) -> Result<Self, TuningError> {
        let file: File = toml::from_str(text).map_err(|error| TuningError::Syntax {
            arch: arch.into(),
            what: error.to_string().trim().replace('\n', "; "),
        })?;
        let machine = machine_of(arch);
        let gemv = file.gemv.iter().map(|row| row.fault(arch)).enumerate();
        let gemm = file.gemm.iter().map(|row| row.fault(machine)).enumerate();
        let faults = gemv.map(|f| (Kernel::Gemv, f));
        let faults = faults.chain(gemm.map(|f| (Kernel::Gemm, f)));
        for (kernel, (index, fault)) in faults {
            if let Some((field, expected, found)) = fault {
                return Err(TuningError::Row {
                    arch: arch.into(),
                    kernel,
                    row: index as u32 + 1,
                    field,
                    expected,
                    found,
                });
            }
        }
        let general = |r: &Row| r.kind.is_none() && r.dtype.is_none() && r.class.is_none();
        if !file.gemv.first().is_some_and(general) {
            return Err(TuningError::NoDefault { arch: arch.into() });
        }
        Ok(Tuning {
            gemv: file.gemv,
            gemm: file.gemm,
        })
    }

    /// One choice for every `gemv`, as tuning tries it, and rules for all else.
    pub fn uniform(choice: Choice) -> Self {
        let Choice {
            lanes,
            threads,
            blocks,
            hint_kib,
            lds_kib,
        } = choice;
        let row = Row {
            kind: None,
            dtype: None,
            class: None,
            lanes,
            threads,
            blocks,
            hint_kib,
            lds_kib,
        };
        Tuning {
            gemv: vec![row],
            gemm: Vec::new(),
        }
    }

    /// The same table with more rows, which count before those it has.
    pub fn with(mut self, rows: impl IntoIterator<Item = Row>) -> Self {
        self.gemv.extend(rows);
        self
    }

    /// The same table with these rows for prompts' products, and no others.
    pub fn with_gemm(mut self, rows: Vec<GemmRow>) -> Self {
        self.gemm = rows;
        self
    }

    /// What the table says of a `gemv` launch.
    pub fn choice(&self, kind: Kind, dtype: DType, class: Class) -> Choice {
        let mut rows = self.gemv.iter().rev();
        let row = rows.find(|row| row.fits(kind, dtype, class));
        row.expect("the first row fits all").choice()
    }

    /// What the table says of a prompt's product, if anything.
    pub fn gemm(&self, key: GemmKey) -> Option<HalfChoice> {
        let mut rows = self.gemm.iter().rev();
        let row = rows.find(|row| row.fits(key))?;
        Some(
            row.choice()
                .expect("tiles were checked when the row was made"),
        )
    }

    /// As a file.
    pub fn text(&self, note: &str) -> String {
        let file = File {
            gemv: self.gemv.clone(),
            gemm: self.gemm.clone(),
        };
        let rows = toml::to_string(&file).expect("rows of numbers and names are TOML");
        let mut text = String::new();
        for line in note.lines() {
            writeln!(text, "# {line}").expect("a string");
        }
        text + "\n" + &rows
    }
}

/// LDS of a block at most where weights can come through it, less what the kernels declare; 0 before
/// sm_90, which has no copies of whole pieces to LDS (`kernels/gemv_stream.hip`). The architectures after
/// it that are made for desktops have 100 KiB for all blocks of an SM, of which two share it.
fn most_lds_kib(arch: &str) -> u32 {
    let version = arch.strip_prefix("sm_").and_then(|n| n.parse().ok());
    match version.unwrap_or(0) {
        ..90 => 0,
        120..130 => 46,
        _ => 224,
    }
}

/// The kind of machine that an architecture is.
fn machine_of(arch: &str) -> Machine {
    match arch {
        "sm_90" => Machine::Hopper,
        _ if arch.starts_with("sm_") => Machine::Nvidia,
        _ if arch.starts_with("gfx9") => Machine::Cdna,
        _ => Machine::Rdna,
    }
}

/// The name and text of the table that serves an architecture.
fn table_for(arch: &str) -> (&'static str, &'static str) {
    let number = |arch: &str| -> u32 {
        let digits: String = arch.chars().filter(char::is_ascii_digit).collect();
        digits.parse().unwrap_or(0)
    };
    if let Some(table) = TABLES.iter().find(|(name, _)| *name == arch) {
        return *table;
    }
    let nvidia = arch.starts_with("sm_");
    let mut of_maker = TABLES
        .iter()
        .filter(|(name, _)| name.starts_with("sm_") == nvidia);
    let older = |(name, _): &&(&str, &str)| !nvidia || number(name) <= number(arch);
    let found = of_maker.clone().rfind(older).or_else(|| of_maker.next());
    *found.expect("each maker has a table")
}

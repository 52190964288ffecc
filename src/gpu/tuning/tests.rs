//! Tables read and written, and what is refused.

use super::*;
use crate::gpu::half::half_tiles;

#[test]
fn every_table_holds_and_every_arch_has_one() {
    for (arch, text) in TABLES {
        Tuning::parse(arch, text).unwrap_or_else(|e| panic!("{e}"));
    }
    for (arch, table) in [
        ("gfx942:sramecc+:xnack-", "gfx942"),
        ("sm_89", "sm_80"),
        ("sm_100", "sm_90"),
        ("sm_75", "sm_80"),
        ("gfx1030", "gfx1100"),
    ] {
        let bare = arch.split(':').next().unwrap_or(arch);
        assert_eq!(table_for(bare).0, table, "{arch}");
    }
}

#[test]
fn the_last_row_that_fits_counts() {
    let text = "gemv = [
        { lanes = 0, threads = 256, blocks = 2, hint_kib = 0 },
        { class = \"large\", lanes = 32, threads = 128, blocks = 4, hint_kib = 7 },
        { type = \"q4_0\", kind = \"gated\", lanes = 16, threads = 64, blocks = 1, hint_kib = 0 },
    ]";
    let table = Tuning::parse("x", text).expect("a table");
    let threads = |kind, dtype, class| table.choice(kind, dtype, class).threads;
    assert_eq!(threads(Kind::Plain, DType::Q4_0, Class::Small), 256);
    assert_eq!(threads(Kind::Plain, DType::Q4_0, Class::Large), 128);
    assert_eq!(threads(Kind::Gated, DType::Q4_0, Class::Large), 64);
    assert_eq!(threads(Kind::Gated, DType::Q8_0, Class::Large), 128);
    // What is written is read again.
    let again = Tuning::parse("x", &table.text("a note\nof two lines"));
    assert_eq!(again, Ok(table));
}

#[test]
fn products_of_prompts_have_rows_of_their_own() {
    let text = "gemv = [{ lanes = 0, threads = 256, blocks = 2, hint_kib = 0 }]
        gemm = [
            { rows = \"few\", tile = \"64x64\", parts = 4 },
            { type = \"Q4_0\", cols = \"middle\", tile = \"128x64\", parts = 1 },
            { rows = \"many\", cols = \"middle\", depth = \"deep\", tile = \"128x128\", parts = 2 },
        ]";
    let table = Tuning::parse("sm_90", text).expect("a table");
    let choice = |dtype, rows, cols, k| {
        let key = GemmKey {
            dtype,
            rows: Rows::of(rows),
            cols: Cols::of(cols),
            depth: Depth::of(k),
        };
        let choice = table.gemm(key);
        choice.map(|c| (c.tile.to_string(), c.parts))
    };
    let some = |tile: &str, parts| Some((tile.to_string(), parts));
    let (q4, q8) = (DType::Q4_0, DType::Q8_0);
    // Llama-2-7B's o, down, q with k and v, and a short prompt's.
    assert_eq!(choice(q4, 512, 4096, 4096), some("128x64", 1));
    assert_eq!(choice(q4, 512, 4096, 11_008), some("128x128", 2));
    assert_eq!(choice(q8, 512, 4096, 4096), None);
    assert_eq!(choice(q4, 512, 12_288, 4096), None);
    assert_eq!(choice(q8, 128, 12_288, 4096), some("64x64", 4));
    // The edges of the classes.
    assert_eq!(choice(q8, 129, 8192, 8193), some("128x128", 2));
    assert_eq!(choice(q8, 129, 8193, 8193), None);
    assert_eq!(choice(q8, 129, 2048, 8193), None);
    assert_eq!(choice(q8, 129, 2049, 8192), None);
    // What is written is read again.
    let written = table.text("a note");
    assert!(written.contains("[[gemm]]"), "{written}");
    assert_eq!(Tuning::parse("sm_90", &written), Ok(table));
    // Rows that tuning makes hold, and say what they are for.
    let key = GemmKey {
        dtype: q4,
        rows: Rows::Many,
        cols: Cols::Middle,
        depth: Depth::Deep,
    };
    for &tile in half_tiles(Machine::Nvidia) {
        let choice = HalfChoice { tile, parts: 2 };
        for key in [None, Some(key)] {
            let row = GemmRow::new(key, choice);
            let table = Tuning::of_arch("sm_90").expect("a table");
            let table = table.with_gemm(vec![row]);
            let again = Tuning::parse("sm_90", &table.text(""));
            assert_eq!(again.as_ref(), Ok(&table));
        }
        let row = GemmRow::new(Some(key), choice);
        let table = Tuning::of_arch("sm_90").expect("a table");
        let table = table.with_gemm(vec![row]);
        assert_eq!(table.gemm(key), Some(choice));
        let other = GemmKey { dtype: q8, ..key };
        assert_eq!(table.gemm(other), None);
    }
}

#[test]
fn rows_of_products_that_kernels_cannot_run_are_refused() {
    for (arch, row, why) in [
        (
            "sm_90",
            "tile = \"64x128\", parts = 1",
            "gemm row 1: tile: expected 128x128 or 128x64 or 64x64, found 64x128",
        ),
        (
            "gfx942",
            "tile = \"64x64\", parts = 1",
            "tile: expected 128x128 or 64x128, found 64x64",
        ),
        (
            "gfx1100",
            "tile = \"128x128\", parts = 1",
            "tile: expected 128x64 or 64x64",
        ),
        (
            "sm_80",
            "tile = \"64x64\", parts = 0",
            "parts: expected 1 to 16, found 0",
        ),
        (
            "sm_80",
            "tile = \"64x64\", parts = 17",
            "parts: expected 1 to 16",
        ),
        (
            "sm_80",
            "type = \"q9\", tile = \"64x64\", parts = 1",
            "found q9",
        ),
        ("sm_80", "tile = \"64x64\"", "missing field"),
        (
            "sm_80",
            "k = 7, tile = \"64x64\", parts = 1",
            "unknown field",
        ),
    ] {
        let gemv = "gemv = [{ lanes = 0, threads = 256, blocks = 2, hint_kib = 0 }]";
        let error = Tuning::parse(arch, &format!("{gemv}\ngemm = [{{ {row} }}]")).expect_err(row);
        let text = error.to_string();
        assert!(
            text.starts_with("tuning table of") && text.contains(why),
            "{text}"
        );
    }
}

#[test]
fn weights_come_through_lds_where_copies_exist() {
    let row = |lds_kib: u32| {
        format!(
            "gemv = [{{ lanes = 0, threads = 256, blocks = 2, hint_kib = 0, lds_kib = {lds_kib} }}]"
        )
    };
    for (arch, most) in [("sm_90", 224), ("sm_100", 224), ("sm_120", 46)] {
        assert!(Tuning::parse(arch, &row(most)).is_ok(), "{arch}");
        assert!(Tuning::parse(arch, &row(most + 1)).is_err(), "{arch}");
    }
    for arch in ["sm_80", "sm_89", "gfx942"] {
        assert!(Tuning::parse(arch, &row(110)).is_err(), "{arch}");
        assert!(Tuning::parse(arch, &row(0)).is_ok(), "{arch}");
    }
}

#[test]
fn desktops_have_less_lds() {
    let large = |arch: &str| {
        let table = Tuning::of_arch(arch).expect("the table in the repository holds");
        table.choice(Kind::Plain, DType::Q4_0, Class::Large).lds_kib
    };
    assert_eq!(large("sm_90"), 110);
    assert_eq!(large("sm_100"), 110);
    assert_eq!(large("sm_120"), 46);
    assert_eq!(large("sm_89"), 0);
}

#[test]
fn rows_that_kernels_cannot_run_are_refused() {
    for (row, why) in [
        (
            "lanes = 12, threads = 256, blocks = 2, hint_kib = 0",
            "lanes: expected 0, 8",
        ),
        (
            "lanes = 0, threads = 512, blocks = 2, hint_kib = 0",
            "threads: expected a power",
        ),
        (
            "lanes = 0, threads = 256, blocks = 0, hint_kib = 0",
            "blocks: expected 1 to 16",
        ),
        (
            "lanes = 0, threads = 256, blocks = 2, hint_kib = 9999999",
            "hint_kib: expected",
        ),
        (
            "type = \"q9\", lanes = 0, threads = 64, blocks = 2, hint_kib = 0",
            "found q9",
        ),
        (
            "kind = \"gated\", lanes = 0, threads = 64, blocks = 2, hint_kib = 0",
            "first gemv row",
        ),
        (
            "lanes = 0, threads = 64, blocks = 2, hint_kib = 0, lds_kib = 64",
            "lds_kib: expected at most 0 on this architecture",
        ),
        ("lanes = 0", "missing field"),
        (
            "warps = 3, lanes = 0, threads = 64, blocks = 2, hint_kib = 0",
            "unknown field",
        ),
    ] {
        let error = Tuning::parse("x", &format!("gemv = [{{ {row} }}]")).expect_err(row);
        let text = error.to_string();
        assert!(
            text.starts_with("tuning table of x") && text.contains(why),
            "{text}"
        );
    }
}

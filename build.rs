//! Compiles `kernels/all.hip` for every GPU architecture with the first clang that can, and writes the table of results
//! that `src/kernels.rs` includes.
//!
//! No vendor toolkit is needed, only a clang ≥ 17 that targets amdgcn and nvptx64 and, for AMD code objects, its
//! `ld.lld`: Debian's `clang-19` and `lld-19`, or ROCm's own. Without one the build succeeds with a warning and an empty
//! table. `GRETA_CLANG=/path/to/clang` chooses a compiler, `GRETA_CLANG=none` none.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io, thread};

/// What is compiled: AMD architectures to code objects, and PTX, which the driver (525 or later) translates for those
/// after the one it names: for the oldest NVIDIA one, and for the first on which launches can overlap; that one's own
/// (`a`) has products that none after it has.
const AMD: &[&str] = &["gfx90a", "gfx942", "gfx1100"];
const NVIDIA: &[&str] = &["sm_90a", "sm_90", "sm_80"];

/// The lowest PTX version with everything the kernels say; drivers since 495, and for sm_90 since 525, read it.
fn ptx_feature(arch: &str) -> &'static str {
    if arch.starts_with("sm_90") {
        "+ptx80"
    } else {
        "+ptx75"
    }
}

const OLDEST_CLANG: u32 = 17;
/// The newest that is looked for by a name with its version.
const NEWEST_CLANG: u32 = 21;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=kernels");
    println!("cargo:rerun-if-env-changed=GRETA_CLANG");
    println!("cargo:rerun-if-env-changed=ROCM_PATH");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let (objects, note) = match find_clang() {
        Ok(clang) => compile_all(&clang, &out),
        Err(why) => (Vec::new(), Some(why)),
    };
    if let Some(note) = &note {
        println!("cargo:warning=GPU kernels: {note}");
        watch_for_tools();
    }
    fs::write(out.join("kernels.rs"), table(&objects, note.as_deref()))
        .expect("OUT_DIR is writable");
}

/// Has cargo run this script again once something was installed where a compiler or its linker may appear. A file that
/// is not there yet cannot be watched (cargo would then build the crate anew each time), but its folder can.
fn watch_for_tools() {
    println!("cargo:rerun-if-env-changed=PATH");
    if env::var_os("GRETA_CLANG").is_some_and(|chosen| chosen == "none") {
        return;
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let versions = OLDEST_CLANG..=NEWEST_CLANG;
    let folders = env::split_paths(&path)
        .chain(versions.map(|n| format!("/usr/lib/llvm-{n}/bin").into()))
        .chain(["/opt/rocm/llvm/bin".into()]);
    for folder in folders.filter(|folder| folder.is_absolute() && folder.is_dir()) {
        println!("cargo:rerun-if-changed={}", folder.display());
    }
}

/// An architecture and the file compiled for it.
type Object = (&'static str, PathBuf);

fn table(objects: &[Object], note: Option<&str>) -> String {
    let mut text = String::new();
    let archs: Vec<_> = objects.iter().map(|(arch, _)| arch).collect();
    writeln!(text, "const EMBEDDED: &[&str] = &{archs:?};").expect("a string");
    writeln!(text, "const ABSENCE: Option<&str> = {note:?};").expect("a string");
    writeln!(text, "static OBJECTS: &[(&str, &[u8])] = &[").expect("a string");
    for (arch, path) in objects {
        writeln!(text, "    ({arch:?}, include_bytes!({path:?})),").expect("a string");
    }
    text + "];\n"
}

/// The first clang that can compile kernels, or what was looked for.
fn find_clang() -> Result<PathBuf, String> {
    if let Some(chosen) = env::var_os("GRETA_CLANG") {
        if chosen == "none" {
            return Err("left out, because GRETA_CLANG=none was set for the build".to_owned());
        }
        return match unfit(Path::new(&chosen)) {
            None => Ok(chosen.into()),
            Some(why) => panic!("GRETA_CLANG={}: {why}", chosen.display()),
        };
    }
    let rocm = env::var_os("ROCM_PATH").map(|path| PathBuf::from(path).join("llvm/bin/clang"));
    let mut candidates: Vec<PathBuf> = rocm.into_iter().collect();
    candidates.push("/opt/rocm/llvm/bin/clang".into());
    candidates.extend(
        (OLDEST_CLANG..=NEWEST_CLANG)
            .rev()
            .map(|n| format!("clang-{n}").into()),
    );
    candidates.push("clang".into());
    let fit = candidates.into_iter().find(|clang| unfit(clang).is_none());
    fit.ok_or_else(|| {
        format!(
            "left out, because no clang >= {OLDEST_CLANG} that targets AMD and NVIDIA GPUs was found (ROCm's, \
             clang-{NEWEST_CLANG} to clang-{OLDEST_CLANG}, clang); install clang-19 and lld-19 or set GRETA_CLANG, \
             and build again"
        )
    })
}

/// Why `clang` cannot compile kernels.
fn unfit(clang: &Path) -> Option<String> {
    let run = |argument| {
        let output = Command::new(clang).arg(argument).output();
        output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
    };
    let version = match run("--version") {
        Ok(version) => version,
        Err(error) => return Some(error.to_string()),
    };
    let major = version.split("clang version ").nth(1);
    let major = major.and_then(|v| v.split('.').next()?.parse::<u32>().ok());
    if major.is_none_or(|major| major < OLDEST_CLANG) {
        let first = version.lines().next().unwrap_or("no version");
        return Some(format!(
            "clang >= {OLDEST_CLANG} is needed, this is {first:?}"
        ));
    }
    let targets = run("--print-targets").unwrap_or_default();
    let missing = ["amdgcn", "nvptx64"]
        .into_iter()
        .find(|t| !targets.contains(t));
    missing.map(|target| format!("does not target {target}"))
}

/// Compiles every architecture at once, each in a process of its own.
///
/// # Panics
/// When the kernels do not compile: unlike a missing compiler, that is a fault in this repository.
fn compile_all(clang: &Path, out: &Path) -> (Vec<Object>, Option<String>) {
    let mut archs = AMD.to_vec();
    let mut note = None;
    if !has_lld(clang) {
        note = Some(format!(
            "those for AMD are left out, because {} has no ld.lld to link them; install lld-19 (or the version that \
             matches), and build again",
            clang.display()
        ));
        archs.clear();
    }
    archs.extend(NVIDIA);
    let compiled: Vec<Result<Object, String>> = thread::scope(|scope| {
        let jobs: Vec<_> = archs
            .into_iter()
            .map(|arch| scope.spawn(move || compile(clang, arch, out).map(|path| (arch, path))))
            .collect();
        jobs.into_iter()
            .map(|job| job.join().expect("no job panics"))
            .collect()
    });
    let objects: Result<Vec<Object>, String> = compiled.into_iter().collect();
    match objects {
        Ok(objects) => (objects, note),
        Err(messages) => panic!(
            "the kernels do not compile with {}:\n{messages}",
            clang.display()
        ),
    }
}

/// Whether clang finds a linker for AMD code objects: it answers with a path, or with the bare name.
fn has_lld(clang: &Path) -> bool {
    let ask = |name: &str| -> io::Result<bool> {
        let output = Command::new(clang)
            .arg(format!("-print-prog-name={name}"))
            .output()?;
        Ok(Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_absolute())
    };
    ["lld", "ld.lld"]
        .into_iter()
        .any(|name| ask(name).unwrap_or(false))
}

fn compile(clang: &Path, arch: &str, out: &Path) -> Result<PathBuf, String> {
    let amd = arch.starts_with("gfx");
    let path = out.join(format!("{arch}.{}", if amd { "co" } else { "ptx" }));
    let mut command = Command::new(clang);
    if amd {
        command.args([
            "-x",
            "hip",
            "-nogpulib",
            "-nogpuinc",
            "--no-gpu-bundle-output",
        ]);
        command.arg(format!("--offload-arch={arch}"));
    } else {
        command.args(["-x", "cuda", "-nocudalib", "-nocudainc", "-S"]);
        command.arg(format!("--cuda-gpu-arch={arch}"));
        command.arg(format!("--cuda-feature={}", ptx_feature(arch)));
    }
    command.args([
        "--cuda-device-only",
        "-O3",
        "-std=c++17",
        "-Wall",
        "-Wextra",
    ]);
    command.arg("kernels/all.hip").arg("-o").arg(&path);
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    let messages = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{command:?}\n{messages}"));
    }
    if !amd {
        // The driver takes PTX as a C string.
        let mut text = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        text.push(0);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(path)
}

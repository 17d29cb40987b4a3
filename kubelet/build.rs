//! Compiles the two freestanding programs in `pause/` (the pause program of a sandbox and the logger of a
//! container) to static executables, which the crate embeds.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    println!("cargo::rerun-if-changed=pause");
    for program in ["pause", "logger"] {
        compile(program, &out.join(program));
    }
}

fn compile(program: &str, output: &Path) {
    let source = format!("pause/{program}.rs");
    let target = std::env::var("TARGET").expect("cargo sets TARGET");
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc
        .args([
            "--edition",
            "2024",
            "--crate-type",
            "bin",
            "--crate-name",
            program,
            "--target",
            &target,
        ])
        .args([
            "-C",
            "panic=abort",
            "-C",
            "opt-level=s",
            "-C",
            "relocation-model=static",
            "-C",
            "strip=symbols",
        ])
        .args([
            "-C",
            "force-unwind-tables=no",
            "-C",
            "codegen-units=1",
            "-C",
            "overflow-checks=off",
        ]);
    for argument in [
        "-nostdlib",
        "-nostartfiles",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
        "-Wl,-z,noexecstack",
    ] {
        rustc.args(["-C", &format!("link-arg={argument}")]);
    }
    if let Some(linker) = std::env::var_os("RUSTC_LINKER") {
        rustc.arg("-C").arg(format!("linker={}", linker.to_string_lossy()));
    }
    rustc.arg("-o").arg(output).arg(&source);
    let status = rustc.status().unwrap_or_else(|why| panic!("run {rustc:?}: {why}"));
    assert!(status.success(), "compile {source}: {status} of {rustc:?}");
}

//! The plugin alone, as its own small program: what the tests run, and of use to another runtime.

fn main() -> std::process::ExitCode {
    skiff_cni::run_from_env()
}

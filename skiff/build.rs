//! How the released program is linked: it is half a dozen servers in one, and what it maps
//! of itself is most of its memory.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|it| it == value);
    // There rustc links with its own lld, which knows both.
    let lld = is("CARGO_CFG_TARGET_ARCH", "x86_64") && is("CARGO_CFG_TARGET_ENV", "gnu");
    if lld && is("PROFILE", "release") {
        // One copy of functions that came out the same for several types.
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
        // Relocations in a twentieth of the space; the C library does them from 2.36 on.
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

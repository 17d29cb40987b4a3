//! The private containerd's configuration: only what skiff uses, so that it is small and starts fast.

use std::path::Path;

use super::Config;

/// Names of containerd 1.6, 1.7 and 2; a version ignores those that it does not have.
const DISABLED: [&str; 15] = [
    "io.containerd.grpc.v1.cri",
    "io.containerd.cri.v1.images",
    "io.containerd.cri.v1.runtime",
    "io.containerd.podsandbox.controller.v1.podsandbox",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.restart",
    "io.containerd.internal.v1.tracing",
    "io.containerd.tracing.processor.v1.otlp",
    "io.containerd.monitor.v1.cgroups",
    "io.containerd.nri.v1.nri",
];

pub fn render(config: &Config) -> String {
    let disabled: Vec<String> = DISABLED.iter().map(|name| format!("  \"{name}\",\n")).collect();
    format!(
        "# Written by skiff at every start.\n\
         version = 2\n\
         root = {}\n\
         state = {}\n\
         oom_score = 0\n\
         disabled_plugins = [\n{}]\n\
         \n\
         [grpc]\n  address = {}\n\
         \n\
         [debug]\n  level = \"warn\"\n\
         \n\
         [metrics]\n  address = \"\"\n",
        quoted(&config.root),
        quoted(&config.state),
        disabled.concat(),
        quoted(&config.socket()),
    )
}

/// A TOML basic string.
fn quoted(path: &Path) -> String {
    let mut text = String::from("\"");
    for c in path.to_string_lossy().chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            c if c.is_control() => text.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted() {
        let text = render(&Config::new("/var/lib/a\"b", "/run/x"));
        assert!(text.contains("root = \"/var/lib/a\\\"b\"\nstate = \"/run/x\"\n"), "{text}");
        assert!(text.contains("[grpc]\n  address = \"/run/x/containerd.sock\"\n"), "{text}");
        assert!(text.contains("  \"io.containerd.grpc.v1.cri\",\n"), "{text}");
    }
}

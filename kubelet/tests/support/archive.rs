//! Image archives made in code from Debian's static busybox: as OCI layout and as `docker save` writes them.

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub struct ImageFiles {
    /// Uncompressed tars, bottom first.
    pub layers: Vec<Vec<u8>>,
    pub config: Value,
}

pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// busybox with its usual links, and a second small layer with the accounts.
pub fn busybox() -> ImageFiles {
    busybox_with("")
}

/// All layers differ with the text.
pub fn busybox_with(text: &str) -> ImageFiles {
    let program = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    let mut base = tar::Builder::new(Vec::new());
    for dir in ["bin/", "tmp/", "etc/", "proc/", "dev/", "sys/", "root/"] {
        entry(&mut base, tar::EntryType::Directory, dir, b"", None, 0o755);
    }
    entry(&mut base, tar::EntryType::Regular, "bin/busybox", &program, None, 0o755);
    for name in [
        "sh", "echo", "sleep", "cat", "ls", "id", "hostname", "true", "false", "env", "pwd",
        "head", "dd", "kill", "ps", "stty", "ip", "nc", "wget", "httpd", "yes", "readlink",
        "mount", "grep", "tail", "touch", "ping", "printf", "seq", "test", "wc",
    ] {
        entry(
            &mut base,
            tar::EntryType::Symlink,
            &format!("bin/{name}"),
            b"",
            Some("busybox"),
            0o777,
        );
    }
    entry(&mut base, tar::EntryType::Regular, "etc/base", text.as_bytes(), None, 0o644);
    let mut accounts = tar::Builder::new(Vec::new());
    let passwd = b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/:/bin/false\n";
    let group = b"root:x:0:\nadm:x:4:root,web\nweb:x:34:\n";
    entry(&mut accounts, tar::EntryType::Regular, "etc/passwd", passwd, None, 0o644);
    entry(&mut accounts, tar::EntryType::Regular, "etc/group", group, None, 0o644);
    entry(&mut accounts, tar::EntryType::Regular, "etc/motd", text.as_bytes(), None, 0o644);
    let layers: Vec<Vec<u8>> =
        [base, accounts].into_iter().map(|tar| tar.into_inner().expect("in memory")).collect();
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"], "StopSignal": "SIGTERM"},
        "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|layer| digest(layer)).collect::<Vec<_>>()},
    });
    ImageFiles { layers, config }
}

fn entry(
    tar: &mut tar::Builder<Vec<u8>>,
    kind: tar::EntryType,
    path: &str,
    data: &[u8],
    link: Option<&str>,
    mode: u32,
) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(data.len() as u64);
    header.set_mode(mode);
    match link {
        Some(link) => tar.append_link(&mut header, path, link).expect("in memory"),
        None => tar.append_data(&mut header, path, data).expect("in memory"),
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

/// An image as a registry has it: documents and blobs by digest, the manifest last.
pub fn oci_blobs(image: &ImageFiles) -> Vec<(String, Vec<u8>)> {
    let config = image.config.to_string().into_bytes();
    let mut blobs = Vec::new();
    let mut layers = Vec::new();
    for layer in &image.layers {
        let packed = gzip(layer);
        layers.push(json!({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": digest(&packed), "size": packed.len()}));
        blobs.push((digest(&packed), packed));
    }
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&config), "size": config.len()},
        "layers": layers,
    });
    blobs.push((digest(&config), config));
    let manifest = manifest.to_string().into_bytes();
    blobs.push((digest(&manifest), manifest));
    blobs
}

pub fn write_oci(path: &Path, name: &str, image: &ImageFiles) {
    let blobs = oci_blobs(image);
    let (manifest_digest, manifest) = blobs.last().expect("a manifest");
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest_digest,
            "size": manifest.len(), "annotations": {"io.containerd.image.name": name}}],
    });
    let mut tar = tar::Builder::new(Vec::new());
    entry(
        &mut tar,
        tar::EntryType::Regular,
        "oci-layout",
        br#"{"imageLayoutVersion":"1.0.0"}"#,
        None,
        0o644,
    );
    entry(
        &mut tar,
        tar::EntryType::Regular,
        "index.json",
        index.to_string().as_bytes(),
        None,
        0o644,
    );
    for (digest, bytes) in &blobs {
        let path = format!("blobs/{}", digest.replace(':', "/"));
        entry(&mut tar, tar::EntryType::Regular, &path, bytes, None, 0o644);
    }
    std::fs::write(path, tar.into_inner().expect("in memory")).expect("write the archive");
}

/// As `docker save` did before it knew OCI: layers in folders, the second a link to the first where they are equal.
pub fn write_docker(path: &Path, names: &[&str], image: &ImageFiles, gzipped: bool) {
    let config = image.config.to_string();
    let config_name = format!("{}.json", digest(config.as_bytes()).trim_start_matches("sha256:"));
    let mut tar = tar::Builder::new(Vec::new());
    let mut layers = Vec::new();
    for (at, layer) in image.layers.iter().enumerate() {
        entry(&mut tar, tar::EntryType::Regular, &format!("{at}/layer.tar"), layer, None, 0o644);
        entry(
            &mut tar,
            tar::EntryType::Symlink,
            &format!("link{at}/layer.tar"),
            b"",
            Some(&format!("../{at}/layer.tar")),
            0o777,
        );
        layers.push(format!("link{at}/layer.tar"));
    }
    let manifest = json!([{"Config": config_name, "RepoTags": names, "Layers": layers}]);
    entry(&mut tar, tar::EntryType::Regular, &config_name, config.as_bytes(), None, 0o644);
    entry(
        &mut tar,
        tar::EntryType::Regular,
        "manifest.json",
        manifest.to_string().as_bytes(),
        None,
        0o644,
    );
    let bytes = tar.into_inner().expect("in memory");
    std::fs::write(path, if gzipped { gzip(&bytes) } else { bytes }).expect("write the archive");
}

//! Generates the wire types from `protos/` with Debian's `protoc`.

use std::path::Path;

const PROTOS: &[&str] = &[
    "skiff/api/v1/api.proto",
    "skiff/node/v1/node.proto",
    "skiff/raft/v1/raft.proto",
    "etcd/api/mvccpb/kv.proto",
    "etcd/api/etcdserverpb/rpc.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new("protos");
    let files: Vec<_> = PROTOS.iter().map(|p| root.join(p)).collect();
    println!("cargo:rerun-if-changed=protos");
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    tonic_prost_build::configure()
        // Values and objects are shared, never copied, on their way to a socket.
        .bytes(".")
        .extern_path(".skiff.api.v1.Object", "crate::WireObject")
        .file_descriptor_set_path(out.join("descriptors.bin"))
        .compile_protos(&files, &[root.to_path_buf()])?;
    Ok(())
}

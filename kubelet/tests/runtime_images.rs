//! Images for real: archives of all kinds, and pulls from a registry on loopback.

mod support;

use futures_util::future::join_all;
use serde_json::json;
use skiff_kubelet::ports::{Phase, RegistryAuth, Runtime, RuntimeError};
use support::Host;
use support::archive::{self, digest};
use support::registry::Registry;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn archives_of_all_kinds_come_in() {
    let host = Host::start().await;
    assert_eq!(host.image.reference, "docker.io/library/busybox:test");
    assert_eq!(host.image.config.cmd, ["sh"]);
    assert!(host.image.repo_digest.starts_with("docker.io/library/busybox@sha256:"));
    let tar = host.dir.join("saved.tar.gz");
    archive::write_docker(&tar, &["team/box:1", "box:2"], &archive::busybox(), true);
    let images = host.runtime.import(&tar).await.expect("a docker archive");
    let names: Vec<_> = images.iter().map(|image| image.reference.as_str()).collect();
    assert_eq!(names, ["docker.io/team/box:1", "docker.io/library/box:2"]);
    assert_eq!(images[0].id, images[1].id);
    // The same once more changes nothing.
    assert_eq!(host.runtime.import(&tar).await.expect("again"), images);
    let found = host.runtime.image("box:2").await.expect("a look").expect("is there");
    assert_eq!(found, images[1]);
    assert_eq!(host.runtime.images().await.expect("a list").len(), 3);
    let by_digest = format!("team/box@{}", images[0].id);
    assert_eq!(host.runtime.image(&by_digest).await.expect("a look").expect("is there"), images[0]);
    // It runs, too.
    let (_, id) =
        host.run_with("docker", &["echo", "from docker"], |_, c| c.image = images[0].clone()).await;
    host.wait_for("docker", &id, Phase::Exited).await;
    host.runtime.remove_image("box:2").await.expect("removed");
    host.runtime.remove_image("box:2").await.expect("not found is success");
    assert!(host.runtime.image("box:2").await.expect("a look").is_none());
    assert!(host.runtime.image("team/box:1").await.expect("a look").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_archives_say_what_is_wrong() {
    let host = Host::start().await;
    let import = async |name: &str, bytes: &[u8]| {
        let path = host.dir.join(name);
        std::fs::write(&path, bytes).expect("a file");
        host.runtime.import(&path).await.expect_err("broken").to_string()
    };
    let whole = std::fs::read(host.dir.join("busybox.tar")).expect("the archive");
    let why = import("cut.tar", &whole[..whole.len() / 2]).await;
    assert!(
        why.starts_with(&format!("import image archive {}", host.dir.join("cut.tar").display())),
        "{why}"
    );
    let why = import("text.tar", b"this is no archive at all").await;
    assert!(why.contains("not a tar archive") || why.contains("neither an OCI layout"), "{why}");
    archive::write_oci(&host.dir.join("new.tar"), "flipped:1", &archive::busybox_with("flipped"));
    let mut flipped = std::fs::read(host.dir.join("new.tar")).expect("the archive");
    let at =
        flipped.windows(4).position(|bytes| bytes == b"\x1f\x8b\x08\x00").expect("a layer") + 200;
    flipped[at] ^= 0xff;
    let why = import("flipped.tar", &flipped).await;
    assert!(why.contains("unexpected commit digest"), "{why}");
    let why =
        host.runtime.import(&host.dir.join("none.tar")).await.expect_err("not there").to_string();
    assert!(why.contains("open: No such file or directory"), "{why}");
    assert_eq!(host.runtime.images().await.expect("a list").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_are_pulled_once_by_tag_and_by_digest() {
    let host = Host::start().await;
    let registry = Registry::start(None).await;
    let mut files = archive::busybox_with("pulled");
    // Other bytes than the imported image has: everything must come over the wire.
    files.config["config"]["Env"] = json!(["PATH=/bin", "PULLED=1"]);
    let blobs = archive::oci_blobs(&files);
    let manifest = registry.put_image("team/web", "v1", &blobs);
    let architecture = files.config["architecture"].clone();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": format!("sha256:{}", "0".repeat(64)), "size": 1,
         "platform": {"os": "linux", "architecture": "s390x"}},
        {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest, "size": blobs[blobs.len() - 1].1.len(),
         "platform": {"os": "linux", "architecture": architecture}}]});
    let index = index.to_string().into_bytes();
    registry.put("team/web/manifests/multi", INDEX, index.clone());
    let name = format!("{}/team/web", registry.address);
    let multi = format!("{name}:multi");
    let pulls = join_all((0..8).map(|_| host.runtime.pull(&multi, None))).await;
    for image in pulls {
        let image = image.expect("pulled");
        assert_eq!(image.id, digest(&index));
        assert_eq!(image.reference, multi);
        assert_eq!(image.config.env, ["PATH=/bin", "PULLED=1"]);
    }
    let asked = registry.asked();
    assert!(
        asked.iter().all(|path| asked.iter().filter(|one| *one == path).count() == 1),
        "{asked:?}"
    );
    let by_digest = host.runtime.pull(&format!("{name}@{manifest}"), None).await.expect("pulled");
    assert_eq!(by_digest.id, manifest);
    assert_eq!(by_digest.repo_digest, format!("{name}@{manifest}"));
    let layers = registry.asked().iter().filter(|path| path.contains("/blobs/")).count();
    assert_eq!(layers, 3, "the layers and the configuration came only once");
    let (_, id) = host.run_with("pulled", &["true"], |_, c| c.image = by_digest.clone()).await;
    assert_eq!(host.wait_for("pulled", &id, Phase::Exited).await.exit_code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_fetched_and_not_shown_to_the_store_of_the_blobs() {
    let host = Host::start().await;
    let registry = Registry::with_tokens("me", "secret").await;
    let store = Registry::signed().await;
    let mut files = archive::busybox_with("by token");
    files.config["config"]["Env"] = json!(["PATH=/bin", "TOKEN=1"]);
    let blobs = archive::oci_blobs(&files);
    registry.put_image("team/web", "v1", &blobs);
    store.put_image("team/web", "v1", &blobs);
    registry.blobs_at(&store);
    let name = format!("{}/team/web:v1", registry.address);
    let error = host.runtime.pull(&name, None).await.expect_err("nobody is not known");
    assert!(error.to_string().contains("pull access denied"), "{error}");
    let auth = RegistryAuth { username: "me".into(), password: "secret".into() };
    let image = host.runtime.pull(&name, Some(&auth)).await.expect("pulled with a token");
    assert_eq!(image.config.env, ["PATH=/bin", "TOKEN=1"]);
    assert!(store.asked().iter().all(|path| path.contains("/blobs/")), "{:?}", store.asked());
    assert!(!store.asked().is_empty(), "the blobs came from where they are");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_that_cannot_be_says_why() {
    let host = Host::start().await;
    let open = Registry::start(None).await;
    let closed = Registry::start(Some(("me", "secret"))).await;
    closed.put_image("team/web", "v1", &archive::oci_blobs(&archive::busybox()));
    let why = async |name: &str| host.runtime.pull(name, None).await.expect_err("cannot be");
    let name = format!("{}/team/none:v1", open.address);
    let error = why(&name).await;
    assert!(matches!(error, RuntimeError::Pull { .. }));
    assert_eq!(
        error.to_string(),
        format!(
            "pull image {name}: failed to pull and unpack image \"{name}\": failed to resolve reference \"{name}\": {name}: not found"
        )
    );
    let error = why("Not/Valid").await;
    assert!(matches!(error, RuntimeError::InvalidImageName { .. }), "{error}");
    let name = format!("{}/team/web:v1", closed.address);
    let error = why(&name).await.to_string();
    assert!(
        error
            .contains("pull access denied, repository does not exist or may require authorization"),
        "{error}"
    );
    let auth = RegistryAuth { username: "me".into(), password: "secret".into() };
    host.runtime.pull(&name, Some(&auth)).await.expect("pulled with the password");
    let error = why("127.0.0.1:1/nobody:v1").await.to_string();
    assert!(error.contains("onnection refused"), "{error}");
    let other = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [{"mediaType": "x", "size": 1,
        "digest": format!("sha256:{}", "0".repeat(64)), "platform": {"os": "linux", "architecture": "s390x"}}]});
    open.put("team/other/manifests/v1", INDEX, other.to_string().into_bytes());
    let error = why(&format!("{}/team/other:v1", open.address)).await.to_string();
    assert!(error.contains("no match for platform in manifest"), "{error}");
    // A blob that is not what the manifest says.
    let mut bad = archive::oci_blobs(&archive::busybox_with("bad"));
    bad[0].1[300] ^= 0xff;
    open.put_image("team/bad", "v1", &bad);
    let error = why(&format!("{}/team/bad:v1", open.address)).await.to_string();
    assert!(error.contains("failed to copy sha256:"), "{error}");
}

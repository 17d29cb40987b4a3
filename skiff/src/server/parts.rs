//! Each part: what it is made of, what it needs, and where it listens.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use skiff_kit::graph::{Context as Part, Graph};
use skiff_kit::tls::{ClientAuth, server_config};
use skiff_store::Store;
use skiff_store::remote::Remote;
use tokio::net::TcpListener;

use super::identities::Identities;
use super::{Wiring, network};
use crate::config::{Datastore, ServerConfig};

/// How often the node of an all-in-one renews its Lease. It lives and dies with its control
/// plane, so its heartbeat tells nothing that the process does not. A heartbeat costs one
/// block of the log, 4 KiB, and nothing cheaper is durable: upstream's ten seconds would write
/// 35 MB a day, this writes 1.2 MB. Other nodes keep upstream's ten seconds.
const HEARTBEAT: Duration = Duration::from_secs(300);
/// What the Lease says it lasts, four heartbeats as upstream. The node lifecycle grants a node
/// that much, and nodes that say nothing of the kind upstream's 40 seconds.
const LEASE_DURATION: Duration = Duration::from_secs(1200);

type Add = fn(&mut Graph, Wiring);

/// The parts that need nothing but the API (the kubelet needs containerd, too).
pub(super) const ON_THE_API: [(&str, Add); 5] = [
    ("controllers", add_controllers),
    ("scheduler", add_scheduler),
    ("proxy", add_proxy),
    ("ingress", add_ingress),
    ("kubelet", add_kubelet),
];

pub(super) fn add_store(graph: &mut Graph, wiring: Wiring) {
    let Wiring { config, identities, shared } = wiring;
    graph.add("store", &[], move |part| async move {
        let store =
            Store::open(skiff_store::Config::new(&config.node_name, config.data_dir.join("store")))
                .await?;
        let listener = bind(config.store_client, "--store-listen-port").await?;
        let tls = server_config(
            &identities.store_server,
            &identities.store_ca_pem,
            ClientAuth::Required,
        )?;
        shared.store.set(store.clone()).ok();
        part.ready()();
        let served =
            skiff_store::etcd::serve(store.clone(), listener, Some(Arc::new(tls)), part.shutdown)
                .await;
        store.shutdown().await;
        Ok(served?)
    });
}

/// An etcd cluster in the embedded store's place. It has its own clients and certificates,
/// so no etcd face is served here.
pub(super) fn add_datastore(graph: &mut Graph, wiring: Wiring, datastore: Datastore) {
    let Wiring { config, shared, .. } = wiring;
    graph.add("store", &[], move |part| async move {
        let endpoints = datastore.endpoints.join(",");
        if config.data_dir.join("store").exists() {
            tracing::warn!(
                endpoints,
                "--datastore-endpoint is used; the objects of the embedded store stay unused"
            );
        }
        shared.store.set(Remote::connect(datastore.options()?).await?).ok();
        tracing::info!(endpoints, "using an external datastore");
        part.ready()();
        part.shutdown.cancelled().await;
        Ok(())
    });
}

pub(super) fn add_apiserver(graph: &mut Graph, wiring: Wiring) {
    let Wiring { config, identities, shared } = wiring;
    graph.add("apiserver", &["store"], move |part| async move {
        let listener = bind(config.api, "--https-listen-port").await?;
        let tls =
            server_config(&identities.apiserver, &identities.cluster_ca_pem, ClientAuth::Optional)?;
        let core =
            skiff_apiserver::Core::new(shared.store()?, core_config(&config, &identities, &part))
                .await?;
        shared.core.set(core.clone()).ok();
        part.ready()();
        Ok(skiff_apiserver::serve(core, listener, Arc::new(tls), part.shutdown).await?)
    });
}

fn core_config(
    config: &ServerConfig,
    identities: &Identities,
    part: &Part,
) -> skiff_apiserver::core::Config {
    skiff_apiserver::core::Config {
        service_cidr: config.service_cidr.to_string(),
        node_port_range: config.node_ports,
        advertise: Some((config.node_ip, config.api.port())),
        node_client: Some(skiff_apiserver::core::NodeClient {
            ca_pem: identities.cluster_ca_pem.clone(),
            cert_pem: identities.apiserver.cert_pem.clone(),
            key_pem: identities.apiserver.key_pem.clone(),
        }),
        shutdown: part.shutdown.clone(),
        ..Default::default()
    }
}

fn add_controllers(graph: &mut Graph, wiring: Wiring) {
    let Wiring { config, identities, shared } = wiring;
    graph.add("controllers", &["apiserver"], move |part| async move {
        let api = shared.api("system:kube-controller-manager", &[])?;
        let settings = skiff_controllers::Config {
            cluster_cidr: Some(config.cluster_cidr.to_string()),
            root_ca_pem: Some(identities.cluster_ca_pem.clone()),
            ..Default::default()
        };
        Ok(skiff_controllers::run(api, settings, part.shutdown.clone(), part.ready()).await?)
    });
}

fn add_scheduler(graph: &mut Graph, wiring: Wiring) {
    let Wiring { shared, .. } = wiring;
    graph.add("scheduler", &["apiserver"], move |part| async move {
        let api = shared.api("system:kube-scheduler", &[])?;
        Ok(skiff_scheduler::run(api, Default::default(), part.shutdown.clone(), part.ready())
            .await?)
    });
}

fn add_proxy(graph: &mut Graph, wiring: Wiring) {
    let Wiring { config, shared, .. } = wiring;
    graph.add("proxy", &["apiserver"], move |part| async move {
        let api = shared.api("system:kube-proxy", &["system:node-proxier"])?;
        let cluster_cidr = config.cluster_cidr.to_string();
        let mut settings =
            skiff_proxy::Config::new(&cluster_cidr, config.node_ip, &config.node_name);
        settings.mode = config.proxy_mode;
        Ok(skiff_proxy::run(api, settings, part.shutdown.clone(), part.ready()).await?)
    });
}

fn add_ingress(graph: &mut Graph, wiring: Wiring) {
    let Wiring { config, shared, .. } = wiring;
    graph.add("ingress", &["apiserver"], move |part| async move {
        let api = shared.api("system:ingress", &[])?;
        let settings = skiff_ingress::Config {
            listen: config.ingress.clone(),
            node_addresses: vec![config.node_ip],
            ..Default::default()
        };
        Ok(skiff_ingress::run(api, settings, part.shutdown.clone(), part.ready()).await?)
    });
}

pub(super) fn add_containerd(graph: &mut Graph, wiring: Wiring) {
    let Wiring { config, shared, .. } = wiring;
    graph.add("containerd", &[], move |part| async move {
        use skiff_kubelet::containerd_supervisor::{Config, Supervisor};
        if let Some(address) = &config.containerd_address {
            shared.containerd.set(address.clone()).ok();
            part.ready()();
            part.shutdown.cancelled().await;
            return Ok(());
        }
        let supervisor = Supervisor::start(Config::new(
            config.data_dir.join("containerd"),
            config.run_dir.join("containerd"),
        ))
        .await?;
        shared.containerd.set(supervisor.address()).ok();
        part.ready()();
        part.shutdown.cancelled().await;
        // Dropped, not stopped: containers go on, and the next start takes containerd over.
        drop(supervisor);
        Ok(())
    });
}

fn add_kubelet(graph: &mut Graph, wiring: Wiring) {
    let Wiring { config, identities, shared } = wiring;
    graph.add("kubelet", &["apiserver", "containerd"], move |part| async move {
        let address = shared.containerd.get().context("containerd is not there")?;
        let runtime = Arc::new(connect_containerd(&config, address).await?);
        let network = Arc::new(pod_network(&config)?);
        let user = format!("system:node:{}", config.node_name);
        let api = shared.api(&user, &["system:nodes"])?;
        let tls =
            server_config(&identities.kubelet, &identities.cluster_ca_pem, ClientAuth::Required)?;
        let listener = bind(config.kubelet, "--kubelet-port").await?;
        let server = skiff_kubelet::NodeServer { listener, tls: Arc::new(tls) };
        let settings = kubelet_config(&config);
        let rules = match config.cni_conf_dir {
            None => Some(tokio::spawn(network::keep_rules(
                config.data_dir.clone(),
                part.shutdown.clone(),
            ))),
            Some(_) => None,
        };
        let ran = skiff_kubelet::run(
            api,
            runtime,
            network,
            settings,
            Some(server),
            part.shutdown.clone(),
            part.ready(),
        )
        .await;
        if let Some(rules) = rules {
            rules.abort();
        }
        Ok(ran?)
    });
}

pub async fn connect_containerd(
    config: &ServerConfig,
    address: &Path,
) -> anyhow::Result<skiff_kubelet::runtime::Containerd> {
    let settings = skiff_kubelet::runtime::Config {
        state_dir: config.run_dir.clone(),
        data_dir: config.data_dir.clone(),
        ..skiff_kubelet::runtime::Config::new(address)
    };
    Ok(skiff_kubelet::runtime::Containerd::connect(settings).await?)
}

/// With one node, its pods have the first /24 of the cluster's range; the node's own range
/// comes from its Node object once there are many.
fn pod_network(config: &ServerConfig) -> anyhow::Result<skiff_kubelet::network::Cni> {
    if config.cni_conf_dir.is_none() {
        network::write(config, &format!("{}/24", config.cluster_cidr.address(0)))?;
    }
    Ok(skiff_kubelet::network::Cni::new(network_config(config)))
}

pub fn network_config(config: &ServerConfig) -> skiff_kubelet::network::Config {
    let paths = network::Paths::new(&config.data_dir);
    skiff_kubelet::network::Config {
        conf_dir: config.cni_conf_dir.clone().unwrap_or(paths.conf),
        bin_dirs: vec![paths.bin, "/opt/cni/bin".into(), "/usr/lib/cni".into()],
        built_in: config.cni_conf_dir.is_none().then(network::built_in),
        netns_dir: config.run_dir.join("netns"),
        cache_dir: paths.results,
    }
}

pub fn kubelet_config(config: &ServerConfig) -> skiff_kubelet::Config {
    let mut settings = skiff_kubelet::Config::new(&config.node_name, config.node_ip);
    settings.root_dir = config.data_dir.join("kubelet");
    settings.log_dir.clone_from(&config.log_dir);
    settings.cgroup_root = cgroup_root(&config.data_dir);
    settings.cluster_domain.clone_from(&config.cluster_domain);
    settings.labels.clone_from(&config.node_labels);
    settings
        .labels
        .entry("node-role.kubernetes.io/control-plane".into())
        .or_insert_with(|| "true".into());
    settings.taints.clone_from(&config.node_taints);
    settings.node_port = config.kubelet.port();
    settings.version = format!("v{}", env!("CARGO_PKG_VERSION"));
    settings.lease_renew_interval = HEARTBEAT;
    settings.lease_duration = LEASE_DURATION;
    settings
}

/// Clusters of one machine share its control groups: each has a tree of its own, so that none
/// cleans up another's pods. The usual data folder has the plain name; others are told apart by a
/// digest of their path (FNV-1a, which no release of a library changes).
fn cgroup_root(data_dir: &Path) -> String {
    let path = data_dir.canonicalize().unwrap_or_else(|_| data_dir.to_owned());
    if path == Path::new(crate::config::DATA_DIR) {
        return "/skiff".to_owned();
    }
    let bytes = path.as_os_str().as_encoded_bytes();
    let digest = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |digest, byte| {
        (digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("/skiff-{digest:016x}")
}

/// Binds early, so that a port that is taken is one clear error.
pub async fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "listen on {address}: is another program using the port? Choose another with {flag}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_data_folder_has_its_own_control_groups() {
        assert_eq!(cgroup_root(Path::new("/var/lib/skiff")), "/skiff");
        let (one, other) = (cgroup_root(Path::new("/none/a")), cgroup_root(Path::new("/none/b")));
        assert_ne!(one, other);
        assert_eq!(one, cgroup_root(Path::new("/none/a")));
        assert!(one.starts_with("/skiff-") && one.len() == "/skiff-".len() + 16, "{one}");
    }
}

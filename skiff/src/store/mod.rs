//! `skiff store`: the store alone, as its own process, with etcd's flag names.

mod args;

use std::sync::Arc;

use skiff_kit::pki::Identity;
use skiff_kit::tls::{ClientAuth, server_config};
use skiff_store::Store;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::args::StoreArgs;
use self::args::{Settings, Tls};
use crate::server::parts::bind;

pub async fn run(args: StoreArgs) -> anyhow::Result<()> {
    skiff_kit::telemetry::init("info,openraft=error,h2=warn");
    let Settings { config, clients, peers, client_tls } = args.settings()?;
    let client_tls = client_tls.as_ref().map(rustls_config).transpose()?;
    let mut client_listeners = Vec::new();
    for listen in clients {
        let listener = bind(listen.address, "--listen-client-urls").await?;
        client_listeners.push((listener, client_tls.clone().filter(|_| listen.secure)));
    }
    let mut peer_listeners = Vec::new();
    for listen in peers {
        let listener = bind(listen.address, "--listen-peer-urls").await?;
        peer_listeners.push((listener, config.peer_tls.clone().filter(|_| listen.secure)));
    }
    let store = Store::open(config).await?;
    let shutdown = CancellationToken::new();
    tokio::spawn(crate::server::stop_on_signal(shutdown.clone(), "stopping"));
    let mut serving = JoinSet::new();
    for (listener, tls) in peer_listeners {
        let (store, shutdown) = (store.clone(), shutdown.clone());
        serving.spawn(async move {
            skiff_store::serve_peers(&store, listener, tls, shutdown)
                .await
                .map_err(anyhow::Error::from)
        });
    }
    for (listener, tls) in client_listeners {
        let served = skiff_store::etcd::serve(store.clone(), listener, tls, shutdown.clone());
        serving.spawn(async move { served.await.map_err(anyhow::Error::from) });
    }
    crate::server::started();
    let removed = tokio::select! {
        () = store.removed() => true,
        result = all(&mut serving) => {
            result?;
            false
        }
    };
    shutdown.cancel();
    all(&mut serving).await?;
    store.shutdown().await;
    anyhow::ensure!(
        !removed,
        "this member has been removed from the cluster: to join again, add it as a new member \
         and start it with an empty --data-dir"
    );
    Ok(())
}

async fn all(serving: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    while let Some(served) = serving.join_next().await {
        served??;
    }
    Ok(())
}

fn rustls_config(tls: &Tls) -> anyhow::Result<Arc<rustls::ServerConfig>> {
    let identity = Identity { cert_pem: tls.cert_pem.clone(), key_pem: tls.key_pem.clone() };
    Ok(Arc::new(server_config(&identity, &tls.ca_pem, ClientAuth::Required)?))
}

//! What is sent: puts, create-transactions as an API server makes them, ranges, watches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use prost::Message;
use skiff_proto::grpc::etcdserverpb as pb;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use crate::wire::{Calls, Connection, Failure};

/// Connections that the clients share at most.
const CONNECTIONS: usize = 16;
pub const VALUE_BYTES: usize = 256;
/// Keys that puts go to and ranges ask for.
pub const KEYS: u64 = 10_000;
/// What memory, start and disk are measured with.
pub const FILL_KEYS: u64 = 100_000;
pub const FILL_BYTES: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Put,
    Create,
    Range {
        serializable: bool,
    },
    /// Every key that puts and ranges draw from.
    Seed,
    /// Every number its own key, values of a KiB.
    Fill,
    /// One of the keys of `Fill` again.
    Overwrite,
}

/// When a run ends.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    Time(Duration),
    Count(u64),
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Outcome {
    pub per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub count: u64,
}

/// Spreads the keys, and is the same in every run.
fn spread(n: u64) -> u64 {
    let z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (z ^ (z >> 31)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 20
}

fn put(key: String, value_bytes: usize) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: vec![b'v'; value_bytes].into(), ..Default::default() }
}

fn bench_key(n: u64) -> String {
    format!("/bench/{n:06}")
}

fn fill_key(n: u64) -> String {
    format!("/fill/{n:09}")
}

impl Kind {
    fn path(self) -> &'static str {
        match self {
            Kind::Put | Kind::Seed | Kind::Fill | Kind::Overwrite => "/etcdserverpb.KV/Put",
            Kind::Create => "/etcdserverpb.KV/Txn",
            Kind::Range { .. } => "/etcdserverpb.KV/Range",
        }
    }

    fn message(self, n: u64) -> Vec<u8> {
        let key = || bench_key(spread(n) % KEYS);
        match self {
            Kind::Put => put(key(), VALUE_BYTES).encode_to_vec(),
            Kind::Seed => put(bench_key(n), VALUE_BYTES).encode_to_vec(),
            Kind::Fill => put(fill_key(n), FILL_BYTES).encode_to_vec(),
            Kind::Overwrite => put(fill_key(spread(n) % FILL_KEYS), FILL_BYTES).encode_to_vec(),
            Kind::Create => create(format!("/create/{n:09}")).encode_to_vec(),
            Kind::Range { serializable } => {
                pb::RangeRequest { key: key().into(), serializable, ..Default::default() }
                    .encode_to_vec()
            }
        }
    }

    /// A range that found nothing is none.
    fn least_bytes(self) -> usize {
        if matches!(self, Kind::Range { .. }) { VALUE_BYTES } else { 1 }
    }
}

/// "If it is not there, put it."
fn create(key: String) -> pb::TxnRequest {
    use pb::compare::{CompareResult, CompareTarget, TargetUnion};
    pb::TxnRequest {
        compare: vec![pb::Compare {
            result: CompareResult::Equal as i32,
            target: CompareTarget::Mod as i32,
            key: key.clone().into(),
            target_union: Some(TargetUnion::ModRevision(0)),
            ..Default::default()
        }],
        success: vec![pb::RequestOp {
            request: Some(pb::request_op::Request::RequestPut(put(key, VALUE_BYTES))),
        }],
        ..Default::default()
    }
}

/// Runs `clients` at a time against the ports, numbers from `first` on.
pub async fn run(
    ports: &[u16],
    kind: Kind,
    clients: usize,
    first: u64,
    until: Until,
) -> Result<Outcome, Failure> {
    let connections = clients.min(CONNECTIONS);
    let number = Arc::new(AtomicU64::new(first));
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for n in 0..connections {
        let depth = clients / connections + usize::from(n < clients % connections);
        let connection = Connection::open(ports[n % ports.len()], kind.path()).await?;
        let number = number.clone();
        let next = move || {
            let ended = match until {
                Until::Time(time) => begin.elapsed() >= time,
                Until::Count(count) => number.load(Relaxed) >= first + count,
            };
            (!ended).then(|| kind.message(number.fetch_add(1, Relaxed)))
        };
        tasks.spawn(connection.drive(depth, kind.least_bytes(), next));
    }
    let mut all = Calls::default();
    while let Some(calls) = tasks.join_next().await {
        let calls = calls??;
        all.times.extend(calls.times);
        all.refused += calls.refused;
    }
    let seconds = begin.elapsed().as_secs_f64();
    if all.refused > 0 || all.times.is_empty() {
        return Err(format!("{kind:?}: {} of the calls were refused", all.refused).into());
    }
    all.times.sort_unstable();
    let at = |percent: usize| all.times[(all.times.len() - 1) * percent / 100].as_secs_f64() * 1e6;
    Ok(Outcome {
        per_second: all.times.len() as f64 / seconds,
        p50_us: at(50),
        p99_us: at(99),
        count: all.times.len() as u64,
    })
}

/// Events a second that arrive at `watchers` of one prefix, `writes` of them each.
pub async fn fan_out(port: u16, watchers: usize, writes: u64) -> Result<f64, Failure> {
    let mut channels = Vec::new();
    for _ in 0..10 {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?;
        channels.push(endpoint.connect().await?);
    }
    let mut tasks = JoinSet::new();
    for n in 0..watchers {
        let channel = channels[n % channels.len()].clone();
        let mut client = pb::watch_client::WatchClient::new(channel);
        let request = pb::WatchRequest {
            request_union: Some(pb::watch_request::RequestUnion::CreateRequest(
                pb::WatchCreateRequest {
                    key: "/bench/".into(),
                    range_end: "/bench0".into(),
                    ..Default::default()
                },
            )),
        };
        // The stream of requests stays open, or the server would end the watch.
        let requests =
            tokio_stream::StreamExt::chain(tokio_stream::once(request), tokio_stream::pending());
        let mut stream = client.watch(requests).await?.into_inner();
        stream.message().await?.ok_or("the watch was not created")?;
        tasks.spawn(async move {
            let mut seen = 0;
            while seen < writes {
                let response = stream.message().await?.ok_or("the watch ended")?;
                seen += response.events.len() as u64;
            }
            Ok::<_, Failure>(seen)
        });
    }
    let begin = Instant::now();
    run(&[port], Kind::Put, 16, 0, Until::Count(writes)).await?;
    let mut events = 0;
    while let Some(seen) = tasks.join_next().await {
        events += seen??;
    }
    Ok(events as f64 / begin.elapsed().as_secs_f64())
}

async fn connect(port: u16) -> Result<Channel, Failure> {
    Ok(Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?.connect().await?)
}

pub async fn kv(port: u16) -> Result<pb::kv_client::KvClient<Channel>, Failure> {
    Ok(pb::kv_client::KvClient::new(connect(port).await?))
}

pub async fn maintenance(
    port: u16,
) -> Result<pb::maintenance_client::MaintenanceClient<Channel>, Failure> {
    Ok(pb::maintenance_client::MaintenanceClient::new(connect(port).await?))
}

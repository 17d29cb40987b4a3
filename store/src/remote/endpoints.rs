//! The cluster's endpoints: one connection at a time, and the next endpoint when it breaks.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use skiff_kit::backoff::Backoff;
use skiff_proto::grpc::etcdserverpb as pb;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::{MAX_ANSWER_BYTES, Options};
use crate::kv::KvError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A peer that vanished without a word is noticed after about the two together, as with
/// Kubernetes' own client of etcd.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// After all endpoints have failed, nobody tries again for this long, rising to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// PEM, as files hold it.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    pub ca_pem: String,
    /// Certificate and key that the cluster asks for, if it does.
    pub identity: Option<(String, String)>,
}

/// The names of the flags that say where the cluster is, for errors.
#[derive(Debug, Clone, Copy)]
pub struct Flags {
    pub endpoint: &'static str,
    pub ca: &'static str,
    pub cert: &'static str,
    pub key: &'static str,
}

impl Default for Flags {
    fn default() -> Self {
        Self {
            endpoint: "--datastore-endpoint",
            ca: "--datastore-cafile",
            cert: "--datastore-certfile",
            key: "--datastore-keyfile",
        }
    }
}

/// Why there is no first connection. Each names the flag and the endpoint.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("{flag} is empty: name at least one https://HOST:PORT")]
    NoEndpoint { flag: &'static str },
    #[error("{flag} {url}: {fault}")]
    Endpoint { flag: &'static str, url: String, fault: String },
    #[error("{flag}: no endpoint can be used\n  {}", lines(faults))]
    AllFailed { flag: &'static str, faults: Vec<Fault> },
}

impl ConnectError {
    /// Whether a cluster that is just starting looks like this.
    fn may_pass(&self) -> bool {
        matches!(self, Self::AllFailed { faults, .. } if faults.iter().any(|fault| fault.may_pass))
    }
}

/// Why one endpoint cannot be used.
#[derive(Debug)]
pub struct Fault {
    text: String,
    /// Nobody listens, or nobody leads yet; the settings may be right.
    may_pass: bool,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// A connection that was good when it was made.
#[derive(Clone)]
pub struct Connection {
    channel: Channel,
    pub url: Arc<str>,
    serial: u64,
}

impl Connection {
    pub fn kv(&self) -> pb::kv_client::KvClient<Channel> {
        pb::kv_client::KvClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    pub fn lease(&self) -> pb::lease_client::LeaseClient<Channel> {
        pb::lease_client::LeaseClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    pub fn watch(&self) -> pb::watch_client::WatchClient<Channel> {
        pb::watch_client::WatchClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_ANSWER_BYTES)
    }
}

pub struct Endpoints {
    list: Vec<(Arc<str>, Endpoint)>,
    flags: Flags,
    state: Mutex<State>,
}

struct State {
    current: Option<Connection>,
    /// Which endpoint is next to be tried.
    next: usize,
    serial: u64,
    backoff: Backoff,
    /// All have failed just now: until when nobody tries again, and what is said meanwhile.
    pause: Option<(Instant, KvError)>,
}

impl Endpoints {
    pub fn new(options: &Options) -> Result<Self, ConnectError> {
        if options.endpoints.is_empty() {
            return Err(ConnectError::NoEndpoint { flag: options.flags.endpoint });
        }
        let list = options.endpoints.iter().map(|url| endpoint(url, options));
        let state = State {
            current: None,
            next: 0,
            serial: 0,
            backoff: Backoff::new(PAUSE.0, PAUSE.1),
            pause: None,
        };
        Ok(Self {
            list: list.collect::<Result<_, _>>()?,
            state: Mutex::new(state),
            flags: options.flags,
        })
    }

    /// The connection there is, or a new one to the first endpoint that takes it.
    pub async fn get(&self) -> Result<Connection, KvError> {
        let mut state = self.state.lock().await;
        if let Some(connection) = &state.current {
            return Ok(connection.clone());
        }
        if let Some((until, error)) = &state.pause
            && Instant::now() < *until
        {
            return Err(error.clone());
        }
        let mut faults = Vec::new();
        for attempt in 0..self.list.len() {
            let at = (state.next + attempt) % self.list.len();
            let (url, endpoint) = &self.list[at];
            match endpoint.connect().await {
                Ok(channel) => {
                    if state.serial > 0 {
                        tracing::info!(endpoint = %url, "connected to the datastore again");
                    }
                    state.serial += 1;
                    state.next = at;
                    state.pause = None;
                    state.backoff.reset();
                    let connection = Connection { channel, url: url.clone(), serial: state.serial };
                    state.current = Some(connection.clone());
                    return Ok(connection);
                }
                Err(error) => faults.push(format!("{url}: {}", reason(&error))),
            }
        }
        let error = self.unreachable(&faults.join("; "));
        state.pause = Some((Instant::now() + state.backoff.next(), error.clone()));
        Err(error)
    }

    /// Takes a connection out of use; the next call goes to the next endpoint.
    pub async fn failed(&self, connection: &Connection, why: &str) {
        let mut state = self.state.lock().await;
        if state.current.as_ref().is_some_and(|current| current.serial == connection.serial) {
            tracing::warn!(endpoint = %connection.url, why, "the connection to the datastore is lost");
            state.current = None;
            state.next = (state.next + 1) % self.list.len();
        }
    }

    pub fn unreachable(&self, why: &str) -> KvError {
        let urls: Vec<_> = self.list.iter().map(|(url, _)| &**url).collect();
        KvError::Unreachable { datastore: urls.join(","), reason: why.to_owned() }
    }

    /// Answers of any length may take their time on this one.
    pub async fn connect_first(&self) -> Result<(Channel, Arc<str>), ConnectError> {
        self.probe(super::START_TIMEOUT).await?;
        let flag = self.flags.endpoint;
        let fault = |error: KvError| ConnectError::AllFailed {
            flag,
            faults: vec![Fault { text: error.to_string(), may_pass: false }],
        };
        let connection = self.get().await.map_err(fault)?;
        Ok((connection.channel, connection.url))
    }

    /// As [`Self::probe`], and again while the cluster may still be starting: after a reboot
    /// the two come up together.
    pub async fn wait(&self, limit: Duration) -> Result<(), ConnectError> {
        let deadline = Instant::now() + limit;
        let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
        let mut told = false;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Err(error) = self.probe(left).await else { return Ok(()) };
            let pause = backoff.next();
            if !error.may_pass() || Instant::now() + pause >= deadline {
                return Err(error);
            }
            if !std::mem::replace(&mut told, true) {
                tracing::info!(limit_seconds = limit.as_secs(), why = %error, "waiting for the datastore");
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Asks each endpoint in turn until one answers. TLS 1.3 tells a client only with the
    /// first answer that its certificate is refused, so a connection alone proves nothing.
    pub async fn probe(&self, limit: Duration) -> Result<(), ConnectError> {
        let deadline = Instant::now() + limit;
        let mut faults = Vec::new();
        for (at, (url, endpoint)) in self.list.iter().enumerate() {
            match tokio::time::timeout_at(deadline, ask(endpoint, &self.flags)).await {
                Ok(Ok(())) => {
                    self.state.lock().await.next = at;
                    return Ok(());
                }
                Ok(Err(Fault { text, may_pass })) => {
                    faults.push(Fault { text: format!("{url}: {text}"), may_pass });
                }
                Err(_) => {
                    let text = format!("{url}: no answer within {limit:?}");
                    faults.push(Fault { text, may_pass: true });
                }
            }
        }
        Err(ConnectError::AllFailed { flag: self.flags.endpoint, faults })
    }
}

fn endpoint(url: &str, options: &Options) -> Result<(Arc<str>, Endpoint), ConnectError> {
    let Flags { endpoint: flag, ca, cert, key } = options.flags;
    let fault = |fault: String| ConnectError::Endpoint { flag, url: url.to_owned(), fault };
    let secure = url.starts_with("https://");
    if !secure && !url.starts_with("http://") {
        return Err(fault("is no https://HOST:PORT of an etcd".into()));
    }
    let endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(|error| fault(format!("is no URL: {}", reason(&error))))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    if !secure {
        return Ok((url.into(), endpoint));
    }
    let tls = options.tls.as_ref().ok_or_else(|| fault(format!("https needs {ca}")))?;
    let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&tls.ca_pem));
    if let Some((cert, key)) = &tls.identity {
        config = config.identity(Identity::from_pem(cert, key));
    }
    let endpoint = endpoint.tls_config(config).map_err(|error| {
        let why = reason(&error);
        fault(format!("the files of {ca}, {cert} or {key} cannot be used: {why}"))
    })?;
    Ok((url.into(), endpoint))
}

async fn ask(endpoint: &Endpoint, flags: &Flags) -> Result<(), Fault> {
    let wrong = |text| Fault { text, may_pass: false };
    let channel = endpoint.connect().await.map_err(|error| Fault {
        text: hint(&reason(&error), flags),
        may_pass: nobody_there(&error),
    })?;
    let wire = pb::RangeRequest { key: "\0".into(), count_only: true, ..Default::default() };
    let mut client = pb::kv_client::KvClient::new(channel);
    let Err(status) = client.range(wire).await else { return Ok(()) };
    match status.source() {
        // etcd's own words; without a leader it is unavailable.
        None => Err(Fault {
            text: hint(status.message(), flags),
            may_pass: status.code() == tonic::Code::Unavailable,
        }),
        // TLS was agreed on, and then the connection closed: what TLS 1.3 looks like when a
        // server does not like the client. Its alert does not always arrive.
        Some(source) if endpoint.uri().scheme_str() == Some("https") => {
            Err(wrong(refused(flags, &reason(source))))
        }
        Some(source) => Err(wrong(reason(source))),
    }
}

/// Whether the network, not the peer, said no.
fn nobody_there(error: &(dyn Error + 'static)) -> bool {
    use std::io::ErrorKind::*;
    let refused = |error: &std::io::Error| {
        matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable | TimedOut)
    };
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref().is_some_and(refused) {
            return true;
        }
        cause = error.source();
    }
    false
}

fn lines(faults: &[Fault]) -> String {
    faults.iter().map(|fault| fault.text.as_str()).collect::<Vec<_>>().join("\n  ")
}

fn refused(flags: &Flags, why: &str) -> String {
    let cert = flags.cert;
    format!(
        "it closes the connection: it needs a client certificate, or does not know that of {cert} ({why})"
    )
}

/// An error and its sources in one line; a source that only repeats is left out.
fn reason(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text.trim_start_matches("transport error: ").to_owned()
}

/// Which flag a refusal of TLS is about.
fn hint(reason: &str, flags: &Flags) -> String {
    let ca = flags.ca;
    if reason.contains("invalid peer certificate") {
        format!("its certificate is not of {ca}, or not for this name ({reason})")
    } else if reason.contains("received fatal alert") || reason.contains("certificate required") {
        refused(flags, reason)
    } else if reason.contains("InvalidContentType") || reason.contains("corrupt message") {
        format!("it does not speak TLS: http:// instead of https://? ({reason})")
    } else if reason.contains("etcdserver: user name is empty") {
        "it asks for users and passwords: let it know its clients by certificate".to_owned()
    } else {
        reason.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, expect: &str) {
        let options = Options { endpoints: vec![url.into()], ..Default::default() };
        let error = Endpoints::new(&options).err().expect("refused").to_string();
        assert!(error.contains(expect), "{error}");
    }

    #[test]
    fn what_is_no_endpoint_is_said_with_the_flag() {
        check("mysql://db", "--datastore-endpoint mysql://db: is no https://HOST:PORT");
        check("https://a:2379", "https needs --datastore-cafile");
    }

    #[tokio::test]
    async fn every_endpoint_that_fails_is_named() {
        skiff_kit::tls::install_provider();
        let endpoints = ["http://127.0.0.1:1".to_owned(), "http://127.0.0.1:2".to_owned()].into();
        let options = Options { endpoints, ..Default::default() };
        let endpoints = Endpoints::new(&options).unwrap();
        let error = endpoints.probe(Duration::from_secs(5)).await.unwrap_err();
        assert!(error.may_pass(), "a cluster may be starting there");
        let error = error.to_string();
        for part in ["--datastore-endpoint", "127.0.0.1:1: ", "127.0.0.1:2: ", "refused"] {
            assert!(error.contains(part), "{part} not in {error}");
        }
        let error = endpoints.get().await.err().unwrap().to_string();
        assert!(error.contains("http://127.0.0.1:1,http://127.0.0.1:2"), "{error}");
    }

    #[tokio::test]
    async fn a_peer_that_speaks_no_tls_is_not_waited_for() {
        skiff_kit::tls::install_provider();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400\r\n").await;
            }
        });
        let ca = skiff_kit::pki::Ca::load_or_create(tempfile::tempdir().unwrap().path(), "ca");
        let tls = Tls { ca_pem: ca.unwrap().cert_pem, identity: None };
        let options = Options { endpoints: vec![url], tls: Some(tls), ..Default::default() };
        let endpoints = Endpoints::new(&options).unwrap();
        let error = endpoints.wait(Duration::from_secs(60)).await.unwrap_err();
        assert!(!error.may_pass() && error.to_string().contains("does not speak TLS"), "{error}");
    }
}

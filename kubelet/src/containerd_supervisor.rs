//! skiff's own containerd: started when no other is named, kept running, and left alone when skiff is
//! killed, so that the next skiff takes it over with all its containers.

mod config_file;
mod process;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use self::config_file::render;
use self::process::Running;

/// From the start of the program to its answer; a slow disk takes its time.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// One that is there already answers at once, or is not well.
const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(5);
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_LAST: Duration = Duration::from_secs(10);
/// Who ran that long was well: the next restart is quick again.
const WELL_AFTER: Duration = Duration::from_secs(60);

/// Where the private containerd lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The program; looked for in the path when it has no slash.
    pub binary: PathBuf,
    /// Kept: images, snapshots, records.
    pub root: PathBuf,
    /// Gone after a reboot: the socket, tasks, the pid file.
    pub state: PathBuf,
}

impl Config {
    pub fn new(root: impl Into<PathBuf>, state: impl Into<PathBuf>) -> Config {
        Config { binary: PathBuf::from("containerd"), root: root.into(), state: state.into() }
    }

    /// `/run/skiff/containerd/containerd.sock`
    pub fn socket(&self) -> PathBuf {
        self.state.join("containerd.sock")
    }

    fn file(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    fn log(&self) -> PathBuf {
        self.root.join("containerd.log")
    }

    fn pid_file(&self) -> PathBuf {
        self.state.join("containerd.pid")
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    #[error("{operation} {path}: {source}")]
    Io { operation: &'static str, path: String, source: std::io::Error },
    #[error("start {binary}: {why}; on Debian: apt-get install containerd runc")]
    Start { binary: String, why: String },
    #[error("containerd ended before it answered ({status}); its log {log} says: {words}")]
    Ended { status: String, log: String, words: String },
    #[error("containerd does not answer on {socket} after {seconds} s; see its log {log}")]
    Silent { socket: String, seconds: u64, log: String },
}

/// A running private containerd. Dropping this leaves containerd running.
pub struct Supervisor {
    config: Arc<Config>,
    ready: watch::Receiver<bool>,
    pid: watch::Receiver<u32>,
    watcher: JoinHandle<()>,
}

impl Supervisor {
    /// Takes over the one that runs, or starts one; returns when it answers.
    /// Boxed: see "Build time" in ARCHITECTURE.md.
    pub fn start(config: Config) -> BoxFuture<'static, Result<Supervisor, SupervisorError>> {
        Box::pin(async move {
            for dir in [&config.root, &config.state] {
                std::fs::create_dir_all(dir)
                    .map_err(|source| io_error("make the folder", dir, source))?;
            }
            let running = match take_over(&config).await {
                Some(running) => running,
                None => launch(&config).await?,
            };
            let (set_ready, ready) = watch::channel(true);
            let (set_pid, pid) = watch::channel(running.pid());
            let config = Arc::new(config);
            let watcher = tokio::spawn(keep_running(config.clone(), running, set_ready, set_pid));
            Ok(Supervisor { config, ready, pid, watcher })
        })
    }

    pub fn address(&self) -> PathBuf {
        self.config.socket()
    }

    pub fn pid(&self) -> u32 {
        *self.pid.borrow()
    }

    /// Whether it answers now; changes with every end and restart.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.clone()
    }

    /// Ends containerd. Containers go on in their shims.
    pub async fn stop(self) {
        self.watcher.abort();
        let pid = self.pid();
        if let Err(why) = process::stop(pid).await {
            tracing::warn!(pid, %why, "containerd did not stop");
        }
        let _ = std::fs::remove_file(self.config.pid_file());
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

async fn take_over(config: &Config) -> Option<Running> {
    let running = process::find(&config.pid_file(), &config.file())?;
    let pid = running.pid();
    if process::answers(&config.socket(), TAKEOVER_TIMEOUT, &running).await {
        tracing::info!(pid, "took over the running containerd");
        return Some(running);
    }
    tracing::warn!(pid, "the running containerd does not answer; starting another");
    if let Err(why) = process::stop(pid).await {
        tracing::warn!(pid, %why, "the old containerd did not stop");
    }
    None
}

async fn launch(config: &Config) -> Result<Running, SupervisorError> {
    let file = config.file();
    std::fs::write(&file, render(config)).map_err(|source| io_error("write", &file, source))?;
    let log = config.log();
    let mut running = process::spawn(&config.binary, &file, &log).map_err(|why| {
        SupervisorError::Start { binary: config.binary.display().to_string(), why: why.to_string() }
    })?;
    let pid_file = config.pid_file();
    std::fs::write(&pid_file, running.pid().to_string())
        .map_err(|source| io_error("write", &pid_file, source))?;
    if process::answers(&config.socket(), READY_TIMEOUT, &running).await {
        return Ok(running);
    }
    let log_name = log.display().to_string();
    match running.exit_status() {
        Some(status) => {
            Err(SupervisorError::Ended { status, words: process::last_words(&log), log: log_name })
        }
        None => {
            let _ = process::stop(running.pid()).await;
            Err(SupervisorError::Silent {
                socket: config.socket().display().to_string(),
                seconds: READY_TIMEOUT.as_secs(),
                log: log_name,
            })
        }
    }
}

/// Waits for the end, and starts again with growing pauses.
async fn keep_running(
    config: Arc<Config>,
    mut running: Running,
    ready: watch::Sender<bool>,
    pid: watch::Sender<u32>,
) {
    let mut backoff = BACKOFF_FIRST;
    loop {
        let since = Instant::now();
        running.ended().await;
        ready.send_replace(false);
        if since.elapsed() > WELL_AFTER {
            backoff = BACKOFF_FIRST;
        }
        tracing::warn!(pid = running.pid(), "containerd ended; starting it again");
        running = loop {
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_LAST);
            match launch(&config).await {
                Ok(running) => break running,
                Err(why) => tracing::error!(%why, "containerd does not come back yet"),
            }
        };
        pid.send_replace(running.pid());
        ready.send_replace(true);
    }
}

fn io_error(operation: &'static str, path: &Path, source: std::io::Error) -> SupervisorError {
    SupervisorError::Io { operation, path: path.display().to_string(), source }
}

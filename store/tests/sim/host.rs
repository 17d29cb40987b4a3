//! One member's machine: its disk outlives its process, and its process has a runtime and a
//! clock of its own. Dropping the runtime is `kill -9`; not driving it is SIGSTOP.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use skiff_store::background::Background;
use skiff_store::{Config, InitialMember, Ports, Store};
use tokio::runtime::Runtime;

use super::bugs::Bug;
use super::disk::SimDisk;
use super::engine::EngineFolder;
use super::members::Stage;
use super::network::{At, Door, Network, url};
use super::random::Random;

/// How long this member's work takes.
#[derive(Debug, Clone, Copy)]
pub struct Speed {
    pub log_min_us: u64,
    pub log_max_us: u64,
}

pub const FAST: Speed = Speed { log_min_us: 100, log_max_us: 3_000 };

/// A process that runs.
pub struct Process {
    runtime: Runtime,
    store: Arc<Mutex<Option<Arc<Store>>>>,
    failed: Arc<Mutex<Option<String>>>,
    opening: bool,
}

pub struct Host {
    pub at: At,
    pub disk: SimDisk,
    engine: EngineFolder,
    pub process: Option<Process>,
    pub speed: Arc<Mutex<(Speed, Random)>>,
    /// Not driven before then; `None`: running.
    pub paused_until_ms: Option<u64>,
    /// What its clock has to make up for.
    behind_ms: u64,
    pub incarnation: u64,
    pub config: Config,
    pub stage: Stage,
}

pub fn new_runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime")
}

fn name(at: At) -> String {
    format!("m{at}")
}

pub fn initial_cluster(members: impl Iterator<Item = At>) -> Vec<InitialMember> {
    members.map(|at| InitialMember { name: name(at), peer_urls: vec![url(at)] }).collect()
}

pub fn config(at: At, members: usize) -> Config {
    let mut config = Config::new(name(at), "/data/store");
    // One that joins later knows the first ones, and itself.
    config.initial_cluster = initial_cluster((0..members).chain((at >= members).then_some(at)));
    config.peer_urls = vec![url(at)];
    config.max_request_bytes = 4 << 10;
    config.log_segment_bytes = 16 << 10;
    config.snapshot_log_bytes = 6 << 10;
    config.snapshot_keep_entries = 10;
    // Small, so that old values really come from the engine.
    config.recent_bytes = 512;
    // Small, so that segments fill and are cleaned.
    config.engine_segment_bytes = 1 << 10;
    config.watch_queue_messages = 16;
    config.heartbeat_ms = 50;
    config.election_timeout_ms = 400;
    config
}

impl Host {
    pub fn new(at: At, members: usize, random: Random) -> Self {
        Self {
            at,
            disk: SimDisk::default(),
            engine: EngineFolder::default(),
            process: None,
            speed: Arc::new(Mutex::new((FAST, random))),
            paused_until_ms: None,
            behind_ms: 0,
            incarnation: 0,
            config: config(at, members),
            stage: if at < members { Stage::Member } else { Stage::Spare },
        }
    }

    fn ports(&self, network: &Network) -> Ports {
        let speed = self.speed.clone();
        let pace = move |work: &'static str| {
            let (speed, random) = &mut *speed.lock().expect("one thread");
            let (min, max) = match work {
                "log" => (speed.log_min_us, speed.log_max_us),
                "engine" => (100, 20_000),
                _ => (1_000, 10_000),
            };
            Duration::from_micros(random.between(min, max))
        };
        Ports {
            disk: Arc::new(self.disk.next_life()),
            background: Background::Simulated(Arc::new(pace)),
            transport: Some(network.transport(self.at)),
        }
    }

    /// Starts the process; it opens its store in its own time.
    pub fn start(&mut self, network: &Network) {
        assert!(self.process.is_none(), "member {} runs already", self.at);
        self.incarnation += 1;
        self.engine.look_at(&self.disk);
        let runtime = new_runtime();
        let store: Arc<Mutex<Option<Arc<Store>>>> = Arc::default();
        let failed: Arc<Mutex<Option<String>>> = Arc::default();
        let opening = Store::open_on(self.config.clone(), self.ports(network));
        let (opened, fault) = (Arc::clone(&store), Arc::clone(&failed));
        runtime.spawn(async move {
            match opening.await {
                Ok(store) => *opened.lock().expect("one thread") = Some(store),
                Err(error) => *fault.lock().expect("one thread") = Some(error.to_string()),
            }
        });
        self.process = Some(Process { runtime, store, failed, opening: true });
        self.paused_until_ms = None;
        self.behind_ms = 0;
    }

    /// Lets a tick go by. Returns the store when it has just been opened.
    pub fn step(&mut self, network: &Network, now_ms: u64, tick_ms: u64) -> Step {
        let Some(process) = &mut self.process else { return Step::Nothing };
        if let Some(until) = self.paused_until_ms {
            if now_ms < until {
                self.behind_ms += tick_ms;
                return Step::Nothing;
            }
            self.paused_until_ms = None;
        }
        let missed = std::mem::take(&mut self.behind_ms);
        let fast = self.disk.state().bug == Some(Bug::FastClock);
        let own_ms = if fast { 2 * tick_ms } else { tick_ms };
        process.runtime.block_on(async {
            if missed > 0 {
                // Whatever was due meanwhile is due now, all of it.
                tokio::time::advance(Duration::from_millis(missed)).await;
            }
            tokio::time::sleep(Duration::from_millis(own_ms)).await;
        });
        if self.disk.state().dead {
            return Step::Died;
        }
        if !process.opening {
            return Step::Nothing;
        }
        if let Some(fault) = process.failed.lock().expect("one thread").take() {
            process.opening = false;
            return Step::Failed(fault);
        }
        let Some(store) = process.store.lock().expect("one thread").clone() else {
            return Step::Nothing;
        };
        process.opening = false;
        let handle = process.runtime.handle().clone();
        let door = Door { handle, receiver: store.receiver() };
        network.wire().doors[self.at] = Some(door);
        Step::Opened(store)
    }

    pub fn handle(&self) -> Option<tokio::runtime::Handle> {
        self.process.as_ref().map(|process| process.runtime.handle().clone())
    }

    pub fn store(&self) -> Option<Arc<Store>> {
        self.process.as_ref()?.store.lock().expect("one thread").clone()
    }

    /// The clock jumps ahead.
    pub fn jump(&mut self, ms: u64) {
        self.behind_ms += ms;
    }

    /// The process ends where it stands. With `power`, the machine goes too.
    pub fn kill(&mut self, network: &Network, power: bool, random: &mut Random, bug: Option<Bug>) {
        network.wire().doors[self.at] = None;
        // What the process drops on its way out does not reach the disk.
        self.disk.state().dead = true;
        if let Some(process) = self.process.take() {
            drop(process.runtime);
        }
        if power {
            self.disk.state().crash(random);
            self.engine.damage(&self.disk, random, bug);
        } else {
            self.disk.state().process_died();
        }
    }

    /// Stops it in good order, driving it until it has.
    pub fn shut_down(&mut self, network: &Network) {
        network.wire().doors[self.at] = None;
        if let Some(process) = self.process.take() {
            let store = process.store.lock().expect("one thread").take();
            if let Some(store) = store {
                // Without a majority it waits for writes that nobody will confirm.
                let patience = Duration::from_secs(2);
                let stopping = async { tokio::time::timeout(patience, store.shutdown()).await };
                let _ = process.runtime.block_on(stopping);
            }
            drop(process.runtime);
        }
        self.disk.state().process_died();
    }
}

pub enum Step {
    Nothing,
    Opened(Arc<Store>),
    /// It could not open its store.
    Failed(String),
    /// Its disk stopped in the middle of something.
    Died,
}

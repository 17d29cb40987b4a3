//! Keeps the kernel's rules as the API says they should be.
//!
//! The first change is written at once; those that come soon after are written together, [`MIN_INTERVAL`] later. Nothing
//! is written before both caches have seen everything: a half-known table would refuse services that work.

use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use skiff_client::{Api, Cache};
use skiff_kit::backoff::Backoff;
use skiff_proto::model::{EndpointSlice, Service};
use skiff_proto::resource;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::conntrack;
use crate::error::ProxyError;
use crate::host;
use crate::iptables::exec;
use crate::iptables::render::render;
use crate::iptables::transaction::{self, State};
use crate::iptables::{Family, Settings};
use crate::model::{ServiceInfo, SliceInfo};
use crate::monitor::Monitor;
use crate::table::{Retired, Table};
use crate::tracker::Tracker;

/// The least time between two transactions.
const MIN_INTERVAL: Duration = Duration::from_millis(50);
/// After a transaction that took long, the next one waits this many times as long: with very many services the proxy
/// takes at most a quarter of a core, however fast endpoints change.
const REST_FACTOR: u32 = 3;
/// But never longer than kube-proxy's own default.
const MAX_INTERVAL: Duration = Duration::from_secs(1);
/// A flush is announced rule by rule: this long after the first announcement it is looked at once.
const SETTLE: Duration = Duration::from_millis(100);
/// How often the rules are looked at where the kernel announces nothing (iptables-legacy).
const LEGACY_CHECK_INTERVAL: Duration = Duration::from_secs(30);
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LAST: Duration = Duration::from_secs(30);

/// Runs the proxy until `shutdown`, calling `ready` once the first transaction is in. The rules stay when it ends:
/// traffic goes on while the process restarts.
/// Boxed: see "Build time" in ARCHITECTURE.md.
pub fn run(
    api: Arc<dyn Api>,
    config: Config,
    shutdown: CancellationToken,
    ready: Box<dyn FnOnce() + Send>,
) -> BoxFuture<'static, Result<(), ProxyError>> {
    Box::pin(async move {
        let settings = config.settings()?;
        tracing::info!(node = config.node_name, address = %config.node_ip, mode = %config.mode, "service proxy starts");
        host::prepare(&settings);
        let mut watchdog = Watchdog::open()?;
        let changes = Arc::new(Pending::default());
        let _caches = match follow(api, &changes, &shutdown).await {
            Some(caches) => caches,
            None => return Ok(()),
        };
        let mut writer = Some(Writer::new(&config, settings));
        let mut pace = Pace::default();
        let mut ready = Some(ready);
        pace.due = Some(Instant::now());
        loop {
            let job = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                () = watchdog.disturbed() => Job::Verify,
                () = until(pace.due) => Job::Write,
                () = changes.wake.notified(), if pace.due.is_none() => {
                    pace.change();
                    continue;
                }
            };
            if job == Job::Verify {
                sleep(SETTLE).await;
            }
            let Some(mut at_work) = writer.take() else { return Ok(()) };
            let changes = changes.clone();
            let began = Instant::now();
            let (done, back) = tokio::task::spawn_blocking(move || {
                let done = match job {
                    Job::Verify => at_work.verify(),
                    Job::Write => at_work.write(&changes),
                };
                (done, at_work)
            })
            .await?;
            writer = Some(back);
            pace.after(job, &done, began.elapsed());
            if job == Job::Write
                && done.is_ok()
                && let Some(ready) = ready.take()
            {
                ready();
            }
        }
    })
}

/// Removes every chain and rule of ours from the calling thread's network namespace. Says whether there were any.
pub fn cleanup() -> Result<bool, ProxyError> {
    let mut removed = false;
    for family in [Family::Ipv4, Family::Ipv6] {
        let observed = match exec::observe(family) {
            Ok(observed) => observed,
            // A host without IPv6, or without iptables at all, has no rules of ours there.
            Err(ProxyError::CannotRun { .. }) => continue,
            Err(_) if family == Family::Ipv6 => continue,
            Err(error) => return Err(error),
        };
        if let Some(text) = transaction::removal(&observed) {
            exec::restore(family, &text)?;
            removed = true;
        }
    }
    if removed {
        host::restore();
    }
    Ok(removed)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Job {
    Write,
    Verify,
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}

/// What the caches' handlers leave for the writer.
#[derive(Default)]
struct Pending {
    tracker: Mutex<Tracker>,
    wake: Notify,
}

impl Pending {
    fn tracker(&self) -> MutexGuard<'_, Tracker> {
        self.tracker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_if(&self, changed: bool) {
        if changed {
            self.wake.notify_one();
        }
    }
}

type Caches = (Arc<Cache<ServiceInfo>>, Arc<Cache<SliceInfo>>);

/// Starts both caches and waits until they have seen everything; none when shut down before.
async fn follow(
    api: Arc<dyn Api>,
    changes: &Arc<Pending>,
    shutdown: &CancellationToken,
) -> Option<Caches> {
    let noted = changes.clone();
    let services = Cache::projected(api.clone(), &resource::SERVICES, |object| {
        Ok(ServiceInfo::read(&object.parse::<Service>()?))
    })
    .on_change(move |change| {
        let (old, new) = (change.old.map(|e| e.value.clone()), change.new.map(|e| e.value.clone()));
        let changed = noted.tracker().service(change.key, old, new);
        noted.wake_if(changed);
    })
    .start(shutdown);
    let noted = changes.clone();
    let slices = Cache::projected(api, &resource::ENDPOINT_SLICES, |object| {
        Ok(SliceInfo::read(&object.parse::<EndpointSlice>()?))
    })
    .on_change(move |change| {
        let (old, new) = (change.old.map(|e| e.value.clone()), change.new.map(|e| e.value.clone()));
        let changed = noted.tracker().slice(change.key, old, new);
        noted.wake_if(changed);
    })
    .start(shutdown);
    tokio::select! {
        () = shutdown.cancelled() => None,
        () = async { tokio::join!(services.synced(), slices.synced()); } => Some((services, slices)),
    }
}

/// When to write next.
struct Pace {
    due: Option<Instant>,
    not_before: Option<Instant>,
    backoff: Backoff,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { due: None, not_before: None, backoff: Backoff::new(RETRY_FIRST, RETRY_LAST) }
    }
}

impl Pace {
    fn change(&mut self) {
        let now = Instant::now();
        self.due = Some(self.not_before.map_or(now, |not_before| not_before.max(now)));
    }

    fn after(&mut self, job: Job, done: &Result<bool, ProxyError>, took: Duration) {
        let now = Instant::now();
        match (job, done) {
            (_, Err(error)) => {
                let delay = self.backoff.next();
                tracing::warn!(%error, retry_in = ?delay, "the rules could not be written");
                self.due = Some(now + delay);
            }
            (Job::Write, Ok(_)) => {
                self.backoff.reset();
                self.due = None;
                self.not_before =
                    Some(now + (took * REST_FACTOR).clamp(MIN_INTERVAL, MAX_INTERVAL));
            }
            (Job::Verify, Ok(true)) => {}
            (Job::Verify, Ok(false)) => self.due = Some(now),
        }
    }
}

/// Wakes when somebody else may have changed our rules.
enum Watchdog {
    Announced(Monitor),
    Slow,
}

impl Watchdog {
    fn open() -> Result<Watchdog, ProxyError> {
        if !exec::is_nft_variant()? {
            return Ok(Watchdog::Slow);
        }
        let failed =
            |source| ProxyError::Kernel { operation: "subscribe to changes of nftables", source };
        Monitor::open().map(Watchdog::Announced).map_err(failed)
    }

    async fn disturbed(&mut self) {
        match self {
            Watchdog::Announced(monitor) => {
                if let Err(error) = monitor.disturbed().await {
                    tracing::warn!(%error, "changes of nftables cannot be followed, looking now and then");
                    *self = Watchdog::Slow;
                }
            }
            Watchdog::Slow => sleep(LEGACY_CHECK_INTERVAL).await,
        }
    }
}

/// One family's rules as they were written last; none: to be written whole.
struct OfFamily {
    settings: Settings,
    written: Option<State>,
}

/// Holds the table and writes it. Blocking.
struct Writer {
    table: Table,
    families: Vec<OfFamily>,
    /// What connection tracking has to forget, kept until that has worked.
    retired: Retired,
}

impl Writer {
    fn new(config: &Config, settings: Vec<Settings>) -> Writer {
        let families = settings.into_iter().map(|settings| OfFamily { settings, written: None });
        Writer {
            table: Table::new(&config.node_name),
            families: families.collect(),
            retired: Retired { udp_changed: true, ..Retired::default() },
        }
    }

    /// Writes what differs; true when anything did.
    fn write(&mut self, changes: &Pending) -> Result<bool, ProxyError> {
        let taken = changes.tracker().take();
        self.retired.merge(self.table.apply(taken));
        let mut wrote = false;
        for family in &mut self.families {
            let rendered = render(&self.table, &family.settings);
            let of = family.settings.family;
            let text = match &family.written {
                Some(written) => transaction::delta(written, &rendered),
                None => Some(transaction::full(&exec::observe(of)?, &rendered)),
            };
            if let Some(text) = text {
                // Until it has worked nobody knows what is there.
                family.written = None;
                exec::restore(of, &text)?;
                wrote = true;
                tracing::debug!(family = ?of, bytes = text.len(), "rules written");
            }
            family.written = Some(State::of(&rendered));
        }
        self.forget_flows();
        Ok(wrote)
    }

    /// After the rules, so that a flow that begins again is translated by the new ones.
    fn forget_flows(&mut self) {
        if !self.retired.udp_changed {
            return;
        }
        for family in &self.families {
            match conntrack::forget_stale(&self.table, &self.retired, family.settings.family) {
                Ok(0) => {}
                Ok(flows) => tracing::debug!(flows, "stale UDP flows forgotten"),
                Err(error) => {
                    tracing::warn!(%error, "stale UDP flows could not be forgotten, trying again with the next change");
                    return;
                }
            }
        }
        self.retired = Retired::default();
    }

    /// Looks whether the rules are still as written; false when they have to be written again.
    fn verify(&mut self) -> Result<bool, ProxyError> {
        let mut intact = true;
        for family in &mut self.families {
            let Some(written) = &family.written else { continue };
            if !exec::observe(family.settings.family)?.holds(written) {
                tracing::warn!(family = ?family.settings.family, "somebody else removed service rules, writing them again");
                family.written = None;
                intact = false;
            }
        }
        Ok(intact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_change_is_due_at_once_and_the_next_ones_wait() {
        let mut pace = Pace::default();
        pace.change();
        assert!(pace.due.is_some_and(|due| due <= Instant::now()));
        pace.after(Job::Write, &Ok(true), Duration::from_millis(1));
        assert_eq!(pace.due, None);
        let rested = pace.not_before;
        pace.change();
        assert_eq!(pace.due, rested);
    }

    #[test]
    fn long_transactions_rest_longer_but_not_for_ever() {
        let mut pace = Pace::default();
        let mut rest = |took| {
            let before = Instant::now();
            pace.after(Job::Write, &Ok(true), took);
            pace.not_before.unwrap().duration_since(before)
        };
        assert!(rest(Duration::from_millis(200)) >= Duration::from_millis(600));
        assert!(rest(Duration::from_secs(60)) < Duration::from_secs(2));
    }

    #[test]
    fn what_failed_and_what_was_disturbed_is_written_again() {
        let mut pace = Pace::default();
        let failed = ProxyError::Refused { program: "iptables-restore", detail: "x".into() };
        pace.after(Job::Write, &Err(failed), Duration::ZERO);
        assert!(pace.due.is_some_and(|due| due > Instant::now()));
        pace.due = None;
        pace.after(Job::Verify, &Ok(true), Duration::ZERO);
        assert_eq!(pace.due, None);
        pace.after(Job::Verify, &Ok(false), Duration::ZERO);
        assert!(pace.due.is_some());
    }
}

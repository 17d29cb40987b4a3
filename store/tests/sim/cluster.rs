//! A whole cluster under simulated time: one loop drives the wire, the members, the clients
//! and what goes wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::bugs::Bug;
use super::faults::{Fault, MENDED, Mend, Weather};
use super::history::{Audit, History, Watched};
use super::host::{Host, Step, new_runtime};
use super::members::Stage;
use super::network::{At, GOOD, Network};
use super::random::{Digest, Random};
use super::traffic::{Client, Face, Faces};
use super::watcher::{Watcher, audit};

/// Messages and timers are no finer than this.
pub const TICK_MS: u64 = 2;

pub struct Cluster {
    pub seed: u64,
    pub random: Random,
    pub network: Network,
    pub hosts: Vec<Host>,
    pub faces: Faces,
    pub history: History,
    pub now_ms: u64,
    pub bug: Option<Bug>,
    mends: BTreeMap<(u64, u64), Mend>,
    next_mend: u64,
    clients: Runtime,
    /// What happened, in words; printed with a failure.
    pub story: Vec<(u64, String)>,
    pub violation: Option<String>,
    started: u64,
    /// What each member's vote was promised for when it started.
    promised: Vec<u64>,
    /// Set: cut the power at the next promise of a vote, everywhere or there; the promises so far.
    cut_at_vote: Option<(bool, Vec<u64>)>,
}

impl Cluster {
    pub fn new(seed: u64, members: usize, bug: Option<Bug>) -> Self {
        Self::with_spares(seed, members, 0, bug)
    }

    /// Spares may be added to the cluster.
    pub fn with_spares(seed: u64, members: usize, spares: usize, bug: Option<Bug>) -> Self {
        let all = members + spares;
        let mut random = Random::new(seed);
        skiff_store::raft::runtime::seed_randomness(random.next());
        let network = Network::new(all, random.fork());
        let hosts: Vec<_> = (0..all).map(|at| Host::new(at, members, random.fork())).collect();
        for host in &hosts {
            host.disk.state().bug = bug;
        }
        let history = History::default();
        history.record().audits = vec![Audit { next: 2, ..Audit::default() }; all];
        let mut cluster = Self {
            seed,
            random,
            network,
            hosts,
            faces: Faces::new(all),
            history,
            now_ms: 0,
            bug,
            mends: BTreeMap::new(),
            next_mend: 0,
            clients: new_runtime(),
            story: Vec::new(),
            violation: None,
            started: 0,
            promised: vec![0; all],
            cut_at_vote: None,
        };
        for at in 0..members {
            cluster.start(at);
        }
        cluster
    }

    pub fn tell(&mut self, text: String) {
        self.story.push((self.now_ms, format!("{:>6} ms  {text}", self.now_ms)));
    }

    fn fail(&mut self, fault: String) {
        self.tell(format!("FAULT {fault}"));
        self.violation.get_or_insert(fault);
    }

    pub fn start(&mut self, at: At) {
        let belongs = matches!(self.hosts[at].stage, Stage::Member | Stage::Joining);
        if belongs && self.hosts[at].process.is_none() {
            self.started += 1;
            let seed = self.seed.wrapping_mul(1_000_003).wrapping_add(self.started);
            skiff_store::raft::runtime::seed_randomness(seed);
            self.hosts[at].start(&self.network);
            self.tell(format!("member {at} starts"));
        }
    }

    /// Adds clients and watches that go on to the end.
    pub fn traffic(&mut self, clients: usize, watches: usize) {
        for number in 0..clients {
            let (random, faces) = (self.random.fork(), self.faces.clone());
            let client = Client::new(number, random, faces, self.history.clone(), self.bug);
            self.clients.spawn(client.run());
        }
        for _ in 0..watches {
            self.watch();
        }
    }

    pub fn watch(&mut self) {
        let prefix = *self.random.pick(&["a/", "b/", ""]);
        let number = {
            let mut record = self.history.record();
            let watched = Watched { prefix: prefix.into(), from: 2, next: 2, ..Watched::default() };
            record.watches.push(watched);
            record.watches.len() - 1
        };
        let watcher = Watcher {
            number,
            prefix,
            random: self.random.fork(),
            faces: self.faces.clone(),
            history: self.history.clone(),
            bug: self.bug,
        };
        self.runtime().spawn(watcher.run());
    }

    fn runtime(&self) -> &Runtime {
        &self.clients
    }

    /// Time goes by for everybody.
    pub fn tick(&mut self) {
        self.now_ms += TICK_MS;
        self.history.record().now_ms = self.now_ms;
        self.mend_due();
        self.network.deliver(self.now_ms);
        for at in 0..self.hosts.len() {
            match self.hosts[at].step(&self.network, self.now_ms, TICK_MS) {
                Step::Nothing => {}
                Step::Opened(store) => self.opened(at, store),
                Step::Failed(fault) => self.cannot_open(at, fault),
                Step::Died => {
                    let operations = self.hosts[at].disk.state().operations;
                    self.tell(format!("member {at} dies in disk operation {operations}"));
                    self.kill(at, true);
                }
            }
        }
        self.end_removed();
        self.cut_at_vote();
        let tick = Duration::from_millis(TICK_MS);
        self.runtime().block_on(async move { tokio::time::sleep(tick).await });
    }

    pub fn run_for(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        while self.now_ms < until && self.violation.is_none() {
            self.tick();
        }
    }

    fn opened(&mut self, at: At, store: std::sync::Arc<skiff_store::Store>) {
        let handle = self.hosts[at].handle().expect("it has just been opened");
        let incarnation = self.hosts[at].incarnation;
        let face = Face { handle: handle.clone(), store, incarnation };
        handle.spawn(audit(face.clone(), self.history.clone(), at));
        self.faces.set(at, Some(face));
        self.promised[at] = self.network.wire().granted_terms[at];
        self.mend_after(10, Mend::AskTerm(at, incarnation));
        self.hosts[at].stage = Stage::Member;
        self.tell(format!("member {at} serves"));
    }

    fn cut_at_vote(&mut self) {
        let Some((everywhere, before)) = &self.cut_at_vote else { return };
        let granted = self.network.wire().granted_terms.clone();
        let promised = |at: &At| granted[*at] > before[*at];
        let Some(voter) = (0..self.hosts.len()).find(promised) else { return };
        let all = *everywhere;
        self.cut_at_vote = None;
        self.tell(format!("member {voter} has promised its vote"));
        for at in 0..self.hosts.len() {
            if all || at == voter {
                self.strike(at, true);
            }
        }
    }

    /// A vote that was promised is on the medium: no later life may know less.
    fn ask_term(&mut self, at: At, incarnation: u64) {
        let Some(face) = self.faces.get(at).filter(|face| face.incarnation == incarnation) else {
            return;
        };
        let (knows, promised) = (face.store.raft_term(), self.promised[at]);
        if knows < promised {
            self.fail(format!(
                "member {at} promised its vote in term {promised}, and after a restart is in term {knows}"
            ));
        }
    }

    fn cannot_open(&mut self, at: At, fault: String) {
        if fault.contains("has been removed from its cluster") {
            return self.retire(at);
        }
        if self.hosts[at].stage == Stage::Joining {
            self.tell(format!("member {at} cannot join yet: {fault}"));
            self.tell_members(at);
            return self.kill(at, false);
        }
        let full = self.hosts[at].disk.state().full;
        if !full {
            return self.fail(format!("member {at} cannot open its store: {fault}"));
        }
        self.tell(format!("member {at} cannot start on a full disk: {fault}"));
        self.kill(at, false);
    }

    /// Ends a process; it comes back after a while.
    pub fn kill(&mut self, at: At, power: bool) {
        self.end(at, power);
        let after = self.random.between(10, 1200);
        self.mend_after(after, Mend::Start(at));
    }

    pub fn end(&mut self, at: At, power: bool) {
        self.faces.set(at, None);
        let mut random = self.random.fork();
        self.hosts[at].kill(&self.network, power, &mut random, self.bug);
        self.tell(format!("member {at} is {}", if power { "without power" } else { "killed" }));
    }

    pub fn mend_after(&mut self, ms: u64, mend: Mend) {
        self.next_mend += 1;
        self.mends.insert((self.now_ms + ms, self.next_mend), mend);
    }

    fn mend_due(&mut self) {
        while let Some(entry) = self.mends.first_entry() {
            if entry.key().0 > self.now_ms {
                return;
            }
            let mend = entry.remove();
            self.mend(mend);
        }
    }

    fn mend(&mut self, mend: Mend) {
        match mend {
            Mend::Start(at) => self.start(at),
            Mend::Unblock(pairs) => {
                for (from, to) in pairs {
                    self.network.wire().links[from][to].blocked = false;
                }
            }
            Mend::Links => {
                for link in self.network.wire().links.iter_mut().flatten() {
                    *link = super::network::Link { blocked: link.blocked, ..GOOD };
                }
            }
            Mend::Speed(at) => self.hosts[at].speed.lock().expect("one thread").0 = MENDED,
            Mend::AskTerm(at, incarnation) => self.ask_term(at, incarnation),
            Mend::Space(at) => self.hosts[at].disk.state().full = false,
        }
    }

    pub fn leader(&self) -> Option<At> {
        self.hosts.iter().find(|host| {
            host.store().is_some_and(|store| {
                let status = store.status();
                status.leader == status.member_id
            })
        })?;
        (0..self.hosts.len())
            .filter_map(|at| Some((at, self.hosts[at].store()?.status())))
            .filter(|(_, status)| status.leader == status.member_id)
            .max_by_key(|(_, status)| status.raft_term)
            .map(|(at, _)| at)
    }

    pub fn inflict(&mut self, fault: Fault) {
        self.tell(format!("{fault:?}"));
        match fault {
            Fault::PowerLoss { member } => self.strike(member, true),
            Fault::Kill { member } => self.strike(member, false),
            Fault::CrashAtOperation { member, operations } => {
                if self.hosts[member].process.is_some() {
                    self.hosts[member].disk.state().crash_in = Some(operations);
                }
            }
            Fault::PowerLossEverywhere => {
                for at in 0..self.hosts.len() {
                    self.strike(at, true);
                }
            }
            Fault::Pause { member, ms } => {
                self.hosts[member].paused_until_ms = Some(self.now_ms + ms);
            }
            Fault::ClockJump { member, ms } => {
                self.history.record().clock_jumped = true;
                self.hosts[member].jump(ms);
            }
            Fault::Block { pairs, ms } => {
                for (from, to) in &pairs {
                    self.network.wire().links[*from][*to].blocked = true;
                }
                self.mend_after(ms, Mend::Unblock(pairs));
            }
            Fault::Unreliable { link, ms } => {
                for each in self.network.wire().links.iter_mut().flatten() {
                    *each = super::network::Link { blocked: each.blocked, ..link };
                }
                self.mend_after(ms, Mend::Links);
            }
            Fault::SlowDisk { member, speed, ms } => {
                self.hosts[member].speed.lock().expect("one thread").0 = speed;
                self.mend_after(ms, Mend::Speed(member));
            }
            Fault::FullDisk { member, ms } => {
                self.hosts[member].disk.state().full = true;
                self.mend_after(ms, Mend::Space(member));
            }
            Fault::Snapshot { member } => {
                self.on(member, |store| async move { store.defragment().await.map(|_| ()) });
            }
            Fault::Settle { member } => {
                self.on(member, |store| async move { store.hash_kv(0).await.map(|_| ()) });
            }
            Fault::Restart { member } => {
                if self.faces.get(member).is_some() {
                    self.faces.set(member, None);
                    self.hosts[member].shut_down(&self.network);
                    self.mend_after(50, Mend::Start(member));
                }
            }
            Fault::MoveLeader { to } => {
                let Some(leader) = self.leader() else { return };
                let Some(target) = self.hosts[to].store() else { return };
                let id = target.identity().member_id;
                self.on(leader, move |store| async move {
                    // Refused is fine too.
                    let _ = store.move_leader(id).await;
                    Ok(())
                });
            }
            Fault::CutAtVote { everywhere } => {
                self.cut_at_vote = Some((everywhere, self.network.wire().granted_terms.clone()));
                if let Some(leader) = self.leader() {
                    self.strike(leader, true);
                }
            }
            Fault::AddMember { learner } => self.add_member(learner),
            Fault::PromoteMember => self.promote_member(),
            Fault::RemoveMember { member } => self.remove_member(member),
        }
    }

    pub fn on<F>(&self, at: At, ask: impl FnOnce(std::sync::Arc<skiff_store::Store>) -> F)
    where
        F: Future<Output = Result<(), skiff_store::kv::KvError>> + Send + 'static,
    {
        let Some(face) = self.faces.get(at) else { return };
        face.handle.spawn(ask(face.store));
    }

    fn strike(&mut self, at: At, power: bool) {
        if self.hosts[at].process.is_some() {
            self.kill(at, power);
        }
    }

    /// Bad weather for a while.
    pub fn storm(&mut self, weather: Weather, ms: u64) {
        let until = self.now_ms + ms;
        self.network.wire().duplicate_percent = self.random.below(10);
        while self.now_ms < until && self.violation.is_none() {
            let gap = self.random.between(weather.min_gap_ms, weather.max_gap_ms);
            self.run_for(gap);
            let leader = self.leader();
            let fault = weather.next_fault(self.hosts.len(), leader, &mut self.random);
            self.inflict(fault);
        }
    }

    /// Everything that was broken is whole again.
    pub fn heal(&mut self) {
        self.tell("all faults end".into());
        self.mends.clear();
        self.cut_at_vote = None;
        {
            let mut wire = self.network.wire();
            wire.duplicate_percent = 0;
            for link in wire.links.iter_mut().flatten() {
                *link = GOOD;
            }
        }
        for at in 0..self.hosts.len() {
            self.mend(Mend::Speed(at));
            self.mend(Mend::Space(at));
            self.hosts[at].disk.state().crash_in = None;
            self.hosts[at].paused_until_ms = None;
            self.start(at);
        }
    }

    /// Of all that happened.
    pub fn digest(&self) -> Digest {
        let mut digest = Digest::default();
        digest.number(self.now_ms);
        digest.number(self.network.wire().trace.0);
        for host in &self.hosts {
            digest.number(host.disk.state().trace.0);
        }
        let record = self.history.record();
        for operation in &record.operations {
            digest.add(format!("{operation:?}").as_bytes());
        }
        for watched in &record.watches {
            digest.add(format!("{watched:?}").as_bytes());
        }
        digest
    }

    pub fn runtime_handle(&self) -> tokio::runtime::Handle {
        self.runtime().handle().clone()
    }
}

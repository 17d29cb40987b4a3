//! Members that join while everything goes on, are promoted and removed.
//!
//! ```text
//! spare ──added──▶ joining ──opens its store──▶ member ──removed──▶ gone
//! ```
//!
//! Whether a change was carried out is for the cluster to say: its answer may have been lost.

use futures_util::FutureExt;
use skiff_store::InitialState;

use super::cluster::Cluster;
use super::faults::Mend;
use super::host::initial_cluster;
use super::network::{At, url};

/// What a host is to the cluster, as far as it has been seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Spare,
    Joining,
    Member,
    Gone,
}

impl Cluster {
    pub fn add_member(&mut self, learner: bool) {
        let Some(leader) = self.leader() else { return };
        let Some(at) = self.hosts.iter().position(|host| host.stage == Stage::Spare) else {
            return;
        };
        let host = &mut self.hosts[at];
        host.stage = Stage::Joining;
        host.config.initial_state = InitialState::Existing;
        self.on(leader, move |store| async move {
            // Refused is fine too: then it goes on trying to join.
            let _ = store.member_add(vec![url(at)], learner).await;
            Ok(())
        });
        self.mend_after(100, Mend::Start(at));
    }

    /// All that one who joins knows may have been removed meanwhile; then whoever starts it says
    /// who is there now, as etcd's `--initial-cluster` has to.
    pub fn tell_members(&mut self, joining: At) {
        let Some(mut members) = self.current() else { return };
        members.retain(|at| *at != joining);
        members.push(joining);
        self.hosts[joining].config.initial_cluster = initial_cluster(members.into_iter());
    }

    pub fn promote_member(&mut self) {
        let learner = |store: std::sync::Arc<skiff_store::Store>| {
            let status = store.status();
            status.is_learner.then_some(status.member_id)
        };
        let id = self.hosts.iter().find_map(|host| learner(host.store()?));
        let (Some(leader), Some(id)) = (self.leader(), id) else { return };
        self.on(leader, move |store| async move {
            let _ = store.member_promote(id).await;
            Ok(())
        });
    }

    pub fn remove_member(&mut self, at: At) {
        let (Some(leader), Some(store)) = (self.leader(), self.hosts[at].store()) else { return };
        let id = store.identity().member_id;
        self.on(leader, move |store| async move {
            let _ = store.member_remove(id).await;
            Ok(())
        });
    }

    /// Members that know that they have been removed end, as their program does.
    pub fn end_removed(&mut self) {
        for at in 0..self.hosts.len() {
            let removed = self.hosts[at]
                .store()
                .is_some_and(|store| store.removed().now_or_never().is_some());
            if removed {
                self.retire(at);
            }
        }
    }

    pub fn retire(&mut self, at: At) {
        self.tell(format!("member {at} has been removed"));
        self.end(at, false);
        self.hosts[at].stage = Stage::Gone;
    }

    /// Who belongs to the cluster, as its leader says.
    pub fn current(&self) -> Option<Vec<At>> {
        let members = self.hosts[self.leader()?].store()?.members();
        let at = |url_of: &String| (0..self.hosts.len()).find(|at| url(*at) == *url_of);
        members.iter().map(|member| at(member.node.peer_urls.first()?)).collect()
    }
}

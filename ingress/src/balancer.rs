//! Choosing an endpoint of a Service: in turn, the less busy of two neighbours, and not one
//! that refused a connection a moment ago.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// An endpoint that refused a connection is left out this long, unless there is no other.
const REFUSED_FOR: Duration = Duration::from_secs(5);

/// A pod's address and port. Shared by all Services and tables that lead to it, so that
/// what is known of it survives a change of the table.
#[derive(Debug)]
pub struct Endpoint {
    pub addr: SocketAddr,
    in_flight: AtomicUsize,
    /// Until when it is left out, in milliseconds since the start; 0: it is not.
    refused_until: AtomicU64,
}

/// Time since the start of the process' ingress.
pub type Moment = Duration;

impl Endpoint {
    pub fn new(addr: SocketAddr) -> Arc<Self> {
        Arc::new(Self { addr, in_flight: AtomicUsize::new(0), refused_until: AtomicU64::new(0) })
    }

    /// Counts a request until the guard is dropped.
    pub fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(self.clone())
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub fn refused(&self, now: Moment) {
        let until = (now + REFUSED_FOR).as_millis() as u64;
        self.refused_until.store(until, Ordering::Relaxed);
    }

    pub fn accepted(&self) {
        if self.refused_until.load(Ordering::Relaxed) != 0 {
            self.refused_until.store(0, Ordering::Relaxed);
        }
    }

    fn is_left_out(&self, now: Moment) -> bool {
        self.refused_until.load(Ordering::Relaxed) > now.as_millis() as u64
    }
}

/// A request in flight.
#[derive(Debug)]
pub struct InFlight(Arc<Endpoint>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The ready endpoints of one port of a Service; never empty.
#[derive(Debug)]
pub struct Balancer {
    endpoints: Vec<Arc<Endpoint>>,
    turn: AtomicUsize,
}

impl Balancer {
    /// `None` without endpoints. `turn` is where to begin.
    pub fn new(endpoints: Vec<Arc<Endpoint>>, turn: usize) -> Option<Self> {
        (!endpoints.is_empty()).then(|| Self { endpoints, turn: AtomicUsize::new(turn) })
    }

    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// The endpoint to try next, other than those `tried`; `None` once all were.
    pub fn pick(&self, tried: &[SocketAddr], now: Moment) -> Option<Arc<Endpoint>> {
        let count = self.endpoints.len();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let in_turn = || (0..count).map(|n| &self.endpoints[turn.wrapping_add(n) % count]);
        let untried = |e: &&Arc<Endpoint>| !tried.contains(&e.addr);
        let mut healthy = in_turn().filter(untried).filter(|e| !e.is_left_out(now));
        let chosen = match (healthy.next(), healthy.next()) {
            (Some(first), Some(second)) if second.in_flight() < first.in_flight() => second,
            (Some(first), _) => first,
            // Better one that may refuse again than none.
            (None, _) => in_turn().find(untried)?,
        };
        Some(chosen.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn balancer(count: u16) -> Balancer {
        let endpoints = (0..count).map(|n| Endpoint::new(([10, 0, 0, 1], n).into())).collect();
        Balancer::new(endpoints, 0).expect("has endpoints")
    }

    fn ports(balancer: &Balancer, times: usize, now: Moment) -> Vec<u16> {
        (0..times).filter_map(|_| balancer.pick(&[], now)).map(|e| e.addr.port()).collect()
    }

    #[test]
    fn takes_turns() {
        assert_eq!(ports(&balancer(3), 5, Moment::ZERO), [0, 1, 2, 0, 1]);
        assert!(Balancer::new(Vec::new(), 0).is_none());
    }

    #[test]
    fn prefers_the_less_busy_of_two() {
        let balancer = balancer(2);
        let busy = balancer.endpoints()[0].enter();
        assert_eq!(ports(&balancer, 3, Moment::ZERO), [1, 1, 1]);
        drop(busy);
        assert_eq!(ports(&balancer, 2, Moment::ZERO), [1, 0]);
    }

    #[test]
    fn leaves_out_who_refused_for_a_while() {
        let balancer = balancer(2);
        balancer.endpoints()[0].refused(Moment::ZERO);
        assert_eq!(ports(&balancer, 3, Moment::from_millis(4999)), [1, 1, 1]);
        assert_eq!(ports(&balancer, 2, Moment::from_secs(5)), [1, 0]);
        balancer.endpoints()[0].refused(Moment::ZERO);
        balancer.endpoints()[0].accepted();
        assert_eq!(ports(&balancer, 2, Moment::ZERO), [1, 0]);
    }

    #[test]
    fn tries_each_endpoint_once_even_if_all_refused() {
        let balancer = balancer(2);
        balancer.endpoints().iter().for_each(|e| e.refused(Moment::ZERO));
        let first = balancer.pick(&[], Moment::ZERO).expect("one").addr;
        let second = balancer.pick(&[first], Moment::ZERO).expect("the other").addr;
        assert_ne!(first, second);
        assert!(balancer.pick(&[first, second], Moment::ZERO).is_none());
    }
}

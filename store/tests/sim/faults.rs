//! What goes wrong, and when.

use super::host::{FAST, Speed};
use super::network::{At, GOOD, Link};
use super::random::Random;

#[derive(Debug, Clone)]
pub enum Fault {
    /// The power goes: what is not on the medium may be lost.
    PowerLoss {
        member: At,
    },
    /// kill -9: the machine stays.
    Kill {
        member: At,
    },
    /// The power goes at the end of so many disk operations.
    CrashAtOperation {
        member: At,
        operations: u64,
    },
    PowerLossEverywhere,
    Pause {
        member: At,
        ms: u64,
    },
    ClockJump {
        member: At,
        ms: u64,
    },
    /// Nothing from one to the other.
    Block {
        pairs: Vec<(At, At)>,
        ms: u64,
    },
    Unreliable {
        link: Link,
        ms: u64,
    },
    SlowDisk {
        member: At,
        speed: Speed,
        ms: u64,
    },
    FullDisk {
        member: At,
        ms: u64,
    },
    /// The log is compacted now.
    Snapshot {
        member: At,
    },
    /// The engine takes what it holds back.
    Settle {
        member: At,
    },
    /// A member in good order stops and comes back.
    Restart {
        member: At,
    },
    MoveLeader {
        to: At,
    },
    /// The leader's power goes; and that of the next one who promises its vote, or of all, in
    /// that very moment.
    CutAtVote {
        everywhere: bool,
    },
    AddMember {
        learner: bool,
    },
    PromoteMember,
    RemoveMember {
        member: At,
    },
}

/// Which ones may happen.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    pub crashes: bool,
    pub partitions: bool,
    pub pauses: bool,
    pub disks: bool,
    pub elections: bool,
    pub membership: bool,
    pub min_gap_ms: u64,
    pub max_gap_ms: u64,
}

impl Weather {
    pub fn random(random: &mut Random) -> Self {
        let mut weather = Self {
            crashes: random.percent(75),
            partitions: random.percent(65),
            pauses: random.percent(40),
            disks: random.percent(40),
            elections: random.percent(40),
            membership: random.percent(35),
            min_gap_ms: 20,
            max_gap_ms: random.between(300, 900),
        };
        if random.percent(10) {
            weather.crashes = false;
            weather.partitions = false;
        }
        weather
    }

    pub fn next_fault(&self, members: usize, leader: Option<At>, random: &mut Random) -> Fault {
        loop {
            if let Some(fault) = self.try_fault(members, leader, random) {
                return fault;
            }
        }
    }

    fn try_fault(&self, members: usize, leader: Option<At>, random: &mut Random) -> Option<Fault> {
        let anyone = random.below(members as u64) as At;
        // Leaders are hit most: that is where things break.
        let member = leader.filter(|_| random.percent(50)).unwrap_or(anyone);
        let ms = random.between(100, 1500);
        Some(match random.below(21) {
            0 if self.crashes => Fault::PowerLoss { member },
            1 if self.crashes => Fault::Kill { member },
            2..=4 if self.crashes => {
                Fault::CrashAtOperation { member, operations: random.between(1, 40) }
            }
            5 if self.crashes && random.percent(50) => Fault::PowerLossEverywhere,
            6 if self.pauses => Fault::Pause { member, ms: random.between(100, 3000) },
            7 if self.pauses => Fault::ClockJump { member, ms: random.between(10, 5000) },
            8 if self.partitions => Fault::Block { pairs: isolate(member, members, random), ms },
            9 if self.partitions => Fault::Block { pairs: split(members, random), ms },
            10 if self.partitions => {
                let link = Link {
                    drop_percent: random.between(0, 40),
                    max_delay_ms: random.between(5, 400),
                    ..GOOD
                };
                Fault::Unreliable { link, ms }
            }
            11 if self.disks => {
                let min = random.between(1_000, 50_000);
                let speed = Speed { log_min_us: min, log_max_us: min * 4 };
                Fault::SlowDisk { member, speed, ms }
            }
            12 if self.disks => Fault::FullDisk { member, ms },
            13 => Fault::Snapshot { member },
            14 if random.percent(50) => Fault::Settle { member },
            14 => Fault::Restart { member },
            15 if random.percent(50) => Fault::MoveLeader { to: anyone },
            16..=17 if self.elections && self.crashes => {
                Fault::CutAtVote { everywhere: random.percent(60) }
            }
            18 if self.membership => Fault::AddMember { learner: random.percent(60) },
            19 if self.membership => Fault::PromoteMember,
            20 if self.membership => Fault::RemoveMember { member },
            _ => return None,
        })
    }
}

/// One member from all others; both ways, or only what it says, or only what it hears.
fn isolate(member: At, members: usize, random: &mut Random) -> Vec<(At, At)> {
    let others = (0..members).filter(|other| *other != member);
    let (says, hears) = *random.pick(&[(true, true), (true, false), (false, true)]);
    let mut pairs = Vec::new();
    for other in others {
        if says {
            pairs.push((member, other));
        }
        if hears {
            pairs.push((other, member));
        }
    }
    pairs
}

/// Any set of directions, so that no two members see the same cluster.
fn split(members: usize, random: &mut Random) -> Vec<(At, At)> {
    let all = (0..members).flat_map(|from| (0..members).map(move |to| (from, to)));
    all.filter(|(from, to)| from != to && random.percent(40)).collect()
}

/// What ends a fault.
#[derive(Debug, Clone)]
pub enum Mend {
    Start(At),
    Unblock(Vec<(At, At)>),
    Links,
    Speed(At),
    Space(At),
    /// Looks whether a life of a member still knows whom it voted for.
    AskTerm(At, u64),
}

pub const MENDED: Speed = FAST;

//! Alarms: what is wrong with which member, and what the cluster refuses as long as it is.
//!
//! They go through the log, so all members have the same, a restart keeps them, and all
//! refuse the same commands. As in etcd, who raises one names the member it is about, and
//! it stays until it is disarmed. One exception: what a member says of its own disk it also
//! takes back by itself, and that refuses nothing here. The disk decides about that; see
//! `store::space`.

use std::collections::BTreeMap;

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::command::Command;
use crate::kv::{Alarm, KvError};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RaisedAlarm {
    pub member: u64,
    pub alarm: Alarm,
    /// By the member itself, which lowers it again.
    pub by_itself: bool,
}

/// What is asked of the alarms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlarmChange {
    pub raise: bool,
    pub of: RaisedAlarm,
}

impl AlarmChange {
    pub fn encode(&self, e: &mut Encoder) {
        e.bool(self.raise);
        encode_alarm(e, &self.of);
    }

    pub fn decode(d: &mut Decoder) -> Result<Self, DecodeError> {
        Ok(Self { raise: d.bool()?, of: decode_alarm(d)? })
    }
}

pub fn encode_alarm(e: &mut Encoder, alarm: &RaisedAlarm) {
    e.u64(alarm.member);
    e.u8(alarm.alarm.number());
    e.bool(alarm.by_itself);
}

pub fn decode_alarm(d: &mut Decoder) -> Result<RaisedAlarm, DecodeError> {
    let (member, number, by_itself) = (d.u64()?, d.u8()?, d.bool()?);
    let alarm = Alarm::numbered(number).ok_or_else(|| d.fault("unknown alarm"))?;
    Ok(RaisedAlarm { member, alarm, by_itself })
}

/// The alarms that are raised.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Alarms {
    raised: BTreeMap<(Alarm, u64), bool>,
}

impl Alarms {
    /// The alarm that is raised, or that has been lowered; nothing if there was none.
    pub fn change(&mut self, change: &AlarmChange) -> Option<RaisedAlarm> {
        let RaisedAlarm { member, alarm, by_itself } = change.of;
        let key = (alarm, member);
        if change.raise {
            // What an operator has raised a member does not make its own.
            let own = self.raised.entry(key).or_insert(by_itself);
            *own &= by_itself;
            return Some(RaisedAlarm { member, alarm, by_itself: *own });
        }
        let own = *self.raised.get(&key)?;
        if by_itself && !own {
            return None;
        }
        self.raised.remove(&key);
        Some(RaisedAlarm { member, alarm, by_itself: own })
    }

    /// By kind, then by member.
    pub fn iter(&self) -> impl Iterator<Item = RaisedAlarm> {
        self.raised.iter().map(|(&(alarm, member), &by_itself)| RaisedAlarm {
            member,
            alarm,
            by_itself,
        })
    }

    pub fn get(&self, alarm: Alarm, member: u64) -> Option<RaisedAlarm> {
        let by_itself = *self.raised.get(&(alarm, member))?;
        Some(RaisedAlarm { member, alarm, by_itself })
    }

    /// By somebody else than the member.
    pub fn is_set(&self, alarm: Alarm) -> bool {
        self.iter().any(|raised| raised.alarm == alarm && !raised.by_itself)
    }

    /// What etcd refuses: with a corrupt member every change, without space what takes some.
    pub fn refuse(&self, command: &Command) -> Option<KvError> {
        if self.raised.is_empty() || matches!(command, Command::Alarm(_)) {
            return None;
        }
        if self.is_set(Alarm::Corrupt) {
            return Some(KvError::Alarmed(Alarm::Corrupt));
        }
        let full = command.takes_space() && self.is_set(Alarm::NoSpace);
        full.then_some(KvError::Alarmed(Alarm::NoSpace))
    }

    pub fn encode(&self, e: &mut Encoder) {
        e.u64(self.raised.len() as u64);
        for alarm in self.iter() {
            encode_alarm(e, &alarm);
        }
    }

    pub fn decode(d: &mut Decoder) -> Result<Self, DecodeError> {
        let mut alarms = Self::default();
        for _ in 0..d.count()? {
            let of = decode_alarm(d)?;
            alarms.raised.insert((of.alarm, of.member), of.by_itself);
        }
        Ok(alarms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: RaisedAlarm = RaisedAlarm { member: 7, alarm: Alarm::NoSpace, by_itself: false };
    const OWN: RaisedAlarm = RaisedAlarm { by_itself: true, ..FULL };

    fn raise(of: RaisedAlarm) -> AlarmChange {
        AlarmChange { raise: true, of }
    }

    fn lower(of: RaisedAlarm) -> AlarmChange {
        AlarmChange { raise: false, of }
    }

    #[test]
    fn a_member_lowers_only_what_it_has_raised_by_itself() {
        let mut alarms = Alarms::default();
        assert_eq!(alarms.change(&lower(OWN)), None);
        assert_eq!(alarms.change(&raise(OWN)), Some(OWN));
        assert!(!alarms.is_set(Alarm::NoSpace));
        assert_eq!(alarms.change(&lower(OWN)), Some(OWN));
        alarms.change(&raise(OWN));
        assert_eq!(alarms.change(&raise(FULL)), Some(FULL));
        assert!(alarms.is_set(Alarm::NoSpace));
        assert_eq!(alarms.change(&raise(OWN)), Some(FULL));
        assert_eq!(alarms.change(&lower(OWN)), None);
        assert_eq!(alarms.change(&lower(FULL)), Some(FULL));
        assert_eq!(alarms, Alarms::default());
    }

    #[test]
    fn alarms_come_back() {
        let mut alarms = Alarms::default();
        alarms.change(&raise(OWN));
        alarms.change(&raise(RaisedAlarm { member: 9, alarm: Alarm::Corrupt, by_itself: false }));
        let mut e = Encoder::default();
        alarms.encode(&mut e);
        let mut d = Decoder::new("alarms", e.finish().into());
        assert_eq!(Alarms::decode(&mut d), Ok(alarms));
        assert_eq!(d.end(), Ok(()));
    }
}

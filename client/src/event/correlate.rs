//! What becomes of an event, by what came before: written as it is, counted on one that is
//! there already, combined with similar ones, or dropped. The rules and figures are those of
//! client-go's `EventCorrelator`. Pure: the clock is a parameter.
//!
//! ```text
//! event ─▶ similar to 9 others of the last 10 min? ─▶ told before? ─▶ too many about the object?
//!           yes: "(combined from similar events): …"   yes: count + 1    yes: dropped
//! ```

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use skiff_proto::Timestamp;
use skiff_proto::model::Event;

use super::recent::Recent;

/// Events about one object from one source before it has to wait for tokens.
const SPAM_BURST: f64 = 25.0;
/// One more event every 5 minutes.
const SPAM_REFILL: Duration = Duration::from_secs(300);
/// This many different messages make similar events one.
const SIMILAR_EVENTS: usize = 10;
/// Similar are those that follow one another within this time.
const SIMILAR_WITHIN: Duration = Duration::from_secs(600);
/// Objects, groups and events remembered, each; the least recently seen is forgotten.
const REMEMBERED: usize = 4096;
const COMBINED: &str = "(combined from similar events): ";

/// What makes two events the same, or similar: the texts that must agree.
type Key = Box<[Box<str>]>;

/// What to write.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// Too many events about this object.
    Drop,
    /// A new event; `Known` is to be told once it is written.
    Create(Event, Known),
    /// One more of an event that was written under `event.metadata.name`; if that is gone,
    /// the event is to be made anew.
    Raise(Event, Known),
}

/// Where an event's count is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known(Key);

#[derive(Debug)]
struct Written {
    name: String,
    first: Option<Timestamp>,
    count: i32,
}

#[derive(Debug)]
struct Group {
    messages: BTreeSet<Box<str>>,
    last: Instant,
}

#[derive(Debug)]
struct Tokens {
    left: f64,
    at: Instant,
}

/// The memory of one recorder.
#[derive(Debug)]
pub struct Correlator {
    tokens: Recent<Key, Tokens>,
    groups: Recent<Key, Group>,
    written: Recent<Key, Written>,
}

impl Default for Correlator {
    fn default() -> Self {
        Self {
            tokens: Recent::new(REMEMBERED),
            groups: Recent::new(REMEMBERED),
            written: Recent::new(REMEMBERED),
        }
    }
}

impl Correlator {
    pub fn observe(&mut self, event: Event, now: Instant) -> Outcome {
        let source = source_and_object(&event);
        let (mut event, known) = self.combine(event, now);
        let before = self.written.get(&known.0);
        let raises = before.is_some();
        if let Some(before) = before {
            event.metadata.name.clone_from(&before.name);
            event.first_timestamp = before.first;
            event.count = before.count.saturating_add(1);
            // Counted even if it is then dropped, as upstream does: the next one tells.
            before.count = event.count;
        }
        if !self.take_token(source, now) {
            return Outcome::Drop;
        }
        if raises { Outcome::Raise(event, known) } else { Outcome::Create(event, known) }
    }

    /// The event is in the cluster under this name.
    pub fn written(&mut self, known: Known, event: &Event) {
        let (name, first) = (event.metadata.name.clone(), event.first_timestamp);
        self.written.put(known.0, Written { name, first, count: event.count });
    }

    /// Gives an event the text and the identity of its group, once the group is large.
    fn combine(&mut self, mut event: Event, now: Instant) -> (Event, Known) {
        let known = Known(same(&event));
        let key = similar(&event);
        let message = event.message.as_str().into();
        let group = match self.groups.get(&key) {
            Some(group) if now.saturating_duration_since(group.last) <= SIMILAR_WITHIN => group,
            _ => self.groups.put(key.clone(), Group { messages: BTreeSet::new(), last: now }),
        };
        group.messages.insert(message);
        group.last = now;
        if group.messages.len() < SIMILAR_EVENTS {
            return (event, known);
        }
        // It need not grow beyond what tells that it is large.
        group.messages.pop_first();
        event.message.insert_str(0, COMBINED);
        (event, Known(key))
    }

    fn take_token(&mut self, key: Key, now: Instant) -> bool {
        let tokens = match self.tokens.get(&key) {
            Some(tokens) => tokens,
            None => self.tokens.put(key, Tokens { left: SPAM_BURST, at: now }),
        };
        let passed = now.saturating_duration_since(tokens.at).as_secs_f64();
        tokens.left = (tokens.left + passed / SPAM_REFILL.as_secs_f64()).min(SPAM_BURST);
        tokens.at = now;
        let enough = tokens.left >= 1.0;
        if enough {
            tokens.left -= 1.0;
        }
        enough
    }
}

fn key(parts: &[&str]) -> Key {
    parts.iter().map(|part| Box::from(*part)).collect()
}

/// Who speaks about what.
fn source_and_object(event: &Event) -> Key {
    let about = &event.involved_object;
    key(&[
        &event.source.component,
        &event.source.host,
        &about.kind,
        &about.namespace,
        &about.name,
        &about.uid,
        &about.api_version,
    ])
}

/// Events that differ in their message alone are similar.
fn similar(event: &Event) -> Key {
    let more =
        key(&[&event.type_, &event.reason, &event.reporting_component, &event.reporting_instance]);
    source_and_object(event).into_iter().chain(more).collect()
}

/// Events that agree in everything but their time are the same.
fn same(event: &Event) -> Key {
    let field = &event.involved_object.field_path;
    let more = key(&[field, &event.type_, &event.reason, &event.message]);
    source_and_object(event).into_iter().chain(more).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use skiff_proto::model::EventSource;
    use skiff_proto::{ObjectMeta, ObjectReference};

    fn event(about: &str, reason: &str, message: &str) -> Event {
        Event {
            metadata: ObjectMeta { name: format!("{about}.1"), ..ObjectMeta::default() },
            involved_object: ObjectReference { name: about.into(), ..ObjectReference::default() },
            source: EventSource { component: "kubelet".into(), host: "n1".into() },
            reason: reason.into(),
            message: message.into(),
            count: 1,
            ..Event::default()
        }
    }

    /// Observes, and writes what is to be written. Tells what it was, its message and count.
    fn observe(correlator: &mut Correlator, event: Event, now: Instant) -> (char, String, i32) {
        let (what, event, known) = match correlator.observe(event, now) {
            Outcome::Drop => return ('-', String::new(), 0),
            Outcome::Create(event, known) => ('c', event, known),
            Outcome::Raise(event, known) => ('r', event, known),
        };
        let told = (what, event.message.clone(), event.count);
        correlator.written(known, &event);
        told
    }

    #[test]
    fn the_same_event_again_raises_its_count() {
        let (mut correlator, now) = (Correlator::default(), Instant::now());
        let told =
            |correlator: &mut Correlator| observe(correlator, event("a", "Killing", "m"), now);
        assert_eq!(told(&mut correlator), ('c', "m".into(), 1));
        assert_eq!(told(&mut correlator), ('r', "m".into(), 2));
        assert_eq!(told(&mut correlator), ('r', "m".into(), 3));
        let other = observe(&mut correlator, event("b", "Killing", "m"), now);
        assert_eq!(other, ('c', "m".into(), 1));
    }

    #[test]
    fn the_tenth_similar_event_and_those_after_it_become_one() {
        let (mut correlator, now) = (Correlator::default(), Instant::now());
        for n in 1..10 {
            let text = format!("m{n}");
            let told = observe(&mut correlator, event("a", "Failed", &text), now);
            assert_eq!(told, ('c', text, 1));
        }
        for (n, what, count) in [(10, 'c', 1), (11, 'r', 2), (12, 'r', 3)] {
            let told = observe(&mut correlator, event("a", "Failed", &format!("m{n}")), now);
            assert_eq!(told, (what, format!("(combined from similar events): m{n}"), count));
        }
        let other = observe(&mut correlator, event("a", "Pulled", "m"), now);
        assert_eq!(other, ('c', "m".into(), 1), "another reason is not similar");
        let later = now + SIMILAR_WITHIN + Duration::from_secs(1);
        let told = observe(&mut correlator, event("a", "Failed", "m13"), later);
        assert_eq!(told, ('c', "m13".into(), 1), "a pause ends the group");
    }

    #[test]
    fn an_object_has_a_burst_of_25_and_then_one_event_in_five_minutes() {
        let (mut correlator, now) = (Correlator::default(), Instant::now());
        for n in 1..=25 {
            let told = observe(&mut correlator, event("a", "BackOff", "m"), now);
            assert_eq!(told.2, n);
        }
        assert_eq!(observe(&mut correlator, event("a", "BackOff", "m"), now).0, '-');
        assert_eq!(observe(&mut correlator, event("a", "Other", "m"), now).0, '-', "by object");
        assert_eq!(observe(&mut correlator, event("b", "BackOff", "m"), now).0, 'c');
        let almost = now + Duration::from_secs(299);
        assert_eq!(observe(&mut correlator, event("a", "BackOff", "m"), almost).0, '-');
        let later = now + Duration::from_secs(301);
        let told = observe(&mut correlator, event("a", "BackOff", "m"), later);
        assert_eq!(told, ('r', "m".into(), 28), "those that were dropped count");
        assert_eq!(observe(&mut correlator, event("a", "BackOff", "m"), later).0, '-');
    }

    #[test]
    fn what_was_not_written_is_made_anew() {
        let (mut correlator, now) = (Correlator::default(), Instant::now());
        for _ in 0..2 {
            let outcome = correlator.observe(event("a", "Killing", "m"), now);
            assert!(matches!(outcome, Outcome::Create(..)), "{outcome:?}");
        }
    }
}

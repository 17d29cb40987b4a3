//! Watch events cut into responses that a client can take.
//!
//! Between two revisions a cut goes unnoticed. Within one, only who has asked for fragments
//! gets it cut, marked as such; everyone else gets a revision whole, whatever its size.

use crate::kv::Event;

/// The events of one response, and whether the rest of a revision follows.
#[derive(Debug, PartialEq, Eq)]
pub struct Part {
    pub events: Vec<Event>,
    pub fragment: bool,
}

/// What is on the wire beside keys and values, at most.
const EVENT_OVERHEAD_BYTES: usize = 64;

pub fn bytes(event: &Event) -> usize {
    let kv = event.kv.key.len() + event.kv.value.len();
    let prev = event.prev.as_ref().map_or(0, |prev| prev.key.len() + prev.value.len());
    kv + prev + EVENT_OVERHEAD_BYTES
}

/// Cuts events, in order, into parts below `limit_bytes` as far as that is possible.
pub fn split(events: Vec<Event>, fragments: bool, limit_bytes: usize) -> Vec<Part> {
    if events.iter().map(bytes).sum::<usize>() <= limit_bytes {
        return vec![Part { events, fragment: false }];
    }
    let mut parts = Vec::new();
    let mut part = Vec::new();
    let mut part_bytes = 0;
    for revision in revisions(events) {
        let revision_bytes: usize = revision.iter().map(bytes).sum();
        if !part.is_empty() && part_bytes + revision_bytes > limit_bytes {
            parts.push(Part { events: std::mem::take(&mut part), fragment: false });
            part_bytes = 0;
        }
        if fragments && revision_bytes > limit_bytes {
            // Nothing waits here: what came before would not have fitted either.
            cut(revision, limit_bytes, &mut parts);
            continue;
        }
        part.extend(revision);
        part_bytes += revision_bytes;
    }
    if !part.is_empty() {
        parts.push(Part { events: part, fragment: false });
    }
    parts
}

fn revisions(events: Vec<Event>) -> Vec<Vec<Event>> {
    let mut revisions: Vec<Vec<Event>> = Vec::new();
    for event in events {
        let at = event.kv.mod_revision;
        match revisions.last_mut() {
            Some(last) if last.first().is_some_and(|first| first.kv.mod_revision == at) => {
                last.push(event)
            }
            _ => revisions.push(vec![event]),
        }
    }
    revisions
}

fn cut(revision: Vec<Event>, limit_bytes: usize, parts: &mut Vec<Part>) {
    let mut piece = Vec::new();
    let mut piece_bytes = 0;
    for event in revision {
        let event_bytes = bytes(&event);
        if !piece.is_empty() && piece_bytes + event_bytes > limit_bytes {
            parts.push(Part { events: std::mem::take(&mut piece), fragment: true });
            piece_bytes = 0;
        }
        piece_bytes += event_bytes;
        piece.push(event);
    }
    parts.push(Part { events: piece, fragment: false });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{EventType, KeyValue};

    fn event(revision: i64, size: usize) -> Event {
        let kv = KeyValue {
            key: "k".into(),
            value: vec![0; size - 1 - EVENT_OVERHEAD_BYTES].into(),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            lease: 0,
        };
        Event { kind: EventType::Put, kv, prev: None }
    }

    /// As `revision revision | revision+ ...`, a plus where the part is a fragment.
    fn check(events: &[(i64, usize)], fragments: bool, expect: &str) {
        let events = events.iter().map(|(revision, size)| event(*revision, *size)).collect();
        let show = |part: &Part| {
            let revisions: Vec<_> =
                part.events.iter().map(|event| event.kv.mod_revision.to_string()).collect();
            revisions.join(" ") + if part.fragment { "+" } else { "" }
        };
        let parts: Vec<_> = split(events, fragments, 1000).iter().map(show).collect();
        assert_eq!(parts.join(" | "), expect);
    }

    #[test]
    fn cuts_fall_between_revisions() {
        check(&[(2, 400), (3, 400)], false, "2 3");
        check(&[(2, 400), (3, 400), (4, 400)], false, "2 3 | 4");
        check(&[(2, 400), (3, 400), (3, 400), (4, 400)], true, "2 | 3 3 | 4");
    }

    #[test]
    fn only_fragments_cut_a_revision() {
        check(&[(2, 600), (2, 600), (2, 600)], false, "2 2 2");
        check(&[(2, 600), (2, 600), (2, 600)], true, "2+ | 2+ | 2");
        check(&[(2, 300), (3, 600), (3, 600), (4, 300)], true, "2 | 3+ | 3 | 4");
        check(&[(2, 5000)], true, "2");
    }
}

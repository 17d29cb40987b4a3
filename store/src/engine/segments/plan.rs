//! Which segments are worth writing anew. Pure.
//!
//! Cleaning copies what is wanted and gives the rest of the space back. It begins where the most
//! is given back for the least copied, and not before a part of everything is garbage: the more
//! garbage may lie there, the less is copied for each byte that is written.

use std::ops::Range;

/// Of one segment that takes no more writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    pub live_bytes: u64,
    /// Once it has been written anew, there is none in it.
    pub dead_bytes: u64,
}

impl Usage {
    fn bytes(&self) -> u64 {
        self.live_bytes + self.dead_bytes
    }

    /// At least a quarter of it is garbage, or it is small.
    fn joins(&self, segment_bytes: u64) -> bool {
        self.dead_bytes * 4 >= self.bytes() || self.bytes() * 2 <= segment_bytes
    }
}

/// How much garbage is left lying: a quarter of what is wanted, and a segment more so that a
/// small store is not written over and over.
fn allowed(live_bytes: u64, segment_bytes: u64) -> u64 {
    live_bytes / 4 + segment_bytes
}

/// The neighbouring segments to write into one, while there is more garbage than allowed or there
/// are more small segments than need be. In the order of the segments.
pub fn next(segments: &[Usage], segment_bytes: u64) -> Option<Range<usize>> {
    let live_bytes: u64 = segments.iter().map(|usage| usage.live_bytes).sum();
    let garbage: u64 = segments.iter().map(|usage| usage.dead_bytes).sum();
    if garbage > allowed(live_bytes, segment_bytes) {
        return all(segments, segment_bytes);
    }
    let enough = 2 * live_bytes / segment_bytes + 8;
    (segments.len() as u64 > enough).then(|| smallest_pair(segments)).flatten()
}

/// The same without a threshold: whatever gives space back.
pub fn all(segments: &[Usage], segment_bytes: u64) -> Option<Range<usize>> {
    let worth = |usage: &Usage| usage.dead_bytes * 16 > usage.bytes();
    let candidates = segments.iter().enumerate().filter(|(_, usage)| worth(usage));
    let share =
        |usage: &Usage| u128::from(usage.dead_bytes) * 1_000_000 / u128::from(usage.bytes());
    let (at, _) = candidates.max_by_key(|(_, usage)| share(usage))?;
    Some(grow(segments, at, segment_bytes))
}

/// With the neighbours that fit into one segment with it and gain by it.
fn grow(segments: &[Usage], at: usize, segment_bytes: u64) -> Range<usize> {
    let (mut from, mut to) = (at, at + 1);
    let mut live_bytes = segments[at].live_bytes;
    let mut fits = |usage: &Usage| {
        let joins = usage.joins(segment_bytes) && live_bytes + usage.live_bytes <= segment_bytes;
        live_bytes += if joins { usage.live_bytes } else { 0 };
        joins
    };
    loop {
        let left = from > 0 && fits(&segments[from - 1]);
        from -= usize::from(left);
        let right = to < segments.len() && fits(&segments[to]);
        to += usize::from(right);
        if !left && !right {
            return from..to;
        }
    }
}

fn smallest_pair(segments: &[Usage]) -> Option<Range<usize>> {
    let pairs = segments.windows(2).enumerate();
    let (at, _) = pairs.min_by_key(|(_, pair)| pair[0].live_bytes + pair[1].live_bytes)?;
    Some(at..at + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn usages(of: &[(u64, u64)]) -> Vec<Usage> {
        let usage = |(live, all): &(u64, u64)| Usage {
            live_bytes: live * MIB,
            dead_bytes: (all - live) * MIB,
        };
        of.iter().map(usage).collect()
    }

    fn check(of: &[(u64, u64)], next_one: Option<Range<usize>>, of_all: Option<Range<usize>>) {
        let usages = usages(of);
        assert_eq!(next(&usages, 8 * MIB), next_one, "next of {of:?}");
        assert_eq!(all(&usages, 8 * MIB), of_all, "all of {of:?}");
    }

    #[test]
    fn garbage_lies_until_it_is_a_quarter_and_a_segment() {
        check(&[], None, None);
        check(&[(8, 8), (8, 8)], None, None);
        // 8 of garbage, 8 + 2 are allowed.
        check(&[(0, 8), (8, 8)], None, Some(0..1));
        // 13 of garbage, 8 + 4 are allowed: first what costs least.
        check(&[(8, 8), (2, 8), (6, 8), (0, 5)], Some(1..4), Some(1..4));
        check(&[(3, 8), (8, 8), (8, 8), (1, 8), (8, 8)], None, Some(3..4));
    }

    #[test]
    fn a_run_fits_into_one_segment() {
        check(&[(4, 8), (4, 8), (4, 8), (4, 8)], Some(2..4), Some(2..4));
        check(&[(5, 9), (5, 9), (5, 9), (5, 9)], Some(3..4), Some(3..4));
        check(&[(0, 8), (0, 8), (0, 8)], Some(0..3), Some(0..3));
    }

    #[test]
    fn many_small_ones_become_fewer() {
        let mut of = vec![(1, 1); 11];
        of[5] = (0, 0);
        check(&of, Some(4..6), None);
        check(&of[..9], None, None);
    }

    /// Random overwrites with compactions: the plan comes to an end, and bounds the space.
    #[test]
    fn it_ends_and_bounds_the_space() {
        let mut segments: Vec<Usage> = Vec::new();
        let mut random = 1_u64;
        for round in 0..200 {
            segments.push(Usage { live_bytes: 8 * MIB, dead_bytes: 0 });
            for usage in &mut segments {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round);
                let dies = usage.live_bytes * (random >> 33 & 7) / 16;
                usage.live_bytes -= dies;
                usage.dead_bytes += dies;
            }
            let mut steps = 0;
            while let Some(run) = next(&segments, 8 * MIB) {
                let live_bytes = segments[run.clone()].iter().map(|u| u.live_bytes).sum();
                let after = Usage { live_bytes, dead_bytes: 0 };
                segments.splice(run, (live_bytes > 0).then_some(after));
                steps += 1;
                assert!(steps < 100);
            }
            let live: u64 = segments.iter().map(|usage| usage.live_bytes).sum();
            let bytes: u64 = segments.iter().map(Usage::bytes).sum();
            assert!(bytes <= live + live / 4 + 8 * MIB);
            assert!(segments.len() as u64 <= 2 * live / (8 * MIB) + 8);
        }
    }
}

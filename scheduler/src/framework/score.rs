//! Scores and how the raw ones of a plugin become comparable.

use crate::nodes::NodeState;

pub const MAX_SCORE: i64 = 100;

/// Scores one node; `None`: the node is left out and gets the lowest score.
pub type Scorer<'a> = Box<dyn Fn(&NodeState) -> Option<i64> + 'a>;

/// A scorer prepared for one pod.
pub struct NodeScore<'a> {
    pub score: Scorer<'a>,
    pub normalize: Normalize,
}

/// How raw scores are brought to 0..=100.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Normalize {
    /// They are there already.
    AsIs,
    /// In proportion to the highest.
    Highest,
    /// As `Highest`, and less is better.
    HighestReversed,
    /// The lowest is 0, the highest 100.
    Range,
    /// Less is better, and equal ones all get 100: upstream's for topology spread.
    Spread,
}

impl Normalize {
    pub fn apply(self, raw: &[Option<i64>]) -> Vec<i64> {
        let highest = raw.iter().flatten().copied().max().unwrap_or(0);
        let lowest = raw.iter().flatten().copied().min().unwrap_or(0);
        let one = |score: i64| match self {
            Self::AsIs => score,
            Self::Highest if highest == 0 => 0,
            Self::Highest => MAX_SCORE * score / highest,
            Self::HighestReversed if highest == 0 => MAX_SCORE,
            Self::HighestReversed => MAX_SCORE - MAX_SCORE * score / highest,
            Self::Range if highest == lowest => 0,
            Self::Range => MAX_SCORE * (score - lowest) / (highest - lowest),
            Self::Spread if highest == 0 => MAX_SCORE,
            Self::Spread => MAX_SCORE * (highest + lowest - score) / highest,
        };
        raw.iter().map(|score| score.map_or(0, one)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Normalize::*;

    #[test]
    fn brings_scores_to_a_hundred() {
        for (how, raw, expected) in [
            (AsIs, [Some(7), Some(90), None], [7, 90, 0]),
            (Highest, [Some(1), Some(4), Some(0)], [25, 100, 0]),
            (Highest, [Some(0), Some(0), Some(0)], [0, 0, 0]),
            (HighestReversed, [Some(0), Some(1), Some(2)], [100, 50, 0]),
            (HighestReversed, [Some(0), Some(0), Some(0)], [100, 100, 100]),
            (Range, [Some(-10), Some(0), Some(10)], [0, 50, 100]),
            (Spread, [Some(2), Some(4), None], [100, 50, 0]),
            (Spread, [Some(0), Some(0), Some(0)], [100, 100, 100]),
        ] {
            assert_eq!(how.apply(&raw), expected, "{how:?} {raw:?}");
        }
    }
}

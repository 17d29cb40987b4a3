//! A number or a text: a port's number or name, a count or a percentage.

use std::fmt;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum IntOrString {
    Int(i32),
    String(String),
}

impl Default for IntOrString {
    fn default() -> Self {
        Self::Int(0)
    }
}

impl IntOrString {
    /// The count itself, or that percentage of `total`, rounded up or down.
    /// `None` if the text is no percentage.
    pub fn scaled(&self, total: i32, round_up: bool) -> Option<i32> {
        match self {
            Self::Int(n) => Some(*n),
            Self::String(text) => {
                let percent: i64 = text.strip_suffix('%')?.parse().ok()?;
                let hundredths = percent * i64::from(total);
                let whole = if round_up {
                    (hundredths + 99).div_euclid(100)
                } else {
                    hundredths.div_euclid(100)
                };
                i32::try_from(whole).ok()
            }
        }
    }
}

impl fmt::Display for IntOrString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(n) => n.fmt(f),
            Self::String(s) => s.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::IntOrString;

    #[test]
    fn scales_percentages() {
        let quarter = IntOrString::String("25%".into());
        assert_eq!(quarter.scaled(10, true), Some(3));
        assert_eq!(quarter.scaled(10, false), Some(2));
        assert_eq!(IntOrString::Int(4).scaled(10, true), Some(4));
        assert_eq!(IntOrString::String("http".into()).scaled(10, true), None);
    }
}

//! RFC 3339 times as Kubernetes writes them: UTC, whole seconds (`metav1.Time`) or
//! microseconds (`metav1.MicroTime`).

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// A moment, kept to the microsecond. It prints whole seconds when it has no fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(OffsetDateTime);

impl Timestamp {
    /// `metav1.Time`: whole seconds.
    pub fn seconds(at: SystemTime) -> Self {
        let at = OffsetDateTime::from(at);
        Self(at.replace_nanosecond(0).unwrap_or(at))
    }

    /// `metav1.MicroTime`, as Leases use it.
    pub fn micros(at: SystemTime) -> Self {
        let at = OffsetDateTime::from(at);
        Self(at.replace_nanosecond(at.nanosecond() / 1000 * 1000).unwrap_or(at))
    }

    pub fn from_unix(seconds: i64) -> Option<Self> {
        OffsetDateTime::from_unix_timestamp(seconds).ok().map(Self)
    }

    pub fn parse(text: &str) -> Option<Self> {
        let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        Some(Self(at.to_offset(time::UtcOffset::UTC)))
    }

    pub fn unix(&self) -> i64 {
        self.0.unix_timestamp()
    }

    pub fn system_time(&self) -> SystemTime {
        self.0.into()
    }

    /// Time passed from `self` to `now`; zero if `self` lies ahead.
    pub fn elapsed_at(&self, now: SystemTime) -> Duration {
        now.duration_since(self.system_time()).unwrap_or_default()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = if self.0.nanosecond() == 0 {
            self.0.format(format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z"))
        } else {
            self.0.format(format_description!(
                "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z"
            ))
        };
        f.write_str(&text.map_err(|_| fmt::Error)?)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not an RFC 3339 time")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_whole_seconds_or_microseconds() {
        let whole = Timestamp::parse("2024-02-29T23:59:59Z").expect("parses");
        assert_eq!(whole.to_string(), "2024-02-29T23:59:59Z");
        let micro = Timestamp::parse("2024-02-29T23:59:59.000120Z").expect("parses");
        assert_eq!(micro.to_string(), "2024-02-29T23:59:59.000120Z");
        let offset = Timestamp::parse("2024-03-01T01:59:59+02:00").expect("parses");
        assert_eq!(offset, whole);
        assert_eq!(Timestamp::parse("yesterday"), None);
    }
}

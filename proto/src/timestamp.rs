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
        if let Some(at) = whole_seconds(text) {
            return Some(at);
        }
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

/// `2024-02-29T23:59:59Z`, with a place for each digit.
const WHOLE_SECONDS: &[u8; 20] = b"0000-00-00T00:00:00Z";

/// The form that nearly all times have: read on every object, so worth a path of its own.
fn whole_seconds(text: &str) -> Option<Timestamp> {
    let text: &[u8; 20] = text.as_bytes().try_into().ok()?;
    let shaped = text.iter().zip(WHOLE_SECONDS).all(|(byte, form)| match form {
        b'0' => byte.is_ascii_digit(),
        form => byte == form,
    });
    if !shaped {
        return None;
    }
    let number = |at: usize| (text[at] - b'0') * 10 + text[at + 1] - b'0';
    let year = i32::from(number(0)) * 100 + i32::from(number(2));
    let month = time::Month::try_from(number(5)).ok()?;
    let date = time::Date::from_calendar_date(year, month, number(8)).ok()?;
    // A leap second is for the general reader.
    let time = time::Time::from_hms(number(11), number(14), number(17)).ok()?;
    Some(Timestamp(date.with_time(time).assume_utc()))
}

/// The same form, printed; `None`: it takes another.
fn print_whole_seconds(at: OffsetDateTime) -> Option<[u8; 20]> {
    let year = u16::try_from(at.year()).ok().filter(|year| *year <= 9999)?;
    if at.nanosecond() != 0 {
        return None;
    }
    let mut text = *WHOLE_SECONDS;
    let mut put = |at: usize, number: u8| {
        text[at] = b'0' + number / 10;
        text[at + 1] = b'0' + number % 10;
    };
    // Both halves are below 100.
    put(0, (year / 100) as u8);
    put(2, (year % 100) as u8);
    put(5, at.month().into());
    put(8, at.day());
    put(11, at.hour());
    put(14, at.minute());
    put(17, at.second());
    Some(text)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(text) = print_whole_seconds(self.0)
            && let Ok(text) = std::str::from_utf8(&text)
        {
            return f.write_str(text);
        }
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

    #[test]
    fn the_usual_form_means_what_the_general_reader_says() {
        for text in [
            "0000-01-01T00:00:00Z",
            "9999-12-31T23:59:59Z",
            "2023-02-29T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-01-32T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2016-12-31T23:59:60Z",
            "2024-01-01 00:00:00Z",
            "2024-01-01T00:00:0Z",
        ] {
            let general = OffsetDateTime::parse(text, &Rfc3339).ok().map(Timestamp);
            assert_eq!(Timestamp::parse(text), general, "{text}");
        }
    }
}

//! Resource quantities: `100m`, `1.5`, `128Mi`, `2e3`.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A fixed-point number in billionths, which holds every suffix upstream knows without loss.
/// It remembers its text, since objects must come back as they were written.
#[derive(Debug, Clone, Default)]
pub struct Quantity {
    nanos: i128,
    text: String,
}

const NANO: i128 = 1_000_000_000;

impl Quantity {
    /// Reads upstream's quantity syntax; `None` if the text is no quantity.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, rest) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let digits = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let (number, suffix) = rest.split_at(digits);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let scale = Scale::parse(suffix)?;
        let mut mantissa: i128 = 0;
        // More digits than this lie beyond any resource and would overflow.
        if whole.len() > 18 {
            return None;
        }
        for digit in whole.bytes().chain(fraction.bytes().take(18)) {
            mantissa = mantissa * 10 + i128::from(digit - b'0');
        }
        let nanos = scale.apply(mantissa, fraction.len().min(18) as u32)?;
        Some(Self { nanos: if negative { -nanos } else { nanos }, text: text.to_owned() })
    }

    pub fn from_milli(milli: i64) -> Self {
        let text = if milli % 1000 == 0 { (milli / 1000).to_string() } else { format!("{milli}m") };
        Self { nanos: i128::from(milli) * (NANO / 1000), text }
    }

    pub fn from_value(value: i64) -> Self {
        Self { nanos: i128::from(value) * NANO, text: value.to_string() }
    }

    /// Bytes, written in the largest binary unit that divides them.
    pub fn from_bytes(bytes: i64) -> Self {
        let units = [("Gi", 1i64 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
        let text = units
            .iter()
            .find(|(_, unit)| bytes != 0 && bytes % unit == 0)
            .map_or_else(|| bytes.to_string(), |(name, unit)| format!("{}{name}", bytes / unit));
        Self { nanos: i128::from(bytes) * NANO, text }
    }

    /// Rounded up to a whole number, as upstream's `Value()`.
    pub fn value(&self) -> i64 {
        clamp(div_ceil(self.nanos, NANO))
    }

    /// Rounded up to thousandths, as upstream's `MilliValue()`.
    pub fn milli(&self) -> i64 {
        clamp(div_ceil(self.nanos, NANO / 1000))
    }

    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }
}

fn div_ceil(a: i128, b: i128) -> i128 {
    a.div_euclid(b) + i128::from(a.rem_euclid(b) != 0)
}

fn clamp(n: i128) -> i64 {
    i64::try_from(n).unwrap_or(if n < 0 { i64::MIN } else { i64::MAX })
}

enum Scale {
    Decimal(i32),
    Binary(u32),
}

impl Scale {
    fn parse(suffix: &str) -> Option<Self> {
        Some(match suffix {
            "n" => Self::Decimal(-9),
            "u" => Self::Decimal(-6),
            "m" => Self::Decimal(-3),
            "" => Self::Decimal(0),
            "k" => Self::Decimal(3),
            "M" => Self::Decimal(6),
            "G" => Self::Decimal(9),
            "T" => Self::Decimal(12),
            "P" => Self::Decimal(15),
            "E" => Self::Decimal(18),
            "Ki" => Self::Binary(10),
            "Mi" => Self::Binary(20),
            "Gi" => Self::Binary(30),
            "Ti" => Self::Binary(40),
            "Pi" => Self::Binary(50),
            "Ei" => Self::Binary(60),
            _ => {
                let exponent = suffix.strip_prefix(['e', 'E'])?;
                let exponent: i32 = exponent.parse().ok()?;
                if !(-18..=18).contains(&exponent) {
                    return None;
                }
                Self::Decimal(exponent)
            }
        })
    }

    /// Billionths of `mantissa / 10^fraction_digits * scale`, rounded up.
    fn apply(&self, mantissa: i128, fraction_digits: u32) -> Option<i128> {
        let ten = |power: u32| 10i128.checked_pow(power);
        match *self {
            Self::Decimal(exponent) => {
                let power = exponent + 9 - fraction_digits as i32;
                if power >= 0 {
                    mantissa.checked_mul(ten(power as u32)?)
                } else {
                    Some(div_ceil(mantissa, ten(power.unsigned_abs())?))
                }
            }
            Self::Binary(bits) => {
                let product = mantissa.checked_mul(1i128 << bits)?;
                match product.checked_mul(NANO) {
                    Some(nanos) => Some(div_ceil(nanos, ten(fraction_digits)?)),
                    None => div_ceil(product, ten(fraction_digits)?).checked_mul(NANO),
                }
            }
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.text.is_empty() { "0" } else { &self.text })
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Manifests write both `cpu: "1"` and `cpu: 1`.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            Number(serde_json::Number),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Text(text) => text,
            Written::Number(number) => number.to_string(),
        };
        Self::parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$': {text:?}"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Quantity;

    #[test]
    fn reads_every_suffix() {
        for (text, milli) in [
            ("0", 0),
            ("100m", 100),
            ("1", 1000),
            ("1.5", 1500),
            ("2k", 2_000_000),
            ("1e3", 1_000_000),
            ("1Ki", 1_024_000),
            ("0.5Mi", 524_288_000),
            ("1n", 1),
            ("-2", -2000),
            (".5", 500),
        ] {
            assert_eq!(Quantity::parse(text).map(|q| q.milli()), Some(milli), "{text}");
        }
        assert_eq!(Quantity::parse("1Gi").map(|q| q.value()), Some(1 << 30));
        assert_eq!(Quantity::parse("7Ei").map(|q| q.value()), Some(7 << 60));
    }

    #[test]
    fn refuses_what_is_no_quantity() {
        for text in ["", "m", "1 Gi", "1.2.3", "1Kb", "--1", "1e99"] {
            assert!(Quantity::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn prints_what_was_written() {
        assert_eq!(Quantity::parse("0.5").expect("parses").to_string(), "0.5");
        assert_eq!(Quantity::from_milli(1500).to_string(), "1500m");
        assert_eq!(Quantity::from_bytes(3 << 20).to_string(), "3Mi");
    }
}

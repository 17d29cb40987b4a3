//! Texts that upstream rewrites on reading: quantities come out canonical, times in UTC,
//! binary data is checked.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use skiff_proto::{Quantity, Timestamp};

/// A quantity as upstream prints it: `0.5` is `500m`, `1024Mi` is `1Gi`, `1000m` is `1`.
pub fn canonical_quantity(text: &str) -> Result<String, String> {
    if let Some(text) = plain_quantity(text) {
        return Ok(text.to_owned());
    }
    if Quantity::parse(text).is_none() {
        let syntax = text.is_empty()
            || !text
                .trim_start_matches(['+', '-'])
                .starts_with(|c: char| c.is_ascii_digit() || c == '.');
        return Err(if syntax {
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'".to_owned()
        } else {
            "unable to parse quantity's suffix".to_owned()
        });
    }
    let (sign, digits, suffix) = split(text);
    Ok(match suffix {
        "Ki" | "Mi" | "Gi" | "Ti" | "Pi" | "Ei" => binary(sign, digits, suffix),
        _ => decimal(sign, digits, suffix),
    }
    .unwrap_or_else(|| text.to_owned()))
}

/// The common case at no cost: a whole number without leading zeros that needs no rewriting.
fn plain_quantity(text: &str) -> Option<&str> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.is_empty();
    if !number || digits.starts_with('0') || digits.len() > 15 {
        return (text == "0").then_some(text);
    }
    let value: u64 = digits.parse().ok()?;
    let canonical = match &text[digits.len()..] {
        "" | "m" | "k" | "M" | "G" | "T" => !value.is_multiple_of(1000),
        "Ki" | "Mi" | "Gi" | "Ti" => !value.is_multiple_of(1024),
        _ => false,
    };
    canonical.then_some(text)
}

fn split(text: &str) -> (&str, &str, &str) {
    let (sign, rest) = match text.as_bytes().first() {
        Some(b'-') => ("-", &text[1..]),
        Some(b'+') => ("", &text[1..]),
        _ => ("", text),
    };
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    (sign, &rest[..end], &rest[end..])
}

/// `digits` as a whole number and the power of ten it is to be multiplied with, without
/// trailing zeros.
fn mantissa(digits: &str) -> Option<(i128, i32)> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let mut number: i128 = format!("{whole}{fraction}").parse().ok()?;
    let mut power = -i32::try_from(fraction.len()).ok()?;
    while number != 0 && number % 10 == 0 {
        number /= 10;
        power += 1;
    }
    Some(if number == 0 { (0, 0) } else { (number, power) })
}

fn decimal(sign: &str, digits: &str, suffix: &str) -> Option<String> {
    const SUFFIXES: [(&str, i32); 10] = [
        ("n", -9),
        ("u", -6),
        ("m", -3),
        ("", 0),
        ("k", 3),
        ("M", 6),
        ("G", 9),
        ("T", 12),
        ("P", 15),
        ("E", 18),
    ];
    let (number, mut power) = mantissa(digits)?;
    if number == 0 {
        return Some("0".to_owned());
    }
    let known = SUFFIXES.iter().find(|(name, _)| *name == suffix);
    let exponential = known.is_none();
    power += match known {
        Some((_, power)) => *power,
        None => suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?,
    };
    if power < -9 {
        // Finer than a billionth: rounded up.
        let unit = 10i128.checked_pow(power.checked_add(9)?.unsigned_abs())?;
        let rounded = (number + unit - 1) / unit;
        return decimal(sign, &rounded.to_string(), "n");
    }
    let mut aligned = power.div_euclid(3) * 3;
    if !exponential {
        aligned = aligned.min(18);
    }
    let scaled = number.checked_mul(10i128.checked_pow((power - aligned).unsigned_abs())?)?;
    if exponential {
        return Some(match aligned {
            0 => format!("{sign}{scaled}"),
            aligned => format!("{sign}{scaled}e{aligned}"),
        });
    }
    let name = SUFFIXES.iter().find(|(_, power)| *power == aligned)?.0;
    Some(format!("{sign}{scaled}{name}"))
}

fn binary(sign: &str, digits: &str, suffix: &str) -> Option<String> {
    const SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let level = SUFFIXES.iter().position(|s| *s == suffix)?;
    let (number, power) = mantissa(digits)?;
    let mut product = number.checked_mul(1i128 << (10 * level))?;
    if power >= 0 {
        product = product.checked_mul(10i128.checked_pow(power.unsigned_abs())?)?;
    } else {
        let unit = 10i128.checked_pow(power.unsigned_abs())?;
        if product % unit != 0 || product / unit < 1024 {
            // What is no whole number of bytes, or less than 1Ki, prints as a decimal.
            let thousandths = product.checked_mul(1000)?;
            return decimal(sign, &((thousandths + unit - 1) / unit).to_string(), "m");
        }
        product /= unit;
    }
    if product < 1024 {
        return decimal(sign, &product.to_string(), "");
    }
    let mut level = 0;
    while product % 1024 == 0 && level + 1 < SUFFIXES.len() {
        product /= 1024;
        level += 1;
    }
    Some(format!("{sign}{product}{}", SUFFIXES[level]))
}

/// A `metav1.Time`: whole seconds, UTC.
pub(super) fn canonical_time(text: &str) -> Result<String, String> {
    // Most times come from ourselves and are canonical already.
    let time =
        Timestamp::parse(text).ok_or_else(|| time_error(text, "2006-01-02T15:04:05Z07:00"))?;
    Ok(Timestamp::from_unix(time.unix()).unwrap_or(time).to_string())
}

/// A `metav1.MicroTime`: always six digits of the second.
pub(super) fn canonical_micro_time(text: &str) -> Result<String, String> {
    let time = Timestamp::parse(text)
        .ok_or_else(|| time_error(text, "2006-01-02T15:04:05.000000Z07:00"))?;
    let printed = time.to_string();
    Ok(match printed.strip_suffix('Z') {
        Some(whole) if !whole.contains('.') => format!("{whole}.000000Z"),
        _ => printed,
    })
}

fn time_error(text: &str, layout: &str) -> String {
    format!("parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\"")
}

/// Base64 text is stored as it came once it is known to be whole.
pub(super) fn check_base64(text: &str) -> Result<(), String> {
    match STANDARD.decode(text) {
        Ok(_) => Ok(()),
        Err(error) => {
            let at = match error {
                base64::DecodeError::InvalidByte(at, _)
                | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => {
                    text.len() / 4 * 4
                }
            };
            Err(format!("illegal base64 data at input byte {at}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_come_out_canonical() {
        for (text, expected) in [
            ("0", "0"),
            ("0.5", "500m"),
            ("1", "1"),
            ("100m", "100m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1000", "1k"),
            ("1024", "1024"),
            ("2000k", "2M"),
            ("128Mi", "128Mi"),
            ("1024Mi", "1Gi"),
            ("1536Mi", "1536Mi"),
            ("0.5Gi", "512Mi"),
            ("0.5Mi", "512Ki"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("1e3", "1e3"),
            ("12e6", "12e6"),
            ("1E", "1E"),
            ("1.1", "1100m"),
            ("-1500m", "-1500m"),
            ("010", "10"),
            ("0Mi", "0"),
            (".25", "250m"),
            ("1n", "1n"),
        ] {
            assert_eq!(canonical_quantity(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_quantity() {
        assert!(canonical_quantity("lots").is_err_and(|e| e.starts_with("quantities must match")));
        assert_eq!(canonical_quantity("1Kb"), Err("unable to parse quantity's suffix".into()));
    }

    #[test]
    fn times_come_out_in_utc() {
        let time = canonical_time("2024-03-01T01:59:59.5+02:00");
        assert_eq!(time.as_deref(), Ok("2024-02-29T23:59:59Z"));
        let micro = canonical_micro_time("2024-02-29T23:59:59Z");
        assert_eq!(micro.as_deref(), Ok("2024-02-29T23:59:59.000000Z"));
        assert_eq!(
            canonical_time("yesterday"),
            Err("parsing time \"yesterday\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"yesterday\" as \"2006\"".into())
        );
    }

    #[test]
    fn base64_is_checked() {
        assert_eq!(check_base64("aGk="), Ok(()));
        assert_eq!(check_base64("aG!="), Err("illegal base64 data at input byte 2".into()));
    }
}

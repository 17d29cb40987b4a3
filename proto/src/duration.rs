//! Ages as kubectl prints them.

use std::time::Duration;

/// `HumanDuration` of upstream's `k8s.io/apimachinery/pkg/util/duration`: at most two units,
/// with less detail the longer it is.
pub fn human(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    let two = |a: u64, ua: &str, b: u64, ub: &str| {
        if b == 0 { format!("{a}{ua}") } else { format!("{a}{ua}{b}{ub}") }
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::human;
    use std::time::Duration;

    #[test]
    fn follows_upstream_table() {
        let day = 86_400;
        for (seconds, expected) in [
            (0, "0s"),
            (70, "70s"),
            (119, "119s"),
            (120, "2m"),
            (190, "3m10s"),
            (600, "10m"),
            (47 * 60, "47m"),
            (182 * 60, "3h2m"),
            (23 * 3600, "23h"),
            (49 * 3600, "2d1h"),
            (4 * day, "4d"),
            (187 * day, "187d"),
            (2 * 365 * day + day, "2y1d"),
            (23 * 365 * day, "23y"),
        ] {
            assert_eq!(human(Duration::from_secs(seconds)), expected);
        }
    }
}

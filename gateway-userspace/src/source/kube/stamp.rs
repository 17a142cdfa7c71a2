//! Times as the Kubernetes API writes them: RFC 3339 in UTC.

use std::time::{Duration, SystemTime};

/// Now, in seconds (`metav1.Time`).
pub fn now() -> String {
    format!("{}Z", seconds(since_epoch().as_secs()))
}

/// Now, in microseconds (`metav1.MicroTime`).
pub fn now_micros() -> String {
    let now = since_epoch();
    format!("{}.{:06}Z", seconds(now.as_secs()), now.subsec_micros())
}

fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

fn seconds(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days from civil, backwards, with years that begin in March: the day that leap years add is then their last.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_written_as_the_api_writes_it() {
        let rows = [
            (0, "1970-01-01T00:00:00"),
            (951_782_400, "2000-02-29T00:00:00"),
            (1_795_280_812, "2026-11-21T17:06:52"),
            (4_102_444_799, "2099-12-31T23:59:59"),
        ];
        for (at, text) in rows {
            assert_eq!(seconds(at), text);
        }
        let (short, long) = (now(), now_micros());
        assert_eq!((short.len(), long.len()), (20, 27), "{short} {long}");
    }
}

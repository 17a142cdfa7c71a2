//! RFC 3339 timestamps in UTC, with milliseconds; the second's text is kept from line to line.

/// Writes timestamps.
#[derive(Debug, Default)]
pub struct Timestamps {
    second: Option<u64>,
    text: String,
}

impl Timestamps {
    /// `2026-11-21T10:11:12.345Z` for milliseconds since the Unix epoch.
    pub fn rfc3339(&mut self, unix_millis: u64) -> &str {
        use std::fmt::Write;
        let (second, milli) = (unix_millis / 1000, unix_millis % 1000);
        if self.second != Some(second) {
            self.second = Some(second);
            self.text.clear();
            let (year, month, day) = civil(second / 86_400);
            let (hour, minute, second) = (second / 3600 % 24, second / 60 % 60, second % 60);
            write!(
                self.text,
                "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}."
            )
            .expect("writing to a string does not fail");
        }
        self.text.truncate(SECOND_BYTES);
        write!(self.text, "{milli:03}Z").expect("writing to a string does not fail");
        &self.text
    }
}

/// `YYYY-MM-DDThh:mm:ss.`
const SECOND_BYTES: usize = 20;

/// Year, month and day of a number of days since 1970-01-01 (H. Hinnant, "chrono-compatible low-level date
/// algorithms", `civil_from_days`, for days that are not negative).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_read_as_date_prints_them() {
        let mut stamps = Timestamps::default();
        assert_eq!(stamps.rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(stamps.rfc3339(1_709_210_096_007), "2024-02-29T12:34:56.007Z");
        assert_eq!(stamps.rfc3339(1_709_210_096_999), "2024-02-29T12:34:56.999Z");
        assert_eq!(stamps.rfc3339(4_102_444_800_000), "2100-01-01T00:00:00.000Z");
        assert_eq!(stamps.rfc3339(951_782_399_999), "2000-02-28T23:59:59.999Z");
    }
}

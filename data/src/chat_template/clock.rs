//! The time a template asks for, which the caller hands in.

/// A moment as its parts, in whatever time zone the caller means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Year, such as 2026.
    pub year: i32,
    /// Month from 1.
    pub month: u8,
    /// Day of the month from 1.
    pub day: u8,
    /// Hour from 0.
    pub hour: u8,
    /// Minute from 0.
    pub minute: u8,
    /// Second from 0.
    pub second: u8,
}

const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

impl Moment {
    /// The moment this many seconds after the beginning of 1970, in UTC.
    pub fn from_unix(seconds: i64) -> Moment {
        let (days, within) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // Howard Hinnant, "chrono-compatible low-level date algorithms": years begin in March, in eras of 400 years.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        Moment {
            year: (year_of_era + era * 400 + i64::from(month <= 2)) as i32,
            month: month as u8,
            day: (day_of_year - (153 * from_march + 2) / 5 + 1) as u8,
            hour: (within / 3600) as u8,
            minute: (within / 60 % 60) as u8,
            second: (within % 60) as u8,
        }
    }

    /// Days since the beginning of 1970.
    fn days(self) -> i64 {
        let year = i64::from(self.year) - i64::from(self.month <= 2);
        let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let from_march = (i64::from(self.month) + 9) % 12;
        let day_of_year = (153 * from_march + 2) / 5 + i64::from(self.day) - 1;
        era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
    }

    fn day_of_year(self) -> i64 {
        self.days() - Moment { month: 1, day: 1, ..self }.days() + 1
    }

    /// `strftime` of the C locale; `None` where `format` asks for what a moment does not say.
    pub(super) fn format(self, format: &str) -> Option<String> {
        let weekday = WEEKDAYS[(self.days() + 3).rem_euclid(7) as usize];
        let month = MONTHS[usize::from(self.month.clamp(1, 12)) - 1];
        let half = if self.hour < 12 { "AM" } else { "PM" };
        let hour = (self.hour % 24 + 11) % 12 + 1;
        let mut out = String::new();
        let mut characters = format.chars();
        while let Some(character) = characters.next() {
            if character != '%' {
                out.push(character);
                continue;
            }
            let directive = characters.next()?;
            // `%-d` is glibc's `%d` without its zero.
            let (bare, directive) = if directive == '-' { (true, characters.next()?) } else { (false, directive) };
            let text = match directive {
                'd' => format!("{:02}", self.day),
                'e' => format!("{:2}", self.day),
                'm' => format!("{:02}", self.month),
                'Y' => self.year.to_string(),
                'y' => format!("{:02}", self.year.rem_euclid(100)),
                'H' => format!("{:02}", self.hour),
                'I' => format!("{hour:02}"),
                'M' => format!("{:02}", self.minute),
                'S' => format!("{:02}", self.second),
                'p' => half.to_owned(),
                'j' => format!("{:03}", self.day_of_year()),
                'A' => weekday.to_owned(),
                'a' => weekday[..3].to_owned(),
                'B' => month.to_owned(),
                'b' | 'h' => month[..3].to_owned(),
                'F' => self.format("%Y-%m-%d")?,
                'T' | 'X' => self.format("%H:%M:%S")?,
                'R' => self.format("%H:%M")?,
                'D' | 'x' => self.format("%m/%d/%y")?,
                'c' => self.format("%a %b %e %H:%M:%S %Y")?,
                'n' => "\n".to_owned(),
                't' => "\t".to_owned(),
                '%' => "%".to_owned(),
                _ => return None,
            };
            let trimmed = text.trim_start_matches(['0', ' ']);
            out.push_str(match (bare, trimmed) {
                (true, "") => "0",
                (true, trimmed) => trimmed,
                (false, _) => &text,
            });
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_strftime_does() {
        let moment = Moment { year: 2024, month: 7, day: 6, hour: 0, minute: 5, second: 9 };
        for (format, expected) in [
            ("%d %b %Y", "06 Jul 2024"),
            ("%Y-%m-%d", "2024-07-06"),
            ("%B %-d, %y", "July 6, 24"),
            ("%A %a %j %I:%M:%S %p", "Saturday Sat 188 12:05:09 AM"),
            ("%F %T %%", "2024-07-06 00:05:09 %"),
            ("%-H %-M", "0 5"),
            ("%c", "Sat Jul  6 00:05:09 2024"),
        ] {
            assert_eq!(moment.format(format).as_deref(), Some(expected));
        }
        assert_eq!((moment.format("%Q"), moment.format("%")), (None, None));
    }

    #[test]
    fn unix_time_is_counted_back_and_forth() {
        assert_eq!(
            Moment::from_unix(951_782_400),
            Moment { year: 2000, month: 2, day: 29, hour: 0, minute: 0, second: 0 }
        );
        assert_eq!(
            Moment::from_unix(-1),
            Moment { year: 1969, month: 12, day: 31, hour: 23, minute: 59, second: 59 }
        );
        for days in (-200_000..200_000).step_by(37) {
            assert_eq!(Moment::from_unix(days * 86_400).days(), days);
        }
    }
}

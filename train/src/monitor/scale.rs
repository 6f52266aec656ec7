//! Axes: round numbers where marks stand, and numbers as short text with a unit

/// What a curve counts, and how its numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A number of its own, such as a loss.
    Plain,
    /// A number that may be tiny, such as a learning rate.
    Small,
    /// A count that may be large: 41.2k.
    Count,
    /// Bytes in units of 1024.
    Bytes,
    /// A share of 1 as percent.
    Share,
}

impl Unit {
    /// The number with its unit, in at most eight characters for what occurs: `1.834`, `3.0e-4`, `41.2k`, `1.2 GiB`.
    pub fn write(self, value: f64) -> String {
        match self {
            Unit::Plain => plain(value),
            Unit::Small if value == 0.0 => "0".into(),
            Unit::Small => format!("{value:.2e}"),
            Unit::Count => {
                let (scaled, prefix) = si(value);
                format!("{}{prefix}", trimmed(scaled, digits_after(scaled)))
            }
            Unit::Bytes => {
                let (divisor, name) = bytes(value);
                let scaled = value / divisor;
                format!("{} {name}", trimmed(scaled, digits_after(scaled)))
            }
            Unit::Share => format!("{:.1}%", value * 100.0),
        }
    }

    /// The number at a mark of an axis whose marks are `apart` from each other.
    fn mark(self, value: f64, apart: f64, greatest: f64) -> String {
        match self {
            Unit::Plain if greatest < 1e5 && (greatest >= 1e-3 || greatest == 0.0) => fixed(value, apart),
            Unit::Plain | Unit::Small if value == 0.0 => "0".into(),
            Unit::Plain | Unit::Small => {
                // As many digits as tell neighbours apart.
                let digits = (value.abs().log10().floor() - apart.log10().floor()).clamp(0.0, 6.0) as usize;
                format!("{value:.digits$e}")
            }
            Unit::Count => {
                let (scaled, prefix) = si(greatest);
                let divisor = greatest / scaled;
                match value == 0.0 || !divisor.is_finite() {
                    true => "0".into(),
                    false => format!("{}{prefix}", fixed(value / divisor, apart / divisor)),
                }
            }
            Unit::Bytes => {
                let (divisor, name) = bytes(greatest);
                format!("{} {name}", fixed(value / divisor, apart / divisor))
            }
            Unit::Share => format!("{}%", fixed(value * 100.0, apart * 100.0)),
        }
    }

    /// The distance of round marks: 1, 2 or 5 times a power of ten, in the unit that is shown.
    fn round_up(self, distance: f64, greatest: f64) -> f64 {
        match self {
            Unit::Bytes => {
                let (divisor, _) = bytes(greatest);
                divisor * round_up(distance / divisor)
            }
            _ => round_up(distance),
        }
    }
}

/// Below it, numbers lose digits and their logarithms mean nothing.
const LEAST_LOGARITHMIC: f64 = 1e-250;

/// The part of a line that a chart shows, linear or logarithmic.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Axis {
    min: f64,
    max: f64,
    log: bool,
    unit: Unit,
}

/// A mark: its place in [0, 1] and what stands there.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    /// 0 at the least value, 1 at the greatest.
    pub place: f64,
    /// The number.
    pub text: String,
}

impl Axis {
    /// An axis from `min` to `max` exactly; `log` holds where `min` is above 0.
    pub fn exact(min: f64, max: f64, log: bool, unit: Unit) -> Self {
        let min = if min.is_finite() { min } else { 0.0 };
        let max = if max.is_finite() && max > min { max } else { min + min.abs().max(1.0) * 0.1 };
        Axis { min, max, log: log && min > LEAST_LOGARITHMIC, unit }
    }

    /// An axis that shows `min` to `max` with some room on both sides.
    pub fn around(min: f64, max: f64, log: bool, unit: Unit) -> Self {
        let log = log && min > 2.0 * LEAST_LOGARITHMIC;
        if !(min.is_finite() && max.is_finite()) {
            return Self::exact(0.0, 1.0, false, unit);
        }
        if log {
            let room = (max / min).powf(0.05).max(1.05);
            return Self::exact(min / room, max * room, true, unit);
        }
        let same = if min == 0.0 { 1.0 } else { min.abs() * 0.1 };
        let room = if max > min { (max - min) * 0.05 } else { same };
        // Nothing counted here goes below 0 by itself, so neither does the axis.
        let least = if min >= 0.0 { (min - room).max(0.0) } else { min - room };
        Self::exact(least, max + room, false, unit)
    }

    /// Where a value stands: 0 at the least, 1 at the greatest; beyond the ends outside [0, 1].
    pub fn place(&self, value: f64) -> f64 {
        if !self.log {
            return (value - self.min) / (self.max - self.min);
        }
        // Below every positive number there is no logarithm; such a value lies far below the axis.
        let value = value.max(f64::MIN_POSITIVE);
        // Differences of logarithms: a quotient of extremes would overflow.
        (value.ln() - self.min.ln()) / (self.max.ln() - self.min.ln())
    }

    /// At most `most` marks at round numbers, in rising order.
    pub fn marks(&self, most: usize) -> Vec<Mark> {
        if most == 0 {
            return Vec::new();
        }
        if self.log && self.max / self.min > 5.0 {
            return self.log_marks(most);
        }
        let greatest = self.max.abs().max(self.min.abs());
        let mut apart = self.unit.round_up((self.max - self.min) / most as f64, greatest);
        let count = |apart: f64| (self.max / apart).floor() - (self.min / apart).ceil() + 1.0;
        while count(apart) > most as f64 {
            apart = self.unit.round_up(apart * 1.5, greatest);
        }
        let first = (self.min / apart).ceil();
        let values = (0..most).map(|i| (first + i as f64) * apart).take_while(|value| *value <= self.max);
        values.map(|value| self.mark(value, apart, greatest)).collect()
    }

    fn log_marks(&self, most: usize) -> Vec<Mark> {
        let (low, high) = (self.min.log10().floor() as i32, self.max.log10().ceil() as i32);
        let inside = |factors: &'static [f64], every: usize| -> Vec<f64> {
            let decades = (low..=high).step_by(every);
            let values = decades.flat_map(|power| factors.iter().map(move |factor| factor * 10f64.powi(power)));
            values.filter(|value| (self.min..=self.max).contains(value)).collect()
        };
        let mut values = inside(&[1.0, 2.0, 5.0], 1);
        for every in 1.. {
            if values.len() <= most {
                break;
            }
            values = inside(&[1.0], every);
        }
        values.iter().map(|&value| self.mark(value, value, value)).collect()
    }

    fn mark(&self, value: f64, apart: f64, greatest: f64) -> Mark {
        // What rounding leaves of 0.
        let value = if value.abs() < apart * 1e-9 { 0.0 } else { value };
        Mark { place: self.place(value), text: self.unit.mark(value, apart, greatest) }
    }
}

/// The least of 1, 2, 5, 10, ... times a power of ten that is not below `distance`.
fn round_up(distance: f64) -> f64 {
    let power = 10f64.powf(distance.max(f64::MIN_POSITIVE).log10().floor());
    // The last is for distances that rounding put a hair above ten.
    [1.0, 2.0, 5.0, 10.0, 20.0].into_iter().map(|m| m * power).find(|m| *m >= distance).unwrap_or(distance)
}

/// A number as it tells its neighbours at distance `apart` from itself.
fn fixed(value: f64, apart: f64) -> String {
    let digits = (-apart.log10().floor()).clamp(0.0, 9.0) as usize;
    format!("{value:.digits$}")
}

fn plain(value: f64) -> String {
    match value.abs() {
        size if size == 0.0 || (1e-3..1e5).contains(&size) => {
            let digits = if size < 1.0 { 4 } else { digits_after(value) + 1 };
            trimmed(value, digits)
        }
        _ => format!("{value:.2e}"),
    }
}

/// Digits behind the point for three that count.
fn digits_after(value: f64) -> usize {
    match value.abs() {
        size if size < 10.0 => 2,
        size if size < 100.0 => 1,
        _ => 0,
    }
}

/// Whole numbers without a point.
fn trimmed(value: f64, digits: usize) -> String {
    match value.fract() == 0.0 {
        true => format!("{value:.0}"),
        false => format!("{value:.digits$}"),
    }
}

fn si(value: f64) -> (f64, &'static str) {
    match value.abs() {
        size if size >= 1e12 => (value / 1e12, "T"),
        size if size >= 1e9 => (value / 1e9, "G"),
        size if size >= 1e6 => (value / 1e6, "M"),
        // Four digits are short enough as they are.
        size if size >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    }
}

fn bytes(value: f64) -> (f64, &'static str) {
    const KIB: f64 = 1024.0;
    match value.abs() {
        size if size >= KIB.powi(4) => (KIB.powi(4), "TiB"),
        size if size >= KIB.powi(3) => (KIB.powi(3), "GiB"),
        size if size >= KIB.powi(2) => (KIB.powi(2), "MiB"),
        size if size >= KIB => (KIB, "KiB"),
        _ => (1.0, "B"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(axis: Axis, most: usize) -> Vec<String> {
        axis.marks(most).into_iter().map(|mark| mark.text).collect()
    }

    #[test]
    fn marks_stand_at_round_numbers() {
        assert_eq!(texts(Axis::exact(0.0, 2000.0, false, Unit::Count), 6), ["0", "500", "1000", "1500", "2000"]);
        assert_eq!(texts(Axis::exact(1.43, 4.31, false, Unit::Plain), 4), ["2", "3", "4"]);
        assert_eq!(texts(Axis::exact(0.0, 6.1e-4, false, Unit::Small), 4), ["0", "2e-4", "4e-4", "6e-4"]);
        assert_eq!(
            texts(Axis::exact(1e-4, 2e1, true, Unit::Plain), 6),
            ["1e-4", "0.001", "0.01", "0.1", "1", "10"]
        );
        assert_eq!(texts(Axis::exact(1.5, 11.0, true, Unit::Plain), 6), ["2", "5", "10"]);
        let gib = 1024f64.powi(3);
        assert_eq!(texts(Axis::exact(0.0, 2.0 * gib, false, Unit::Bytes), 3), ["0 GiB", "1 GiB", "2 GiB"]);
        assert_eq!(texts(Axis::exact(0.0, 0.5, false, Unit::Share), 3), ["0%", "20%", "40%"]);
    }

    #[test]
    fn numbers_are_short_and_have_units() {
        for (unit, value, expected) in [
            (Unit::Plain, 1.83412, "1.834"),
            (Unit::Plain, 12.345, "12.35"),
            (Unit::Plain, 0.01234, "0.0123"),
            (Unit::Plain, 0.0, "0"),
            (Unit::Small, 3e-4, "3.00e-4"),
            (Unit::Count, 41_234.0, "41.2k"),
            (Unit::Count, 999.0, "999"),
            (Unit::Count, 1_066_112.0, "1.07M"),
            (Unit::Bytes, 1_310_000_000.0, "1.22 GiB"),
            (Unit::Share, 0.384, "38.4%"),
        ] {
            assert_eq!(unit.write(value), expected);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn any_numbers_give_few_marks_inside(
            a in any::<f64>(), b in any::<f64>(), log in any::<bool>(), exact in any::<bool>(),
            most in 0usize..12, unit in 0usize..5
        ) {
            let unit = [Unit::Plain, Unit::Small, Unit::Count, Unit::Bytes, Unit::Share][unit];
            let axis = if exact { Axis::exact(a, b, log, unit) } else { Axis::around(a, b, log, unit) };
            let marks = axis.marks(most);
            prop_assert!(marks.len() <= most);
            for mark in marks {
                prop_assert!((-1e-6..=1.0 + 1e-6).contains(&mark.place), "{:?} {:?}", axis, mark);
            }
            let _ = (unit.write(a), unit.write(b));
        }
    }
}

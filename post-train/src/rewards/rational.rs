//! Exact fractions of 128-bit integers, and the arithmetic that people write with them.

/// A fraction in lowest terms; the denominator is positive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rational {
    numerator: i128,
    denominator: i128,
}

/// Parentheses and signs within one another at most.
const DEPTH: usize = 64;
/// Exponents at most.
const EXPONENT: i128 = 128;

impl Rational {
    fn new(numerator: i128, denominator: i128) -> Option<Rational> {
        let divisor = divisor(numerator.checked_abs()?, denominator.checked_abs()?);
        if denominator == 0 {
            return None;
        }
        let sign = denominator.signum();
        Some(Rational { numerator: sign * numerator / divisor, denominator: sign * denominator / divisor })
    }

    fn add(self, other: Rational) -> Option<Rational> {
        let left = self.numerator.checked_mul(other.denominator)?;
        let right = other.numerator.checked_mul(self.denominator)?;
        Rational::new(left.checked_add(right)?, self.denominator.checked_mul(other.denominator)?)
    }

    fn negated(self) -> Option<Rational> {
        Rational::new(self.numerator.checked_neg()?, self.denominator)
    }

    fn times(self, other: Rational) -> Option<Rational> {
        let numerator = self.numerator.checked_mul(other.numerator)?;
        Rational::new(numerator, self.denominator.checked_mul(other.denominator)?)
    }

    fn inverse(self) -> Option<Rational> {
        Rational::new(self.denominator, self.numerator)
    }

    fn power(self, exponent: Rational) -> Option<Rational> {
        let n =
            (exponent.denominator == 1 && exponent.numerator.abs() <= EXPONENT).then_some(exponent.numerator)?;
        let base = if n < 0 { self.inverse()? } else { self };
        let one = Rational { numerator: 1, denominator: 1 };
        (0..n.abs()).try_fold(one, |product, _| product.times(base))
    }

    /// The nearest double.
    pub(super) fn to_f64(self) -> f64 {
        self.numerator as f64 / self.denominator as f64
    }
}

fn divisor(a: i128, b: i128) -> i128 {
    if b == 0 { a.max(1) } else { divisor(b, a % b) }
}

/// The value of an expression of numbers, `+ - * / ^`, their typographic forms, and parentheses. `None` for anything
/// else, a division by zero, and what does not fit 128 bits.
pub(super) fn evaluate(text: &str) -> Option<Rational> {
    let mut reader = Reader { rest: text.trim(), depth: 0 };
    let value = reader.sum()?;
    reader.rest.trim_start().is_empty().then_some(value)
}

/// The number at the start of `text` and what follows it: an optional sign and currency, digits with or without
/// thousands separators, decimals.
pub(super) fn leading_number(text: &str) -> Option<(Rational, &str)> {
    let rest = text.trim_start();
    let (negative, rest) = match rest.strip_prefix(['-', '−']) {
        Some(rest) => (true, rest.trim_start()),
        None => (false, rest.strip_prefix('+').unwrap_or(rest)),
    };
    let mut reader = Reader { rest: rest.strip_prefix(['$', '€', '£']).unwrap_or(rest), depth: 0 };
    let value = reader.number()?;
    Some((if negative { value.negated()? } else { value }, reader.rest))
}

/// The last number in `text`, its sign included where no other number or word stands right before it. `None` where
/// there is none, or it does not fit 128 bits.
pub(super) fn last_number(text: &str) -> Option<Rational> {
    let (mut found, mut rest, mut before) = (None, text, ' ');
    while let Some(c) = rest.chars().next() {
        let signed = matches!(c, '-' | '−') && !before.is_alphanumeric();
        let starts = c.is_ascii_digit() || (c == '.' && !before.is_alphanumeric()) || signed;
        let number = starts.then(|| leading_number(rest)).flatten().filter(|_| {
            // A sign belongs to the digits right behind it.
            !signed || rest[c.len_utf8()..].starts_with(|d: char| d.is_ascii_digit() || ".$€£".contains(d))
        });
        match number {
            Some((value, after)) => {
                found = Some(value);
                before = '0';
                rest = after;
            }
            None if c.is_ascii_digit() => {
                (found, before) = (None, c);
                rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            }
            None => {
                before = c;
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    found
}

struct Reader<'a> {
    rest: &'a str,
    depth: usize,
}

impl Reader<'_> {
    fn take(&mut self, symbols: &[&str]) -> bool {
        let rest = self.rest.trim_start();
        let after = symbols.iter().find_map(|symbol| rest.strip_prefix(symbol));
        if let Some(after) = after {
            self.rest = after;
        }
        after.is_some()
    }

    fn sum(&mut self) -> Option<Rational> {
        let mut value = self.product()?;
        loop {
            if self.take(&["+"]) {
                value = value.add(self.product()?)?;
            } else if self.take(&["-", "−"]) {
                value = value.add(self.product()?.negated()?)?;
            } else {
                return Some(value);
            }
        }
    }

    fn product(&mut self) -> Option<Rational> {
        let mut value = self.signed()?;
        loop {
            // `**` is a power and was read with the factor before.
            if self.take(&["*", "×", "·"]) {
                value = value.times(self.signed()?)?;
            } else if self.take(&["/", "÷"]) {
                value = value.times(self.signed()?.inverse()?)?;
            } else {
                return Some(value);
            }
        }
    }

    /// A sign binds weaker than a power: `-2^2` is -4.
    fn signed(&mut self) -> Option<Rational> {
        self.nested(|reader| {
            if reader.take(&["-", "−"]) {
                return reader.signed()?.negated();
            }
            if reader.take(&["+"]) {
                return reader.signed();
            }
            let base = reader.atom()?;
            match reader.take(&["**", "^"]) {
                true => base.power(reader.signed()?),
                false => Some(base),
            }
        })
    }

    fn atom(&mut self) -> Option<Rational> {
        if self.take(&["("]) {
            let value = self.sum()?;
            return self.take(&[")"]).then_some(value);
        }
        self.take(&["$", "€", "£"]);
        self.rest = self.rest.trim_start();
        self.number()
    }

    fn nested(&mut self, read: impl FnOnce(&mut Self) -> Option<Rational>) -> Option<Rational> {
        self.depth += 1;
        let value = if self.depth <= DEPTH { read(self) } else { None };
        self.depth -= 1;
        value
    }

    /// Digits, `1,234`, `.5`, `2.50`.
    fn number(&mut self) -> Option<Rational> {
        let whole = self.digits_with_separators();
        let fraction = match self.rest.strip_prefix('.') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_digit()) => {
                let n = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                self.rest = &rest[n..];
                &rest[..n]
            }
            _ => "",
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let fraction = fraction.trim_end_matches('0');
        let scale = 10i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        Rational::new(format!("0{whole}{fraction}").parse().ok()?, scale)
    }

    /// A comma counts as a separator only between a digit and exactly three more.
    fn digits_with_separators(&mut self) -> String {
        let mut digits = String::new();
        loop {
            let n = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
            digits.push_str(&self.rest[..n]);
            self.rest = &self.rest[n..];
            let group = self.rest.strip_prefix(',').filter(|_| !digits.is_empty());
            let three = |group: &&str| group.chars().take_while(char::is_ascii_digit).count() == 3;
            match group.filter(three) {
                Some(group) => self.rest = group,
                None => return digits,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, numerator: i128, denominator: i128) {
        let expected = Rational::new(numerator, denominator).unwrap();
        assert_eq!(evaluate(text), Some(expected), "{text}");
    }

    #[test]
    fn expressions_are_exact() {
        check("42", 42, 1);
        check(" 1/3 + 1/6 ", 1, 2);
        check("0.1+0.2", 3, 10);
        check("-2^2", -4, 1);
        check("2^-2", 1, 4);
        check("2**3*2", 16, 1);
        check("(1 + 2) × 3 − 4 ÷ 8", 17, 2);
        check("8-3-2", 3, 1);
        check("8/4/2", 1, 1);
        check("1,234,567.50", 2_469_135, 2);
        check("$1,000 - $1", 999, 1);
        check("--3", 3, 1);
        check(".50", 1, 2);
        check("0.000", 0, 1);
        check("007", 7, 1);
    }

    #[test]
    fn what_is_no_expression_has_no_value() {
        let long = "9".repeat(40);
        let deep = format!("{}1{}", "(".repeat(500), ")".repeat(500));
        let signs = "-".repeat(100_000) + "1";
        for text in [
            "", " ", "x", "1 2", "1/0", "1/(2-2)", "(1", "1)", "1+", "*1", "1,23", "1,2345", "2^0.5", "2^1000",
            "1e5", "5%", "٣", &long, &deep, &signs,
        ] {
            assert_eq!(evaluate(text), None, "{}", &text[..text.len().min(20)]);
        }
    }

    #[test]
    fn the_last_number_is_found_in_prose() {
        for (text, expected) in [
            ("The answer is 42.", Some((42, 1))),
            ("5-3", Some((3, 1))),
            ("it fell to -3", Some((-3, 1))),
            ("-$1,200.50 in all", Some((-2401, 2))),
            ("from 3 to 1.5.", Some((3, 2))),
            ("1, 2, 3", Some((3, 1))),
            ("a-7b", Some((7, 1))),
            ("none at all - .", None),
            ("", None),
        ] {
            let expected = expected.map(|(n, d)| Rational::new(n, d).unwrap());
            assert_eq!(last_number(text), expected, "{text}");
        }
        let huge = "9".repeat(100_000);
        assert_eq!(last_number(&format!("5 or {huge}")), None);
        assert_eq!(last_number(&format!("{huge} or 5")), Rational::new(5, 1));
    }
}

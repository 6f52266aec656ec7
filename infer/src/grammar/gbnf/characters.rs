//! Sets of characters.

use std::fmt::Write as _;

/// Highest code point.
const LAST: u32 = 0x10_ffff;
/// Code points that are no characters.
const SURROGATES: (u32, u32) = (0xd800, 0xdfff);

/// A set of characters as ranges of code points: ascending, apart, without surrogates.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Set(Vec<(u32, u32)>);

impl Set {
    /// Characters of inclusive ranges in any order.
    pub(super) fn new(ranges: Vec<(u32, u32)>) -> Set {
        let (low, high) = SURROGATES;
        let mut cut: Vec<(u32, u32)> = ranges
            .into_iter()
            .flat_map(|(from, to)| [(from, to.min(low - 1)), (from.max(high + 1), to.min(LAST))])
            .filter(|(from, to)| from <= to)
            .collect();
        cut.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(cut.len());
        for (from, to) in cut {
            match merged.last_mut() {
                Some((_, end)) if from <= end.saturating_add(1) => *end = to.max(*end),
                _ => merged.push((from, to)),
            }
        }
        Set(merged)
    }

    pub(super) fn one(character: char) -> Set {
        Set(vec![(u32::from(character), u32::from(character))])
    }

    pub(super) fn all() -> Set {
        Set::new(vec![(0, LAST)])
    }

    pub(super) fn complement(&self) -> Set {
        let mut ranges = Vec::with_capacity(self.0.len() + 1);
        let mut next = 0;
        for (from, to) in &self.0 {
            if next < *from {
                ranges.push((next, from - 1));
            }
            next = to + 1;
        }
        if next <= LAST {
            ranges.push((next, LAST));
        }
        Set::new(ranges)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn meets(&self, other: &Set) -> bool {
        let (mut a, mut b) = (self.0.iter().peekable(), other.0.iter().peekable());
        while let (Some((a_from, a_to)), Some((b_from, b_to))) = (a.peek(), b.peek()) {
            if a_from <= b_to && b_from <= a_to {
                return true;
            }
            if a_to < b_to {
                a.next();
            } else {
                b.next();
            }
        }
        false
    }

    /// Adds `other`; whether anything was new.
    pub(super) fn add(&mut self, other: &Set) -> bool {
        if other.0.iter().all(|range| self.0.contains(range)) {
            return false;
        }
        let union = Set::new([&self.0[..], &other.0[..]].concat());
        let changed = union != *self;
        *self = union;
        changed
    }

    /// The set as a class of a regular expression.
    pub(super) fn regex(&self) -> String {
        let mut out = String::from("[");
        for (from, to) in &self.0 {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\x{{{from:x}}}-\\x{{{to:x}}}");
        }
        out.push(']');
        out
    }
}

//! Which texts a regular part of a grammar can go on with: the automaton of its positions (Glushkov 1961).

use super::Expr;
use super::characters::Set;

/// The positions of a regular expression: one for each character it is written with.
#[derive(Debug, Default)]
pub(super) struct Positions {
    /// What may stand at each position.
    pub(super) sets: Vec<Set>,
    /// Positions that may come next, for each.
    follow: Vec<Vec<usize>>,
    first: Vec<usize>,
    last: Vec<usize>,
    /// Whether the empty text is matched.
    pub(super) nullable: bool,
    /// Parts looked at, rules as often as they are referred to.
    steps: usize,
}

/// Parts looked at for each position that is allowed: rules without characters could refer to each other without end.
const STEPS_FOR_EACH: usize = 50;

/// What a part contributes while it is put together.
struct Part {
    first: Vec<usize>,
    last: Vec<usize>,
    nullable: bool,
}

impl Positions {
    /// Of an expression whose rules `resolve` gives; none of them reaches itself. Repetitions count as without limit: what
    /// is told of the text that may follow is then never too little. None with more than `most` positions.
    pub(super) fn of<'a>(expr: &'a Expr, resolve: &dyn Fn(usize) -> &'a Expr, most: usize) -> Option<Positions> {
        let mut positions = Positions::default();
        let part = positions.add(expr, resolve, most)?;
        (positions.first, positions.last, positions.nullable) = (part.first, part.last, part.nullable);
        Some(positions)
    }

    fn add<'a>(&mut self, expr: &'a Expr, resolve: &dyn Fn(usize) -> &'a Expr, most: usize) -> Option<Part> {
        self.steps += 1;
        if self.sets.len() > most || self.steps > most * STEPS_FOR_EACH {
            return None;
        }
        Some(match expr {
            Expr::Literal(text) => {
                let mut whole = Part { first: Vec::new(), last: Vec::new(), nullable: true };
                for character in text.chars() {
                    let one = self.position(Set::one(character));
                    whole = self.join(whole, one);
                }
                whole
            }
            Expr::Class(set) => self.position(set.clone()),
            Expr::Rule(index) => self.add(resolve(*index), resolve, most)?,
            Expr::Sequence(items) => {
                let mut whole = Part { first: Vec::new(), last: Vec::new(), nullable: true };
                for item in items {
                    let part = self.add(item, resolve, most)?;
                    whole = self.join(whole, part);
                }
                whole
            }
            Expr::Choice(options) => {
                let mut whole = Part { first: Vec::new(), last: Vec::new(), nullable: false };
                for option in options {
                    let part = self.add(option, resolve, most)?;
                    whole.first.extend(part.first);
                    whole.last.extend(part.last);
                    whole.nullable |= part.nullable;
                }
                whole
            }
            Expr::Repeat(inner, least, _) => {
                let mut part = self.add(inner, resolve, most)?;
                for at in &part.last {
                    self.follow[*at].extend(&part.first);
                }
                part.nullable |= *least == 0;
                part
            }
            // A token of the vocabulary is not text; such parts are never regular.
            Expr::Token(_) => return None,
        })
    }

    fn position(&mut self, set: Set) -> Part {
        let at = self.sets.len();
        self.sets.push(set);
        self.follow.push(Vec::new());
        Part { first: vec![at], last: vec![at], nullable: false }
    }

    fn join(&mut self, mut a: Part, b: Part) -> Part {
        for at in &a.last {
            self.follow[*at].extend(&b.first);
        }
        if a.nullable {
            a.first.extend(&b.first);
        }
        let last = if b.nullable { [a.last, b.last].concat() } else { b.last };
        Part { first: a.first, last, nullable: a.nullable && b.nullable }
    }

    /// Characters that a match can begin with.
    pub(super) fn opening(&self) -> Set {
        union(self.first.iter().map(|at| &self.sets[*at]))
    }

    /// Characters with which a text that `self` matches could go on as a beginning of what `other` matches.
    pub(super) fn continued_by(&self, other: &Positions) -> Set {
        let mut seen = vec![false; self.sets.len() * other.sets.len()];
        let mut open = Vec::new();
        let mut reach = |open: &mut Vec<(usize, usize)>, mine: &[usize], theirs: &[usize]| {
            for a in mine {
                for b in theirs {
                    let index = a * other.sets.len() + b;
                    if !seen[index] && self.sets[*a].meets(&other.sets[*b]) {
                        seen[index] = true;
                        open.push((*a, *b));
                    }
                }
            }
        };
        reach(&mut open, &self.first, &other.first);
        let mut continued = Set::default();
        while let Some((a, b)) = open.pop() {
            if self.last.contains(&a) {
                continued.add(&union(other.follow[b].iter().map(|at| &other.sets[*at])));
            }
            reach(&mut open, &self.follow[a], &other.follow[b]);
        }
        continued
    }
}

fn union<'a>(sets: impl Iterator<Item = &'a Set>) -> Set {
    let mut all = Set::default();
    for set in sets {
        all.add(set);
    }
    all
}

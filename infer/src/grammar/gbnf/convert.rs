//! From rules of characters to rules of terminals.
//!
//! A terminal is read as long as any terminal can go on. That is what the rules say only if no text that it matches could
//! go on as (the same or another) terminal with a character that the rules let follow it. Terminals for which this cannot
//! be told are taken apart, at last into single characters, for which it always holds.

use std::fmt::Write as _;

use super::characters::Set;
use super::regular::Positions;
use super::{Expr, Rules};
use crate::grammar::lark::string;

/// A terminal with more positions is taken apart unasked.
const MOST_POSITIONS: usize = 400;
/// Pairs of positions that are compared at most; beyond that all terminals are taken apart.
const MOST_COMPARED: usize = 20_000_000;

/// A rule's body over terminals.
enum Node {
    Terminal(usize),
    Rule(usize),
    Token(u32),
    Sequence(Vec<Node>),
    Choice(Vec<Node>),
    Repeat(Box<Node>, u32, Option<u32>),
}

/// The grammar as Lark, with the root as `start`.
pub(super) fn to_lark(rules: &Rules) -> String {
    let regular = regular(rules);
    let mut apart: Vec<Expr> = Vec::new();
    loop {
        let built = Built::new(rules, &regular, &apart);
        let unsafe_ones = built.ambiguous(rules);
        if unsafe_ones.is_empty() {
            return built.write(rules);
        }
        apart.extend(unsafe_ones);
    }
}

/// Which rules describe regular texts: those that reach neither themselves nor a token.
fn regular(rules: &Rules) -> Vec<bool> {
    let mut regular = vec![false; rules.rules.len()];
    loop {
        let next: Vec<bool> = rules.rules.iter().map(|(_, expr)| is_regular(expr, &regular)).collect();
        if next == regular {
            return regular;
        }
        regular = next;
    }
}

fn is_regular(expr: &Expr, regular: &[bool]) -> bool {
    match expr {
        Expr::Literal(_) | Expr::Class(_) => true,
        Expr::Token(_) => false,
        Expr::Rule(index) => regular[*index],
        Expr::Sequence(items) | Expr::Choice(items) => items.iter().all(|item| is_regular(item, regular)),
        Expr::Repeat(inner, ..) => is_regular(inner, regular),
    }
}

/// Whether an expression is as small as a terminal can be.
fn is_single(expr: &Expr) -> bool {
    match expr {
        Expr::Class(_) => true,
        Expr::Literal(text) => text.chars().nth(1).is_none(),
        _ => false,
    }
}

/// The rules over terminals.
struct Built {
    terminals: Vec<Expr>,
    /// Bodies of the rules that are needed.
    bodies: Vec<Option<Node>>,
}

impl Built {
    fn new(rules: &Rules, regular: &[bool], apart: &[Expr]) -> Built {
        let mut built = Built { terminals: Vec::new(), bodies: Vec::new() };
        built.bodies.resize_with(rules.rules.len(), || None);
        let mut open = vec![0];
        let mut asked = vec![false; rules.rules.len()];
        asked[0] = true;
        while let Some(rule) = open.pop() {
            let node = built.node(&rules.rules[rule].1, regular, apart);
            node.visit(&mut |node| {
                if let Node::Rule(index) = node
                    && !std::mem::replace(&mut asked[*index], true)
                {
                    open.push(*index);
                }
            });
            built.bodies[rule] = Some(node);
        }
        built
    }

    fn terminal(&mut self, expr: &Expr) -> Node {
        let at = self.terminals.iter().position(|known| known == expr).unwrap_or_else(|| {
            self.terminals.push(expr.clone());
            self.terminals.len() - 1
        });
        Node::Terminal(at)
    }

    fn node(&mut self, expr: &Expr, regular: &[bool], apart: &[Expr]) -> Node {
        let whole = |expr: &Expr| is_regular(expr, regular) && !apart.contains(expr);
        if whole(expr) {
            return self.terminal(expr);
        }
        match expr {
            Expr::Literal(text) => {
                let characters = text.chars().map(|character| Expr::Literal(character.to_string()));
                Node::Sequence(characters.map(|one| self.terminal(&one)).collect())
            }
            Expr::Class(_) => self.terminal(expr),
            Expr::Token(id) => Node::Token(*id),
            Expr::Rule(index) => Node::Rule(*index),
            Expr::Repeat(inner, least, most) => {
                Node::Repeat(Box::new(self.node(inner, regular, apart)), *least, *most)
            }
            Expr::Sequence(items) => {
                let mut nodes = Vec::new();
                for run in items.chunk_by(|a, b| whole(a) && whole(b)) {
                    let together = Expr::Sequence(run.to_vec());
                    if run.len() > 1 && run.len() < items.len() && whole(&together) {
                        nodes.push(self.terminal(&together));
                    } else {
                        nodes.extend(run.iter().map(|item| self.node(item, regular, apart)));
                    }
                }
                Node::Sequence(nodes)
            }
            Expr::Choice(options) => {
                let (simple, others): (Vec<&Expr>, Vec<&Expr>) = options.iter().partition(|option| whole(option));
                let together = Expr::Choice(simple.iter().map(|option| (*option).clone()).collect());
                let mut nodes: Vec<Node> = Vec::new();
                if simple.len() > 1 && !others.is_empty() && whole(&together) {
                    nodes.push(self.terminal(&together));
                } else {
                    nodes.extend(simple.into_iter().map(|option| self.node(option, regular, apart)));
                }
                nodes.extend(others.into_iter().map(|option| self.node(option, regular, apart)));
                Node::Choice(nodes)
            }
        }
    }

    /// Terminals that cannot be read as long as they go.
    fn ambiguous(&self, rules: &Rules) -> Vec<Expr> {
        let resolve = |index: usize| &rules.rules[index].1;
        let positions: Vec<Option<Positions>> =
            self.terminals.iter().map(|expr| Positions::of(expr, &resolve, MOST_POSITIONS)).collect();
        let large = |at: &usize| positions[*at].is_none() && !is_single(&self.terminals[*at]);
        let mut found: Vec<usize> = (0..self.terminals.len()).filter(large).collect();
        if found.is_empty() {
            let known: Vec<&Positions> = positions.iter().flatten().collect();
            let following = self.following(&known);
            let openings: Vec<Set> = known.iter().map(|positions| positions.opening()).collect();
            let mut compared = 0;
            for (at, longer) in known.iter().enumerate().filter(|(at, _)| !is_single(&self.terminals[*at])) {
                let goes_on = |other: usize| {
                    let near = openings[at].meets(&openings[other]);
                    compared += if near { known[other].sets.len() * longer.sets.len() } else { 0 };
                    near && (compared > MOST_COMPARED
                        || known[other].continued_by(longer).meets(&following[other]))
                };
                if (0..known.len()).any(goes_on) {
                    found.push(at);
                }
            }
        }
        found.into_iter().map(|at| self.terminals[at].clone()).collect()
    }

    /// Characters that can follow each terminal.
    fn following(&self, positions: &[&Positions]) -> Vec<Set> {
        let rules = self.bodies.len();
        let mut flow = Flow {
            positions,
            opening: vec![(Set::default(), false); rules],
            behind_rule: vec![Set::default(); rules],
            behind_terminal: vec![Set::default(); positions.len()],
            changed: true,
        };
        while std::mem::take(&mut flow.changed) {
            for (rule, body) in self.bodies.iter().enumerate() {
                let Some(body) = body else { continue };
                let (set, nullable) = flow.opening(body);
                flow.changed |= flow.opening[rule].0.add(&set);
                flow.changed |= nullable && !std::mem::replace(&mut flow.opening[rule].1, nullable);
                let behind = flow.behind_rule[rule].clone();
                flow.follow(body, behind);
            }
        }
        flow.behind_terminal
    }

    fn write(&self, rules: &Rules) -> String {
        let mut out = String::from("start: r0\n");
        let mut used = vec![false; rules.rules.len()];
        let mut terms = String::new();
        let mut open: Vec<usize> = Vec::new();
        let mut ask = |index: usize| {
            if !std::mem::replace(&mut used[index], true) {
                open.push(index);
            }
        };
        // Writing to a string cannot fail.
        for (at, terminal) in self.terminals.iter().enumerate() {
            let _ = writeln!(terms, "T{at}: {}", expression(terminal, &mut ask));
        }
        let mut done = 0;
        let mut order: Vec<usize> = std::mem::take(&mut open);
        while done < order.len() {
            let index = order[done];
            done += 1;
            let mut more = Vec::new();
            let text = expression(&rules.rules[index].1, &mut |index| more.push(index));
            let _ = writeln!(terms, "R{index}: {text}");
            for index in more {
                if !std::mem::replace(&mut used[index], true) {
                    order.push(index);
                }
            }
        }
        for (at, body) in self.bodies.iter().enumerate() {
            if let Some(body) = body {
                let _ = writeln!(out, "r{at}: {}", body.text());
            }
        }
        out + &terms
    }
}

/// What begins and follows where, until nothing changes.
struct Flow<'a> {
    positions: &'a [&'a Positions],
    /// Characters a rule can begin with, and whether it can be empty.
    opening: Vec<(Set, bool)>,
    behind_rule: Vec<Set>,
    behind_terminal: Vec<Set>,
    changed: bool,
}

impl Flow<'_> {
    fn opening(&self, node: &Node) -> (Set, bool) {
        match node {
            Node::Terminal(at) => (self.positions[*at].opening(), self.positions[*at].nullable),
            Node::Rule(rule) => self.opening[*rule].clone(),
            // A token of the vocabulary ends a terminal whatever it is.
            Node::Token(_) => (Set::default(), false),
            Node::Repeat(inner, least, _) => {
                let (set, nullable) = self.opening(inner);
                (set, nullable || *least == 0)
            }
            Node::Sequence(nodes) => {
                let mut all = Set::default();
                for node in nodes {
                    let (set, nullable) = self.opening(node);
                    all.add(&set);
                    if !nullable {
                        return (all, false);
                    }
                }
                (all, true)
            }
            Node::Choice(nodes) => {
                let (mut all, mut any) = (Set::default(), false);
                for node in nodes {
                    let (set, nullable) = self.opening(node);
                    all.add(&set);
                    any |= nullable;
                }
                (all, any)
            }
        }
    }

    /// Notes that `behind` can follow `node`.
    fn follow(&mut self, node: &Node, mut behind: Set) {
        match node {
            Node::Terminal(at) => self.changed |= self.behind_terminal[*at].add(&behind),
            Node::Rule(rule) => self.changed |= self.behind_rule[*rule].add(&behind),
            Node::Token(_) => {}
            Node::Repeat(inner, ..) => {
                behind.add(&self.opening(inner).0);
                self.follow(inner, behind);
            }
            Node::Choice(nodes) => nodes.iter().for_each(|node| self.follow(node, behind.clone())),
            Node::Sequence(nodes) => {
                for node in nodes.iter().rev() {
                    self.follow(node, behind.clone());
                    let (mut set, nullable) = self.opening(node);
                    if nullable {
                        set.add(&behind);
                    }
                    behind = set;
                }
            }
        }
    }
}

impl Node {
    fn visit(&self, see: &mut dyn FnMut(&Node)) {
        see(self);
        match self {
            Node::Sequence(nodes) | Node::Choice(nodes) => nodes.iter().for_each(|node| node.visit(see)),
            Node::Repeat(inner, ..) => inner.visit(see),
            Node::Terminal(_) | Node::Rule(_) | Node::Token(_) => {}
        }
    }

    fn text(&self) -> String {
        match self {
            Node::Terminal(at) => format!("T{at}"),
            Node::Rule(rule) => format!("r{rule}"),
            Node::Token(id) => format!("<[{id}]>"),
            Node::Sequence(nodes) => bracketed(nodes.iter().map(Node::text), " "),
            Node::Choice(nodes) => bracketed(nodes.iter().map(Node::text), " | "),
            Node::Repeat(inner, least, most) => repeated(&inner.text(), *least, *most),
        }
    }
}

/// A terminal's text; `ask` is told which rules it refers to.
fn expression(expr: &Expr, ask: &mut dyn FnMut(usize)) -> String {
    match expr {
        Expr::Literal(text) => string(text),
        Expr::Class(set) => format!("/{}/", set.regex()),
        Expr::Rule(index) => {
            ask(*index);
            format!("R{index}")
        }
        // No terminal holds one.
        Expr::Token(id) => format!("<[{id}]>"),
        Expr::Sequence(items) => bracketed(items.iter().map(|item| expression(item, ask)), " "),
        Expr::Choice(options) => bracketed(options.iter().map(|option| expression(option, ask)), " | "),
        Expr::Repeat(inner, least, most) => repeated(&expression(inner, ask), *least, *most),
    }
}

fn bracketed(parts: impl Iterator<Item = String>, between: &str) -> String {
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { "\"\"".to_owned() } else { format!("({})", parts.join(between)) }
}

fn repeated(text: &str, least: u32, most: Option<u32>) -> String {
    match (least, most) {
        (0, Some(1)) => format!("({text})?"),
        (0, None) => format!("({text})*"),
        (1, None) => format!("({text})+"),
        (_, None) => format!("({text}){{{least},}}"),
        // Nothing, said in a way that all of Lark knows.
        (_, Some(0)) => "\"\"".to_owned(),
        (_, Some(most)) => format!("({text}){{{least},{most}}}"),
    }
}

//! The operators of a rewritten template, blind to marks, and the budget of work that they draw from.

use std::cell::Cell;

use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value};

use super::environment::escaped;
use super::json::display;
use super::marks::{Text, has_marks};
use super::objects::{Dict, List};

/// Bytes that one rendering may read and write in operators, filters and output: with the fuel of the library this
/// bounds its time and memory.
const WORK: usize = 8 << 20;
/// How many bytes more for each byte of the conversation, which templates trim, split and join.
const WORK_PER_BYTE: usize = 32;
/// What an item of a list counts for, in bytes.
pub(super) const ITEM: usize = 32;
/// How often sorting looks at each item, about.
const SORTING: usize = 16;
/// Objects inside objects that a template may make.
const MAX_DEPTH: usize = 64;
/// What a stretch of literal text counts for, in bytes.
const STRETCH: usize = 512;

thread_local! {
    /// What is left of the budget of the rendering on this thread.
    static LEFT: Cell<usize> = const { Cell::new(WORK) };
}

/// Begins the rendering of a conversation of this many bytes.
pub(super) fn begin(bytes: usize) {
    LEFT.set(WORK + bytes * WORK_PER_BYTE);
}

/// Takes `bytes` of work from the budget, before it is done.
pub(super) fn spend(bytes: usize) -> Result<(), Error> {
    match LEFT.get().checked_sub(bytes) {
        Some(left) => {
            LEFT.set(left);
            Ok(())
        }
        None => {
            LEFT.set(0);
            Err(invalid(
                "the template reads and writes too much text: more than 8 MiB and 32 times the conversation",
            ))
        }
    }
}

/// Takes the work of reading `value`: a string's bytes, a list's items.
pub(super) fn spend_on(value: &Value) -> Result<(), Error> {
    spend(value.as_str().map_or_else(|| value.len().unwrap_or(1).saturating_mul(ITEM), str::len))
}

/// Takes the work of going through all of `value`, and of comparing its parts with each other where `sorted`.
pub(super) fn spend_on_all(value: &Value, sorted: bool) -> Result<(), Error> {
    let left = LEFT.get();
    weigh(value, 0)?;
    let weight = left - LEFT.get();
    spend(if sorted { weight.saturating_mul(SORTING) } else { 0 })
}

fn weigh(value: &Value, depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH || is_namespace(value) && depth > 0 {
        return Err(invalid("objects are nested too deeply, or hold a namespace"));
    }
    spend(value.as_str().map_or(ITEM, str::len))?;
    match value.kind() {
        ValueKind::Map => {
            for key in value.try_iter()? {
                weigh(&value.get_item(&key)?, depth + 1)?;
            }
        }
        // What is still to be computed is bounded by the fuel of its loop.
        ValueKind::Seq | ValueKind::Iterable if value.len().is_some() => {
            for item in value.try_iter()? {
                weigh(&item, depth + 1)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// A namespace can be made to hold itself.
fn is_namespace(value: &Value) -> bool {
    value.as_object().is_some_and(|object| object.type_name().ends_with("Namespace"))
}

/// What is stored under a name: it may not grow deeper with each turn of a loop, since the library drops it by
/// recursion.
fn store(value: &Value) -> Result<Value, Error> {
    if !matches!(value.kind(), ValueKind::Map | ValueKind::Seq | ValueKind::Iterable) || is_input(value) {
        return Ok(value.clone());
    }
    shallow(value, 0)?;
    Ok(value.clone())
}

fn shallow(value: &Value, depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH || is_namespace(value) && depth > 0 {
        return Err(invalid("objects are nested too deeply, or hold a namespace"));
    }
    let holds = matches!(value.kind(), ValueKind::Map | ValueKind::Seq | ValueKind::Iterable);
    if !holds || value.len().is_none() || is_input(value) {
        return spend(ITEM / 4);
    }
    spend(ITEM * 2)?;
    for child in value.try_iter()? {
        let child = if value.kind() == ValueKind::Map { value.get_item(&child)? } else { child };
        shallow(&child, depth + 1)?;
    }
    Ok(())
}

/// Objects of the input are as deep as they are.
fn is_input(value: &Value) -> bool {
    value.downcast_object_ref::<Dict>().is_some() || value.downcast_object_ref::<List>().is_some()
}

pub(super) fn invalid(what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}

pub(super) fn add_to(environment: &mut Environment<'_>) {
    environment.add_filter("_eq", |a: &Value, b: &Value| equal(a, b));
    environment.add_filter("_ne", |a: &Value, b: &Value| equal(a, b).map(|equal| !equal));
    environment.add_filter("_lt", |a: &Value, b: &Value| compare(a, b, |order| order.is_lt()));
    environment.add_filter("_le", |a: &Value, b: &Value| compare(a, b, |order| order.is_le()));
    environment.add_filter("_gt", |a: &Value, b: &Value| compare(a, b, |order| order.is_gt()));
    environment.add_filter("_ge", |a: &Value, b: &Value| compare(a, b, |order| order.is_ge()));
    environment.add_filter("_in", |item: &Value, container: &Value| contains(container, item));
    environment.add_filter("_not_in", |item: &Value, container: &Value| contains(container, item).map(|is| !is));
    environment.add_filter("_add", |first: Value, rest: Rest<Value>| {
        rest.iter().try_fold(first, |sum, term| add(&sum, term))
    });
    environment.add_filter("_cat", |first: &Value, rest: Rest<Value>| concatenate(first, &rest));
    environment.add_filter("_mul", multiply);
    environment.add_filter("_item", item);
    environment.add_filter("_slice", |subject: &Value, bounds: Rest<Value>| slice(subject, &bounds));
    environment.add_filter("_key", |key: &Value| key_of(key).cloned());
    environment.add_filter("_iter", items);
    environment.add_filter("_store", store);
    environment.add_filter("_spend", |_: &Value| spend(STRETCH).map(|()| ""));
    for name in ["eq", "equalto", "=="] {
        environment.add_test(name, |a: &Value, b: &Value| equal(a, b));
    }
    for name in ["ne", "!="] {
        environment.add_test(name, |a: &Value, b: &Value| equal(a, b).map(|equal| !equal));
    }
    for (names, check) in [
        (["lt", "lessthan", "<"], std::cmp::Ordering::is_lt as fn(std::cmp::Ordering) -> bool),
        (["le", "le", "<="], std::cmp::Ordering::is_le),
        (["gt", "greaterthan", ">"], std::cmp::Ordering::is_gt),
        (["ge", "ge", ">="], std::cmp::Ordering::is_ge),
    ] {
        for name in names {
            environment.add_test(name, move |a: &Value, b: &Value| compare(a, b, check));
        }
    }
    environment.add_test("in", |item: &Value, container: &Value| contains(container, item));
}

/// The value without marks, where it is a string with some.
pub(super) fn bare(value: &Value) -> Value {
    match value.as_str() {
        Some(text) if has_marks(text) => Value::from(Text::read(text).plain()),
        _ => value.clone(),
    }
}

fn equal(a: &Value, b: &Value) -> Result<bool, Error> {
    equal_at(a, b, 0)
}

fn equal_at(a: &Value, b: &Value, depth: usize) -> Result<bool, Error> {
    if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
        if has_marks(a) || has_marks(b) {
            spend(a.len() + b.len())?;
            return Ok(Text::read(a).plain() == Text::read(b).plain());
        }
        spend(if a.len() == b.len() { a.len() } else { 0 })?;
        return Ok(a == b);
    }
    let lists = |value: &Value| matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable);
    let maps = |value: &Value| value.kind() == ValueKind::Map;
    if !(lists(a) && lists(b) || maps(a) && maps(b)) {
        return Ok(a == b);
    }
    if depth > MAX_DEPTH {
        return Err(invalid("objects that are compared are nested too deeply"));
    }
    if a.is_tuple() != b.is_tuple() || a.len() != b.len() {
        return Ok(false);
    }
    spend_on(a)?;
    if maps(a) {
        for key in a.try_iter()? {
            let other = b.get_item(&bare(&key))?;
            if other.is_undefined() || !equal_at(&a.get_item(&key)?, &other, depth + 1)? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    for (a, b) in a.try_iter()?.zip(b.try_iter()?) {
        if !equal_at(&a, &b, depth + 1)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn compare(a: &Value, b: &Value, check: impl Fn(std::cmp::Ordering) -> bool) -> Result<bool, Error> {
    let numbers = |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool);
    let strings = |value: &Value| value.kind() == ValueKind::String;
    if !(numbers(a) && numbers(b) || strings(a) && strings(b)) {
        return Err(invalid(format!("{} and {} cannot be ordered", a.kind(), b.kind())));
    }
    spend_on(a)?;
    Ok(check(bare(a).cmp(&bare(b))))
}

fn contains(container: &Value, item: &Value) -> Result<bool, Error> {
    spend_on(container)?;
    spend_on(container)?;
    match container.kind() {
        ValueKind::String => {
            let (text, part) = (container.as_str().unwrap_or_default(), item.as_str());
            let part = part.ok_or_else(|| invalid(format!("{} cannot be looked for in a string", item.kind())))?;
            Ok(Text::read(text).plain().contains(Text::read(part).plain()))
        }
        ValueKind::Map => {
            let key = bare(key_of(item)?);
            Ok(container.as_object().is_some_and(|object| object.get_value(&key).is_some()))
        }
        ValueKind::Seq | ValueKind::Iterable => {
            for candidate in container.try_iter()? {
                if equal(&candidate, item)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        ValueKind::Undefined => Ok(false),
        kind => Err(invalid(format!("nothing can be in a value of type {kind}"))),
    }
}

fn add(a: &Value, b: &Value) -> Result<Value, Error> {
    let lists = |value: &Value| matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable);
    if let (Some(left), Some(right)) = (a.as_str(), b.as_str()) {
        spend(left.len() + right.len())?;
        if a.is_safe() || b.is_safe() {
            // As markupsafe does, which jinja2 uses whether or not it escapes what it writes.
            let part = |value: &Value, text: &str| match value.is_safe() {
                true => text.to_owned(),
                false => Text::read(text).map(escaped).write(),
            };
            return Ok(Value::from_safe_string(part(a, left) + &part(b, right)));
        }
        return Ok(Value::from([left, right].concat()));
    }
    if lists(a) && lists(b) {
        // Handing an item on is cheap, and some templates build their messages one by one.
        spend((a.len().unwrap_or(1) + b.len().unwrap_or(1)).saturating_mul(ITEM / 4))?;
        return Ok(Value::from(a.try_iter()?.chain(b.try_iter()?).collect::<Vec<_>>()));
    }
    let unusable = || invalid(format!("{} and {} cannot be added", a.kind(), b.kind()));
    arithmetic(a, b, i128::checked_add, |a, b| a + b).ok_or_else(unusable)
}

fn multiply(a: &Value, b: &Value) -> Result<Value, Error> {
    let unusable = || invalid(format!("{} and {} cannot be multiplied", a.kind(), b.kind()));
    for (subject, times) in [(a, b), (b, a)] {
        let repeatable = matches!(subject.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Iterable);
        if repeatable && times.is_integer() {
            let times = i64::try_from(times.clone()).map_err(|_| unusable())?;
            let times = usize::try_from(times).unwrap_or(0);
            if let Some(text) = subject.as_str() {
                spend(text.len().saturating_mul(times))?;
                return Ok(Value::from(text.repeat(times)));
            }
            let items: Vec<Value> = subject.try_iter()?.collect();
            spend(items.len().saturating_mul(times).saturating_mul(ITEM))?;
            return Ok(Value::from(std::iter::repeat_n(items, times).flatten().collect::<Vec<_>>()));
        }
    }
    arithmetic(a, b, i128::checked_mul, |a, b| a * b).ok_or_else(unusable)
}

fn arithmetic(
    a: &Value,
    b: &Value,
    integers: fn(i128, i128) -> Option<i128>,
    floats: fn(f64, f64) -> f64,
) -> Option<Value> {
    let number = |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool);
    if !number(a) || !number(b) {
        return None;
    }
    let whole = |value: &Value| match value.kind() {
        ValueKind::Bool => Some(i128::from(value.is_true())),
        _ if value.is_integer() => i128::try_from(value.clone()).ok(),
        _ => None,
    };
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => {
            integers(a, b).map(|result| i64::try_from(result).map_or(Value::from(result), Value::from))
        }
        (left, right) => {
            let real = |value: &Value, whole: Option<i128>| match whole {
                Some(whole) => Some(whole as f64),
                None => f64::try_from(value.clone()).ok(),
            };
            Some(Value::from(floats(real(a, left)?, real(b, right)?)))
        }
    }
}

/// `a ~ b ~ ...`: each as `str` shows it.
fn concatenate(first: &Value, rest: &[Value]) -> Result<Value, Error> {
    let mut out = String::new();
    for value in std::iter::once(first).chain(rest) {
        spend_on(value)?;
        match value.as_str() {
            Some(text) => out.push_str(text),
            None => out.push_str(&display(value).write()),
        }
    }
    spend(out.len())?;
    Ok(Value::from(out))
}

fn item(subject: &Value, key: &Value) -> Result<Value, Error> {
    let Some(text) = subject.as_str() else {
        return subject.get_item(&bare(key_of(key)?));
    };
    let Ok(index) = i64::try_from(key.clone()) else {
        return Ok(Value::UNDEFINED);
    };
    spend(text.len())?;
    let text = Text::read(text);
    let count = text.plain().chars().count() as i64;
    let index = if index < 0 { index.saturating_add(count) } else { index };
    let found = usize::try_from(index).ok().and_then(|index| text.plain().char_indices().nth(index));
    Ok(found.map_or(Value::UNDEFINED, |(at, character)| text.slice(at..at + character.len_utf8()).value()))
}

/// The characters of a string as a list; anything else as it is.
pub(super) fn items(value: &Value) -> Result<Value, Error> {
    let Some(text) = value.as_str() else {
        return Ok(value.clone());
    };
    spend(text.len().saturating_mul(4 * ITEM))?;
    let text = Text::read(text);
    let characters = text.plain().char_indices();
    let letters = characters.map(|(at, character)| text.slice(at..at + character.len_utf8()).value());
    Ok(Value::from(letters.collect::<Vec<_>>()))
}

/// A key of a dict, or what Python says of one that has no hash. That of a range would be computed from all of its
/// numbers, each time.
fn key_of(key: &Value) -> Result<&Value, Error> {
    match key.kind() {
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => {
            Err(invalid(format!("unhashable type: {}", key.kind())))
        }
        _ => {
            spend_on(key)?;
            Ok(key)
        }
    }
}

/// `subject[start:stop:step]`, with Python's rules.
fn slice(subject: &Value, bounds: &[Value]) -> Result<Value, Error> {
    spend_on(subject)?;
    let bound = |at: usize| match bounds.get(at) {
        None => Ok(None),
        Some(value) if value.is_none() => Ok(None),
        Some(value) => i64::try_from(value.clone()).map(Some),
    };
    let (start, stop, step) = (bound(0)?, bound(1)?, bound(2)?.unwrap_or(1));
    if step == 0 {
        return Err(invalid("slice step cannot be zero"));
    }
    match subject.kind() {
        ValueKind::String => {
            let text = Text::read(subject.as_str().unwrap_or_default());
            let ends: Vec<usize> = text.plain().char_indices().map(|(at, _)| at).collect();
            let end = |index: usize| ends.get(index + 1).copied().unwrap_or(text.plain().len());
            let chosen = indices(ends.len(), start, stop, step);
            if step == 1 {
                let range = chosen.first().map_or(0..0, |first| ends[*first]..end(*first + chosen.len() - 1));
                return Ok(text.slice(range).value());
            }
            let mut out = Text::default();
            for index in chosen {
                out.push_str(&text.plain()[ends[index]..end(index)], text.source_at(ends[index]));
            }
            Ok(out.value())
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = subject.try_iter()?.collect();
            let chosen = indices(items.len(), start, stop, step);
            Ok(Value::from(chosen.into_iter().map(|index| items[index].clone()).collect::<Vec<_>>()))
        }
        kind => Err(invalid(format!("a value of type {kind} cannot be sliced"))),
    }
}

/// The indices of a slice, in order.
fn indices(length: usize, start: Option<i64>, stop: Option<i64>, step: i64) -> Vec<usize> {
    let length = length as i64;
    let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let clamp = |bound: i64| (if bound < 0 { bound.saturating_add(length) } else { bound }).clamp(low, high);
    let first = start.map_or(if step > 0 { low } else { high }, clamp);
    let last = stop.map_or(if step > 0 { high } else { low }, clamp);
    let mut indices = Vec::new();
    let mut index = first;
    while (step > 0 && index < last) || (step < 0 && index > last) {
        indices.push(index as usize);
        index = index.saturating_add(step);
    }
    indices
}

#[cfg(test)]
mod tests;

//! Objects and lists of the input as a template sees them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use minijinja::Value;
use minijinja::value::{Enumerator, Object, ObjectRepr};

use super::json::repr;
use super::marks::Text;

/// A JSON object. Keys are found whether or not what is asked for carries marks.
#[derive(Debug)]
pub(super) struct Dict {
    /// Keys as a template sees them, with their values, in order.
    entries: Vec<(Value, Value)>,
    at: BTreeMap<String, usize>,
}

impl Dict {
    /// From keys as they are, as a template shall see them, and values.
    pub(super) fn new(entries: impl Iterator<Item = (String, Value, Value)>) -> Dict {
        let mut dict = Dict { entries: Vec::new(), at: BTreeMap::new() };
        for (key, shown, value) in entries {
            dict.at.insert(key, dict.entries.len());
            dict.entries.push((shown, value));
        }
        dict
    }
}

impl Object for Dict {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        let at = self.at.get(key).or_else(|| self.at.get(Text::read(key).plain()))?;
        self.entries.get(*at).map(|(_, value)| value.clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.entries.iter().map(|(key, _)| key.clone()).collect())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.entries.len())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&repr(&Value::from_dyn_object(self.clone())).write())
    }
}

/// A JSON list.
#[derive(Debug)]
pub(super) struct List(pub(super) Vec<Value>);

impl Object for List {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.get(key.as_usize()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.0.len())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&repr(&Value::from_dyn_object(self.clone())).write())
    }
}

//! A value with its position, and how messages show it.

use std::ops::Range;

use tidegate_core::text::first_chars;
use toml::{Spanned, de::DeValue};

use super::super::{
    problem::{Place, Problem},
    url::BrokerUrl,
};
use crate::escape::{Escaped, Quoted};

/// A value with its position.
pub(crate) type Item<'v> = Spanned<DeValue<'v>>;

/// How many characters of a value a message repeats.
const SHOWN_CHARS: usize = 60;

/// The position of a value. The code that reads the value reports problems here.
pub(crate) struct ValuePosition<'s> {
    pub(super) key: &'s str,
    pub(super) place_of: &'s dyn Fn(Range<usize>) -> Place,
    /// Whether a value here may hold a credential, so that no message repeats it.
    pub(super) secret: bool,
    pub(super) problems: &'s mut Vec<Problem>,
}

impl ValuePosition<'_> {
    /// Reports that `item` is invalid.
    pub(crate) fn wrong(&mut self, item: &Item<'_>, fix: impl Into<String>) {
        let found = if self.secret {
            type_name(item.get_ref()).to_owned()
        } else {
            shown(item.get_ref())
        };
        self.wrong_shown_as(item, found, fix);
    }

    /// Reports that `item` is invalid, without showing the text of the value.
    pub(crate) fn wrong_shown_as(
        &mut self,
        item: &Item<'_>,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.problems.push(Problem::new(
            (self.place_of)(item.span()),
            self.key,
            found,
            fix,
        ));
    }
}

/// A value as a message shows it: cut to one short line, with control characters escaped.
pub(crate) fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => shown_text(text),
        DeValue::Integer(number) => cut(&number.to_string()),
        DeValue::Float(number) => cut(number.as_str()),
        DeValue::Boolean(flag) => flag.to_string(),
        other => type_name(other).to_owned(),
    }
}

/// A text as a message shows it. Any key may contain a URL with credentials by mistake, so its password is left out.
pub(crate) fn shown_text(text: &str) -> String {
    match may_hold_credentials(text) {
        true => Escaped(&cut(&BrokerUrl::new(text).to_string())).to_string(),
        false => Quoted(&cut(text)).to_string(),
    }
}

pub(super) fn may_hold_credentials(text: &str) -> bool {
    text.contains(':') && text.contains('@')
}

pub(super) fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(items) if items.is_empty() => "an empty array",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

fn cut(text: &str) -> String {
    match first_chars(text, SHOWN_CHARS) {
        start if start.len() < text.len() => format!("{start}..."),
        whole => whole.to_owned(),
    }
}

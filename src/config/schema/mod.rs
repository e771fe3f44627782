//! The schema: code that reads a key also declares it.
//!
//! The rest of this module reads a configuration through [`Table::key`] and its siblings. Each call has all facts about
//! a key: its name, its doc, its kind of value, and its default. The [`Document`](document::Document) records these
//! calls, so unknown keys, the nearest known name, and the reference page all come from the same lines of code that
//! read the values. Reading never stops: an invalid value is reported, and its default is used instead.
//!
//! This module knows no key of tidegate, and does no I/O.

mod described;
mod document;
mod found;
mod key;
mod kinds;
mod reading;
mod reference;
mod syntax;
mod table;
mod unknown;
mod variables;

pub use self::described::{Described, DescribedKey, Shape, Written};
pub(crate) use self::{
    found::{Item, ValuePosition, shown_text},
    key::{Key, KeyPresence},
    kinds::{
        ADDRESS, Choice, FilePath, Flag, KeyKind, OrWord, Secret, Size, Span, Text, Texts,
        WholeNumber, one_of, quoted,
    },
    reading::{Finished, read},
    reference::page,
    table::Table,
    unknown::nearest,
    variables::{Spelling, variable_of},
};

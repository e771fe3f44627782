//! The schema machine: asking for a key is declaring it.
//!
//! The rest of this module reads a configuration through [`Table::key`] and its siblings, and each call says all
//! that there is to know about a key: its name, a doc, what kind of value it takes and what it is when absent. The
//! [`Document`](document::Document) keeps what was asked for, so unknown keys, the nearest known name, and the reference page all come
//! from the same lines of code that read the values. Reading never stops: a bad value is noted, and its default
//! stands in for it so that the reading can go on.
//!
//! Nothing here knows a key of tidegate's, and nothing here does I/O.

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

pub(crate) use self::{
    found::{Item, Spot, shown_text},
    key::{Given, Key},
    kinds::{
        ADDRESS, Choice, FilePath, Flag, Kind, OrWord, Secret, Size, Span, Text, Texts, Whole,
        duration_text, one_of, quoted,
    },
    reading::{Finished, read},
    table::Table,
    unknown::nearest,
    variables::Spelling,
};

//! A key that was read.

use super::super::problem::Place;

/// A key's value, and enough of its origin to say later what is wrong with it in the light of others.
#[derive(Debug, Clone)]
pub(crate) struct Key<T> {
    /// What was given, or else the default.
    pub(crate) value: T,
    /// The key with all its tables.
    pub(crate) path: String,
    /// Where it was given; where it is not, its table.
    pub(crate) place: Place,
    pub(crate) given: Given,
    pub(super) found: String,
}

/// Whether a key was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Given {
    Well,
    /// A problem is noted already, so what depends on this value is not worth a further one.
    Badly,
    Not,
}

impl<T> Key<T> {
    /// Whether the value can be trusted: given well, or the default.
    pub(crate) fn is_sound(&self) -> bool {
        self.given != Given::Badly
    }

    /// Whether there is anything, good or bad.
    pub(crate) fn is_given(&self) -> bool {
        self.given != Given::Not
    }

    /// The key without its value.
    pub(crate) fn bare(&self) -> Key<()> {
        Key {
            value: (),
            path: self.path.clone(),
            place: self.place.clone(),
            given: self.given,
            found: self.found.clone(),
        }
    }

    /// Another value at the same place.
    pub(crate) fn with<U>(self, value: U, given: Given) -> Key<U> {
        Key {
            value,
            path: self.path,
            place: self.place,
            given,
            found: self.found,
        }
    }
}

impl<T> Key<Option<T>> {
    /// The value, or `absent` where there is none to trust.
    pub(super) fn map<U>(self, absent: U, given: impl FnOnce(T) -> U) -> Key<U> {
        Key {
            value: self.value.map_or(absent, given),
            path: self.path,
            place: self.place,
            given: self.given,
            found: self.found,
        }
    }
}

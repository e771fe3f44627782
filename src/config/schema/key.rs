//! A key that was read.

use super::super::problem::Place;

/// A key's value, with enough of its origin to report later that it conflicts with other keys.
#[derive(Debug, Clone)]
pub(crate) struct Key<T> {
    /// The given value, or the default.
    pub(crate) value: T,
    /// The key with all its tables.
    pub(crate) path: String,
    /// The place where the key was given. If it was not given, the place of its table.
    pub(crate) place: Place,
    pub(crate) given: KeyPresence,
    pub(super) found: String,
}

/// Whether a key was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyPresence {
    Valid,
    /// A problem is already reported, so keys that depend on this value get no further problem.
    Invalid,
    Absent,
}

impl<T> Key<T> {
    /// Whether the value can be trusted: a valid value, or the default.
    pub(crate) fn is_sound(&self) -> bool {
        self.given != KeyPresence::Invalid
    }

    /// Whether the key was given, with a valid or an invalid value.
    pub(crate) fn is_given(&self) -> bool {
        self.given != KeyPresence::Absent
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
    pub(crate) fn with<U>(self, value: U, given: KeyPresence) -> Key<U> {
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
    /// The value, or `absent` if there is no valid value.
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

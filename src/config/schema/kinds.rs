//! Kinds of value: what a key accepts, and how it is read and written.

use std::{fmt, net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use toml::de::DeValue;

use tidegate_core::text::{parse_duration, short_duration};

use super::described::Shape;
use super::found::{Item, ValuePosition, may_hold_credentials};

/// The values that a key accepts.
pub(crate) trait KeyKind {
    /// The type of the value after reading.
    type Value;
    /// Whether it is a string in TOML, so that the text of a variable is used unchanged.
    const IS_TEXT: bool;
    /// Whether it may contain a credential, so that no message repeats it.
    const IS_SECRET: bool = false;

    /// What to write, as text after "write" or "takes".
    fn wants(&self) -> String;

    /// What it accepts, for a program.
    fn shape(&self) -> Shape {
        match Self::IS_TEXT {
            true => Shape::Text,
            false => Shape::Other,
        }
    }

    /// The value, or `None` after reporting the problem at `spot`.
    fn read(&self, item: &Item<'_>, spot: &mut ValuePosition<'_>) -> Option<Self::Value>;

    /// The value as TOML.
    fn toml(&self, value: &Self::Value) -> String;
}

/// A whole number within bounds.
#[derive(Debug)]
pub(crate) struct WholeNumber<T>(pub(crate) RangeInclusive<T>);

impl<T> WholeNumber<T>
where
    T: Copy + fmt::Display + TryFrom<i128> + Into<i128>,
{
    /// The number, or `None` if it is not within these bounds.
    pub(crate) fn within(&self, item: &Item<'_>) -> Option<T> {
        let number = item.get_ref().as_integer()?;
        let number = i128::from_str_radix(number.as_str(), number.radix()).ok()?;
        let bounds = (*self.0.start()).into()..=(*self.0.end()).into();
        match bounds.contains(&number) {
            true => T::try_from(number).ok(),
            false => None,
        }
    }
}

impl<T> KeyKind for WholeNumber<T>
where
    T: Copy + fmt::Display + TryFrom<i128> + Into<i128>,
{
    type Value = T;
    const IS_TEXT: bool = false;

    fn wants(&self) -> String {
        format!("a whole number from {} to {}", self.0.start(), self.0.end())
    }

    fn shape(&self) -> Shape {
        Shape::Whole {
            least: (*self.0.start()).into(),
            most: (*self.0.end()).into(),
        }
    }

    fn read(&self, item: &Item<'_>, spot: &mut ValuePosition<'_>) -> Option<T> {
        let number = self.within(item);
        if number.is_none() {
            spot.wrong(item, format!("write {}", self.wants()));
        }
        number
    }

    fn toml(&self, value: &T) -> String {
        value.to_string()
    }
}

/// `true` or `false`.
#[derive(Debug)]
pub(crate) struct Flag;

impl KeyKind for Flag {
    type Value = bool;
    const IS_TEXT: bool = false;

    fn wants(&self) -> String {
        "true or false".to_owned()
    }

    fn shape(&self) -> Shape {
        Shape::Flag
    }

    fn read(&self, item: &Item<'_>, spot: &mut ValuePosition<'_>) -> Option<bool> {
        let flag = item.get_ref().as_bool();
        if flag.is_none() {
            spot.wrong(item, "write true or false, without quotes");
        }
        flag
    }

    fn toml(&self, value: &bool) -> String {
        value.to_string()
    }
}

/// A string that is parsed into a value. The function says what to write if it cannot parse the text.
#[derive(Debug)]
pub(crate) struct Text<T> {
    pub(crate) wants: &'static str,
    pub(crate) parse: fn(&str) -> Result<T, String>,
    pub(crate) show: fn(&T) -> String,
}

impl<T> KeyKind for Text<T> {
    type Value = T;
    const IS_TEXT: bool = true;

    fn wants(&self) -> String {
        self.wants.to_owned()
    }

    fn read(&self, item: &Item<'_>, spot: &mut ValuePosition<'_>) -> Option<T> {
        let Some(text) = item.get_ref().as_str() else {
            spot.wrong(item, format!("write {} in quotes", self.wants));
            return None;
        };
        match (self.parse)(text) {
            Ok(value) => Some(value),
            Err(fix) => {
                spot.wrong(item, fix);
                None
            }
        }
    }

    fn toml(&self, value: &T) -> String {
        quoted(&(self.show)(value))
    }
}

/// One of a few words.
#[derive(Debug)]
pub(crate) struct Choice<T: 'static>(pub(crate) &'static [(&'static str, T)]);

impl<T: Copy + PartialEq> KeyKind for Choice<T> {
    type Value = T;
    const IS_TEXT: bool = true;

    fn wants(&self) -> String {
        one_of(self.0.iter().map(|(word, _)| *word))
    }

    fn shape(&self) -> Shape {
        Shape::Words(self.0.iter().map(|(word, _)| (*word).to_owned()).collect())
    }

    fn read(&self, item: &Item<'_>, spot: &mut ValuePosition<'_>) -> Option<T> {
        let text = item.get_ref().as_str();
        let chosen = self.0.iter().find(|(word, _)| Some(*word) == text);
        if chosen.is_none() {
            spot.wrong(item, format!("write {}", self.wants()));
        }
        chosen.map(|(_, value)| *value)
    }

    fn toml(&self, value: &T) -> String {
        let word = self.0.iter().find(|(_, v)| v == value);
        quoted(word.map_or("", |(word, _)| word))
    }
}

/// A duration within bounds.
#[derive(Debug)]
pub(crate) struct Span(pub(crate) RangeInclusive<Duration>);

impl Span {
    /// No timer of ours or of the broker's works reliably for longer.
    pub(crate) const MAX: Duration = Duration::from_secs(28 * 24 * 60 * 60);

    /// At least this long.
    pub(crate) fn from(shortest: Duration) -> Self {
        Self(shortest..=Self::MAX)
    }
}

impl KeyKind for Span {
    type Value = Duration;
    const IS_TEXT: bool = true;

    fn wants(&self) -> String {
        let (shortest, longest) = (
            short_duration(*self.0.start()),
            short_duration(*self.0.end()),
        );
        format!(
            "a duration from {} to {}",
            quoted(&shortest),
            quoted(&longest)
        )
    }

    fn read(&self, item: &Item<'_>, spot: &mut ValuePosition<'_>) -> Option<Duration> {
        let value = item.get_ref();
        let bare_number = match value {
            DeValue::Integer(number) => Some(number.as_str()),
            DeValue::Float(number) => Some(number.as_str()),
            DeValue::String(text) => Some(text.trim()),
            _ => None,
        }
        .filter(|text| {
            !text.is_empty() && text.len() < 10 && text.chars().all(|c| c.is_ascii_digit())
        });
        let duration = value.as_str().and_then(parse_duration);
        let fix = match (duration, bare_number) {
            (Some(duration), _) if self.0.contains(&duration) => return Some(duration),
            (None, Some(number)) => {
                format!("write it with its unit: \"{number}ms\", \"{number}s\" or \"{number}m\"")
            }
            (None, None) => "write a duration such as \"500ms\", \"5s\" or \"1h30m\"".to_owned(),
            (Some(_), _) => format!("write {}", self.wants()),
        };
        spot.wrong(item, fix);
        None
    }

    fn toml(&self, value: &Duration) -> String {
        quoted(&short_duration(*value))
    }
}

/// A size in bytes, with its unit: at least one.
#[derive(Debug)]
pub(crate) struct Size;

impl Size {
    const UNITS: [(&str, u64); 5] = [
        ("B", 1),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
    ];

    fn parse(text: &str) -> Option<u64> {
        let digits = text.trim_start_matches(|c: char| c.is_ascii_digit());
        let (number, unit) = text.split_at(text.len() - digits.len());
        let unit = unit.trim_start();
        let (_, factor) = Self::UNITS.iter().find(|(name, _)| *name == unit)?;
        let number: u64 = number.parse().ok()?;
        number.checked_mul(*factor).filter(|bytes| *bytes > 0)
    }
}

impl KeyKind for Size {
    type Value = u64;
    const IS_TEXT: bool = true;

    fn wants(&self) -> String {
        "a size such as \"256MiB\"".to_owned()
    }

    fn read(&self, item: &Item<'_>, spot: &mut ValuePosition<'_>) -> Option<u64> {
        let size = item.get_ref().as_str().and_then(Self::parse);
        if size.is_none() {
            spot.wrong(
                item,
                "write a size such as \"512KiB\", \"256MiB\" or \"2GiB\"",
            );
        }
        size
    }

    fn toml(&self, value: &u64) -> String {
        let mut units = Self::UNITS.iter().rev();
        let unit = units.find(|(_, factor)| value.is_multiple_of(*factor));
        let (name, factor) = unit.unwrap_or(&Self::UNITS[0]);
        quoted(&format!("{}{name}", value / factor))
    }
}

/// A kind, or one word that means "none".
#[derive(Debug)]
pub(crate) struct OrWord<K>(pub(crate) K, pub(crate) &'static str);

impl<K: KeyKind> KeyKind for OrWord<K> {
    type Value = Option<K::Value>;
    const IS_TEXT: bool = true;

    fn wants(&self) -> String {
        format!("{}, or {}", self.0.wants(), quoted(self.1))
    }

    fn shape(&self) -> Shape {
        match self.0.shape() {
            Shape::Text => Shape::Text,
            _ => Shape::Other,
        }
    }

    fn read(&self, item: &Item<'_>, spot: &mut ValuePosition<'_>) -> Option<Self::Value> {
        match item.get_ref().as_str() {
            Some(text) if text == self.1 => Some(None),
            _ => self.0.read(item, spot).map(Some),
        }
    }

    fn toml(&self, value: &Self::Value) -> String {
        match value {
            Some(value) => self.0.toml(value),
            None => quoted(self.1),
        }
    }
}

/// A kind whose values no message repeats.
#[derive(Debug)]
pub(crate) struct Secret<K>(pub(crate) K);

impl<K: KeyKind> KeyKind for Secret<K> {
    type Value = K::Value;
    const IS_TEXT: bool = K::IS_TEXT;
    const IS_SECRET: bool = true;

    fn wants(&self) -> String {
        self.0.wants()
    }

    fn shape(&self) -> Shape {
        self.0.shape()
    }

    fn read(&self, item: &Item<'_>, spot: &mut ValuePosition<'_>) -> Option<K::Value> {
        self.0.read(item, spot)
    }

    fn toml(&self, value: &K::Value) -> String {
        self.0.toml(value)
    }
}

/// An array of strings, each checked.
#[derive(Debug)]
pub(crate) struct Texts {
    pub(crate) wants: &'static str,
    /// What to write instead, if this string is invalid.
    pub(crate) check: fn(&str) -> Result<(), String>,
}

impl KeyKind for Texts {
    type Value = Vec<String>;
    const IS_TEXT: bool = false;

    fn wants(&self) -> String {
        self.wants.to_owned()
    }

    fn shape(&self) -> Shape {
        Shape::Texts
    }

    fn read(&self, item: &Item<'_>, spot: &mut ValuePosition<'_>) -> Option<Vec<String>> {
        let items = match item.get_ref() {
            DeValue::Array(items) => items,
            DeValue::String(text) => {
                // Suggests an array of the words. The quoting rules of a shell are not applied.
                let words: Vec<_> = text.split_whitespace().map(quoted).collect();
                let fix = match may_hold_credentials(text) {
                    true => format!("write {}", self.wants),
                    false => format!("write an array: [{}]", words.join(", ")),
                };
                spot.wrong(item, fix);
                return None;
            }
            _ => {
                spot.wrong(item, format!("write {}", self.wants));
                return None;
            }
        };
        let mut texts = Vec::new();
        for item in items.iter() {
            match item
                .get_ref()
                .as_str()
                .map(|text| (text, (self.check)(text)))
            {
                Some((text, Ok(()))) => texts.push(text.to_owned()),
                Some((_, Err(fix))) => spot.wrong(item, fix),
                None => spot.wrong(item, "write each item as a string, in quotes"),
            }
        }
        Some(texts)
    }

    fn toml(&self, value: &Vec<String>) -> String {
        let texts: Vec<_> = value.iter().map(|text| quoted(text)).collect();
        format!("[{}]", texts.join(", "))
    }
}

/// A path. The file system is not read.
#[derive(Debug)]
pub(crate) struct FilePath;

impl KeyKind for FilePath {
    type Value = PathBuf;
    const IS_TEXT: bool = true;

    fn wants(&self) -> String {
        "a path".to_owned()
    }

    fn read(&self, item: &Item<'_>, spot: &mut ValuePosition<'_>) -> Option<PathBuf> {
        match item.get_ref().as_str() {
            Some(text) if !text.is_empty() && !text.contains('\0') => Some(text.into()),
            _ => {
                spot.wrong(item, "write a path in quotes");
                None
            }
        }
    }

    fn toml(&self, value: &PathBuf) -> String {
        quoted(&value.to_string_lossy())
    }
}

/// An address and port to listen at.
pub(crate) const ADDRESS: Text<SocketAddr> = Text {
    wants: "an address with a port",
    parse: |text| {
        text.parse().map_err(|_| {
            "write an address with a port, such as \"127.0.0.1:8672\" or \"[::1]:8672\"".to_owned()
        })
    },
    show: SocketAddr::to_string,
};

/// Words to choose from, as a message lists them.
pub(crate) fn one_of<'w>(words: impl Iterator<Item = &'w str>) -> String {
    let words: Vec<_> = words.map(quoted).collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.join(""),
    }
}

/// A string as TOML.
pub(crate) fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

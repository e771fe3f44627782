//! A key whose value is a URL that may hold a password.

use super::{
    schema::{Item, KeyKind, ValuePosition, quoted},
    url::BrokerUrl,
};

/// A URL. Problems with it are shown without its credentials.
#[derive(Debug)]
pub(super) struct UrlKey {
    /// What to write instead of a value that is not text.
    pub(super) shape: &'static str,
    /// Whether the text is such a URL. The error says what to write instead.
    pub(super) check: fn(&str) -> Result<(), String>,
}

impl KeyKind for UrlKey {
    type Value = BrokerUrl;
    const IS_TEXT: bool = true;
    const IS_SECRET: bool = true;

    fn wants(&self) -> String {
        "a URL".to_owned()
    }

    fn read(&self, item: &Item<'_>, spot: &mut ValuePosition<'_>) -> Option<BrokerUrl> {
        let Some(text) = item.get_ref().as_str() else {
            spot.wrong(item, self.shape);
            return None;
        };
        let url = BrokerUrl::new(text);
        match (self.check)(text) {
            Ok(()) => Some(url),
            Err(fix) => {
                spot.wrong_shown_as(item, url.to_string(), fix);
                None
            }
        }
    }

    fn toml(&self, value: &BrokerUrl) -> String {
        quoted(&value.to_string())
    }
}

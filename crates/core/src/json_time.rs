//! Durations in JSON. A measured duration is a number of seconds. A configured duration is a text as in the configuration
//! file, such as `10s`. Points in time are `jiff` timestamps, which are RFC 3339 in UTC.
//!
//! Both forms also read what earlier versions wrote: `{"secs": 10, "nanos": 0}`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

use crate::text::{duration, parse_duration};

/// Every form of a duration that is accepted.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a number of seconds, or a text such as \"10s\"")]
enum Length {
    Seconds(f64),
    Text(String),
    Parts(Duration),
}

impl Length {
    fn read<E: serde::de::Error>(self) -> Result<Duration, E> {
        match self {
            Self::Seconds(seconds) => Duration::try_from_secs_f64(seconds).map_err(E::custom),
            Self::Text(text) => parse_duration(&text)
                .ok_or_else(|| E::custom("write a length of time, such as \"10s\"")),
            Self::Parts(parts) => Ok(parts),
        }
    }
}

/// A number of seconds.
pub(crate) mod seconds {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        length: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(length.as_secs_f64())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        Length::deserialize(deserializer)?.read()
    }
}

/// A number of seconds, or null.
pub(crate) mod seconds_if_known {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        length: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match length {
            Some(length) => serializer.serialize_some(&length.as_secs_f64()),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let length = Option::<Length>::deserialize(deserializer)?;
        length.map(Length::read::<D::Error>).transpose()
    }
}

/// A text as in the configuration file.
pub(crate) mod text {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        length: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&duration(*length))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        Length::deserialize(deserializer)?.read()
    }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;
    use serde_json::{from_value, json, to_value};

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Times {
        #[serde(with = "seconds")]
        age: Duration,
        #[serde(with = "seconds_if_known")]
        quiet: Option<Duration>,
        #[serde(with = "text")]
        window: Duration,
    }

    #[test]
    fn a_measured_duration_is_seconds_and_a_configured_one_is_text() {
        let times = Times {
            age: Duration::from_micros(1_234_567),
            quiet: None,
            window: Duration::from_secs(90),
        };
        let written = json!({"age": 1.234567, "quiet": null, "window": "1m 30s"});
        assert_eq!(to_value(&times).unwrap(), written);
        assert_eq!(from_value::<Times>(written).unwrap(), times);
    }

    #[test]
    fn the_form_of_earlier_versions_is_read() {
        let parts = json!({"secs": 2, "nanos": 500_000_000});
        let old = json!({"age": parts, "quiet": parts, "window": parts});
        let half = Duration::from_millis(2500);
        let read: Times = from_value(old).unwrap();
        assert_eq!(
            (read.age, read.quiet, read.window),
            (half, Some(half), half)
        );
        for wrong in [json!("soon"), json!(-1), json!(true)] {
            let wrong = json!({"age": wrong, "quiet": null, "window": "1s"});
            from_value::<Times>(wrong).unwrap_err();
        }
    }
}

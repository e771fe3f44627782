//! The keys of a policy, as a request gives them.
//!
//! Which keys exist depends on the kind of the policy, so names and values are open here. Their check is
//! [`change_policy`](crate::config::change_policy), as for a configuration file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Number;

use crate::config::PolicyEdit;

/// The body of a change of a policy: keys of `policy` and `scaling`, each in its table. A key without a table belongs to
/// `policy`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PolicyKeys(BTreeMap<String, PolicyValue>);

/// The value of a key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PolicyValue {
    /// No key has this value. The change is refused.
    Null,
    /// `true` or `false`.
    Flag(bool),
    /// A number.
    Number(Number),
    /// A text, such as a duration.
    Text(String),
    /// A list, such as the steps of a policy.
    List(Vec<PolicyValue>),
    /// The keys of a table.
    Table(BTreeMap<String, PolicyValue>),
}

impl PolicyKeys {
    /// The keys of this table. If the body has no such table, it gets an empty one.
    pub fn table(&mut self, name: &str) -> &mut BTreeMap<String, PolicyValue> {
        let value = self.0.entry(name.to_owned());
        let value = value.or_insert(PolicyValue::Null);
        if !matches!(value, PolicyValue::Table(_)) {
            *value = PolicyValue::Table(BTreeMap::new());
        }
        match value {
            PolicyValue::Table(keys) => keys,
            _ => unreachable!("it was made a table"),
        }
    }
}

impl From<PolicyKeys> for PolicyEdit {
    fn from(keys: PolicyKeys) -> Self {
        Self::Json(serde_json::to_value(keys).expect("each value is one of JSON"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every kind of value.
    const BODY: &str = r#"{"down_window":null,"policy":{"kind":"steps","max":18446744073709551615,"steps":[[1,1],[100,10]]},"preempt":true,"scaling":{"churn":-0.5}}"#;

    #[test]
    fn a_body_is_written_as_it_was_read() {
        let keys: PolicyKeys = serde_json::from_str(BODY).unwrap();
        assert_eq!(serde_json::to_string(&keys).unwrap(), BODY);
        let json = PolicyEdit::Json(serde_json::from_str(BODY).unwrap());
        assert_eq!(PolicyEdit::from(keys), json);
    }

    #[test]
    fn a_table_is_made_where_there_is_none() {
        let mut keys = PolicyKeys::default();
        keys.table("policy")
            .insert("max".into(), PolicyValue::Number(5.into()));
        keys.table("policy")
            .insert("kind".into(), PolicyValue::Text("fixed".into()));
        keys.table("scaling");
        let text = serde_json::to_string(&keys).unwrap();
        assert_eq!(text, r#"{"policy":{"kind":"fixed","max":5},"scaling":{}}"#);
    }
}

//! `/api/v1/openapi.json`: the description of the API. It is written by hand. A test here compares it with the routes,
//! and a test in `tests/it` compares it with the answers of a live daemon.

use axum::{
    http::header,
    response::{IntoResponse, Response},
};

const DESCRIPTION: &str = include_str!("openapi.json");

pub(super) async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DESCRIPTION).into_response()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{super::routes, *};

    #[test]
    fn describes_every_route_and_no_other() {
        let description: Value = serde_json::from_str(DESCRIPTION).unwrap();
        let mut described: Vec<(String, String)> = Vec::new();
        for (path, operations) in description["paths"].as_object().unwrap() {
            for method in operations.as_object().unwrap().keys() {
                described.push((path.clone(), method.clone()));
            }
        }
        let mut served: Vec<(String, String)> = Vec::new();
        for (path, methods, _) in routes::table() {
            served.extend(
                methods
                    .iter()
                    .map(|method| (path.to_owned(), method.to_string())),
            );
        }
        described.sort();
        served.sort();
        assert_eq!(described, served);
    }

    #[test]
    fn every_reference_has_a_target() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(map) => {
                    found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    map.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let description: Value = serde_json::from_str(DESCRIPTION).unwrap();
        let mut found = Vec::new();
        references(&description, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(description.pointer(pointer).is_some(), "{reference}");
        }
    }
}

//! The API's description against the answers of a live daemon: each answer has the form that is described for it, and no
//! field that is not.

use serde_json::Value;

use crate::support::{broker::broker_url, daemon::Daemon, queue::Queue};

const HEADERS: [(&str, &str); 2] = [("Host", "localhost"), ("Authorization", "Bearer s3cret")];

/// The problem of a value by its schema, as far as this description uses schemas.
fn faults(root: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = root.pointer(reference.trim_start_matches('#')).unwrap();
        return faults(root, target, value, at, found);
    }
    let name = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => vec![name],
    };
    let is_number = name == "integer" && types.contains(&"number");
    if !types.contains(&name) && !is_number {
        found.push(format!("{at}: {name} where {types:?} is described"));
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        found.push(format!("{at}: {value} is none of {words:?}"));
    }
    if let (Some(items), Some(item)) = (value.as_array(), schema.get("items")) {
        for (index, value) in items.iter().enumerate() {
            faults(root, item, value, &format!("{at}/{index}"), found);
        }
    }
    let (Some(fields), Some(properties)) = (value.as_object(), schema["properties"].as_object())
    else {
        return;
    };
    for required in schema["required"].as_array().into_iter().flatten() {
        if !fields.contains_key(required.as_str().unwrap()) {
            found.push(format!("{at}: no {required}"));
        }
    }
    for (field, value) in fields {
        match properties.get(field) {
            Some(schema) => faults(root, schema, value, &format!("{at}/{field}"), found),
            None => found.push(format!("{at}: {field} is not described")),
        }
    }
}

#[test]
fn every_answer_has_the_form_that_is_described() {
    let queue = Queue::new();
    let pools = format!(
        "[pools.jobs]\nqueue = \"{}\"\nshare = true\npoll_interval = \"50ms\"\n\
         runner.command = [\"sh\", \"-c\", \"sleep 600\"]\nrunner.kill_grace = \"1s\"\n",
        queue.name()
    );
    let head = "http.token_file = \"token\"";
    let files = [("token", "s3cret")];
    let daemon = Daemon::start_with_files(&files, &broker_url(), head, &pools);
    queue.publish("one");
    daemon.wait_for_pool("jobs", |pool| pool["runners"]["busy"] == 1);
    crate::dry_run::record(&daemon);
    let (status, description) = daemon.get("/api/v1/openapi.json");
    assert_eq!(status, 200);
    let description: Value = serde_json::from_str(&description).unwrap();
    let jobs = daemon.get("/api/v1/pools/jobs/jobs").1;
    let jobs: Value = serde_json::from_str(&jobs).unwrap();
    let id = jobs[0]["id"].as_str().unwrap().to_owned();

    let pool = "/api/v1/pools/{pool}";
    let requests = [
        ("get", "/healthz".to_owned(), "", 200),
        ("get", "/readyz".to_owned(), "", 200),
        ("get", "/api/v1/pools".to_owned(), "", 200),
        ("get", pool.to_owned(), "", 200),
        ("get", format!("{pool}/explain"), "", 200),
        ("get", format!("{pool}/jobs"), "", 200),
        ("get", format!("{pool}/policy"), "", 200),
        ("put", format!("{pool}/policy"), r#"{"max": 7}"#, 200),
        (
            "patch",
            format!("{pool}/policy"),
            r#"{"scaling": {"up_step": 3}}"#,
            200,
        ),
        ("put", format!("{pool}/policy"), r#"{"max": -7}"#, 422),
        (
            "patch",
            format!("{pool}/policy?dry_run=true&target=30s"),
            r#"{"max": 8}"#,
            200,
        ),
        (
            "delete",
            format!("{pool}/policy?dry_run=true&recording=false"),
            "",
            200,
        ),
        ("get", format!("{pool}/policy"), "", 200),
        ("put", format!("{pool}/scale"), r#"{"workers": 2}"#, 200),
        (
            "put",
            format!("{pool}/scale"),
            r#"{"workers": "many"}"#,
            400,
        ),
        ("post", format!("{pool}/pause"), r#"{"for": "1h"}"#, 200),
        (
            "post",
            format!("{pool}/pause"),
            r#"{"shrinking": true}"#,
            200,
        ),
        ("get", pool.to_owned(), "", 200),
        ("get", format!("{pool}/explain"), "", 200),
        (
            "post",
            format!("{pool}/jobs/{{id}}/stop"),
            r#"{"then": "reject"}"#,
            200,
        ),
        ("get", format!("{pool}/jobs"), "", 200),
        ("post", format!("{pool}/flush"), r#"{"busy": true}"#, 200),
        ("post", format!("{pool}/drain"), "", 200),
        ("post", format!("{pool}/resume"), "", 200),
        ("delete", format!("{pool}/policy"), "", 200),
        ("get", format!("{pool}/dead"), "", 200),
        (
            "post",
            format!("{pool}/dead/retry"),
            r#"{"ids": ["none"]}"#,
            200,
        ),
        (
            "post",
            format!("{pool}/dead/purge"),
            r#"{"all": true}"#,
            200,
        ),
        ("post", format!("{pool}/dead/purge"), "{}", 400),
        ("post", "/api/v1/reload".to_owned(), "", 200),
    ];
    for (method, path, body, status) in requests {
        let url = path.replace("{pool}", "jobs").replace("{id}", &id);
        let answer = daemon.request(&method.to_uppercase(), &url, &HEADERS, body);
        assert_eq!(answer.status, status, "{method} {url}: {answer:?}");
        let value: Value = serde_json::from_str(&answer.body).unwrap();
        let path = path.split('?').next().unwrap_or_default();
        let escaped = path.replace('/', "~1");
        let schema = format!(
            "/paths/{escaped}/{method}/responses/{status}/content/application~1json/schema"
        );
        let schema = description
            .pointer(&schema)
            .unwrap_or_else(|| panic!("{schema}"));
        let mut found = Vec::new();
        faults(&description, schema, &value, "", &mut found);
        assert_eq!(found, Vec::<String>::new(), "{method} {url}: {value:#}");
    }
}

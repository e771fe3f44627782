//! `arguments` and `bindings`: what a queue is declared with.

use super::{super::Argument, given};

fn pool(text: &str) -> String {
    format!("[pools.a]\nrunner.command = [\"a\"]\n{text}\n")
}

#[test]
fn a_delivery_limit_that_one_death_may_use_up_is_a_warning() {
    let said = |limit: i64, max: u32| {
        warnings(&format!(
            "declare = \"quorum\"\narguments = {{ x-delivery-limit = {limit} }}\npolicy.max = {max}"
        ))
    };
    for (low, max, lowest) in [(0, 1, 1), (0, 100, 1), (1, 101, 2), (9, 1_000, 10)] {
        let said = said(low, max);
        assert_eq!(said.len(), 1, "{said:#?}");
        let fix = format!("write {lowest} or more");
        assert!(said[0].contains(&fix), "{said:#?}");
    }
    for (limit, max) in [(-1, 1_000), (1, 1), (1, 100), (2, 101), (10, 1_000)] {
        assert_eq!(said(limit, max), [""; 0], "{limit} for {max}");
    }
}

fn warnings(text: &str) -> Vec<String> {
    let warnings = given(&pool(text)).loaded().warnings;
    warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn a_queue_is_declared_with_what_is_written_and_nothing_else() {
    let settings = |text: &str| {
        let settings = given(&pool(text)).loaded().settings;
        settings.pools[0].pool.clone()
    };
    let plain = settings("declare = \"quorum\"");
    assert_eq!((plain.arguments.len(), plain.bindings.len()), (0, 0));
    let pool = settings(
        "declare = \"quorum\"\narguments = { x-delivery-limit = 5, x-message-ttl = 60_000, x-dead-letter-exchange = \"\" }\n\
         [[pools.a.bindings]]\nexchange = \"orders\"\nrouting_key = \"new.*\"\n\
         [[pools.a.bindings]]\nexchange = \"headers\"\narguments = { x-match = \"all\", tenants = [\"a\", 3] }\n",
    );
    assert_eq!(pool.arguments["x-delivery-limit"], Argument::Whole(5));
    assert_eq!(pool.arguments["x-message-ttl"], Argument::Whole(60_000));
    assert_eq!(pool.arguments["x-dead-letter-exchange"], "".into());
    let [topic, headers] = pool.bindings.as_slice() else {
        panic!("{:?}", pool.bindings);
    };
    assert_eq!(topic.exchange, "orders");
    assert_eq!(topic.routing_key, "new.*");
    assert_eq!(headers.arguments["x-match"], "all".into());
    let several = Argument::List(vec!["a".into(), Argument::Whole(3)]);
    assert_eq!(headers.arguments["tenants"], several);
}

#[test]
fn arguments_that_the_broker_would_refuse_are_refused() {
    for (declare, argument, fix) in [
        (
            "quorum",
            "x-max-priority = 10",
            "remove it, or write declare = \"classic\": the broker refuses it for other queues",
        ),
        (
            "classic",
            "x-delivery-limit = 5",
            "remove it, or write declare = \"quorum\": the broker refuses it for other queues",
        ),
        (
            "classic",
            "x-max-priority = 256",
            "write a whole number from 0 to 255",
        ),
        (
            "classic",
            "x-message-ttl = \"5m\"",
            "write a whole number from 0 to 4294967295",
        ),
        (
            "classic",
            "x-overflow = \"drop\"",
            "write \"drop-head\" or \"reject-publish\" or \"reject-publish-dlx\"",
        ),
        (
            "classic",
            "x-queue-type = \"classic\"",
            "remove it: declare sets the type",
        ),
        (
            "classic",
            "x-dead-letter-routing-key = \"a\"",
            "also write x-dead-letter-exchange",
        ),
        (
            "classic",
            "x-message-ttl = 1.5",
            "write a string, a whole number, true or false, or an array of these",
        ),
        (
            "no",
            "x-max-priority = 10",
            "remove it, or write declare = \"classic\" or \"quorum\": the pool does not declare this queue",
        ),
    ] {
        let text = format!("declare = \"{declare}\"\narguments = {{ {argument} }}");
        let lines = given(&pool(&text)).lines();
        let name = argument.split(' ').next().unwrap_or_default();
        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert!(
            lines[0].starts_with("tidegate.toml:4:")
                && lines[0].contains(&format!("pools.a.arguments.{name}: found ")),
            "{lines:#?}"
        );
        assert!(lines[0].ends_with(fix), "{lines:#?}");
    }
}

#[test]
fn bindings_are_tables_with_an_exchange() {
    for (bindings, expected) in [
        ("\"orders\"", "write [{ exchange = "),
        ("[\"orders\"]", "write [{ exchange = "),
        ("[{ routing_key = \"a\" }]", "write its exchange"),
        ("[{ exchange = \"\" }]", "write the name of an exchange"),
        (
            "[{ exchange = \"a\", key = \"b\" }]",
            "remove key: a binding has exchange, routing_key and arguments",
        ),
        (
            "[{ exchange = \"a\", arguments = 3 }]",
            "write a table, such as { x-match = \"all\" }",
        ),
    ] {
        let text = format!("declare = \"classic\"\nbindings = {bindings}");
        let lines = given(&pool(&text)).lines();
        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert!(
            lines[0].starts_with("tidegate.toml:4:")
                && lines[0].contains("pools.a.bindings: found"),
            "{lines:#?}"
        );
        assert!(lines[0].contains(expected), "{lines:#?}");
    }
}

#[test]
fn arguments_that_may_lose_messages_are_a_warning() {
    for (arguments, fix) in [
        ("x-max-priority = 10", None),
        (
            "x-message-ttl = 1000",
            Some("also write x-dead-letter-exchange"),
        ),
        ("x-message-ttl = 1000, x-dead-letter-exchange = \"\"", None),
        (
            "x-max-length = 9",
            Some("also write x-overflow = \"reject-publish\""),
        ),
        ("x-max-length = 9, x-overflow = \"reject-publish\"", None),
        ("x-expires = 60000", Some("remove it: the broker deletes")),
        (
            "x-single-active-consumer = true",
            Some("check that this is intended"),
        ),
        ("x-single-active-consumer = false", None),
        ("x-max-priorty = 10", Some("did you mean x-max-priority?")),
        ("acme = true", Some("check that this is intended")),
    ] {
        let warnings = warnings(&format!(
            "declare = \"classic\"\narguments = {{ {arguments} }}"
        ));
        assert_eq!(warnings.len(), usize::from(fix.is_some()), "{warnings:#?}");
        assert!(
            warnings
                .iter()
                .all(|warning| warning.contains(fix.unwrap_or_default())),
            "{arguments}: {warnings:#?}"
        );
    }
}

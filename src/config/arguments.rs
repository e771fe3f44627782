//! `arguments` and `bindings` of a pool: how its queue is declared, besides its type.

use std::{collections::BTreeMap, ops::RangeInclusive};

use toml::de::{DeTable, DeValue};

use super::{
    problem::Problem,
    schema::{Item, Key, KeyKind, KeyPresence, Spelling, Table, ValuePosition, nearest, quoted},
    settings::{Argument, Arguments, Binding, CONSUMERS_PER_CHANNEL, Declare, KeySettings},
};
use crate::decide::Policy;

/// The lowest delivery limit with which no message of a pool with this number of workers is lost when the daemon dies
/// or a connection is lost. A pool with keys has one consumer, and lets a message return once as it is.
pub fn lowest_delivery_limit(max: u32, key: Option<&KeySettings>) -> i64 {
    if key.is_some() {
        return 2;
    }
    let channels = (max as usize).div_ceil(CONSUMERS_PER_CHANNEL).max(1);
    i64::try_from(channels).unwrap_or(i64::MAX)
}

/// The longest exchange name and routing key in AMQP, in bytes.
const SHORT_TEXT: usize = 255;

/// Reads both tables. Also returns the keys of `arguments`, because other checks need them.
pub(super) fn declaration(pool: &mut Table<'_, '_>, declare: &Key<Declare>) -> Declaration {
    let bindings = pool.optional(
        "bindings",
        "Bindings to create when the queue is declared, also as [[pools.NAME.bindings]]. The exchanges must exist.",
        Bindings,
        "[{ exchange = \"orders\", routing_key = \"thumbnail.*\" }]",
    );
    if declare.is_sound() && declare.value == Declare::No && bindings.is_given() {
        pool.refuse(
            &bindings,
            "remove it, or write declare = \"classic\" or \"quorum\": the pool does not declare this queue",
        );
    }
    let (arguments, delivery_limit) = arguments(pool, declare);
    Declaration {
        arguments,
        bindings: bindings.value.unwrap_or_default(),
        delivery_limit,
    }
}

/// How a queue is declared.
pub(super) struct Declaration {
    pub(super) arguments: Arguments,
    pub(super) bindings: Vec<Binding>,
    /// The keys as they were written, for other checks.
    pub(super) delivery_limit: Option<Key<Option<Argument>>>,
}

fn arguments(
    pool: &mut Table<'_, '_>,
    declare: &Key<Declare>,
) -> (Arguments, Option<Key<Option<Argument>>>) {
    let mut table = pool.table(
        "arguments",
        "Arguments of the queue's declaration, by the broker's own names. Other programs that declare the queue must \
        give the same arguments. Without this table the queue's type is the only argument. Times are in milliseconds.",
    );
    table.describe_entries(
        "Any argument that the broker knows: x-delivery-limit, x-dead-letter-exchange, x-max-length, x-max-priority, \
         x-message-ttl, x-overflow and so on.",
        ("x-message-ttl", "86400000"),
    );
    let mut given = BTreeMap::new();
    for name in table.names(Spelling::Exact) {
        let argument = table.entry(&name, &AnyArgument);
        if let Some(value) = &argument.value {
            check(&mut table, declare, &name, &argument, value);
        }
        given.insert(name, argument);
    }
    if declare.is_sound() && declare.value == Declare::No {
        if let Some(first) = given.values().next() {
            table.refuse(
                first,
                "remove it, or write declare = \"classic\" or \"quorum\": the pool does not declare this queue",
            );
        }
    } else {
        check_together(&mut table, &given);
    }
    let arguments = given
        .iter()
        .filter_map(|(name, key)| Some((name.clone(), key.value.clone()?)))
        .collect();
    (arguments, given.remove("x-delivery-limit"))
}

/// Warns of a limit that one death of the daemon, or one lost connection, may use up.
pub(super) fn warn_of_few_deliveries(
    table: &mut Table<'_, '_>,
    delivery_limit: Option<&Key<Option<Argument>>>,
    policy: &Key<Policy>,
    lowest: i64,
) {
    let Some(key) = delivery_limit else {
        return;
    };
    if policy.is_sound()
        && let Some(Argument::Whole(limit)) = key.value
        && (0..lowest).contains(&limit)
    {
        table.warn_of(
            key,
            format!(
                "write {lowest} or more: one death of the daemon, or one lost connection, may count as one return for \
                each {CONSUMERS_PER_CHANNEL} workers, with key a message returns once more, and the broker removes a \
                message that is returned more often"
            ),
        );
    }
}

/// The type of an argument's value.
#[derive(Debug, Clone)]
enum ArgumentType {
    Whole(RangeInclusive<i64>),
    Text,
    Word(&'static [&'static str]),
    Flag,
}

/// The types of queue that accept an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum QueueTypes {
    Both,
    Only(Declare),
}

/// The arguments that RabbitMQ knows. It refuses other values in them.
const KNOWN: [(&str, ArgumentType, QueueTypes); 20] = {
    use ArgumentType::{Flag, Text, Whole, Word};
    use QueueTypes::{Both, Only};
    const CLASSIC: QueueTypes = Only(Declare::Classic);
    const QUORUM: QueueTypes = Only(Declare::Quorum);
    const MAX_U32: i64 = 4_294_967_295;
    [
        ("x-consumer-timeout", Whole(1..=MAX_U32), Both),
        ("x-dead-letter-exchange", Text, Both),
        ("x-dead-letter-routing-key", Text, Both),
        (
            "x-dead-letter-strategy",
            Word(&["at-most-once", "at-least-once"]),
            QUORUM,
        ),
        ("x-delivery-limit", Whole(-1..=MAX_U32), QUORUM),
        ("x-expires", Whole(1..=MAX_U32), Both),
        ("x-max-in-memory-bytes", Whole(0..=i64::MAX), QUORUM),
        ("x-max-in-memory-length", Whole(0..=i64::MAX), QUORUM),
        ("x-max-length", Whole(0..=i64::MAX), Both),
        ("x-max-length-bytes", Whole(0..=i64::MAX), Both),
        ("x-max-priority", Whole(0..=255), CLASSIC),
        ("x-message-ttl", Whole(0..=MAX_U32), Both),
        (
            "x-overflow",
            Word(&["drop-head", "reject-publish", "reject-publish-dlx"]),
            Both,
        ),
        ("x-queue-leader-locator", Text, Both),
        ("x-queue-master-locator", Text, CLASSIC),
        ("x-queue-mode", Word(&["default", "lazy"]), CLASSIC),
        ("x-queue-version", Whole(1..=2), CLASSIC),
        ("x-quorum-initial-group-size", Whole(1..=MAX_U32), QUORUM),
        ("x-quorum-target-group-size", Whole(1..=MAX_U32), QUORUM),
        ("x-single-active-consumer", Flag, Both),
    ]
};

impl ArgumentType {
    fn wants(&self) -> String {
        match self {
            Self::Whole(bounds) if *bounds.end() == i64::MAX => {
                format!("a whole number from {}", bounds.start())
            }
            Self::Whole(bounds) => {
                format!("a whole number from {} to {}", bounds.start(), bounds.end())
            }
            Self::Text => "a string".to_owned(),
            Self::Word(words) => {
                let words: Vec<_> = words.iter().map(|word| quoted(word)).collect();
                words.join(" or ")
            }
            Self::Flag => "true or false".to_owned(),
        }
    }

    fn takes(&self, value: &Argument) -> bool {
        match (self, value) {
            (Self::Whole(bounds), Argument::Whole(number)) => bounds.contains(number),
            (Self::Text, Argument::Text(_)) | (Self::Flag, Argument::Flag(_)) => true,
            (Self::Word(words), Argument::Text(word)) => words.contains(&word.as_str()),
            _ => false,
        }
    }
}

/// Refuses arguments that the broker would refuse.
fn check(
    table: &mut Table<'_, '_>,
    declare: &Key<Declare>,
    name: &str,
    argument: &Key<Option<Argument>>,
    value: &Argument,
) {
    if name == "x-queue-type" {
        return table.refuse(argument, "remove it: declare sets the type");
    }
    let known = KNOWN.iter().find(|(known, _, _)| *known == name);
    let Some((_, takes, of)) = known else {
        let names = KNOWN.iter().map(|(known, _, _)| (*known, *known));
        let fix = match nearest(name, names) {
            Some(meant) => format!("did you mean {meant}? RabbitMQ does not know {name}"),
            None => format!("check that this is intended: RabbitMQ does not know {name}"),
        };
        return table.warn_of(argument, fix);
    };
    if let QueueTypes::Only(kind) = of
        && declare.is_sound()
        && declare.value != Declare::No
        && declare.value != *kind
    {
        let kind = match kind {
            Declare::Quorum => "quorum",
            Declare::Classic | Declare::No => "classic",
        };
        return table.refuse(
            argument,
            format!(
                "remove it, or write declare = \"{kind}\": the broker refuses it for other queues"
            ),
        );
    }
    if !takes.takes(value) {
        table.refuse(argument, format!("write {}", takes.wants()));
    }
}

/// Checks arguments against each other, and against the pool's own behaviour.
fn check_together(table: &mut Table<'_, '_>, given: &BTreeMap<String, Key<Option<Argument>>>) {
    let get = |name: &str| {
        given
            .get(name)
            .filter(|key| key.given == KeyPresence::Valid)
    };
    let is_dead_lettered = given.contains_key("x-dead-letter-exchange");
    for name in ["x-dead-letter-routing-key", "x-dead-letter-strategy"] {
        if let Some(key) = get(name)
            && !is_dead_lettered
        {
            table.refuse(key, "also write x-dead-letter-exchange");
        }
    }
    let overflow = get("x-overflow").and_then(|key| key.value.as_ref());
    let rejects = matches!(overflow, Some(Argument::Text(word)) if word.starts_with("reject"));
    let drops = [
        (
            "x-message-ttl",
            "also write x-dead-letter-exchange: without it, the broker drops messages that wait longer",
            is_dead_lettered,
        ),
        (
            "x-max-length",
            "also write x-overflow = \"reject-publish\": without it, the broker drops messages above the limit",
            rejects || is_dead_lettered,
        ),
        (
            "x-max-length-bytes",
            "also write x-overflow = \"reject-publish\": without it, the broker drops messages above the limit",
            rejects || is_dead_lettered,
        ),
        (
            "x-expires",
            "remove it: the broker deletes the queue when the pool has drained, and later messages have no queue",
            false,
        ),
        (
            "x-single-active-consumer",
            "check that this is intended: only one worker at a time gets messages",
            false,
        ),
    ];
    for (name, fix, is_harmless) in drops {
        if let Some(key) = get(name)
            && !is_harmless
            && key.value != Some(Argument::Flag(false))
        {
            table.warn_of(key, fix);
        }
    }
}

/// Whether a queue with these arguments sends its dead letters to an exchange.
pub(super) fn has_dead_letter_exchange(arguments: &Arguments) -> bool {
    arguments.contains_key("x-dead-letter-exchange")
}

/// Any value that an argument may have.
#[derive(Debug)]
struct AnyArgument;

const ANY: &str = "a string, a whole number, true or false, or an array of these";

impl KeyKind for AnyArgument {
    type Value = Argument;
    const IS_TEXT: bool = false;

    fn wants(&self) -> String {
        ANY.to_owned()
    }

    fn read(&self, item: &Item<'_>, spot: &mut ValuePosition<'_>) -> Option<Argument> {
        let argument = argument(item.get_ref());
        if argument.is_none() {
            spot.wrong(item, format!("write {ANY}"));
        }
        argument
    }

    fn toml(&self, value: &Argument) -> String {
        match value {
            Argument::Flag(flag) => flag.to_string(),
            Argument::Whole(number) => number.to_string(),
            Argument::Text(text) => quoted(text),
            Argument::List(values) => {
                let values: Vec<_> = values.iter().map(|value| self.toml(value)).collect();
                format!("[{}]", values.join(", "))
            }
        }
    }
}

fn argument(value: &DeValue<'_>) -> Option<Argument> {
    Some(match value {
        DeValue::Boolean(flag) => Argument::Flag(*flag),
        DeValue::Integer(number) => {
            Argument::Whole(i64::from_str_radix(number.as_str(), number.radix()).ok()?)
        }
        DeValue::String(text) => Argument::Text(text.to_string()),
        DeValue::Array(items) => {
            let items = items.iter().map(|item| argument(item.get_ref()));
            Argument::List(items.collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

/// An array of bindings.
#[derive(Debug)]
struct Bindings;

impl KeyKind for Bindings {
    type Value = Vec<Binding>;
    const IS_TEXT: bool = false;

    fn wants(&self) -> String {
        "an array of tables with exchange, routing_key and arguments".to_owned()
    }

    fn read(&self, item: &Item<'_>, spot: &mut ValuePosition<'_>) -> Option<Vec<Binding>> {
        const EXAMPLE: &str = "write [{ exchange = \"orders\", routing_key = \"thumbnail.*\" }], or a table for each binding";
        let DeValue::Array(items) = item.get_ref() else {
            spot.wrong(item, EXAMPLE);
            return None;
        };
        let mut bindings = Vec::new();
        for item in items.iter() {
            match item.get_ref() {
                DeValue::Table(table) => bindings.extend(binding(item, table, spot)),
                _ => spot.wrong(item, EXAMPLE),
            }
        }
        Some(bindings)
    }

    fn toml(&self, value: &Vec<Binding>) -> String {
        let binding = |binding: &Binding| {
            let (exchange, key) = (quoted(&binding.exchange), quoted(&binding.routing_key));
            format!("{{ exchange = {exchange}, routing_key = {key} }}")
        };
        let bindings: Vec<_> = value.iter().map(binding).collect();
        format!("[{}]", bindings.join(", "))
    }
}

fn binding(item: &Item<'_>, table: &DeTable<'_>, spot: &mut ValuePosition<'_>) -> Option<Binding> {
    let mut binding = Binding::default();
    let mut is_good = true;
    let mut wrong = |item: &Item<'_>, fix: String| {
        is_good = false;
        spot.wrong(item, fix);
    };
    for (name, value) in table {
        match (name.get_ref().as_ref(), value.get_ref()) {
            ("exchange", DeValue::String(text)) if (1..=SHORT_TEXT).contains(&text.len()) => {
                binding.exchange = text.to_string();
            }
            ("exchange", _) => wrong(
                value,
                format!(
                    "write the name of an exchange, at most {SHORT_TEXT} bytes; the default exchange is bound to every \
                    queue"
                ),
            ),
            ("routing_key", DeValue::String(text)) if text.len() <= SHORT_TEXT => {
                binding.routing_key = text.to_string();
            }
            ("routing_key", _) => wrong(
                value,
                format!("write a string of at most {SHORT_TEXT} bytes"),
            ),
            ("arguments", DeValue::Table(arguments)) => {
                for (name, item) in arguments {
                    match argument(item.get_ref()) {
                        Some(value) => {
                            binding.arguments.insert(name.get_ref().to_string(), value);
                        }
                        None => wrong(item, format!("write {ANY}")),
                    }
                }
            }
            ("arguments", _) => wrong(
                value,
                "write a table, such as { x-match = \"all\" }".to_owned(),
            ),
            (other, _) => wrong(
                value,
                format!("remove {other}: a binding has exchange, routing_key and arguments"),
            ),
        }
    }
    if is_good && binding.exchange.is_empty() {
        is_good = false;
        spot.wrong(item, "write its exchange");
    }
    is_good.then_some(binding)
}

/// Warns that dead letters which are rejected to the broker are lost, if the queue has no dead-letter exchange.
pub(super) fn warn_of_lost_dead_letters(
    table: &mut Table<'_, '_>,
    queue: &str,
    dead_letter: &Key<super::DeadLetter>,
    declare: &Key<Declare>,
    arguments: &Arguments,
) {
    let is_rejected = dead_letter.is_sound() && dead_letter.value == super::DeadLetter::Broker;
    if !is_rejected || !declare.is_sound() || has_dead_letter_exchange(arguments) {
        return;
    }
    let fix = match declare.value {
        Declare::No => {
            "make sure that the queue has a dead-letter exchange, or write \"queue\": without one, dead letters are lost"
                .to_owned()
        }
        Declare::Classic | Declare::Quorum => format!(
            "write arguments = {{ x-dead-letter-exchange = \"\", x-dead-letter-routing-key = {} }}, or write \"queue\": \
             without a dead-letter exchange, dead letters are lost",
            quoted(&format!("{queue}.dead"))
        ),
    };
    table.warn(Problem::new(
        dead_letter.place.clone(),
        dead_letter.path.clone(),
        "\"broker\"",
        fix,
    ));
}

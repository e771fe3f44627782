//! The dead letters of a pool: a bounded list, a retry, a purge.
//!
//! [`DeadLetters`](crate::dead::DeadLetters) does the work, on a connection of its own. So these routes wait for the
//! broker, but never for a pool, and work while the pool is paused. The guard requires a token for the list too: it
//! shows bodies, and browsing takes letters from the queue and returns them.

use std::fmt::Write as _;

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tracing::{info, warn};

use super::{
    answers::{count, error, no_such_pool},
    api::{Api, HttpRoute},
    body::Body,
    caller::Caller,
};
use crate::dead::{self, DeadLetterPlace, DeadLettersError, LetterChoice, Worked};
use tidegate::{
    api::v1,
    decide::{PoolName, SteeringAct, SteeringOutcome},
    escape::Escaped,
    queue::Message,
    run::chain,
    settle::{DeadBy, Letter},
};

/// Bytes of a body that are shown.
const BODY_SHOWN: usize = 256;

/// Characters of a reason and of an error that are shown.
const TEXT_SHOWN: usize = 1024;

/// Longest id, in bytes. The property `message-id` has at most 255.
const LONGEST_ID: usize = 1024;

/// The maximum number of ids in one request.
const MOST_IDS: usize = 100;

/// The routes of this module, for [`routes::table`](super::routes::table).
pub(super) fn table() -> [HttpRoute; 3] {
    [
        ("/api/v1/pools/{pool}/dead", &["get"], get(list)),
        ("/api/v1/pools/{pool}/dead/retry", &["post"], post(retry)),
        ("/api/v1/pools/{pool}/dead/purge", &["post"], post(purge)),
    ]
}

/// Whether a path shows the content of messages, so that it needs a token on every listener.
pub(super) fn is_private(path: &str) -> bool {
    path.ends_with("/dead")
}

async fn list(State(api): State<Api>, Path(name): Path<PoolName>) -> Response {
    let place = match place(&api, &name) {
        Ok(place) => place,
        Err(refusal) => return refusal,
    };
    let mut letters = Vec::new();
    let looked = api.dead.look(&place, |letter, message| {
        letters.push(shown(letter, message));
    });
    match looked.await {
        Ok(count) => Json(v1::DeadLetters {
            queue: place.dead.as_str().to_owned(),
            count,
            letters,
        })
        .into_response(),
        Err(failed) => refused(&failed),
    }
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Retry,
    Purge,
}

impl Act {
    fn steering(self) -> SteeringAct {
        match self {
            Self::Retry => SteeringAct::DeadRetry,
            Self::Purge => SteeringAct::DeadPurge,
        }
    }

    fn as_typed(self, choice: &LetterChoice) -> String {
        let act = match self {
            Self::Retry => "dead retry",
            Self::Purge => "dead purge",
        };
        match choice {
            LetterChoice::All => act.to_owned(),
            LetterChoice::Ids(ids) => match &ids[..] {
                // The log of actions keeps it: a request may have an id of any length.
                [id] => format!("{act} {}", cut(id)),
                ids => format!("{act}, {} ids", ids.len()),
            },
        }
    }

    fn done(self, worked: &Worked) -> String {
        let verb = match self {
            Self::Retry => "put back",
            Self::Purge => "deleted",
        };
        format!("{} of {} {verb}", worked.walked.done, worked.letters)
    }
}

async fn retry(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<PoolName>,
    body: Body<v1::DeadChoice>,
) -> Response {
    work(api, caller, name, body.0, Act::Retry).await
}

async fn purge(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<PoolName>,
    body: Body<v1::DeadChoice>,
) -> Response {
    work(api, caller, name, body.0, Act::Purge).await
}

async fn work(
    api: Api,
    caller: Caller,
    name: PoolName,
    asked: v1::DeadChoice,
    act: Act,
) -> Response {
    let choice = match choice(asked) {
        Ok(choice) => choice,
        Err(why) => return error(StatusCode::BAD_REQUEST, &why),
    };
    let place = match place(&api, &name) {
        Ok(place) => place,
        Err(refusal) => {
            count(act.steering(), SteeringOutcome::Refused);
            return refusal;
        }
    };
    // The work runs in a task of its own, so that it is logged even if the client disconnects.
    let worked = tokio::spawn(work_and_note(api, caller, place, choice, act));
    worked.await.unwrap_or_else(|_| {
        let what = "the work on the dead letters failed: see the log";
        error(StatusCode::SERVICE_UNAVAILABLE, what)
    })
}

async fn work_and_note(
    api: Api,
    caller: Caller,
    place: DeadLetterPlace,
    choice: LetterChoice,
    act: Act,
) -> Response {
    let by = caller.name().await;
    let typed = act.as_typed(&choice);
    let note = |outcome: &str| api.actions.add(Some(&place.pool), &typed, &by, outcome);
    let worked = match act {
        Act::Retry => api.dead.retry(&place, choice).await,
        Act::Purge => api.dead.purge(&place, choice).await,
    };
    match worked {
        Ok(worked) => {
            let (done, outcome) = (worked.walked.done, act.done(&worked));
            count(act.steering(), SteeringOutcome::of(done > 0));
            note(&outcome);
            info!(pool = %place.pool, act = act.steering().as_str(), by, done, letters = worked.letters, "dead letters were retried or purged by an operator");
            Json(answer(&place, worked)).into_response()
        }
        Err(failed) => {
            count(act.steering(), SteeringOutcome::Refused);
            let why = chain(&failed);
            note(&why);
            warn!(pool = %place.pool, act = act.steering().as_str(), by, error = why, "dead letters could not be retried or purged");
            refused(&failed)
        }
    }
}

fn choice(asked: v1::DeadChoice) -> Result<LetterChoice, String> {
    let v1::DeadChoice { ids, all } = asked;
    match (all, ids.len()) {
        (true, 0) => Ok(LetterChoice::All),
        (false, 1..=MOST_IDS) => Ok(LetterChoice::Ids(ids)),
        (false, 0) => Err("the body must have ids, or \"all\": true".to_owned()),
        (true, _) => Err("the body must have either ids or \"all\": true".to_owned()),
        (false, _) => Err(format!("the body may have at most {MOST_IDS} ids")),
    }
}

/// The dead letters of a pool, or the answer that they are not reachable.
#[expect(
    clippy::result_large_err,
    reason = "the answer goes to the caller of the API at once"
)]
fn place(api: &Api, name: &PoolName) -> Result<DeadLetterPlace, Response> {
    let Ok(settings) = api.supervisor.settings(name) else {
        return Err(no_such_pool(name));
    };
    let unreachable = |why: &str| error(StatusCode::UNPROCESSABLE_ENTITY, why);
    let Some(queue) = dead::queue_of(&settings) else {
        let why = format!(
            "with dead_letter = \"broker\" the dead letters of {name} are where the broker's policy sends them: \
             tidegate dead list {name} --queue NAME"
        );
        return Err(unreachable(&why));
    };
    let pools = api.supervisor.pools().into_iter();
    let owner = pools
        .filter_map(|pool| api.supervisor.settings(&pool.name).ok())
        .find(|pool| dead::is_used_by(&queue, pool));
    if let Some(owner) = owner {
        let why = format!("the pool {} works on {queue}", owner.name);
        return Err(unreachable(&why));
    }
    Ok(DeadLetterPlace {
        pool: name.clone(),
        jobs: settings.queue.clone(),
        dead: queue,
    })
}

fn answer(place: &DeadLetterPlace, worked: Worked) -> v1::DeadWork {
    let Worked { letters, walked } = worked;
    let stay = walked.stay_because.first().map(|(_, why)| chain(why));
    let left = match (&walked.problem, stay) {
        (Some(problem), _) => Some(chain(problem)),
        (None, Some(why)) => Some(format!("{} stay: {why}", walked.stay)),
        (None, None) if walked.stopped => {
            Some("the time limit was reached: repeat the request for the others".to_owned())
        }
        (None, None) => None,
    };
    v1::DeadWork {
        queue: place.dead.as_str().to_owned(),
        letters,
        done: walked.done,
        twice: walked.twice,
        missing: walked.missing,
        left,
    }
}

fn refused(failed: &DeadLettersError) -> Response {
    let status = match failed {
        DeadLettersError::Busy => StatusCode::CONFLICT,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    error(status, &chain(failed))
}

fn shown(letter: &Letter, message: &Message) -> v1::DeadLetter {
    v1::DeadLetter {
        id: letter.id.clone().filter(|id| id.len() <= LONGEST_ID),
        at: letter.time,
        attempts: letter.attempts,
        reason: letter.reason.as_deref().map(cut),
        by: letter.by.map(|by| {
            let by = match by {
                DeadBy::Tidegate => "tidegate",
                DeadBy::Broker => "broker",
            };
            by.to_owned()
        }),
        error: letter.error.as_deref().map(cut),
        size: letter.size,
        body: start_of(&message.body),
    }
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_SHOWN).collect()
}

/// The first bytes of a body as text.
fn start_of(body: &[u8]) -> String {
    let start = &body[..body.len().min(BODY_SHOWN)];
    let mut text = String::new();
    let mut chunks = start.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        let _ = write!(text, "{}", Escaped(chunk.valid()));
        // The cut may go through a character. In a whole body such bytes are invalid.
        let is_cut_off = chunks.peek().is_none() && body.len() > BODY_SHOWN;
        for byte in chunk.invalid().iter().filter(|_| !is_cut_off) {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_a_body_is_shown_with_hidden_characters_escaped() {
        for (body, text) in [
            (&b"plain \t text"[..], "plain \t text"),
            (b"two\nlines \x1b[2J", r"two\nlines \u{1b}[2J"),
            (b"<b>\xff\xfe</b>", r"<b>\xff\xfe</b>"),
            ("gpj.\u{202e}exe".as_bytes(), r"gpj.\u{202e}exe"),
            (b"", ""),
        ] {
            assert_eq!(start_of(body), text);
        }
    }

    #[test]
    fn a_long_body_is_cut_between_two_characters() {
        let body = "é".repeat(BODY_SHOWN);
        assert_eq!(start_of(body.as_bytes()), "é".repeat(BODY_SHOWN / 2));
        let shifted = format!("x{body}");
        let text = start_of(shifted.as_bytes());
        assert_eq!(text, format!("x{}", "é".repeat(BODY_SHOWN / 2 - 1)));
    }

    #[test]
    fn the_log_of_actions_keeps_the_start_of_a_long_id() {
        let choice = LetterChoice::Ids(vec!["x".repeat(TEXT_SHOWN + 1)]);
        let typed = Act::Purge.as_typed(&choice);
        assert_eq!(typed, format!("dead purge {}", "x".repeat(TEXT_SHOWN)));
    }

    #[test]
    fn a_selection_names_ids_or_all_and_is_never_empty_by_accident() {
        let asked = |ids: &[&str], all| v1::DeadChoice {
            ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            all,
        };
        assert_eq!(choice(asked(&[], true)), Ok(LetterChoice::All));
        let one = LetterChoice::Ids(vec!["a".to_owned()]);
        assert_eq!(choice(asked(&["a"], false)), Ok(one));
        choice(asked(&[], false)).unwrap_err();
        choice(asked(&["a"], true)).unwrap_err();
        choice(asked(&["a"; MOST_IDS + 1], false)).unwrap_err();
    }
}

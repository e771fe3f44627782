//! Dead letters over the API of a running daemon.

use serde_json::Value;

use super::Rig;
use crate::support::{
    broker::broker_url,
    daemon::{Answer, Daemon},
};

const HOST: (&str, &str) = ("Host", "localhost");
const STEER: (&str, &str) = ("Authorization", "Bearer s3cret");
const READ: (&str, &str) = ("Authorization", "Bearer l00k");
const DEAD: &str = "/api/v1/pools/p/dead";

/// A daemon on the queue of a rig. Its pool is paused, so that letters that are put back stay in the queue.
fn paused(rig: &Rig, retry: &str) -> Daemon {
    let pools = format!(
        "[pools.p]\nqueue = \"{}\"\n[pools.p.retry]\n{retry}\n[pools.p.runner]\ncommand = [\"/bin/cat\"]\n",
        rig.live()
    );
    let tokens = [("token", "s3cret\n"), ("read", "l00k\n")];
    let head = "http.token_file = \"token\"\nhttp.read_token_file = \"read\"";
    let daemon = Daemon::start_with_files(&tokens, &broker_url(), head, &pools);
    let answer = daemon.request("POST", "/api/v1/pools/p/pause", &[HOST, STEER], "");
    assert_eq!(answer.status, 200, "{answer:?}");
    daemon
}

fn json(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(&answer.body).unwrap()
}

fn post(daemon: &Daemon, act: &str, body: &str) -> Answer {
    let headers = [HOST, STEER, ("Content-Type", "application/json")];
    daemon.request("POST", &format!("{DEAD}/{act}"), &headers, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_lists_the_oldest_letters_and_leaves_all_as_they_were() {
    let rig = Rig::new().await;
    for n in 0..40 {
        rig.bury(&format!("letter {n}"), "attempts").await;
    }
    let daemon = paused(&rig, "");
    for _ in 0..3 {
        let listed = json(&daemon.request("GET", DEAD, &[HOST, READ], ""));
        assert_eq!(listed["queue"], rig.dead());
        assert_eq!(listed["count"], 40);
        let letters = listed["letters"].as_array().unwrap();
        assert_eq!(letters.len(), 32);
        let first = &letters[0];
        assert_eq!(first["id"], "letter 0");
        assert_eq!(first["at"], "2026-01-02T03:04:05Z");
        assert_eq!(
            (&first["attempts"], &first["size"]),
            (&5.into(), &15.into())
        );
        assert_eq!(first["reason"], "attempts");
        assert_eq!(first["body"], "the secret body");
    }
    rig.until_ready(&rig.dead(), |ready| ready == 40).await;
    assert_eq!(rig.ids(&rig.dead()).await[..2], ["letter 0", "letter 1"]);
    let said = daemon.said();
    assert!(!said.contains("secret body"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_puts_back_and_deletes_what_was_chosen_while_the_pool_is_paused() {
    let rig = Rig::new().await;
    for id in ["a", "b", "c", "d"] {
        rig.bury(id, "attempts").await;
    }
    let daemon = paused(&rig, "");
    let retried = json(&post(&daemon, "retry", r#"{"ids": ["b", "none"]}"#));
    assert_eq!(
        (&retried["done"], &retried["letters"]),
        (&1.into(), &4.into())
    );
    assert_eq!(retried["missing"], serde_json::json!(["none"]));
    let purged = json(&post(&daemon, "purge", r#"{"ids": ["c"]}"#));
    assert_eq!(
        (&purged["done"], &purged["letters"]),
        (&1.into(), &3.into())
    );
    let retried = json(&post(&daemon, "retry", r#"{"all": true}"#));
    assert_eq!(retried["done"], 2);
    assert_eq!(retried.get("left"), None, "{retried:#}");
    assert_eq!(rig.ids(&rig.dead()).await, [""; 0]);
    // Letters are put back several at a time, in any order.
    let mut live = rig.ids(&rig.live()).await;
    live.sort();
    assert_eq!(live, ["a", "b", "d"]);

    let actions = json(&daemon.request("GET", "/api/v1/actions", &[HOST], ""));
    let done = |act: &str, outcome: &str| {
        let mut actions = actions.as_array().unwrap().iter();
        let is = |a: &&Value| a["act"] == act && a["outcome"] == outcome && a["by"] == "token";
        assert!(actions.any(|a| is(&a)), "{act}: {actions:#?}");
    };
    done("dead retry, 2 ids", "1 of 4 put back");
    done("dead purge c", "1 of 3 deleted");
    done("dead retry", "2 of 2 put back");
    let metrics = daemon.get("/metrics").1;
    let counted = "tidegate_steering_total{act=\"dead_purge\",outcome=\"changed\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_shows_and_touches_no_letter_without_a_token_or_by_accident() {
    let rig = Rig::new().await;
    rig.bury("a", "attempts").await;
    let daemon = paused(&rig, "");
    assert_eq!(daemon.request("GET", DEAD, &[HOST], "").status, 401);
    let json = ("Content-Type", "application/json");
    for act in ["retry", "purge"] {
        let url = format!("{DEAD}/{act}");
        for (token, status) in [(None, 401), (Some(READ), 403), (Some(STEER), 400)] {
            let headers: Vec<_> = [Some(HOST), Some(json), token]
                .into_iter()
                .flatten()
                .collect();
            // With the token it is refused, because nothing was chosen.
            let answer = daemon.request("POST", &url, &headers, "{}");
            assert_eq!(answer.status, status, "{act}: {answer:?}");
        }
        let both = post(&daemon, act, r#"{"ids": ["a"], "all": true}"#);
        assert_eq!(both.status, 400, "{both:?}");
    }
    assert_eq!(rig.ready(&rig.dead()).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_names_the_queue_of_letters_that_the_broker_dead_letters() {
    let rig = Rig::new().await;
    let daemon = paused(&rig, "dead_letter = \"broker\"");
    let answer = daemon.request("GET", DEAD, &[HOST, READ], "");
    assert_eq!(answer.status, 422, "{answer:?}");
    assert!(
        answer.body.contains("tidegate dead list p --queue NAME"),
        "{answer:?}"
    );
}

//! Tests of shares: who is a member of the group, and how many workers each member gets.

mod group;

use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn at(millis: u64) -> Moment {
    Moment::after_start(Duration::from_millis(millis))
}

fn beat(member: &str, boot: u64, sequence: u64) -> Beat {
    Beat {
        member: member.into(),
        boot,
        sequence,
        numbers: numbers(10),
        gone: 0,
        policy: 7,
        leaving: false,
    }
}

fn numbers(capacity: u32) -> MemberNumbers {
    MemberNumbers {
        capacity,
        ..MemberNumbers::default()
    }
}

fn member(id: &str, capacity: u32) -> Member {
    Member {
        id: id.into(),
        numbers: numbers(capacity),
    }
}

fn pinned(id: &str, workers: u32) -> Member {
    Member {
        id: id.into(),
        numbers: MemberNumbers {
            pinned: Some(workers),
            ..numbers(10)
        },
    }
}

/// Daemon `a`, which hears its own beats.
fn members() -> Members {
    Members::new("a".into(), 1, 7, at(0))
}

fn hear_own(members: &mut Members, millis: u64) {
    let own = members.next_beat(at(millis), numbers(10));
    assert_eq!(members.hear(at(millis), own), Heard::Ignored);
}

#[test]
fn divides_by_capacity_and_gives_the_rest_to_the_largest_fractions() {
    // (whole, capacities, shares)
    let cases: &[(u32, &[u32], &[u32])] = &[
        (0, &[10, 10], &[0, 0]),
        (1, &[10, 10, 10], &[1, 0, 0]),
        (10, &[10, 10], &[5, 5]),
        (11, &[10, 10], &[6, 5]),
        (10, &[30, 10], &[8, 2]),
        (10, &[10, 10, 20], &[3, 2, 5]),
        // A member that takes no messages gets nothing.
        (10, &[0, 10], &[0, 10]),
        // More than all can have.
        (50, &[10, 5], &[10, 5]),
        (5, &[0, 0], &[0, 0]),
        (5, &[], &[]),
        (
            u32::MAX,
            &[u32::MAX, u32::MAX, u32::MAX],
            &[1_431_655_765; 3],
        ),
    ];
    for (whole, capacities, shares) in cases {
        let members: Vec<Member> = capacities
            .iter()
            .zip(["a", "b", "c"])
            .map(|(capacity, id)| member(id, *capacity))
            .collect();
        assert_eq!(
            split(*whole, &members),
            *shares,
            "{whole} over {capacities:?}"
        );
    }
}

#[test]
fn a_pinned_member_counts_with_its_number_and_the_others_divide_the_rest() {
    let pinned = pinned("b", 4);
    assert_eq!(
        split(10, &[member("a", 10), pinned.clone(), member("c", 10)]),
        [3, 4, 3]
    );
    assert_eq!(split(2, &[member("a", 10), pinned.clone()]), [0, 4]);
    assert_eq!(split(9, &[pinned]), [4]);
}

#[test]
fn a_new_or_restarted_member_is_distinguished_from_a_known_one() {
    let mut members = members();
    assert_eq!(members.hear(at(1), beat("b", 1, 1)), Heard::Joined);
    assert_eq!(members.hear(at(2), beat("b", 1, 2)), Heard::Same);
    let busier = Beat {
        numbers: MemberNumbers {
            busy: 3,
            ..numbers(10)
        },
        ..beat("b", 1, 3)
    };
    assert_eq!(members.hear(at(3), busier.clone()), Heard::Changed);
    assert_eq!(
        members.hear(at(4), busier),
        Heard::Ignored,
        "the same beat again"
    );
    assert_eq!(
        members.hear(at(5), beat("b", 1, 2)),
        Heard::Ignored,
        "an old beat"
    );
    assert_eq!(
        members.hear(at(6), beat("a", 9, 9)),
        Heard::Ignored,
        "its own beat"
    );
    assert_eq!(
        members.hear(at(7), beat("b", 2, 1)),
        Heard::Joined,
        "restarted"
    );
    assert_eq!(
        members.hear(at(8), beat("b", 1, 99)),
        Heard::Ignored,
        "a late beat of the old boot"
    );
}

#[test]
fn a_member_that_leaves_is_forgotten_at_once() {
    let leaving = |sequence| Beat {
        leaving: true,
        ..beat("b", 1, sequence)
    };
    let mut members = members();
    assert_eq!(
        members.hear(at(1), leaving(1)),
        Heard::Ignored,
        "never a member"
    );
    assert_eq!(members.hear(at(2), beat("b", 1, 2)), Heard::Joined);
    assert_eq!(members.hear(at(3), leaving(3)), Heard::Left);
    assert_eq!(members.group(at(3), numbers(10)).members.len(), 1);
}

#[test]
fn a_member_that_is_silent_for_five_beats_is_forgotten() {
    let mut members = members();
    let _ = members.hear(at(100), beat("b", 1, 1));
    let _ = members.hear(at(900), beat("c", 1, 1));
    for millis in [2_000, 4_000, 6_000] {
        hear_own(&mut members, millis.min(5_099));
    }
    assert_eq!(members.forget_silent(at(5_099)), []);
    assert_eq!(members.forget_silent(at(5_100)), [MemberId::from("b")]);
    assert!(!members.group(at(5_100), numbers(10)).settled);
    assert!(members.group(at(6_100), numbers(10)).settled);
}

#[test]
fn growth_waits_for_one_beat_after_each_change_of_members() {
    let mut members = members();
    let own = || numbers(10);
    assert!(!members.group(at(999), own()).settled);
    assert!(members.group(at(1_000), own()).settled);
    hear_own(&mut members, 2_000);
    let _ = members.hear(at(2_000), beat("b", 1, 1));
    assert!(!members.group(at(2_999), own()).settled);
    assert!(members.group(at(3_000), own()).settled);
    let _ = members.hear(at(4_000), beat("b", 1, 2));
    assert!(
        members.group(at(4_000), own()).settled,
        "a beat of a known member"
    );
}

#[test]
fn a_daemon_that_does_not_hear_itself_forgets_nobody_and_keeps_its_share() {
    let mut members = members();
    let _ = members.hear(at(1), beat("b", 1, 1));
    hear_own(&mut members, 1_000);
    assert!(members.group(at(2_000), numbers(10)).settled);
    let lost = members.next_beat(at(2_000), numbers(10));
    assert!(members.is_deaf(at(4_000)));
    let group = members.group(at(60_000), numbers(10));
    assert_eq!(
        (group.settled, group.deaf, group.members.len()),
        (true, true, 2)
    );
    assert_eq!(group.share_of(10), 5);
    assert_eq!(members.forget_silent(at(60_000)), []);
    // An old beat that comes late proves nothing.
    let _ = members.hear(at(60_000), lost);
    assert!(members.is_deaf(at(60_000)));
    // It hears itself again: five beats for the others, one beat without growth.
    hear_own(&mut members, 61_000);
    assert!(!members.group(at(61_999), numbers(10)).settled);
    assert!(members.group(at(62_000), numbers(10)).settled);
    hear_own(&mut members, 63_500);
    hear_own(&mut members, 65_999);
    assert_eq!(members.forget_silent(at(65_999)), []);
    assert_eq!(members.forget_silent(at(66_000)), [MemberId::from("b")]);
}

#[test]
fn a_daemon_that_hears_nothing_from_its_start_acts_alone_after_five_beats() {
    let members = members();
    assert!(!members.group(at(4_999), numbers(10)).settled);
    assert!(members.group(at(5_000), numbers(10)).settled);
}

#[test]
fn a_beat_is_the_same_after_a_round_trip_through_json() {
    let beat = Beat {
        leaving: true,
        ..beat("b", u64::MAX, 3)
    };
    let text = serde_json::to_string(&beat).unwrap();
    assert_eq!(serde_json::from_str::<Beat>(&text).unwrap(), beat, "{text}");
    let more = text.replace('{', r#"{"added_later":1,"#);
    assert_eq!(serde_json::from_str::<Beat>(&more).unwrap(), beat);
}

#[test]
fn a_member_with_another_policy_is_named() {
    let mut members = members();
    let _ = members.hear(at(1), beat("b", 1, 1));
    let other = Beat {
        policy: 8,
        ..beat("c", 1, 1)
    };
    let _ = members.hear(at(1), other);
    let group = members.group(at(2), numbers(10));
    assert_eq!(group.differing, [MemberId::from("c")]);
}

#[test]
fn impossible_numbers_do_not_overflow() {
    let mut members = members();
    for name in ["b", "c"] {
        let most = MemberNumbers {
            workers: u32::MAX,
            busy: u32::MAX,
            held: u64::MAX,
            capacity: u32::MAX,
            pinned: None,
        };
        let beat = Beat {
            numbers: most,
            ..beat(name, 1, 1)
        };
        let _ = members.hear(at(1), beat);
    }
    let group = members.group(at(2_000), numbers(10));
    assert_eq!(group.held_by_others(), u64::MAX);
    assert_eq!(group.busy_elsewhere(), u32::MAX);
    assert_eq!(group.workers_elsewhere(), u32::MAX);
    assert_eq!(group.share_of(10), 0);
    let long = "x".repeat(256);
    assert_eq!(members.hear(at(1), beat(&long, 1, 1)), Heard::Ignored);
}

#[test]
fn a_faulty_sender_cannot_fill_the_memory() {
    let mut members = members();
    for n in 0..2 * MAX_MEMBERS {
        let _ = members.hear(at(1), beat(&format!("m{n}"), 1, 1));
    }
    assert_eq!(members.others.len(), MAX_MEMBERS);
}

fn some_members() -> impl Strategy<Value = Vec<Member>> {
    prop::collection::vec((0u32..200, prop::option::weighted(0.1, 0u32..50)), 1..12).prop_map(
        |list| {
            list.into_iter()
                .enumerate()
                .map(|(n, (capacity, pinned))| Member {
                    id: format!("m{n:02}").into(),
                    numbers: MemberNumbers {
                        pinned,
                        ..numbers(capacity)
                    },
                })
                .collect()
        },
    )
}

proptest! {
    #[test]
    fn shares_add_up_to_the_whole_or_to_all_that_the_members_can_have(
        whole in 0u32..3_000,
        members in some_members(),
    ) {
        let shares = split(whole, &members);
        let pinned: u32 = members.iter().filter_map(|member| member.numbers.pinned).sum();
        let free = members.iter().filter(|member| member.numbers.pinned.is_none());
        let room: u32 = free.map(|member| member.numbers.capacity).sum();
        let total: u32 = shares.iter().sum();
        prop_assert_eq!(total, pinned + whole.saturating_sub(pinned).min(room));
        for (member, share) in members.iter().zip(&shares) {
            prop_assert!(*share <= member.numbers.pinned.unwrap_or(member.numbers.capacity));
        }
    }

    #[test]
    fn every_member_computes_the_same_shares(whole in 0u32..500, members in some_members()) {
        let group = |own: &MemberId| Group {
            own: own.clone(),
            members: members.clone(),
            gone_elsewhere: 0,
            settled: true,
            deaf: false,
            differing: Vec::new(),
        };
        let by_each: Vec<u32> = members.iter().map(|m| group(&m.id).share_of(whole)).collect();
        prop_assert_eq!(by_each, split(whole, &members));
    }

    #[test]
    fn with_two_members_a_larger_whole_never_lowers_a_share(
        whole in 0u32..500,
        a in 0u32..200,
        b in 0u32..200,
    ) {
        // With three or more members, largest remainders may take one away (the Alabama paradox). With two they do not.
        let members = [member("a", a), member("b", b)];
        let (less, more) = (split(whole, &members), split(whole + 1, &members));
        prop_assert!(less.iter().zip(&more).all(|(less, more)| less <= more));
    }
}

//! One suite for every implementation of the queue traits.

mod bench;
mod browsing;
mod consuming;
mod groups;
mod publishing;
mod queues;

use tidegate::queue::QueueKind;

use self::bench::Bench;

/// Runs each test against each implementation, on queues of each kind.
macro_rules! conformance {
    ($($group:ident: [$($name:ident),* $(,)?]),* $(,)?) => {
        mod memory_classic {
            use super::*;
            $($(#[tokio::test] async fn $name() {
                $group::$name(Bench::memory(QueueKind::Classic)).await;
            })*)*
        }
        mod memory_quorum {
            use super::*;
            $($(#[tokio::test] async fn $name() {
                $group::$name(Bench::memory(QueueKind::Quorum)).await;
            })*)*
        }
        mod amqp_classic {
            use super::*;
            $($(#[tokio::test] async fn $name() {
                $group::$name(Bench::amqp(QueueKind::Classic).await).await;
            })*)*
        }
        mod amqp_quorum {
            use super::*;
            $($(#[tokio::test] async fn $name() {
                $group::$name(Bench::amqp(QueueKind::Quorum).await).await;
            })*)*
        }
    };
}

conformance! {
    browsing: [
        browsing_leaves_the_queue_unchanged,
        browsing_thousands_gives_all_back_at_once_and_in_order,
        messages_settled_while_browsing_are_gone_and_the_rest_keeps_its_order,
        browsing_does_not_see_what_others_hold,
        a_dropped_browser_returns_all_its_messages,
        browsing_a_missing_queue_is_not_found_and_affects_nothing_else,
    ],
    consuming: [
        delivers_in_the_order_of_publishing,
        never_hands_out_more_than_the_prefetch,
        a_requeued_message_returns_to_the_head_marked_as_redelivered,
        requeued_messages_keep_their_order,
        counts_the_returns_of_a_quorum_queue,
        gives_a_dropped_delivery_back,
        gives_back_what_a_dropped_consumer_held,
        gives_back_what_a_closed_consumer_held,
        a_cancelled_consumer_hands_over_what_it_had_buffered_and_then_ends,
        a_cancelled_consumer_is_sent_nothing_more,
        a_deleted_queue_ends_its_consumers_without_an_error,
        a_delivery_from_a_deleted_queue_is_settled_without_an_error,
        two_consumers_share_the_messages,
        settling_after_the_consumer_closed_is_a_lost_settlement,
        a_consumer_that_is_closed_leaves_what_others_hold_and_gives_its_own_back,
        a_consumer_that_is_refused_leaves_what_others_hold,
    ],
    groups: [
        a_message_reaches_every_member_and_its_sender_in_order,
        groups_of_other_queues_hear_nothing_and_a_late_member_gets_no_old_message,
        a_closed_driver_leaves_the_group,
    ],
    publishing: [
        a_publish_to_no_queue_is_unroutable,
        a_publish_to_no_exchange_is_not_found,
        a_message_keeps_every_property_and_header,
        a_message_without_properties_arrives_without_properties,
        bodies_arrive_byte_for_byte,
        headers_up_to_the_limit_pass_and_beyond_it_are_refused,
        texts_that_amqp_cannot_express_are_refused,
        many_publish_at_once,
        a_message_that_may_be_dropped_is_dropped_if_no_queue_takes_it,
    ],
    queues: [
        a_missing_queue_is_reported_as_not_found_and_affects_nothing_else,
        a_depth_counts_ready_messages_and_consumers,
        a_queues_ttl_moves_messages_to_its_dead_letter_queue,
        the_shorter_of_two_ttls_counts,
        a_rejected_message_goes_to_the_dead_letter_queue,
        a_rejected_message_without_a_dead_letter_queue_is_dropped,
        a_quorum_queue_dead_letters_at_least_once,
        a_queue_that_was_declared_differently_is_a_mismatch,
        a_deleted_queue_can_be_declared_again,
        deleting_a_missing_queue_is_not_an_error,
        closing_ends_consumers_and_refuses_everything_else,
    ],
}

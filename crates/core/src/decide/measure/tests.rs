//! The meter as a whole.

use super::*;

fn at(second: u64) -> Moment {
    Moment::after_start(Duration::from_secs(second))
}

#[test]
fn jobs_that_fail_do_not_count_as_service() {
    let mut meter = Meter::default();
    meter.taken(at(0), None);
    meter.finished(at(1), Duration::from_millis(1), false);
    assert_eq!(meter.timings(at(1), 1).service, None);
    meter.finished(at(2), Duration::from_secs(2), true);
    let timings = meter.timings(at(2), 1);
    let service = timings.service.expect("one job succeeded");
    assert_eq!((service.mean, service.samples), (Duration::from_secs(2), 1));
    assert_eq!((timings.finished, timings.failed), (1, 1));
    assert_eq!(timings.wait, None, "no message said when it was published");
}

#[test]
fn time_without_a_success_counts_only_while_deliveries_are_held() {
    let mut meter = Meter::default();
    assert_eq!(meter.timings(at(0), 0).fruitless, None);
    meter.taken(at(10), Some(Duration::from_secs(3)));
    meter.taken(at(20), None);
    let fruitless = |meter: &mut Meter, second, held| meter.timings(at(second), held).fruitless;
    assert_eq!(fruitless(&mut meter, 40, 2), Some(Duration::from_secs(30)));
    meter.finished(at(45), Duration::from_secs(1), false);
    assert_eq!(fruitless(&mut meter, 50, 1), Some(Duration::from_secs(40)));
    meter.finished(at(55), Duration::from_secs(35), true);
    assert_eq!(fruitless(&mut meter, 60, 1), Some(Duration::from_secs(5)));
    assert_eq!(fruitless(&mut meter, 70, 0), None);
    meter.taken(at(500), None);
    assert_eq!(fruitless(&mut meter, 501, 1), Some(Duration::from_secs(1)));
}

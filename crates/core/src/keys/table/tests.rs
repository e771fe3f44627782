//! Tests of the table of keys: examples, and a model.

use proptest::prelude::*;

use super::*;

fn key(n: u8) -> Option<OrderKey> {
    OrderKey::new(&[n])
}

#[test]
fn jobs_of_one_key_start_one_at_a_time_and_others_are_not_held_back() {
    let mut table = KeyTable::new(1);
    let [a1, a2, b1, free] = [key(1), key(1), key(2), None].map(|key| table.take(key));
    let started: Vec<_> = std::iter::from_fn(|| table.start_next()).collect();
    assert_eq!(started, [a1, b1, free]);
    assert_eq!((table.ready(), table.blocked(), table.running()), (0, 1, 3));
    table.done(b1);
    assert_eq!(table.start_next(), None);
    table.done(a1);
    assert_eq!(table.start_next(), Some(a2));
}

#[test]
fn a_delivery_that_is_put_back_keeps_its_place() {
    let mut table = KeyTable::new(1);
    let [a1, a2, a3] = [(); 3].map(|()| table.take(key(1)));
    assert_eq!(table.start_next(), Some(a1));
    table.put_back(a1);
    for next in [a1, a2, a3] {
        assert_eq!(table.start_next(), Some(next));
        assert_eq!(table.start_next(), None);
        table.done(next);
    }
}

#[test]
fn a_delivery_is_removed_with_the_later_ones_of_its_key_only() {
    let mut table = KeyTable::new(2);
    let [a1, b1, a2, a3, b2] = [1, 2, 1, 1, 2].map(|n| table.take(key(n)));
    assert_eq!(table.remove_with_later(a2), [a2, a3]);
    assert_eq!(table.remove_with_later(a2), []);
    let started: Vec<_> = std::iter::from_fn(|| table.start_next()).collect();
    assert_eq!(started, [a1, b1, b2]);
    let b3 = table.take(key(2));
    assert_eq!(table.remove_with_later(b3), [b3], "it was blocked");
    assert_eq!(table.remove_waiting(), []);
}

/// One step of a run. A number chooses among those that there are.
#[derive(Debug, Clone)]
enum Act {
    Take(u8),
    Start,
    Done(usize),
    PutBack(usize),
    Remove(usize),
    RemoveWaiting,
    SetPerKey(u32),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0u8..4).prop_map(Act::Take),
        6 => Just(Act::Start),
        4 => any::<usize>().prop_map(Act::Done),
        2 => any::<usize>().prop_map(Act::PutBack),
        1 => any::<usize>().prop_map(Act::Remove),
        1 => Just(Act::RemoveWaiting),
        1 => (1u32..4).prop_map(Act::SetPerKey),
    ]
}

/// What the table must do, said as simply as possible.
#[derive(Debug, Default)]
struct Model {
    per_key: u32,
    /// By id, so in the order in which they were taken. Key 0 is none.
    waiting: BTreeMap<TakenId, u8>,
    running: BTreeMap<TakenId, u8>,
}

impl Model {
    /// Those that may start, by id.
    fn ready(&self) -> Vec<TakenId> {
        let mut of_key = HashMap::<u8, u32>::new();
        for key in self.running.values() {
            *of_key.entry(*key).or_default() += 1;
        }
        let mut ready = Vec::new();
        for (id, key) in &self.waiting {
            let before = of_key.entry(*key).or_default();
            if *key == 0 || *before < self.per_key {
                ready.push(*id);
            }
            *before += 1;
        }
        ready
    }

    fn remove(&mut self, ids: &[TakenId]) {
        self.waiting.retain(|id, _| !ids.contains(id));
    }
}

fn nth(of: &BTreeMap<TakenId, u8>, n: usize) -> Option<TakenId> {
    let at = n.checked_rem(of.len())?;
    of.keys().nth(at).copied()
}

proptest! {
    /// The model says all of it: never two of one key beyond `per_key`, the order of each key, the first taken first, and
    /// nothing lost.
    #[test]
    fn does_what_the_model_does(per_key in 1u32..4, acts in prop::collection::vec(act(), 0..200)) {
        let mut table = KeyTable::new(per_key);
        let mut model = Model { per_key, ..Model::default() };
        for act in acts {
            match act {
                Act::Take(n) => {
                    let id = table.take(if n == 0 { None } else { key(n) });
                    model.waiting.insert(id, n);
                }
                Act::Start => {
                    let started = table.start_next();
                    prop_assert_eq!(started, model.ready().first().copied());
                    if let Some(id) = started {
                        let key = model.waiting.remove(&id).unwrap();
                        model.running.insert(id, key);
                    }
                }
                Act::Done(n) => {
                    if let Some(id) = nth(&model.running, n) {
                        table.done(id);
                        model.running.remove(&id);
                    }
                }
                Act::PutBack(n) => {
                    if let Some(id) = nth(&model.running, n) {
                        table.put_back(id);
                        let key = model.running.remove(&id).unwrap();
                        model.waiting.insert(id, key);
                    }
                }
                Act::Remove(n) => {
                    if let Some(id) = nth(&model.waiting, n) {
                        let key = model.waiting[&id];
                        let same: Vec<_> = model.waiting.range(id..)
                            .filter(|(later, of)| **later == id || (key != 0 && **of == key))
                            .map(|(later, _)| *later)
                            .collect();
                        prop_assert_eq!(&table.remove_with_later(id), &same);
                        model.remove(&same);
                    }
                }
                Act::RemoveWaiting => {
                    let all: Vec<_> = model.waiting.keys().copied().collect();
                    prop_assert_eq!(&table.remove_waiting(), &all);
                    model.waiting.clear();
                }
                Act::SetPerKey(jobs) => {
                    table.set_per_key(jobs);
                    model.per_key = jobs;
                }
            }
            let ready = model.ready().len();
            prop_assert_eq!(table.ready(), ready);
            prop_assert_eq!(table.blocked(), model.waiting.len() - ready);
            prop_assert_eq!(table.running(), model.running.len());
        }
        // All can be finished, and then nothing is remembered.
        while let Some(id) = table.start_next().or_else(|| nth(&model.running, 0)) {
            table.done(id);
            model.waiting.remove(&id);
            model.running.remove(&id);
        }
        prop_assert!(model.waiting.is_empty() && model.running.is_empty());
        prop_assert!(table.lanes.is_empty(), "{:?}", table);
    }
}

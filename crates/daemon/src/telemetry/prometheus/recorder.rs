//! The values of all series, and their text.
//!
//! Recording is one atomic operation, or two for a histogram: no lock, no memory. A series makes the text of its name and
//! labels once, so a render formats only numbers. A gauge whose value is NaN is gone, and is left out.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic::Ordering},
};

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Label, Metadata, Recorder, SharedString,
    Unit, atomics::AtomicU64,
};

/// The bounds of the histogram with this name.
pub(super) type BucketBounds = fn(&str) -> &'static [f64];

/// All series. Cheap to clone.
#[derive(Clone)]
pub(super) struct Registry {
    bounds: BucketBounds,
    families: Arc<RwLock<Families>>,
}

/// Written when a series is registered or a name is described, read by each render.
#[derive(Default)]
struct Families {
    help: BTreeMap<String, SharedString>,
    counters: BTreeMap<String, Family<AtomicU64>>,
    gauges: BTreeMap<String, Family<AtomicU64>>,
    histograms: BTreeMap<String, Family<Distribution>>,
}

/// The series of one name.
struct Family<T>(BTreeMap<Key, Series<T>>);

struct Series<T> {
    /// What stands before the value. For a histogram, what stands between the braces.
    text: String,
    value: Arc<T>,
}

/// A histogram with fixed bounds.
struct Distribution {
    bounds: &'static [f64],
    /// The number of values in each bucket. The last one has those above all bounds.
    counts: Box<[AtomicU64]>,
    /// The bits of a float.
    sum: AtomicU64,
}

impl Registry {
    pub(super) fn new(bounds: BucketBounds) -> Self {
        Self {
            bounds,
            families: Arc::default(),
        }
    }

    /// All series in Prometheus' text format, sorted by name and labels within each type.
    pub(super) fn render(&self) -> String {
        let families = self.read();
        let mut text = String::with_capacity(families.expected_size());
        for (name, family) in &families.counters {
            families.head(&mut text, name, "counter");
            for series in family.0.values() {
                let value = series.value.load(Ordering::Relaxed);
                line(&mut text, &series.text, value);
            }
        }
        for (name, family) in &families.gauges {
            let values = family.0.values().map(|series| {
                let bits = series.value.load(Ordering::Relaxed);
                (series, f64::from_bits(bits))
            });
            let mut present = values.filter(|(_, value)| !value.is_nan()).peekable();
            if present.peek().is_some() {
                families.head(&mut text, name, "gauge");
            }
            present.for_each(|(series, value)| line(&mut text, &series.text, value));
        }
        for (name, family) in &families.histograms {
            families.head(&mut text, name, "histogram");
            let ends: Vec<_> = (self.bounds)(name)
                .iter()
                .map(|bound| format!("le=\"{bound}\"}}"))
                .chain(["le=\"+Inf\"}".to_owned()])
                .collect();
            for series in family.0.values() {
                series.value.render(&mut text, name, &series.text, &ends);
            }
        }
        text
    }

    fn read(&self) -> RwLockReadGuard<'_, Families> {
        self.families.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Families> {
        let families = self.families.write();
        families.unwrap_or_else(PoisonError::into_inner)
    }

    fn describe(&self, name: &KeyName, help: SharedString) {
        self.write().help.insert(plain(name.as_str()), help);
    }
}

impl Recorder for Registry {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&name, help);
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&name, help);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&name, help);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let known = find(&self.read().counters, key);
        let value = known.unwrap_or_else(|| {
            let family = &mut self.write().counters;
            add(family, key, series_text(key), AtomicU64::default)
        });
        value.into()
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        let known = find(&self.read().gauges, key);
        let value = known.unwrap_or_else(|| {
            let family = &mut self.write().gauges;
            add(family, key, series_text(key), AtomicU64::default)
        });
        value.into()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let known = find(&self.read().histograms, key);
        let value = known.unwrap_or_else(|| {
            let distribution = || Distribution::new((self.bounds)(key.name()));
            let family = &mut self.write().histograms;
            add(family, key, labels_text(key), distribution)
        });
        value.into()
    }
}

fn find<T>(families: &BTreeMap<String, Family<T>>, key: &Key) -> Option<Arc<T>> {
    let series = families.get(key.name())?.0.get(key)?;
    Some(series.value.clone())
}

/// Adds a series. Another thread may have added it since it was looked for.
fn add<T>(
    families: &mut BTreeMap<String, Family<T>>,
    key: &Key,
    text: String,
    value: impl FnOnce() -> T,
) -> Arc<T> {
    let family = families.entry(plain(key.name()));
    let family = family.or_insert_with(|| Family(BTreeMap::new()));
    let series = family.0.entry(key.to_retained());
    let series = series.or_insert_with(|| Series {
        text,
        value: Arc::new(value()),
    });
    series.value.clone()
}

impl Families {
    /// A little more than a render needs.
    fn expected_size(&self) -> usize {
        const VALUE: usize = 16;
        let single = self.counters.values().chain(self.gauges.values());
        let single = single.flat_map(|family| family.0.values());
        let single: usize = single.map(|series| series.text.len() + VALUE).sum();
        let several = self.histograms.iter().flat_map(|(name, family)| {
            let series = family.0.values();
            series.map(|series| {
                let lines = series.value.counts.len() + 2;
                lines * (name.len() + series.text.len() + 2 * VALUE)
            })
        });
        single + several.sum::<usize>() + self.help.len() * 256
    }

    fn head(&self, text: &mut String, name: &str, kind: &str) {
        if let Some(help) = self.help.get(name) {
            let help = help.replace('\\', "\\\\").replace('\n', "\\n");
            put(text, format_args!("# HELP {name} {help}\n"));
        }
        put(text, format_args!("# TYPE {name} {kind}\n"));
    }
}

impl Distribution {
    fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0.0_f64.to_bits()),
        }
    }

    /// The lines of this series. `ends` has the end of each bucket's name.
    fn render(&self, text: &mut String, name: &str, labels: &str, ends: &[String]) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut count = 0;
        for (bucket, end) in self.counts.iter().zip(ends) {
            count += bucket.load(Ordering::Relaxed);
            for part in [name, "_bucket{", labels, comma] {
                text.push_str(part);
            }
            line(text, end, count);
        }
        let (open, close) = if labels.is_empty() {
            ("", "")
        } else {
            ("{", "}")
        };
        let sum = f64::from_bits(self.sum.load(Ordering::Relaxed));
        put(
            text,
            format_args!(
                "{name}_sum{open}{labels}{close} {sum}\n{name}_count{open}{labels}{close} {count}\n"
            ),
        );
    }
}

impl HistogramFn for Distribution {
    fn record(&self, value: f64) {
        if value.is_nan() {
            return;
        }
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let add = |bits| Some((f64::from_bits(bits) + value).to_bits());
        // Always `Ok`: `add` never declines.
        let _ = self
            .sum
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

fn line(text: &mut String, series: &str, value: impl std::fmt::Display) {
    text.push_str(series);
    put(text, format_args!(" {value}\n"));
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("a string takes all");
}

/// The name and the labels of a series with one value.
fn series_text(key: &Key) -> String {
    let (name, labels) = (plain(key.name()), labels_text(key));
    match labels.is_empty() {
        true => name,
        false => format!("{name}{{{labels}}}"),
    }
}

fn labels_text(key: &Key) -> String {
    let labels = key.labels().map(label_text);
    labels.collect::<Vec<_>>().join(",")
}

fn label_text(label: &Label) -> String {
    let value = label.value().replace('\\', "\\\\");
    let value = value.replace('"', "\\\"").replace('\n', "\\n");
    format!("{}=\"{value}\"", plain(label.key()))
}

/// A name that Prometheus accepts. Dependencies may use other ones.
fn plain(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let plain = name.chars().map(|c| if is_plain(c) { c } else { '_' });
    plain.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: &[f64] = &[0.5, 1.0, 10.0];

    fn registry() -> Registry {
        Registry::new(|_| BOUNDS)
    }

    #[test]
    fn writes_each_type_as_prometheus_reads_it() {
        let registry = registry();
        metrics::with_local_recorder(&registry, || {
            metrics::describe_counter!("c_total", "Back\\slash\nand line.");
            metrics::counter!("c_total", "b" => "2", "a" => "x\\\"\n").increment(3);
            metrics::counter!("c_total").absolute(1 << 60);
            metrics::gauge!("g").set(-0.25);
            metrics::gauge!("g", "a" => "1").set(f64::INFINITY);
            metrics::gauge!("odd.name", "odd-label" => "é").increment(1.0);
            let histogram = metrics::histogram!("h", "a" => "1");
            // A bound is part of its bucket.
            for value in [0.1, 0.5, 0.6, 10.0, 11.0, f64::NAN] {
                histogram.record(value);
            }
            metrics::histogram!("h").record(2.5);
        });
        let expected = r##"# HELP c_total Back\\slash\nand line.
# TYPE c_total counter
c_total 1152921504606846976
c_total{b="2",a="x\\\"\n"} 3
# TYPE g gauge
g -0.25
g{a="1"} inf
# TYPE odd_name gauge
odd_name{odd_label="é"} 1
# TYPE h histogram
h_bucket{le="0.5"} 0
h_bucket{le="1"} 0
h_bucket{le="10"} 1
h_bucket{le="+Inf"} 1
h_sum 2.5
h_count 1
h_bucket{a="1",le="0.5"} 2
h_bucket{a="1",le="1"} 3
h_bucket{a="1",le="10"} 4
h_bucket{a="1",le="+Inf"} 5
h_sum{a="1"} 22.2
h_count{a="1"} 5
"##;
        assert_eq!(registry.render(), expected);
    }

    #[test]
    fn one_series_has_one_value_whoever_registers_it() {
        let registry = registry();
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let registry = registry.clone();
                std::thread::spawn(move || {
                    metrics::with_local_recorder(&registry, || {
                        for _ in 0..1000 {
                            metrics::counter!("c_total", "a" => "1").increment(1);
                            metrics::histogram!("h", "a" => "1").record(0.25);
                        }
                    });
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let text = registry.render();
        for line in [
            "c_total{a=\"1\"} 8000\n",
            "h_bucket{a=\"1\",le=\"0.5\"} 8000\n",
            "h_sum{a=\"1\"} 2000\n",
        ] {
            assert!(text.contains(line), "{line} in:\n{text}");
        }
    }

    #[test]
    fn a_render_needs_no_more_room_than_was_expected() {
        let registry = registry();
        metrics::with_local_recorder(&registry, || {
            for pool in 0..100 {
                let pool = pool.to_string();
                metrics::counter!("tidegate_c_total", "pool" => pool.clone())
                    .increment(pool.len() as u64);
                metrics::gauge!("tidegate_g", "pool" => pool.clone()).set(0.125);
                metrics::histogram!("tidegate_h", "pool" => pool).record(1e-5);
            }
        });
        let (expected, size) = (registry.read().expected_size(), registry.render().len());
        assert!(
            (size..2 * size).contains(&expected),
            "{expected} for {size}"
        );
    }
}

//! One metric: its name, what kind it is, what it means, and which values its labels can have.

use metrics::{Key, KeyName, Level, Metadata};

/// What a number may do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// It only grows, and begins at 0 with the process.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Numbers by size, counted up to each of these bounds.
    Histogram(&'static [f64]),
}

/// A label and what it can say.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Every value; what is not among them is told as `other`. Empty: the values are those of another fixed table, as for routes,
    /// and series are there once something was counted.
    pub values: &'static [&'static str],
}

/// A metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// As Prometheus names it, with its unit at the end.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it means, in a sentence.
    pub help: &'static str,
    /// By what it is divided.
    pub labels: &'static [Label],
}

/// What is told of a value that the table does not have.
const OTHER: &str = "other";

static METADATA: Metadata<'static> = Metadata::new("cloud_hub", Level::INFO, Some(module_path!()));

impl Metric {
    pub(super) const fn counter(name: &'static str, help: &'static str, labels: &'static [Label]) -> Self {
        Self { name, kind: Kind::Counter, help, labels }
    }

    pub(super) const fn gauge(name: &'static str, help: &'static str, labels: &'static [Label]) -> Self {
        Self { name, kind: Kind::Gauge, help, labels }
    }

    pub(super) const fn histogram(
        name: &'static str,
        help: &'static str,
        labels: &'static [Label],
        buckets: &'static [f64],
    ) -> Self {
        Self { name, kind: Kind::Histogram(buckets), help, labels }
    }

    /// Counts `count` more under these values of the labels, in their order.
    pub(super) fn add(&self, values: &[&'static str], count: u64) {
        let key = self.key(values);
        metrics::with_recorder(|recorder| recorder.register_counter(&key, &METADATA).increment(count));
    }

    /// Counts one more.
    pub(super) fn count(&self, values: &[&'static str]) {
        self.add(values, 1);
    }

    /// Says how many there have been, as somebody else counts them.
    pub(super) fn total(&self, values: &[&'static str], count: u64) {
        let key = self.key(values);
        metrics::with_recorder(|recorder| recorder.register_counter(&key, &METADATA).absolute(count));
    }

    /// Says how it is now.
    pub(super) fn set(&self, values: &[&'static str], value: f64) {
        let key = self.key(values);
        metrics::with_recorder(|recorder| recorder.register_gauge(&key, &METADATA).set(value));
    }

    /// Says by how much it is more, or less.
    pub(super) fn change(&self, values: &[&'static str], by: f64) {
        let key = self.key(values);
        metrics::with_recorder(|recorder| recorder.register_gauge(&key, &METADATA).increment(by));
    }

    /// Sorts a number in.
    pub(super) fn observe(&self, values: &[&'static str], value: f64) {
        let key = self.key(values);
        metrics::with_recorder(|recorder| recorder.register_histogram(&key, &METADATA).record(value));
    }

    /// Lets every series be there with 0 from the start, so that the first of something is seen as a rise and not as a beginning.
    pub(super) fn begin(&self) {
        metrics::with_recorder(|recorder| match self.kind {
            Kind::Counter => recorder.describe_counter(KeyName::from(self.name), None, self.help.into()),
            Kind::Gauge => recorder.describe_gauge(KeyName::from(self.name), None, self.help.into()),
            Kind::Histogram(_) => recorder.describe_histogram(KeyName::from(self.name), None, self.help.into()),
        });
        for values in combinations(self.labels) {
            let key = self.key(&values);
            metrics::with_recorder(|recorder| match self.kind {
                Kind::Counter => drop(recorder.register_counter(&key, &METADATA)),
                Kind::Gauge => drop(recorder.register_gauge(&key, &METADATA)),
                Kind::Histogram(_) => drop(recorder.register_histogram(&key, &METADATA)),
            });
        }
    }

    fn key(&self, values: &[&'static str]) -> Key {
        debug_assert_eq!(values.len(), self.labels.len(), "{}: one value for each label", self.name);
        let labels = self.labels.iter().zip(values);
        let labels = labels.map(|(label, value)| metrics::Label::from_static_parts(label.name, label.known(value)));
        Key::from_parts(self.name, labels.collect::<Vec<_>>())
    }
}

impl Label {
    fn known(&self, value: &'static str) -> &'static str {
        if self.values.is_empty() || self.values.contains(&value) { value } else { OTHER }
    }
}

/// All values of the labels together; nothing if one of them has its values from elsewhere.
fn combinations(labels: &[Label]) -> Vec<Vec<&'static str>> {
    let begun = vec![Vec::new()];
    labels.iter().fold(begun, |before, label| {
        let with = |values: &Vec<&'static str>| {
            let values = values.clone();
            label.values.iter().map(move |value| [values.clone(), vec![*value]].concat()).collect::<Vec<_>>()
        };
        before.iter().flat_map(with).collect()
    })
}

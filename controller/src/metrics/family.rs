//! Metric families as data, and their text for Prometheus.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// The type of the text.
pub(crate) const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// Names and values, in the order of the text; those without a value are left out.
pub(crate) type Labels = Vec<(&'static str, String)>;

/// The suffix of each counter's name.
const TOTAL: &str = "_total";

/// A metric with its samples.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Family {
    /// With [`TOTAL`], if and only if it is a counter.
    pub(crate) name: &'static str,
    /// What it counts, for people.
    pub(crate) help: &'static str,
    pub(crate) samples: Vec<(Labels, f64)>,
}

impl Family {
    pub(crate) fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, help, samples: Vec::new() }
    }

    /// With one sample.
    pub(crate) fn of(name: &'static str, help: &'static str, value: f64) -> Self {
        Self { samples: vec![(Labels::new(), value)], ..Self::new(name, help) }
    }

    pub(crate) fn add(&mut self, mut labels: Labels, value: f64) {
        labels.retain(|(_, value)| !value.is_empty());
        self.samples.push((labels, value));
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counter = self.name.strip_suffix(TOTAL);
        let kind = if counter.is_some() { MetricType::Counter } else { MetricType::Gauge };
        let mut metric = encoder.encode_descriptor(counter.unwrap_or(self.name), self.help, None, kind)?;
        for (labels, value) in &self.samples {
            let sample = metric.encode_family(labels)?;
            match counter {
                Some(_) => ConstCounter::new(*value).encode(sample)?,
                None => ConstGauge::new(*value).encode(sample)?,
            }
        }
        Ok(())
    }
}

/// All families of one answer.
#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|family| family.encode(&mut encoder))
    }
}

/// The text of an answer.
pub(crate) fn text(families: Vec<Family>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families(families)));
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = prometheus_text::encode(&mut text, &registry);
    text
}

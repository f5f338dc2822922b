//! Metrics for Prometheus by HTTP: `GET /metrics`.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header;
use hyper::{Method, Request, Response, StatusCode};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::{Answer, Body, insert, text};
use crate::control::{Control, Report};
use crate::counts::{Counted, Counts};

/// What is asked for each answer.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) control: Control,
    pub(crate) counts: Arc<Counts>,
}

impl Answer for Metrics {
    async fn answer(&self, _client: SocketAddr, request: &Request<Incoming>) -> Response<Body> {
        if request.uri().path() != "/metrics" || request.method() != Method::GET {
            return text(StatusCode::NOT_FOUND, "only GET /metrics is answered\n");
        }
        let Some(report) = self.control.report().await else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "the server ends\n");
        };
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Sample { report, counted: self.counts.read() }));
        let mut written = String::new();
        // Writing to a String does not fail.
        let _ = prometheus_text::encode(&mut written, &registry);
        let mut answer = Response::new(Full::new(Bytes::from(written)).map_err(|never| match never {}).boxed());
        insert(&mut answer, header::CONTENT_TYPE, prometheus_text::CONTENT_TYPE);
        answer
    }
}

/// All that is answered once.
#[derive(Debug)]
struct Sample {
    report: Report,
    counted: Counted,
}

/// A label and its value, or no label.
type Label<'a> = Option<(&'static str, &'a str)>;

impl Collector for Sample {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (dhcp, counted) = (&self.report.counters, &self.counted);
        let mut count = |name, help, samples: &[(Label<'_>, u64)]| counter(&mut encoder, name, help, samples);
        let of = |label: &'static str, value: &'static str| Some((label, value));
        count("tapvisor_dhcp_requests", "Messages of clients that were read.", &[(None, dhcp.received)])?;
        count(
            "tapvisor_dhcp_answers",
            "Messages sent to clients.",
            &[(of("type", "offer"), dhcp.offers), (of("type", "ack"), dhcp.acks), (of("type", "nak"), dhcp.naks)],
        )?;
        count(
            "tapvisor_dhcp_ignored",
            "Messages of clients that were not answered.",
            &[
                (of("reason", "malformed"), dhcp.malformed),
                (of("reason", "rate_limit"), dhcp.over_limit),
                (of("reason", "no_address"), dhcp.exhausted),
            ],
        )?;
        count("tapvisor_dhcp_releases", "Addresses given back by their clients.", &[(None, dhcp.releases)])?;
        count(
            "tapvisor_dhcp_declines",
            "Addresses that clients found to be used by others.",
            &[(None, dhcp.declines)],
        )?;
        count(
            "tapvisor_dhcp_conflicts",
            "Addresses found to be used before they were offered.",
            &[(None, dhcp.conflicts)],
        )?;
        count(
            "tapvisor_dhcp_database_failures",
            "Writes of leases that failed.",
            &[(None, self.report.database_failures)],
        )?;
        count(
            "tapvisor_dhcp_log_lines_left_out",
            "Lines left out of the log in a flood.",
            &[(None, self.report.lines_left_out)],
        )?;
        count(
            "tapvisor_dhcp_reloads",
            "Times the configuration was read again.",
            &[(of("result", "applied"), self.report.reloads), (of("result", "refused"), counted.reloads_refused)],
        )?;
        count(
            "tapvisor_tftp_transfers",
            "Files asked for by TFTP.",
            &[
                (of("result", "sent"), counted.tftp_sent),
                (of("result", "refused"), counted.tftp_refused),
                (of("result", "failed"), counted.tftp_failed),
            ],
        )?;
        count("tapvisor_tftp_sent_bytes", "Bytes of files that clients acknowledged.", &[(None, counted.tftp_bytes)])?;
        count(
            "tapvisor_http_requests",
            "Files asked for by HTTP.",
            &[(of("result", "answered"), counted.http_answered), (of("result", "refused"), counted.http_refused)],
        )?;
        count("tapvisor_http_sent_bytes", "Bytes of files sent.", &[(None, counted.http_bytes)])?;
        self.networks(&mut encoder)
    }
}

impl Sample {
    fn networks(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let networks: Vec<_> = self.report.networks.iter().map(|one| (one.network.to_string(), one)).collect();
        let leased: Vec<_> = networks.iter().map(|(name, one)| (name.as_str(), one.leased)).collect();
        gauge(encoder, "tapvisor_dhcp_leases", "Addresses leased now.", &leased)?;
        let pools: Vec<_> = networks.iter().map(|(name, one)| (name.as_str(), one.addresses)).collect();
        gauge(encoder, "tapvisor_dhcp_pool_addresses", "Addresses of the pools.", &pools)
    }
}

/// Without the suffix `_total`, which is added.
fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, samples: &[(Label<'_>, u64)]) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (label, value) in samples {
        let labels: Vec<_> = label.iter().copied().collect();
        ConstCounter::new(*value).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

/// One sample for each network.
fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, networks: &[(&str, u64)]) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (network, value) in networks {
        let value = i64::try_from(*value).unwrap_or(i64::MAX);
        ConstGauge::new(value).encode(metric.encode_family(&[("network", *network)])?)?;
    }
    Ok(())
}

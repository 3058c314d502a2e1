//! Spans of requests, if there is a receiver for them.

use anyhow::Result;
use url::Url;

use crate::config::Config;
use crate::traces::{self, Sending, Traces};

/// What takes spans, and what sends them if there is a receiver.
pub(super) fn open(config: &Config, public_url: &Url) -> Result<(Traces, Option<Sending>)> {
    let Some(receiver) = config.traces.receiver() else { return Ok((Traces::default(), None)) };
    let (timeout, share) = (config.traces.timeout.0, config.traces.sample);
    let options = traces::Options { receiver, timeout, share, public_url: public_url.clone() };
    let (traces, sending) = traces::open(&options)?;
    Ok((traces, Some(sending)))
}

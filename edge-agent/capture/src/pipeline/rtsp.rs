//! `rtspsrc ! decodebin`: an IP camera.
//!
//! A jitter buffer of at most 100 ms that throws away what comes too late, the picture stream alone, and a note of each
//! frame's first packet as it leaves the jitter buffer, from which the frame's age is worked out.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use url::Url;

use super::element::{link_failure, make};
use super::file::video_decoder;
use super::{Dating, Head, Tail};
use crate::age::Arrivals;
use crate::config::{Source, without_credentials};
use crate::event::Failure;
use crate::profile::{CameraProfile, LowerTransport};
use crate::supervisor::MonoClock;

/// A connection that takes longer is given up by the source itself; the supervisor then tries again.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// UDP without a packet for this long falls back to TCP.
const UDP_LIMIT: Duration = Duration::from_millis(1500);

pub(super) fn add(
    pipeline: &gst::Pipeline,
    url: &Url,
    profile: &CameraProfile,
    clock: &MonoClock,
    tail: &Tail,
) -> Result<Head, Failure> {
    let source = make("rtspsrc")?;
    source.set_property("location", without_credentials(url).as_str());
    if !url.username().is_empty() {
        source.set_property("user-id", decoded(url.username()));
        source.set_property("user-pw", decoded(url.password().unwrap_or_default()));
    }
    source.set_property(
        "latency",
        u32::try_from(profile.latency.as_millis()).expect("a profile's latency is at most 100 ms"),
    );
    source.set_property("drop-on-latency", true);
    source.set_property("tcp-timeout", micros(CONNECT_LIMIT));
    source.set_property("timeout", micros(UDP_LIMIT));
    source.set_property_from_str(
        "protocols",
        match profile.lower_transport {
            LowerTransport::Tcp => "tcp",
            LowerTransport::Udp => "udp+tcp",
        },
    );
    // A host that is gone must not hold up tearing down: no farewell is worth waiting for.
    source.set_property("teardown-timeout", 0_u64);
    source.connect("select-stream", false, |arguments| {
        let caps = arguments.get(2).and_then(|value| value.get::<gst::Caps>().ok());
        Some(caps.is_some_and(|caps| is_video(&caps)).to_value())
    });

    let decoder = video_decoder(tail)?;
    let failure = |_| link_failure(&Source::Rtsp { url: url.clone() });
    pipeline.add_many([&source, &decoder]).map_err(failure)?;
    let arrivals = Arc::new(Mutex::new(Arrivals::default()));
    let input = decoder.static_pad("sink").expect("a decodebin has a sink pad").downgrade();
    source.connect_pad_added({
        let (arrivals, clock) = (Arc::clone(&arrivals), Arc::clone(clock));
        move |_, pad| {
            let Some(input) = input.upgrade().filter(|input| !input.is_linked()) else { return };
            note_arrivals(pad, &arrivals, &clock);
            if let Err(error) = pad.link(&input) {
                tracing::debug!(?error, "a stream of the camera is no picture; it is left alone");
            }
        }
    });
    Ok(Head { output: None, dating: Dating::Network { arrivals, base: profile.latency }, paced: false })
}

/// Notes when the packets of each frame leave the jitter buffer.
fn note_arrivals(pad: &gst::Pad, arrivals: &Arc<Mutex<Arrivals>>, clock: &MonoClock) {
    let (arrivals, clock) = (Arc::clone(arrivals), Arc::clone(clock));
    let note = move |buffer: &gst::BufferRef| {
        if let Some(stamp) = buffer.pts() {
            arrivals.lock().unwrap_or_else(PoisonError::into_inner).note(stamp.nseconds(), clock());
        }
    };
    pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, move |_, info| {
        match &info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => note(buffer),
            Some(gst::PadProbeData::BufferList(list)) => list.iter().for_each(&note),
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
}

fn is_video(caps: &gst::Caps) -> bool {
    caps.structure(0).and_then(|fields| fields.get::<&str>("media").ok()) == Some("video")
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).expect("a few seconds")
}

/// User and password stand percent-encoded in an address.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = (first == b'%').then(|| after.get(..2)).flatten();
        match code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percent_encoded_password_is_decoded() {
        assert_eq!(decoded("p%40ss%2Fword%"), "p@ss/word%");
        assert_eq!(decoded("plain"), "plain");
    }
}

//! Cameras whose pictures come and are wrong, with GStreamer as it is installed: frozen, replayed, black, torn streams.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;
use std::time::Duration;

use edge_capture::{CameraConfig, CameraHandle, CameraState, Happening, SightFault};
use support::{IpCamera, await_event, camera, frame, free_port, make_exact_clip, now, open, serve_if_child};

const SOON: Duration = Duration::from_secs(20);
/// The promise: in order again this long after the cause has ended.
const BACK: Duration = Duration::from_secs(5);

fn watched_file(path: &Path, when_finished: &str) -> CameraConfig {
    let path = path.display();
    camera(&format!("source = \"file\"\npath = \"{path}\"\nwhen_finished = \"{when_finished}\"\nwatch = \"pictures\""))
}

fn is_fault(wanted: SightFault) -> impl Fn(&Happening) -> bool {
    move |happening| *happening == Happening::Faulty { fault: wanted }
}

/// Frames that are handed on within `span`.
fn frames_within(handle: &CameraHandle, span: Duration) -> u64 {
    let before = handle.monitor().stats().frames;
    std::thread::sleep(span);
    handle.monitor().stats().frames - before
}

#[test]
fn a_frozen_picture_is_told_not_handed_on_and_over_soon_after_its_cause() {
    let dir = tempfile::tempdir().unwrap();
    let (path, next) = (dir.path().join("clip.avi"), dir.path().join("next.avi"));
    make_exact_clip(&path, "videotestsrc pattern=white", 600);
    let handle = open(watched_file(&path, "wait"));
    let events = handle.events();
    frame(&handle, SOON);
    assert_eq!(frames_within(&handle, Duration::from_secs(3)), 0, "the same picture was handed on again");
    await_event(&events, SOON, is_fault(SightFault::Frozen));
    assert!(handle.monitor().state().to_string().starts_with("frozen"), "{}", handle.monitor().state());

    make_exact_clip(&next, "videotestsrc pattern=snow", 150);
    std::fs::rename(&next, &path).unwrap();
    let begun = now();
    await_event(&events, SOON, |happening| matches!(happening, Happening::Recovered { .. }));
    frame(&handle, SOON);
    let took = now().since(begun);
    assert!(took <= BACK, "in order again after {took:?}");
}

#[test]
fn a_clip_that_goes_round_is_told_and_not_handed_on_a_second_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("loop.avi");
    make_exact_clip(&path, "videotestsrc pattern=snow", 30);
    let handle = open(watched_file(&path, "repeat"));
    let events = handle.events();
    await_event(&events, SOON, is_fault(SightFault::Replayed));
    assert!(handle.monitor().stats().frames <= 30, "{:?}", handle.monitor().stats());
    assert_eq!(frames_within(&handle, Duration::from_secs(3)), 0, "a replayed picture was handed on");
}

#[test]
fn a_clip_that_goes_round_on_purpose_plays_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("loop.avi");
    make_exact_clip(&path, "videotestsrc pattern=snow", 15);
    let path = path.display();
    let handle = open(camera(&format!("source = \"file\"\npath = \"{path}\"")));
    frame(&handle, SOON);
    std::thread::sleep(Duration::from_secs(2));
    assert!(frames_within(&handle, Duration::from_secs(3)) > 15);
    assert_eq!(handle.monitor().state(), CameraState::Playing);
}

#[test]
fn a_black_picture_is_told() {
    let handle = open(camera("source = \"test\"\npattern = \"black\"\nwatch = \"pictures\""));
    await_event(&handle.events(), SOON, is_fault(SightFault::Black));
}

#[test]
fn a_picture_with_noise_in_it_is_in_order() {
    let handle = open(camera("source = \"test\"\npattern = \"smpte\"\nwatch = \"pictures\""));
    frame(&handle, SOON);
    assert!(frames_within(&handle, Duration::from_secs(12)) > 60);
    assert_eq!(handle.monitor().state(), CameraState::Playing);
}

#[test]
fn a_stream_that_loses_pictures_stays_in_order() {
    if serve_if_child() {
        return;
    }
    let port = free_port();
    let name = "a_stream_that_loses_pictures_stays_in_order";
    let _server = IpCamera::start_with(name, port, "identity drop-probability=0.4");
    let handle = open(camera(&format!("source = \"rtsp\"\nurl = \"{}\"", IpCamera::url(port))));
    frame(&handle, SOON);
    assert!(frames_within(&handle, Duration::from_secs(5)) > 15);
    assert_eq!(handle.monitor().state(), CameraState::Playing);
}

#[test]
fn a_stream_that_breaks_every_few_seconds_is_made_anew_each_time() {
    if serve_if_child() {
        return;
    }
    let port = free_port();
    let name = "a_stream_that_breaks_every_few_seconds_is_made_anew_each_time";
    let _server = IpCamera::start_with(name, port, "identity error-after=45");
    // Its noise is the same after each start, to the bit, for which it would be told as replayed.
    let handle = open(camera(&format!("source = \"rtsp\"\nurl = \"{}\"\nwatch = \"arrival\"", IpCamera::url(port))));
    let events = handle.events();
    for _ in 0..2 {
        frame(&handle, SOON);
        await_event(&events, SOON, |happening| {
            matches!(happening, Happening::Stalled { .. } | Happening::Failed { .. })
        });
        await_event(&events, SOON, |happening| matches!(happening, Happening::Recovered { .. }));
    }
}

//! IP cameras that die, hang and come back: an RTSP server in a process of its own, which is killed and stopped.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use edge_capture::{CameraConfig, CameraHandle, CameraState, Happening};
use support::{IpCamera, await_event, camera, failure_of, frame, free_port, now, open, serve_if_child};

const SOON: Duration = Duration::from_secs(15);
/// The promise: picture again this long after the camera is back.
const BACK: Duration = Duration::from_secs(5);

fn ip_camera(port: u16) -> CameraConfig {
    // GStreamer's noise is the same after each start, to the bit, for which a watched camera would be told as replayed.
    camera(&format!("source = \"rtsp\"\nurl = \"{}\"\nwatch = \"arrival\"", IpCamera::url(port)))
}

/// Waits until frames stop coming and the camera says so.
fn await_outage(handle: &CameraHandle) {
    let begun = now();
    while handle.monitor().state() == CameraState::Playing {
        let _ = handle.recv_timeout(Duration::from_millis(100));
        assert!(now().since(begun) < SOON, "the outage went unnoticed");
    }
    while handle.try_latest().is_some() {}
}

#[test]
fn a_killed_camera_is_back_within_five_seconds() {
    if serve_if_child() {
        return;
    }
    let name = "a_killed_camera_is_back_within_five_seconds";
    let port = free_port();
    let server = IpCamera::start(name, port);
    let handle = open(ip_camera(port));
    let events = handle.events();
    let first = frame(&handle, SOON);
    assert_eq!((first.image.width(), first.image.height()), (320, 240));

    // A frame is never taken for younger than the jitter buffer may have held it.
    for _ in 0..10 {
        let frame = frame(&handle, SOON);
        let age = now().since(frame.captured_at);
        assert!(age >= Duration::from_millis(100) && age < Duration::from_millis(800), "{age:?}");
    }

    server.kill();
    await_outage(&handle);
    // Long enough for the back-off to have reached its longest wait.
    std::thread::sleep(Duration::from_secs(4));
    let _server = IpCamera::start(name, port);
    let back = now();
    frame(&handle, SOON);
    let took = now().since(back);
    assert!(took <= BACK, "the picture came back after {took:?}");
    await_event(&events, SOON, |happening| matches!(happening, Happening::Recovered { .. }));
    assert!(handle.monitor().stats().restarts >= 1);
}

#[test]
fn a_camera_that_hangs_is_noticed_and_comes_back() {
    if serve_if_child() {
        return;
    }
    let port = free_port();
    let mut server = IpCamera::start("a_camera_that_hangs_is_noticed_and_comes_back", port);
    let handle = open(ip_camera(port));
    let events = handle.events();
    frame(&handle, SOON);
    server.signal("STOP");
    let stopped = now();
    await_event(&events, SOON, |happening| matches!(happening, Happening::Stalled { .. }));
    let noticed = now().since(stopped);
    assert!(noticed < Duration::from_secs(4), "noticed after {noticed:?}");
    std::thread::sleep(Duration::from_secs(3));
    while handle.try_latest().is_some() {}
    server.signal("CONT");
    let back = now();
    frame(&handle, SOON);
    let took = now().since(back);
    assert!(took <= BACK, "the picture came back after {took:?}");
    await_event(&events, SOON, |happening| matches!(happening, Happening::Recovered { .. }));
}

#[test]
fn a_camera_that_is_dead_at_the_start_is_tried_until_it_answers() {
    if serve_if_child() {
        return;
    }
    let port = free_port();
    let handle = open(ip_camera(port));
    let events = handle.events();
    await_event(&events, SOON, |happening| matches!(happening, Happening::Failed { .. }));
    let text = failure_of(&handle.monitor().state());
    assert!(text.contains(&format!("127.0.0.1:{port}")) && text.contains("tried again"), "{text}");
    std::thread::sleep(Duration::from_secs(3));
    let _server = IpCamera::start("a_camera_that_is_dead_at_the_start_is_tried_until_it_answers", port);
    let back = now();
    frame(&handle, SOON);
    let took = now().since(back);
    assert!(took <= BACK, "the picture came after {took:?}");
}

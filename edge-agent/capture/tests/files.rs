//! File cameras and test patterns, with GStreamer as it is installed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::time::Duration;

use edge_capture::{CameraState, Happening, OpenError};
use face_core::{FrameSource as _, FrameUnavailable};
use support::{await_event, camera, failure_of, file_camera, frame, make_clip, now, open};

/// Long enough for a machine that is compiling something else.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_test_pattern_gives_frames_of_the_asked_for_size() {
    let handle = open(camera("source = \"test\"\npattern = \"smpte\"\nwidth = 320\nheight = 240"));
    let first = frame(&handle, SOON);
    assert_eq!((first.image.width(), first.image.height()), (320, 240));
    // SMPTE bars begin with grey: red, green and blue alike.
    let [red, green, blue] = first.image.pixel(2, 2);
    assert!(red > 150 && red.abs_diff(green) < 8 && green.abs_diff(blue) < 8, "{red} {green} {blue}");
    // The third bar is cyan, which tells RGB from BGR.
    let [red, _, blue] = first.image.pixel(110, 2);
    assert!(red < 60 && blue > 150, "{red} {blue}");
    let second = frame(&handle, SOON);
    assert!(second.sequence > first.sequence && second.captured_at > first.captured_at);
    assert!(now().since(second.captured_at) < Duration::from_secs(1));
    assert_eq!(handle.monitor().state(), CameraState::Playing);
}

#[test]
fn the_newest_frame_wins_and_the_others_are_counted() {
    let mut handle = open(camera("source = \"test\"\nfps = 30"));
    frame(&handle, SOON);
    std::thread::sleep(Duration::from_millis(700));
    let frame = handle.next_frame(SOON).unwrap();
    assert!(handle.dropped() >= 5, "{}", handle.dropped());
    assert!(now().since(frame.captured_at) < Duration::from_millis(500), "an old frame was kept");
}

#[test]
fn a_clip_plays_at_its_own_pace_and_then_waits_for_another() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clip.webm");
    make_clip(&path, 320, 240, 30);
    let mut handle = open(file_camera(&path, "wait"));
    let events = handle.events();
    let begun = frame(&handle, SOON).captured_at;
    await_event(&events, SOON, |happening| *happening == Happening::Playing);
    let ended = await_event(&events, SOON, |happening| *happening == Happening::Ended);
    let took = ended.at.since(begun);
    assert!(took > Duration::from_millis(1700), "2 s of clip were played in {took:?}");
    let frames = handle.monitor().stats().frames;
    assert!((20..=30).contains(&frames), "{frames} of 30 pictures");

    while handle.try_latest().is_some() {}
    assert_eq!(handle.next_frame(Duration::from_millis(600)).unwrap_err(), FrameUnavailable::Ended);
    assert_eq!(handle.monitor().state(), CameraState::Ended);

    make_clip(&path, 160, 120, 15);
    let replaced = frame(&handle, SOON);
    assert_eq!((replaced.image.width(), replaced.image.height()), (160, 120));
    await_event(&events, SOON, |happening| *happening == Happening::Playing);
    await_event(&events, SOON, |happening| *happening == Happening::Ended);
}

#[test]
fn a_clip_that_is_replaced_while_it_plays_gives_way_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clip.webm");
    make_clip(&path, 320, 240, 150);
    let handle = open(file_camera(&path, "wait"));
    frame(&handle, SOON);
    make_clip(&path, 160, 120, 15);
    let replaced = now();
    while frame(&handle, SOON).image.width() != 160 {
        assert!(now().since(replaced) < Duration::from_secs(4), "the old clip plays on");
    }
    await_event(&handle.events(), SOON, |happening| *happening == Happening::Ended);
    assert_eq!(handle.monitor().stats().restarts, 0);
}

#[test]
fn a_repeated_clip_begins_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clip.webm");
    make_clip(&path, 160, 120, 5);
    let handle = open(file_camera(&path, "repeat"));
    let mut last = 0;
    while last <= 12 {
        last = frame(&handle, SOON).sequence;
    }
    let stats = handle.monitor().stats();
    assert_eq!((handle.monitor().state(), stats.restarts), (CameraState::Playing, 0));
}

#[test]
fn large_pictures_keep_their_aspect_and_small_ones_their_size() {
    let dir = tempfile::tempdir().unwrap();
    for ((width, height), expected) in
        [((1280, 720), (640, 360)), ((720, 1280), (270, 480)), ((1280, 960), (640, 480)), ((176, 144), (176, 144))]
    {
        let path = dir.path().join("clip.webm");
        make_clip(&path, width, height, 3);
        let handle = open(file_camera(&path, "wait"));
        let image = frame(&handle, SOON).image;
        assert_eq!((image.width(), image.height()), expected, "of {width}x{height}");
    }
}

#[test]
fn a_missing_file_is_an_error_that_names_it() {
    let error =
        edge_capture::open(file_camera("/nonexistent/clip.mp4".as_ref(), "wait"), support::clock()).err().unwrap();
    assert!(matches!(error, OpenError::Absent { .. }));
    let text = error.to_string();
    assert!(
        text.contains("camera front") && text.contains("/nonexistent/clip.mp4") && text.contains("put the file"),
        "{text}"
    );
}

#[test]
fn a_missing_device_is_an_error_that_names_it() {
    let error =
        edge_capture::open(camera("source = \"v4l2\"\ndevice = \"/dev/video-none\""), support::clock()).err().unwrap();
    let text = error.to_string();
    assert!(text.contains("/dev/video-none") && text.contains("plug the camera in"), "{text}");
}

#[test]
fn listing_devices_works_without_any() {
    for device in edge_capture::video_devices() {
        assert!(device.path.starts_with("/dev"));
    }
}

#[test]
fn a_broken_file_says_so_and_its_replacement_is_played() {
    let dir = tempfile::tempdir().unwrap();
    for when_finished in ["wait", "repeat"] {
        let path = dir.path().join("clip.webm");
        fs::write(&path, [7; 5000]).unwrap();
        let handle = open(file_camera(&path, when_finished));
        let events = handle.events();
        await_event(&events, SOON, |happening| matches!(happening, Happening::Failed { .. }));
        let text = failure_of(&handle.monitor().state());
        assert!(text.contains("clip.webm") && text.contains("replace it by a video file"), "{text}");
        make_clip(&path, 160, 120, 5);
        frame(&handle, SOON);
        await_event(&events, SOON, |happening| matches!(happening, Happening::Recovered { .. }));
    }
}

#[test]
fn a_truncated_clip_and_one_without_a_picture_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clip.webm");
    make_clip(&path, 160, 120, 15);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..60]).unwrap();
    let handle = open(file_camera(&path, "wait"));
    await_event(&handle.events(), SOON, |happening| matches!(happening, Happening::Failed { .. }));
    drop(handle);

    let path = dir.path().join("sound.ogg");
    support::run_pipeline(&format!(
        "audiotestsrc num-buffers=20 ! audioconvert ! vorbisenc ! oggmux ! filesink location={}",
        path.display()
    ));
    let handle = open(file_camera(&path, "repeat"));
    await_event(&handle.events(), SOON, |happening| matches!(happening, Happening::Failed { .. }));
    assert!(failure_of(&handle.monitor().state()).contains("sound.ogg"));
}

#[test]
fn closing_a_camera_ends_its_thread_at_once() {
    let handle = open(camera("source = \"test\""));
    frame(&handle, SOON);
    let begun = now();
    drop(handle);
    assert!(now().since(begun) < Duration::from_secs(2));
}

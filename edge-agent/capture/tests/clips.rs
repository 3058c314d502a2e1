//! Clips read for measuring: every picture at its own time, and what is said of files that are no clips.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::time::Duration;

use edge_capture::{Clip, ClipError, ClipPicture};
use support::make_clip;

fn read(path: &std::path::Path, fps: u32) -> Result<Vec<ClipPicture>, ClipError> {
    Clip::open(path, (640, 480), fps).unwrap().collect()
}

#[test]
fn every_picture_comes_at_its_own_time_however_slow_the_reader_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("named-like-a-picture.jpg");
    make_clip(&path, 320, 240, 30);
    let mut clip = Clip::open(&path, (640, 480), 30).unwrap();
    let first = clip.next().unwrap().unwrap();
    std::thread::sleep(Duration::from_millis(400));
    let pictures: Vec<ClipPicture> = std::iter::once(Ok(first)).chain(clip).collect::<Result<_, _>>().unwrap();
    assert_eq!(pictures.len(), 30, "none is dropped");
    assert_eq!(pictures[0].at, Duration::ZERO);
    assert_eq!((pictures[0].image.width(), pictures[0].image.height()), (320, 240));
    for pair in pictures.windows(2) {
        let apart = pair[1].at - pair[0].at;
        assert!(apart > Duration::from_millis(50) && apart < Duration::from_millis(80), "{apart:?}");
    }
}

#[test]
fn a_quicker_clip_is_thinned_and_a_larger_one_made_smaller() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clip.webm");
    make_clip(&path, 320, 240, 30);
    let pictures: Vec<ClipPicture> = Clip::open(&path, (160, 480), 5).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    assert!((9..=11).contains(&pictures.len()), "{} pictures of two seconds", pictures.len());
    assert_eq!((pictures[0].image.width(), pictures[0].image.height()), (160, 120));
}

#[test]
fn what_is_no_video_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in [("letter.mp4", &b"Dear door, please open."[..]), ("empty.webm", b""), ("zeros", &[0; 4096])] {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        let error = read(&path, 15).unwrap_err();
        assert!(matches!(error, ClipError::NoVideo { .. }), "{name}: {error}");
        assert!(error.to_string().contains(name) && error.to_string().contains("convert it"), "{error}");
    }
}

#[test]
fn a_clip_that_is_cut_short_is_no_shorter_clip() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clip.webm");
    make_clip(&path, 320, 240, 90);
    let whole = fs::read(&path).unwrap();
    let cut = dir.path().join("cut.webm");
    fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    let error = read(&cut, 30).unwrap_err();
    assert!(matches!(error, ClipError::CutShort { .. }), "{error}");
    assert!(error.to_string().contains("cut.webm") && error.to_string().contains("copy it again"), "{error}");
}

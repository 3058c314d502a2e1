//! V1: a camera's pipeline is made anew hundreds of times; memory stays where it was and none hangs.
//!
//! A file of two pictures that goes round: every time round is a pipeline of its own, decoder and threads included.
//! Deliberately absent: what a camera does wrong in its pictures (edge-capture's own tests).

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use edge_capture::{CameraConfig, CameraHandle};
use face_core::MonoTime;

use crate::lab::{Lab, now};
use crate::outcome::{Control, Verdict};
use crate::rig::process::{resident_kib, run};
use crate::row::{Need, Row};

/// The row.
pub(super) static V1: Row = Row {
    id: "V1",
    title: "camera pipelines made anew: memory and threads stay",
    count: 500,
    small: 30,
    needs: &[Need::Program("gst-launch-1.0", "gstreamer1.0-tools")],
    run: restarts,
};

/// The allocator and GStreamer's caches have taken what they keep after this many.
const WARM_UP: u64 = 20;
/// What may stay behind, whatever the count.
const MAY_GROW_KIB: u64 = 5 * 1024;
/// What the control leaves behind each time: a small picture, as a forgotten reference to one would.
const LEAK_BYTES: usize = 640 * 480;
/// 30 MB in all: more than the allocator may have lying about after hundreds of pipelines, which hid 30 of them.
const LEAKS: u64 = 100;

fn restarts(lab: &mut Lab) -> Result<Verdict> {
    let dir = tempfile::tempdir()?;
    let clip = dir.path().join("short.avi");
    let pipeline = format!(
        "videotestsrc pattern=snow num-buffers=2 ! video/x-raw,format=I420,width=320,height=240,framerate=15/1 ! jpegenc ! avimux ! filesink location={}",
        clip.display()
    );
    run(Command::new("gst-launch-1.0").arg("-q").args(pipeline.split(' ')))?;
    let settings = format!("id = \"front\"\nsource = \"file\"\npath = \"{}\"\nfps = 30", clip.display());
    let config: CameraConfig = toml::from_str(&settings).context("the camera's settings")?;
    let begun = now();
    let clock = move || MonoTime::from_nanos(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX) + 1);
    let camera = edge_capture::open(config, Arc::new(clock))?;
    played(&camera, WARM_UP)?;
    let count = lab.count();
    // One round for all: what one pipeline leaves behind is too little to be seen in pages.
    let tally = lab.phase("restarts", 1, |_, tally| {
        let before = resident_kib()?;
        played(&camera, count)?;
        let grown = resident_kib()?.saturating_sub(before);
        tally.injected += count;
        tally.figure("grown_kib", grown);
        tally.require(grown < MAY_GROW_KIB, || format!("{count} restarts left {grown} KiB behind"));
        Ok(())
    })?;
    let control = lab.phase("control", 1, |_, tally| {
        let mut leaked = Vec::new();
        let before = resident_kib()?;
        for _ in 0..LEAKS {
            leaked.push(vec![1_u8; LEAK_BYTES]);
        }
        let grown = resident_kib()?.saturating_sub(before);
        std::hint::black_box(&leaked);
        tally.add("leak_seen", u64::from(grown >= MAY_GROW_KIB));
        Ok(())
    })?;
    Ok(Verdict { tally, control: Control::of("leak_seen", control.count_of("leak_seen")) })
}

/// Waits until the camera has been made anew `rounds` times.
fn played(camera: &CameraHandle, rounds: u64) -> Result<()> {
    let until = camera.monitor().stats().frames + rounds * 2;
    let begun = now();
    while camera.monitor().stats().frames < until {
        ensure!(now().duration_since(begun) < Duration::from_secs(60 + rounds * 2), "the camera stopped playing");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

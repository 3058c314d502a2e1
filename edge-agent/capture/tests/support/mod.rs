//! What the camera tests share: a clock, clips made by GStreamer, and an RTSP camera in a process of its own.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use edge_capture::{CameraConfig, CameraEvent, CameraHandle, CameraState, Happening, MonoClock};
use face_core::{Frame, MonoTime};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_rtsp_server as rtsp_server;
use gstreamer_rtsp_server::prelude::*;

/// Set in the child: the port of the RTSP camera that it is.
const CHILD: &str = "EDGE_CAPTURE_RTSP_PORT";
/// Set in the child too: what stands between its picture and its encoder.
const FAULT: &str = "EDGE_CAPTURE_RTSP_FAULT";

/// Monotonic time since the test program started.
#[expect(clippy::disallowed_methods, reason = "this is the tests' clock module")]
pub(crate) fn now() -> MonoTime {
    static START: OnceLock<Instant> = OnceLock::new();
    MonoTime::from_nanos(u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap() + 1_000_000_000)
}

pub(crate) fn clock() -> MonoClock {
    Arc::new(now)
}

/// A camera from the text of its table.
pub(crate) fn camera(table: &str) -> CameraConfig {
    toml::from_str(&format!("id = \"front\"\n{table}")).unwrap()
}

pub(crate) fn file_camera(path: &Path, when_finished: &str) -> CameraConfig {
    let path = path.display();
    camera(&format!("source = \"file\"\npath = \"{path}\"\nwhen_finished = \"{when_finished}\"\nfps = 30"))
}

pub(crate) fn open(config: CameraConfig) -> CameraHandle {
    edge_capture::open(config, clock()).unwrap()
}

/// The next frame, or a failed test.
pub(crate) fn frame(handle: &CameraHandle, within: Duration) -> Frame {
    handle.recv_timeout(within).unwrap_or_else(|error| panic!("{error}; the camera is {}", handle.monitor().state()))
}

/// Waits for an event that `wanted` accepts; says what came instead.
pub(crate) fn await_event(
    events: &Receiver<CameraEvent>,
    within: Duration,
    wanted: impl Fn(&Happening) -> bool,
) -> CameraEvent {
    let begun = now();
    let mut seen = Vec::new();
    loop {
        let left = within.saturating_sub(now().since(begun));
        match events.recv_timeout(left) {
            Ok(event) if wanted(&event.happening) => return event,
            Ok(event) => seen.push(event.happening),
            Err(_) => panic!("the event did not come within {within:?}; seen: {seen:?}"),
        }
    }
}

pub(crate) fn failure_of(state: &CameraState) -> String {
    match state {
        CameraState::Failed { reason, .. } => reason.to_string(),
        other => panic!("expected a failure, the camera is {other}"),
    }
}

/// Makes a clip: VP8 in WebM, 15 pictures a second, written aside and renamed into place.
pub(crate) fn make_clip(path: &Path, width: u32, height: u32, pictures: u32) {
    let temporary = path.with_extension("making");
    run_pipeline(&format!(
        "videotestsrc num-buffers={pictures} pattern=ball ! video/x-raw,width={width},height={height},framerate=15/1 \
         ! vp8enc deadline=1 cpu-used=8 ! webmmux ! filesink location={}",
        temporary.display()
    ));
    std::fs::rename(temporary, path).unwrap();
}

/// Makes a clip in which every picture is encoded for itself, so that equal pictures stay equal: JPEG in AVI.
pub(crate) fn make_exact_clip(path: &Path, source: &str, pictures: u32) {
    let temporary = path.with_extension("making");
    run_pipeline(&format!(
        "{source} num-buffers={pictures} ! video/x-raw,format=I420,width=320,height=240,framerate=15/1 \
         ! jpegenc ! avimux ! filesink location={}",
        temporary.display()
    ));
    std::fs::rename(temporary, path).unwrap();
}

/// Runs a pipeline to its end.
pub(crate) fn run_pipeline(description: &str) {
    gst::init().unwrap();
    let pipeline = gst::parse::launch(description).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let message = pipeline
        .bus()
        .unwrap()
        .timed_pop_filtered(gst::ClockTime::from_seconds(60), &[gst::MessageType::Eos, gst::MessageType::Error])
        .unwrap();
    pipeline.set_state(gst::State::Null).unwrap();
    assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// An IP camera that can be killed: the test program again, as an RTSP server.
pub(crate) struct IpCamera {
    child: Child,
    port: u16,
}

impl IpCamera {
    /// Starts it; `name` is the test that calls [`serve_if_child`] first.
    pub(crate) fn start(name: &str, port: u16) -> Self {
        Self::start_with(name, port, "identity")
    }

    /// As [`IpCamera::start`], with an element that makes its stream faulty.
    pub(crate) fn start_with(name: &str, port: u16, fault: &str) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture", "--test-threads=1"])
            .env(CHILD, port.to_string())
            .env(FAULT, fault)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let camera = Self { child, port };
        for _ in 0..1000 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return camera;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the RTSP camera did not start within 10 s");
    }

    pub(crate) fn url(port: u16) -> String {
        format!("rtsp://127.0.0.1:{port}/door")
    }

    pub(crate) fn kill(mut self) {
        self.signal("KILL");
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&mut self, signal: &str) {
        let status = Command::new("kill").args([format!("-{signal}"), self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for IpCamera {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In the child: is an RTSP camera until it is killed. In the test itself: returns false at once.
pub(crate) fn serve_if_child() -> bool {
    let Ok(port) = std::env::var(CHILD) else { return false };
    gst::init().unwrap();
    let server = rtsp_server::RTSPServer::new();
    server.set_address("127.0.0.1");
    server.set_service(&port);
    let factory = rtsp_server::RTSPMediaFactory::new();
    let fault = std::env::var(FAULT).unwrap();
    // Noise, as every sensor has it.
    factory.set_launch(&format!(
        "( videotestsrc is-live=true pattern=snow ! video/x-raw,format=I420,width=320,height=240,framerate=15/1 \
         ! {fault} ! jpegenc ! rtpjpegpay name=pay0 pt=26 )"
    ));
    server.mount_points().unwrap().add_factory("/door", factory);
    server.attach(None).unwrap();
    gst::glib::MainLoop::new(None, false).run();
    true
}

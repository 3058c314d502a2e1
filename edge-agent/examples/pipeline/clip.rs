//! The clip's pictures at 640×480, as the agent's capture hands them over.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use edge_capture::CameraConfig;
use face_core::{Frame, FrameUnavailable, MonoTime};

/// Plays the first `seconds` of a clip through the real capture, at its own pace, and keeps every picture.
///
/// The pictures are GStreamer's own buffers, as in the agent; 12 s of them take about 280 MB. Their times are spread
/// evenly, as the clip has them, so that the schedule does not depend on how busy this machine was.
pub(super) fn read(path: &Path, seconds: u32) -> Result<Vec<Frame>> {
    let table = format!(
        "id = \"clip\"\nsource = \"file\"\npath = {path:?}\nwhen_finished = \"wait\"\nfps = 25\nwidth = 640\nheight = 480"
    );
    let config: CameraConfig = toml::from_str(&table)?;
    let began = Instant::now();
    let clock = move || MonoTime::from_nanos(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
    let camera = edge_capture::open(config, Arc::new(clock))?;
    let mut frames = Vec::new();
    while frames.len() < seconds as usize * 25 {
        match camera.recv_timeout(Duration::from_secs(10)) {
            Ok(frame) => {
                let captured_at = MonoTime::from_millis(1_000 + frames.len() as u64 * 40);
                frames.push(Frame { captured_at, ..frame });
            }
            Err(FrameUnavailable::Ended) => break,
            Err(error) => bail!("clip {}: {error}", path.display()),
        }
    }
    if frames.len() < 25 {
        bail!("clip {}: {} pictures are too few", path.display(), frames.len());
    }
    Ok(frames)
}

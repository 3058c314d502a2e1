//! The cameras on this machine, for `edge-agent doctor`. The only module that uses the `v4l` crate.

use std::path::PathBuf;

use v4l::Device;
use v4l::video::Capture as _;

/// A video device that can capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoDevice {
    /// E.g. `/dev/video0`: what `device` of a `[[camera]]` names.
    pub path: PathBuf,
    /// What the camera calls itself.
    pub card: String,
    /// The kernel's driver.
    pub driver: String,
    /// Four-letter codes of its picture formats.
    pub formats: Vec<String>,
}

/// Every device that can capture pictures, by path. Nodes that cannot be opened or only carry metadata are left out.
#[must_use]
pub fn video_devices() -> Vec<VideoDevice> {
    let mut devices: Vec<_> =
        v4l::context::enum_devices().iter().filter_map(|node| look_at(node.path().to_path_buf())).collect();
    devices.sort_by(|a, b| a.path.cmp(&b.path));
    devices
}

fn look_at(path: PathBuf) -> Option<VideoDevice> {
    let device = Device::with_path(&path).ok()?;
    let capabilities = device.query_caps().ok()?;
    if !capabilities.capabilities.contains(v4l::capability::Flags::VIDEO_CAPTURE) {
        return None;
    }
    let formats: Vec<_> = device.enum_formats().ok()?.iter().map(|format| format.fourcc.to_string()).collect();
    // The second node of a USB camera gives metadata and no picture.
    (!formats.is_empty()).then_some(VideoDevice { path, card: capabilities.card, driver: capabilities.driver, formats })
}

//! What stands before the camera. Clips are cut, made and read with GStreamer at run time; none is stored.

mod clip;
mod frames;
mod panned;
mod visits;

pub use clip::empty_corridor;
pub use frames::jpeg_frames;
pub use panned::panned_photograph;
pub use visits::{Schedule, Visitor, visits};

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{empty_corridor, jpeg_frames, panned_photograph};

    #[test]
    fn a_made_clip_can_be_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let clip = dir.path().join("corridor.webm");
        empty_corridor(&clip, 1).unwrap();
        let frames = jpeg_frames(&clip, &[Duration::ZERO, Duration::from_millis(500)]).unwrap();
        let picture = image::load_from_memory(&frames[1]).unwrap().to_rgb8();
        assert_eq!(picture.dimensions(), (640, 480));
        let [r, g, b] = picture.get_pixel(4, 4).0;
        assert!((80..105).contains(&r) && r.abs_diff(g) < 6 && g.abs_diff(b) < 6, "{r} {g} {b}");
    }

    #[test]
    fn asking_for_a_picture_behind_the_end_is_an_error_that_names_the_clip() {
        let dir = tempfile::tempdir().unwrap();
        let clip = dir.path().join("corridor.webm");
        empty_corridor(&clip, 1).unwrap();
        let error = format!("{:#}", jpeg_frames(&clip, &[Duration::from_secs(9)]).unwrap_err());
        assert!(error.contains("corridor.webm") && error.contains("0 of 1"), "{error}");
    }

    #[test]
    fn a_panned_photograph_moves() {
        let dir = tempfile::tempdir().unwrap();
        let photograph = dir.path().join("square.png");
        image::RgbImage::from_fn(200, 200, |x, _| image::Rgb([if x < 100 { 0 } else { 255 }; 3]))
            .save(&photograph)
            .unwrap();
        let clip = dir.path().join("panned.webm");
        panned_photograph(&photograph, &clip, 3).unwrap();
        let frames = jpeg_frames(&clip, &[Duration::ZERO, Duration::from_millis(1000)]).unwrap();
        let edge_of = |bytes: &[u8]| {
            let picture = image::load_from_memory(bytes).unwrap().to_luma8();
            (120..520).find(|&x| picture.get_pixel(x, 240).0[0] > 128).unwrap()
        };
        assert!(edge_of(&frames[0]).abs_diff(edge_of(&frames[1])) > 20);
    }
}

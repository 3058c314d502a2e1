//! One picture's template, with the very functions of enrolment and door.
//!
//! In: the bytes of a JPEG, PNG or binary PGM/PPM. Out: a template, or why there is none. Between them stand the calls
//! of `enrol_photograph` in the same order; the one difference is that of several faces the largest is taken, since
//! collections for measuring have bystanders. Deliberately absent: files, threads, liveness.

use face_core::quality::{QualityGate, QualityReason};
use face_core::{Detection, Detector, Embedder, FrameError, ModelError, RgbImage};
use face_runtime::{Enrolled, ModelPack, PhotoError, PhotoLimits, decode_photo, examine_face};
use wire_contract::Code;

use crate::logging::chain;
use crate::stages::record::quality_code;

/// Why a picture gave no template.
#[derive(Debug, thiserror::Error)]
pub enum NoTemplate {
    /// It cannot be decoded.
    #[error(transparent)]
    Photo(#[from] PhotoError),
    /// It is a PGM or PPM that cannot be read.
    #[error("the PGM or PPM cannot be read: {0}")]
    Netpbm(#[from] NetpbmError),
    /// No face was found.
    #[error("no face was found")]
    NoFace,
    /// The face does not pass the gate.
    #[error("the face does not pass the gate: {}", words(.0))]
    Quality(Vec<QualityReason>),
    /// A model cannot make anything of this face.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl NoTemplate {
    /// The stable codes of the reasons.
    #[must_use]
    pub fn codes(&self) -> Vec<&'static str> {
        match self {
            Self::Photo(PhotoError::TooLarge { .. } | PhotoError::TooManyBytes { .. }) => {
                vec![Code::PhotoTooLarge.as_str()]
            }
            Self::Photo(_) | Self::Netpbm(_) => vec![Code::PhotoUnreadable.as_str()],
            Self::NoFace => vec![Code::NoFace.as_str()],
            Self::Quality(reasons) => reasons.iter().map(|reason| quality_code(*reason).as_str()).collect(),
            Self::Model(_) => vec![Code::ModelsUnavailable.as_str()],
        }
    }

    /// The whole cause.
    #[must_use]
    pub fn told(&self) -> String {
        chain(self)
    }
}

fn words(reasons: &[QualityReason]) -> String {
    let codes: Vec<&str> = reasons.iter().map(|reason| quality_code(*reason).as_str()).collect();
    codes.join(", ")
}

/// Makes the template of the largest face of a picture that passes `gate`.
///
/// # Errors
/// [`NoTemplate`].
pub fn template(pack: &ModelPack, bytes: &[u8], gate: &QualityGate) -> Result<Enrolled, NoTemplate> {
    let image = decode(bytes)?;
    let area = |face: &Detection| face.rect.area();
    // Of equally large faces the one that the detector is surer of: they come best score first.
    let largest =
        pack.detect(&image)?.into_iter().reduce(|best, face| if area(&face) > area(&best) { face } else { best });
    let examined = examine_face(pack, &image, &largest.ok_or(NoTemplate::NoFace)?)?;
    let reasons = gate.reasons(&examined.quality);
    if !reasons.is_empty() {
        return Err(NoTemplate::Quality(reasons));
    }
    let embedding = pack.embed(&image, &examined.points)?;
    Ok(Enrolled { embedding, examined })
}

/// Reads a JPEG, PNG or binary PGM/PPM within the limits of a photograph.
///
/// # Errors
/// [`NoTemplate::Photo`] or [`NoTemplate::Netpbm`].
pub fn decode(bytes: &[u8]) -> Result<RgbImage, NoTemplate> {
    let limits = PhotoLimits::default();
    match bytes {
        [b'P', b'5', ..] if bytes.len() <= limits.max_bytes => Ok(netpbm(bytes, 1)?),
        [b'P', b'6', ..] if bytes.len() <= limits.max_bytes => Ok(netpbm(bytes, 3)?),
        _ => Ok(decode_photo(bytes, &limits)?),
    }
}

/// Why a PGM or PPM cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetpbmError {
    /// Width, height or the largest value is not a number.
    #[error("the header is damaged")]
    Header,
    /// Only one byte a value is read.
    #[error("the largest value is {0}, only 255 is read: convert it to PNG")]
    Depth(u32),
    /// The size is out of range, or the pixels end too early.
    #[error(transparent)]
    Picture(#[from] FrameError),
}

/// Reads a binary PGM (one channel) or PPM (three): old collections such as ORL's come as PGM. No byte is allocated that the
/// file does not have, or three for one of grey.
fn netpbm(bytes: &[u8], channels: usize) -> Result<RgbImage, NetpbmError> {
    let mut at = 2;
    let (width, height, largest) = (number(bytes, &mut at)?, number(bytes, &mut at)?, number(bytes, &mut at)?);
    if largest != 255 {
        return Err(NetpbmError::Depth(largest));
    }
    // Exactly one white space stands between the header and the pixels.
    let pixels = bytes.get(at + 1..).unwrap_or_default();
    let needed = (width as usize).saturating_mul(height as usize).saturating_mul(channels);
    let pixels = pixels.get(..needed).unwrap_or(pixels);
    let rgb = if channels == 1 { pixels.iter().flat_map(|value| [*value; 3]).collect() } else { pixels.to_vec() };
    Ok(RgbImage::from_vec(width, height, rgb)?)
}

/// The next number of the header; white space and comments to the end of a line stand before it.
fn number(bytes: &[u8], at: &mut usize) -> Result<u32, NetpbmError> {
    while let Some(byte) = bytes.get(*at) {
        match byte {
            b'#' => *at += bytes[*at..].iter().take_while(|byte| **byte != b'\n').count(),
            byte if byte.is_ascii_whitespace() => *at += 1,
            _ => break,
        }
    }
    let from = *at;
    *at += bytes[from.min(bytes.len())..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let digits = std::str::from_utf8(&bytes[from.min(bytes.len())..*at]).map_err(|_| NetpbmError::Header)?;
    digits.parse().map_err(|_| NetpbmError::Header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn grey_and_colour_are_read_with_comments_in_the_header() {
        let grey = netpbm(b"P5 # a camera\n2 1\n255\n\x0a\xff", 1).unwrap();
        assert_eq!((grey.width(), grey.height(), grey.bytes()), (2, 1, &[10, 10, 10, 255, 255, 255][..]));
        let colour = netpbm(b"P6\n1 2\n255\n123456 and more", 3).unwrap();
        assert_eq!((colour.width(), colour.height(), colour.bytes()), (1, 2, &b"123456"[..]));
    }

    #[test]
    fn damaged_and_foreign_ones_are_refused() {
        assert_eq!(netpbm(b"P5", 1).unwrap_err(), NetpbmError::Header);
        assert_eq!(netpbm(b"P5 2 x 255 ab", 1).unwrap_err(), NetpbmError::Header);
        assert_eq!(netpbm(b"P5 2 1 65535 abcd", 1).unwrap_err(), NetpbmError::Depth(65_535));
        for bad in [&b"P5 2 2 255 abc"[..], b"P5 0 2 255 abc", b"P5 99999 99999 255 abc"] {
            assert!(matches!(netpbm(bad, 1), Err(NetpbmError::Picture(_))), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..60), digits in "[0-9 #\n]{0,30}") {
            for channels in [1, 3] {
                let mut file = b"P5".to_vec();
                file.extend(digits.as_bytes());
                file.extend(&bytes);
                let _ = netpbm(&file, channels);
            }
        }
    }
}

//! The structure of a JPEG file, looked at before it is decoded.
//!
//! In: the bytes. Out: the size in the frame header, or why the file cannot be used. The decoder behind
//! [`crate::photo`] is lenient: it fills the missing part of a truncated file with grey and turns CMYK into RGB
//! without its profile. A template made from half a face would be accepted silently, so this module walks the
//! segments (ITU-T T.81, annex B) to the end-of-image marker. It looks at no pixel.

/// What the frame header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct JpegHeader {
    pub(crate) width: u32,
    pub(crate) height: u32,
}

/// Why a JPEG file cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JpegProblem {
    /// The file ends before the end-of-image marker.
    #[error("the JPEG file is incomplete: send the whole file")]
    Truncated,
    /// A segment length or a marker makes no sense.
    #[error("the JPEG file is damaged: send the original file")]
    Damaged,
    /// Four components: CMYK or YCCK, as used for print.
    #[error("the JPEG file has CMYK colours: save it as RGB (sRGB)")]
    Cmyk,
    /// More than 8 bits a sample.
    #[error("the JPEG file has {bits} bits a sample: save it with 8")]
    SampleDepth {
        /// Bits a sample.
        bits: u8,
    },
    /// Far more scans than any camera writes; each costs a pass over the whole picture.
    #[error("the JPEG file has more than {MAX_SCANS} scans: save it again as an ordinary JPEG")]
    TooManyScans,
}

/// A progressive JPEG from common software has about 10 scans.
const MAX_SCANS: usize = 64;

const START_OF_IMAGE: u8 = 0xD8;
const END_OF_IMAGE: u8 = 0xD9;
const START_OF_SCAN: u8 = 0xDA;

/// Walks the file from the start to the end-of-image marker. Bytes after it (some phones append a second picture) are
/// ignored.
pub(crate) fn check(bytes: &[u8]) -> Result<JpegHeader, JpegProblem> {
    let mut walker = Walker { bytes, position: 0 };
    if walker.marker()? != START_OF_IMAGE {
        return Err(JpegProblem::Damaged);
    }
    let mut header = None;
    let mut scans = 0;
    loop {
        match walker.marker()? {
            END_OF_IMAGE => return header.filter(|_| scans > 0).ok_or(JpegProblem::Damaged),
            START_OF_SCAN => {
                scans += 1;
                if scans > MAX_SCANS {
                    return Err(JpegProblem::TooManyScans);
                }
                walker.segment()?;
                walker.skip_entropy_coded();
            }
            marker if is_frame_header(marker) => header = Some(frame_header(walker.segment()?)?),
            // RSTn and TEM stand alone.
            0xD0..=0xD7 | 0x01 => {}
            START_OF_IMAGE => return Err(JpegProblem::Damaged),
            _ => {
                walker.segment()?;
            }
        }
    }
}

/// SOF0 to SOF15, without DHT (C4), JPG (C8) and DAC (CC), which share the range.
const fn is_frame_header(marker: u8) -> bool {
    matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC)
}

fn frame_header(segment: &[u8]) -> Result<JpegHeader, JpegProblem> {
    let &[bits, h1, h0, w1, w0, components, ..] = segment else {
        return Err(JpegProblem::Damaged);
    };
    if bits != 8 {
        return Err(JpegProblem::SampleDepth { bits });
    }
    if components == 4 {
        return Err(JpegProblem::Cmyk);
    }
    let size = |high, low| u32::from(u16::from_be_bytes([high, low]));
    Ok(JpegHeader { width: size(w1, w0), height: size(h1, h0) })
}

struct Walker<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Walker<'a> {
    fn byte(&mut self) -> Result<u8, JpegProblem> {
        let byte = *self.bytes.get(self.position).ok_or(JpegProblem::Truncated)?;
        self.position += 1;
        Ok(byte)
    }

    /// The next marker; any number of FF may come before it, and lenient files have stray bytes between segments.
    fn marker(&mut self) -> Result<u8, JpegProblem> {
        loop {
            while self.byte()? != 0xFF {}
            let mut code = self.byte()?;
            while code == 0xFF {
                code = self.byte()?;
            }
            if code != 0 {
                return Ok(code);
            }
        }
    }

    /// The body of a segment with a length field.
    fn segment(&mut self) -> Result<&'a [u8], JpegProblem> {
        let length = usize::from(u16::from_be_bytes([self.byte()?, self.byte()?]));
        let body = length.checked_sub(2).ok_or(JpegProblem::Damaged)?;
        let end = self.position + body;
        let segment = self.bytes.get(self.position..end).ok_or(JpegProblem::Truncated)?;
        self.position = end;
        Ok(segment)
    }

    /// Stops before the first marker that is neither a stuffed zero nor a restart marker, or at the end.
    fn skip_entropy_coded(&mut self) {
        while let Some(rest) = self.bytes.get(self.position..) {
            match rest {
                [0xFF, 0x00 | 0xD0..=0xD7, ..] => self.position += 2,
                // A fill byte before a marker.
                [0xFF, 0xFF, ..] | [0x00..=0xFE, ..] => self.position += 1,
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SOI, SOF0 of 2x3 with `components`, SOS, four bytes of data with a stuffed FF, EOI.
    fn file(bits: u8, components: u8) -> Vec<u8> {
        let mut bytes = vec![0xFF, 0xD8, 0xFF, 0xC0, 0, 8, bits, 0, 3, 0, 2, components];
        bytes.extend([0xFF, 0xDA, 0, 2, 0x12, 0xFF, 0x00, 0x34, 0xFF, 0xD9]);
        bytes
    }

    #[test]
    fn a_whole_file_gives_its_size() {
        assert_eq!(check(&file(8, 3)), Ok(JpegHeader { width: 2, height: 3 }));
    }

    #[test]
    fn bytes_after_the_end_are_ignored() {
        let mut bytes = file(8, 3);
        bytes.extend([0xFF, 0xD8, 0xFF]);
        assert!(check(&bytes).is_ok());
    }

    #[test]
    fn every_prefix_is_truncated() {
        let bytes = file(8, 1);
        for length in 0..bytes.len() {
            assert_eq!(check(&bytes[..length]), Err(JpegProblem::Truncated), "{length} bytes");
        }
    }

    #[test]
    fn print_colours_and_deep_samples_are_named() {
        assert_eq!(check(&file(8, 4)), Err(JpegProblem::Cmyk));
        assert_eq!(check(&file(12, 3)), Err(JpegProblem::SampleDepth { bits: 12 }));
    }

    #[test]
    fn a_file_of_nothing_but_scans_is_refused() {
        let mut bytes = file(8, 3);
        bytes.truncate(bytes.len() - 2);
        for _ in 0..MAX_SCANS {
            bytes.extend([0xFF, 0xDA, 0, 2, 0]);
        }
        bytes.extend([0xFF, 0xD9]);
        assert_eq!(check(&bytes), Err(JpegProblem::TooManyScans));
    }

    #[test]
    fn a_picture_without_a_frame_header_is_damaged() {
        assert_eq!(check(&[0xFF, 0xD8, 0xFF, 0xD9]), Err(JpegProblem::Damaged));
    }
}

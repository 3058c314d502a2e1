//! Pictures from outside: whatever the bytes are, an upright picture or a clear error, never a panic.

mod support;

use std::io::Cursor;

use face_core::RgbImage;
use face_runtime::{JpegProblem, PhotoError, PhotoLimits, decode_photo};
use image::{DynamicImage, ImageFormat};

fn decode(bytes: &[u8]) -> Result<RgbImage, PhotoError> {
    decode_photo(bytes, &PhotoLimits::default())
}

fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).expect("encodes");
    bytes.into_inner()
}

/// 64 x 32, red on the left and blue on the right.
fn flag() -> DynamicImage {
    DynamicImage::ImageRgb8(image::RgbImage::from_fn(64, 32, |x, _| {
        image::Rgb(if x < 32 { [250, 0, 0] } else { [0, 0, 250] })
    }))
}

fn reddish([r, _, b]: [u8; 3]) -> bool {
    r > 200 && b < 60
}

#[test]
fn jpeg_and_png_are_read() {
    for format in [ImageFormat::Jpeg, ImageFormat::Png] {
        let picture = decode(&encoded(&flag(), format)).expect("decodes");
        assert_eq!((picture.width(), picture.height()), (64, 32));
        assert!(reddish(picture.pixel(4, 4)) && !reddish(picture.pixel(60, 4)), "{format:?}");
    }
}

/// The JPEG with an EXIF segment that holds nothing but the orientation.
fn turned(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let mut exif = b"Exif\0\0MM\0\x2A\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
    let mut bytes = jpeg[..2].to_vec();
    bytes.extend([0xFF, 0xE1]);
    bytes.extend(u16::try_from(exif.len() + 2).expect("short").to_be_bytes());
    bytes.extend(exif);
    bytes.extend(&jpeg[2..]);
    bytes
}

#[test]
fn exif_orientation_is_applied() {
    let jpeg = encoded(&flag(), ImageFormat::Jpeg);
    // Taken with the phone turned: rotate by 90 degrees clockwise to view. Red, left in the file, comes to the top.
    let picture = decode(&turned(&jpeg, 6)).expect("decodes");
    assert_eq!((picture.width(), picture.height()), (32, 64));
    assert!(reddish(picture.pixel(16, 4)) && !reddish(picture.pixel(16, 60)));
    // Upside down: red comes to the right.
    let picture = decode(&turned(&jpeg, 3)).expect("decodes");
    assert!(reddish(picture.pixel(60, 16)) && !reddish(picture.pixel(4, 16)));
}

#[test]
fn a_truncated_file_is_never_half_a_picture() {
    for format in [ImageFormat::Jpeg, ImageFormat::Png] {
        let whole = encoded(
            &DynamicImage::ImageRgb8(image::RgbImage::from_fn(97, 83, |x, y| {
                image::Rgb([x as u8, y as u8, (x * y) as u8])
            })),
            format,
        );
        for kept in 0..whole.len() - 2 {
            // The last bytes of a PNG are the checksum of an empty chunk; some decoders rightly do not need them.
            if format == ImageFormat::Png && kept + 12 >= whole.len() {
                break;
            }
            assert!(decode(&whole[..kept]).is_err(), "{format:?}: {kept} of {} bytes were accepted", whole.len());
        }
    }
    let error = decode(&encoded(&flag(), ImageFormat::Jpeg)[..300]).expect_err("accepted");
    assert!(matches!(error, PhotoError::Jpeg(JpegProblem::Truncated)), "{error}");
}

#[test]
fn no_changed_byte_panics() {
    for format in [ImageFormat::Jpeg, ImageFormat::Png] {
        let whole = encoded(&flag(), format);
        for position in 0..whole.len() {
            for flip in [0x01, 0x80, 0xFF] {
                let mut bytes = whole.clone();
                bytes[position] ^= flip;
                if let Err(error) = decode(&bytes) {
                    assert!(!matches!(error, PhotoError::DecoderPanicked), "{format:?}: byte {position} ^ {flip:#x}");
                }
            }
        }
    }
}

#[test]
fn other_formats_are_named() {
    for bytes in [&b""[..], b"GIF89a\x01\0\x01\0", b"RIFF\0\0\0\0WEBP", b"%PDF-1.7", b"\xFF\xD8"] {
        assert!(matches!(decode(bytes), Err(PhotoError::UnknownFormat)), "{bytes:?}");
    }
}

#[test]
fn print_colours_are_refused() {
    // Start of image, then a frame header of 8 x 8 with four components.
    let cmyk = [0xFF, 0xD8, 0xFF, 0xC0, 0, 20, 8, 0, 8, 0, 8, 4, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0, 4, 0x11, 0];
    let error = decode(&cmyk).expect_err("accepted");
    assert!(matches!(error, PhotoError::Jpeg(JpegProblem::Cmyk)), "{error}");
}

#[test]
fn sixteen_bits_grey_and_transparency_become_rgb() {
    let deep = DynamicImage::ImageRgb16(image::ImageBuffer::from_pixel(8, 8, image::Rgb([0xFFFF, 0x8000, 0])));
    let [r, g, b] = decode(&encoded(&deep, ImageFormat::Png)).expect("decodes").pixel(3, 3);
    assert!(r == 255 && (127..=128).contains(&g) && b == 0, "{r} {g} {b}");
    let grey = DynamicImage::ImageLuma8(image::GrayImage::from_pixel(8, 8, image::Luma([77])));
    assert_eq!(decode(&encoded(&grey, ImageFormat::Png)).expect("decodes").pixel(0, 0), [77; 3]);
    let glass = DynamicImage::ImageRgba8(image::RgbaImage::from_pixel(8, 8, image::Rgba([10, 20, 30, 40])));
    assert_eq!(decode(&encoded(&glass, ImageFormat::Png)).expect("decodes").pixel(0, 0), [10, 20, 30]);
}

/// A PNG that claims to have the given size and holds next to nothing.
fn png_bomb(width: u32, height: u32) -> Vec<u8> {
    let mut header = b"IHDR".to_vec();
    header.extend(width.to_be_bytes());
    header.extend(height.to_be_bytes());
    header.extend([8, 2, 0, 0, 0]);
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0D".to_vec();
    bytes.extend(&header);
    bytes.extend(crc32(&header).to_be_bytes());
    bytes.extend(b"\0\0\0\0IDAT\x35\xAF\x06\x1E");
    bytes
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    })
}

#[test]
fn a_bomb_is_refused_by_its_header() {
    for (width, height) in [(50_000, 50_000), (u32::MAX / 2, 1), (5_001, 5_000), (20_000, 1)] {
        let error = decode(&png_bomb(width, height)).expect_err("accepted");
        assert!(matches!(error, PhotoError::TooLarge { .. }), "{width}x{height}: {error}");
    }
    let mut jpeg = encoded(&flag(), ImageFormat::Jpeg);
    let frame = jpeg.windows(2).position(|pair| pair == [0xFF, 0xC0]).expect("a frame header");
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xFF, 0xFF, 0xFF, 0xFF]);
    let error = decode(&jpeg).expect_err("accepted");
    assert!(matches!(error, PhotoError::TooLarge { width: 65_535, height: 65_535, .. }), "{error}");
}

#[test]
fn a_long_file_is_refused_unread() {
    let limits = PhotoLimits { max_bytes: 100, ..PhotoLimits::default() };
    let error = decode_photo(&encoded(&flag(), ImageFormat::Png), &limits).expect_err("accepted");
    assert!(matches!(error, PhotoError::TooManyBytes { limit: 100, .. }), "{error}");
}

#[test]
fn one_pixel_is_a_picture() {
    let dot = DynamicImage::ImageRgb8(image::RgbImage::from_pixel(1, 1, image::Rgb([1, 2, 3])));
    assert_eq!(decode(&encoded(&dot, ImageFormat::Png)).expect("decodes").pixel(0, 0), [1, 2, 3]);
}

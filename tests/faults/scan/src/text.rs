//! What text hides: runs that are base64 or hexadecimal digits, and lists of numbers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::HALF;
use crate::form::component;

/// Gives everything that base64 or hexadecimal digits say, wherever the first of them is in its group.
pub(crate) fn each_hidden(content: &[u8], mut look: impl FnMut(&[u8])) {
    for run in runs(content, is_base64, HALF) {
        // Postgres writes bytes as `\x` and digits: of these the digits are read, below.
        if run.strip_prefix(b"x").unwrap_or(&run).iter().all(u8::is_ascii_hexdigit) {
            continue;
        }
        for shift in 0..4.min(run.len()) {
            let whole = &run[shift..run.len() - (run.len() - shift) % 4];
            if let Ok(bytes) = STANDARD_NO_PAD.decode(plus_and_slash(whole)) {
                look(&bytes);
            }
        }
    }
    for run in runs(content, |byte| byte.is_ascii_hexdigit(), 2 * HALF) {
        for shift in 0..2 {
            let whole = &run[shift..run.len() - (run.len() - shift) % 2];
            if let Ok(bytes) = hex::decode(whole) {
                look(&bytes);
            }
        }
    }
}

/// Gives every list of numbers that is long enough.
pub(crate) fn each_list(content: &[u8], mut look: impl FnMut(&[f32])) {
    let of_numbers = |byte: &u8| b"0123456789+-.eE, \t\n\r".contains(byte);
    for run in content.split(|byte| !of_numbers(byte)).filter(|run| run.len() >= 2 * HALF) {
        let words = String::from_utf8_lossy(run);
        let numbers: Vec<f32> = words
            .split([',', ' ', '\t', '\n', '\r'])
            .filter(|word| !word.is_empty())
            .map(|word| word.parse().map_or(f32::NAN, component))
            .collect();
        look(&numbers);
    }
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte)
}

fn plus_and_slash(text: &[u8]) -> Vec<u8> {
    let letter = |byte: &u8| match byte {
        b'-' => b'+',
        b'_' => b'/',
        other => *other,
    };
    text.iter().map(letter).collect()
}

/// Runs of such bytes, with the ends of lines taken out.
fn runs(content: &[u8], of: impl Fn(u8) -> bool, at_least: usize) -> impl Iterator<Item = Vec<u8>> {
    let is_end = |byte: &u8| b"\r\n".contains(byte);
    content
        .split(move |byte| !of(*byte) && !is_end(byte))
        .filter(move |run| run.len() >= at_least)
        .map(move |run| run.iter().copied().filter(|byte| !is_end(byte)).collect())
        .filter(move |run: &Vec<u8>| run.len() >= at_least)
}

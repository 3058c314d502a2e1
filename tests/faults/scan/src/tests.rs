//! The scan against one that has no tricks, and people who are put into bytes of every kind.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;

use super::*;

/// What one way to store a component and read it again makes of it.
type Stored = (Form, fn(f32) -> Vec<u8>, fn(&[u8]) -> f64);

const STORED: [Stored; 4] = [
    (Form::F32, |x| x.to_le_bytes().to_vec(), |raw| f64::from(f32::from_le_bytes(raw.try_into().unwrap()))),
    (Form::F16, |x| binary16(x).to_le_bytes().to_vec(), |raw| of_binary16(u16::from_le_bytes(raw.try_into().unwrap()))),
    (
        Form::Bf16,
        |x| ((x.to_bits() >> 16) as u16).to_le_bytes().to_vec(),
        |raw| f64::from(f32::from_bits(u32::from(u16::from_le_bytes(raw.try_into().unwrap())) << 16)),
    ),
    (Form::I8, |x| vec![(x * 500.0).round() as i8 as u8], |raw| f64::from(raw[0] as i8)),
];

/// Rounded down; components of embeddings have an exponent in binary16, or are as good as zero.
fn binary16(x: f32) -> u16 {
    let bits = x.to_bits();
    let exponent = (bits >> 23 & 0xff) as i32 - 127 + 15;
    let sign = (bits >> 16 & 0x8000) as u16;
    if exponent <= 0 { sign } else { sign | (exponent as u16) << 10 | (bits >> 13 & 0x3ff) as u16 }
}

fn of_binary16(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    let size = match exponent {
        0 => fraction * 2_f64.powi(-24),
        31 => f64::NAN,
        _ => (1.0 + fraction / 1024.0) * 2_f64.powi(exponent - 15),
    };
    if bits & 0x8000 == 0 { size } else { -size }
}

/// Every window by itself: what is compared, and how alike the likest is.
fn plainly(embeddings: &[Vec<f32>], content: &[u8], form: Form, read: fn(&[u8]) -> f64) -> (u64, f64) {
    let (width, mut windows, mut likest) = (form.width(), 0, 0.0_f64);
    let signs = |of: &[f64]| of.iter().filter(|x| **x < 0.0).count().min(of.iter().filter(|x| **x > 0.0).count());
    let halves: Vec<Vec<f64>> = embeddings
        .iter()
        .flat_map(|one| one.chunks_exact(HALF))
        .map(|half| half.iter().map(|x| f64::from(*x)).collect())
        .collect();
    let least = halves.iter().map(|half| signs(half)).min().unwrap() / 4;
    for at in 0..(content.len() + 1).saturating_sub(width * HALF) {
        let window: Vec<f64> = content[at..at + width * HALF].chunks_exact(width).map(read).collect();
        let is_size = |x: f64| x == 0.0 || form == Form::I8 || (1e-12..=1e4).contains(&x.abs());
        if !window.iter().all(|x| is_size(*x)) || window.iter().filter(|x| **x != 0.0).count() < ENOUGH {
            continue;
        }
        if signs(&window) < least {
            continue;
        }
        windows += 1;
        let length = window.iter().map(|x| x * x).sum::<f64>().sqrt();
        for half in &halves {
            let halfs = half.iter().map(|x| x * x).sum::<f64>().sqrt();
            let product: f64 = half.iter().zip(&window).map(|(a, b)| a * b).sum();
            likest = likest.max(product / (length * halfs));
        }
    }
    (windows, likest)
}

fn embedding() -> impl Strategy<Value = Vec<f32>> {
    proptest::collection::vec(-0.12_f32..0.12, 2 * HALF)
}

/// Bytes of the kinds that files have: noise, zeros, digits, prose, small numbers.
fn bytes(size: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    (0..5_u8).prop_flat_map(move |kind| {
        proptest::collection::vec(any::<u8>(), size.clone()).prop_map(move |raw| {
            let of = |byte: u8| match kind {
                0 => byte,
                1 => 0,
                2 => b"0123456789abcdef"[usize::from(byte % 16)],
                3 => byte % 96 + 32,
                _ => u8::from(byte.is_multiple_of(3)) * (byte % 8),
            };
            raw.into_iter().map(of).collect()
        })
    })
}

fn stored(embedding: &[f32], store: fn(f32) -> Vec<u8>) -> Vec<u8> {
    embedding.iter().flat_map(|x| store(*x)).collect()
}

fn scan(embeddings: &[Vec<f32>], piece: usize) -> Scan {
    Scan { piece, ..Scan::of(embeddings) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn nothing_is_left_out_that_a_search_without_tricks_compares(
        embeddings in proptest::collection::vec(embedding(), 1..4),
        (before, after) in (bytes(0..700), bytes(0..700)),
        planted in proptest::option::of(0..STORED.len()),
        cut in 0..2_048_usize,
        piece in (1..40_usize).prop_map(|fours| 4 * fours),
    ) {
        let mut middle = planted.map_or(Vec::new(), |which| stored(&embeddings[0], STORED[which].1));
        middle.truncate(cut);
        let content = [before, middle, after].concat();
        let scan = scan(&embeddings, piece);
        let (mut seen, mut windows) = (Seen::default(), 0);
        scan.binary(&content, &mut seen);
        for (form, _, read) in STORED {
            let (compared, likest) = plainly(&embeddings, &content, form, read);
            windows += compared;
            prop_assert!((f64::from(seen.likest(form)) - likest).abs() < 1e-3, "{form:?} {} {likest}", seen.likest(form));
        }
        prop_assert_eq!(seen.windows, windows);
    }

    #[test]
    fn somebody_is_found_in_every_form_at_every_place_over_every_border(
        them in embedding(),
        other in embedding(),
        (before, after) in (bytes(0..9_000), bytes(0..3_000)),
        which in 0..STORED.len(),
        half in 0..3_usize,
        piece in prop_oneof![Just(PIECE), (1..2_000_usize).prop_map(|fours| 4 * fours)],
    ) {
        let (form, store, _) = STORED[which];
        let part = [&them[..], &them[..HALF], &them[HALF..]][half];
        let content = [before, stored(part, store), after].concat();
        let found: Vec<Form> = scan(&[other.clone(), them], piece).look(&content).found().map(|(form, _)| form).collect();
        prop_assert!(found.contains(&form), "{form:?}: {found:?}");
        prop_assert_eq!(scan(&[other], piece).look(&content).found().count(), 0, "somebody else");
    }

    #[test]
    fn somebody_is_found_in_text(
        them in embedding(),
        (before, after) in ("[a-z0-9+/ {\":]{0,40}", "[ }\",;=]{1,3}[a-z0-9 ]{0,40}"),
        which in 0..STORED.len(),
        line in prop_oneof![Just(0), Just(64_usize), Just(76), 1..200_usize],
        way in 0..5_usize,
    ) {
        let (form, store, _) = STORED[which];
        let raw = stored(&them, store);
        let text = match way {
            0 => STANDARD.encode(&raw),
            1 => URL_SAFE_NO_PAD.encode(&raw),
            2 => hex::encode(&raw),
            3 => hex::encode_upper(&raw),
            _ => format!("\\x{}", hex::encode(&raw)),
        };
        let broken = match line {
            0 => text,
            _ => text.as_bytes().chunks(line).map(|part| std::str::from_utf8(part).unwrap()).collect::<Vec<_>>().join("\n"),
        };
        let content = format!("{before}{broken}{after}").into_bytes();
        let found: Vec<Form> = Scan::of(&[them]).look(&content).found().map(|(form, _)| form).collect();
        prop_assert!(found.contains(&form), "{form:?} way {way}: {found:?}");
    }

    #[test]
    fn somebody_is_found_in_lists_of_numbers(them in embedding(), way in 0..4_usize, half in 0..3_usize) {
        let part = [&them[..], &them[..HALF], &them[HALF..]][half];
        let of = |x: &f32| match way {
            0 => x.to_string(),
            1 => format!("{x:e}"),
            2 => format!("{x:.4}"),
            _ => format!("{}", (x * 500.0) as i8),
        };
        let list = part.iter().map(of).collect::<Vec<_>>().join([",", ", ", "\n", " "][way]);
        let content = format!("{{\"vector\": [{list}]}}").into_bytes();
        prop_assert!(Scan::of(&[them]).look(&content).likest(Form::Numbers) > 0.9);
    }
}

#[test]
fn less_than_half_is_nobodys() {
    let them: Vec<f32> = (0..2 * HALF).map(|at| ((at * 7_919 % 1_013) as f32 - 506.0) / 9_000.0).collect();
    let raw = stored(&them, STORED[0].1);
    let found = |content: &[u8]| Scan::of(std::slice::from_ref(&them)).as_stored().look(content).found().count();
    assert_eq!((found(&raw[..4 * HALF - 1]), found(&raw[..4 * HALF])), (0, 1));
}

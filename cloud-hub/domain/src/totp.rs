//! One-time codes by time (RFC 6238), as authenticator apps show them: SHA-1, six digits, thirty seconds.
//!
//! In: a secret, a time, what was typed, and the step of the last code that was taken. Out: the step of the code, which its caller
//! keeps, or nothing. Deliberately absent: how secrets are kept (`keys::second_factor`), and counting failures (`store::logins`).

use data_encoding::BASE32_NOPAD;
use ring::hmac;
use time::OffsetDateTime;
use url::form_urlencoded::byte_serialize;

/// Bytes of a secret: as many as the hash has, as RFC 4226 wants it.
pub const SECRET: usize = 20;
/// Bytes of a recovery code: 80 bits, that nobody guesses though only a quick MAC of it is kept.
pub const RECOVERY: usize = 10;
/// Recovery codes of a user.
pub const RECOVERY_CODES: usize = 10;
/// Seconds of a step.
const STEP_S: i64 = 30;
const DIGITS: usize = 6;
/// Steps by which a telephone's clock may be off, either way.
const WINDOW: i64 = 1;
/// Who is meant, in the app's list.
const ISSUER: &str = "Lintel";

/// The code of a step.
fn code(secret: &[u8], step: i64) -> u32 {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret);
    let tag = hmac::sign(&key, &step.to_be_bytes());
    let bytes = tag.as_ref();
    let at = usize::from(bytes[bytes.len() - 1] & 0x0f);
    let word = u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    (word & 0x7fff_ffff) % 1_000_000
}

/// What somebody typed as a second factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typed {
    /// A code of the app.
    Code(u32),
    /// A recovery code.
    Recovery([u8; RECOVERY]),
}

impl Typed {
    /// Reads it; blanks and hyphens are for the eye.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let plain: String = text.chars().filter(|letter| !matches!(letter, ' ' | '-')).collect();
        if plain.len() == DIGITS && plain.bytes().all(|digit| digit.is_ascii_digit()) {
            return plain.parse().ok().map(Self::Code);
        }
        let bytes = BASE32_NOPAD.decode(plain.to_ascii_uppercase().as_bytes()).ok()?;
        bytes.try_into().ok().map(Self::Recovery)
    }
}

/// The step of a code that is good at `now` and of a later step than the last one that was taken.
#[must_use]
pub fn step_of(typed: u32, secret: &[u8], last_step: i64, now: OffsetDateTime) -> Option<i64> {
    let present = now.unix_timestamp().div_euclid(STEP_S);
    // The latest first: should two steps have one code, taking it ends both.
    (present - WINDOW..=present + WINDOW).rev().find(|step| *step > last_step && code(secret, *step) == typed)
}

/// A recovery code for people to read.
#[must_use]
pub fn recovery_text(code: &[u8; RECOVERY]) -> String {
    let text = BASE32_NOPAD.encode(code).to_ascii_lowercase();
    let groups: Vec<&str> = (0..text.len()).step_by(4).map(|at| &text[at..at + 4]).collect();
    groups.join("-")
}

/// A secret as apps take it when it is typed in.
#[must_use]
pub fn secret_text(secret: &[u8; SECRET]) -> String {
    BASE32_NOPAD.encode(secret)
}

/// A secret as apps take it from a picture.
#[must_use]
pub fn uri(login: &str, secret: &[u8; SECRET]) -> String {
    let login: String = byte_serialize(login.as_bytes()).collect();
    let secret = secret_text(secret);
    format!(
        "otpauth://totp/{ISSUER}:{login}?secret={secret}&issuer={ISSUER}&algorithm=SHA1&digits={DIGITS}&period={STEP_S}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const RFC: &[u8] = b"12345678901234567890";

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(seconds).unwrap()
    }

    #[test]
    fn codes_are_those_of_rfc_6238() {
        // Appendix B, for SHA-1; the last six of its eight digits.
        for (seconds, wanted) in [
            (59, 287_082),
            (1_111_111_109, 81_804),
            (1_111_111_111, 50_471),
            (1_234_567_890, 5_924),
            (2_000_000_000, 279_037),
            (20_000_000_000, 353_130),
        ] {
            assert_eq!(code(RFC, seconds / 30), wanted, "{seconds}");
            assert_eq!(step_of(wanted, RFC, 0, at(seconds)), Some(seconds / 30));
        }
    }

    #[test]
    fn a_code_is_good_a_step_early_and_a_step_late_and_once() {
        let now = at(1_111_111_111);
        let step = now.unix_timestamp() / 30;
        for off in -3..=3 {
            let found = step_of(code(RFC, step + off), RFC, 0, now);
            assert_eq!(found, (off.abs() <= 1).then_some(step + off), "{off}");
        }
        assert_eq!(step_of(code(RFC, step), RFC, step, now), None, "it was taken");
        assert_eq!(step_of(code(RFC, step - 1), RFC, step, now), None, "so was one after it");
        assert_eq!(step_of(code(RFC, step + 1), RFC, step, now), Some(step + 1));
    }

    #[test]
    fn what_is_typed_is_a_code_or_a_recovery_code() {
        assert_eq!(Typed::read("081 804"), Some(Typed::Code(81_804)));
        let made = [7, 0, 255, 1, 2, 3, 4, 5, 6, 250];
        let text = recovery_text(&made);
        assert_eq!(text.len(), 19, "{text}");
        for text in [text.clone(), text.replace('-', ""), text.to_uppercase()] {
            assert_eq!(Typed::read(&text), Some(Typed::Recovery(made)), "{text}");
        }
        for wrong in ["", "12345", "1234567", "+12345", "١٢٣٤٥٦", "abcd-efgh-ijkl-mno1", "abcd"] {
            assert_eq!(Typed::read(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn an_app_reads_the_address() {
        let uri = uri("ada+x@example.org", RFC.try_into().unwrap());
        let read = url::Url::parse(&uri).unwrap();
        assert_eq!((read.scheme(), read.host_str()), ("otpauth", Some("totp")));
        assert_eq!(read.path(), "/Lintel:ada%2Bx%40example.org");
        let secret = read.query_pairs().find(|(name, _)| name == "secret").unwrap().1.into_owned();
        assert_eq!(secret, "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
    }
}

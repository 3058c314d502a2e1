//! `Idempotency-Key`: a request that is sent again is carried out once.
//!
//! In: the header, the request, and what is kept of the key. Out: whether to carry it out, to give the answer of the first time
//! again, or to refuse. What is promised: under one key of one caller at most one attempt changes anything. Each attempt has an
//! id, and a transaction that changes something writes into the key's row, in the same transaction, that this attempt did; one that
//! finds another attempt there does not commit. So an attempt of which nothing is heard any more may be followed by another one
//! only if it has changed nothing; if it has, and its answer was lost, the caller is told so. Deliberately absent: rows and seals.
//!
//! The header is that of `draft-ietf-httpapi-idempotency-key-header`.

use ring::digest::{Context, SHA256};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

/// The longest key.
pub const MAX_KEY: usize = 255;
/// How long a key and its answer are kept.
pub const KEPT: Duration = Duration::hours(24);
/// How long an attempt may take. Its transactions run for some seconds at most.
pub const ATTEMPT: std::time::Duration = std::time::Duration::from_secs(50);
/// From then on nothing is heard of an attempt any more: longer than one may take.
pub const HELD: Duration = Duration::seconds(60);
/// Answers with more bytes, head and body, are not kept. Those that make something have a hundredth of it.
pub const MAX_ANSWER: usize = 64 * 1024;
/// Keys of a tenant at a time, and bytes of answers: a key every four seconds, day and night.
pub const MAX_KEYS: u32 = 20_000;
/// Bytes of answers that are kept for a tenant.
pub const MAX_BYTES: u64 = 64 * 1024 * 1024;
/// When to come again while the first request is under way.
pub const RETRY_AFTER_S: u32 = 2;
/// Ids that an answer may be about; those of creating requests have one to three.
const MAX_ABOUT: usize = 64;
/// The longest boundary of a form (RFC 2046, §5.1.1).
const MAX_BOUNDARY: usize = 70;

/// A key that a client made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(String);

/// The header cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Twice.
    #[error("send one Idempotency-Key, not more")]
    Several,
    /// Nothing in it.
    #[error("the Idempotency-Key is empty")]
    Empty,
    /// Too long.
    #[error("the Idempotency-Key has more than {MAX_KEY} characters")]
    TooLong,
    /// Not a structured string, and no plain word either.
    #[error(
        "the Idempotency-Key must be a string in quotes (\"…\", printable ASCII) or letters, digits and -._~:+/= without quotes"
    )]
    Malformed,
}

impl Key {
    /// Reads the header's values: one string of RFC 8941, as the draft has it, or the same without quotes, as most clients send it.
    pub fn parse<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Result<Self, KeyError> {
        let value = values.next().ok_or(KeyError::Empty)?;
        if values.next().is_some() {
            return Err(KeyError::Several);
        }
        let value = std::str::from_utf8(value).map_err(|_| KeyError::Malformed)?.trim_matches([' ', '\t']);
        let text = match value.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => value.to_owned(),
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:+/=".contains(&byte);
        match text.len() {
            0 => Err(KeyError::Empty),
            length if length > MAX_KEY => Err(KeyError::TooLong),
            _ if value.starts_with('"') || text.bytes().all(plain) => Ok(Self(text)),
            _ => Err(KeyError::Malformed),
        }
    }

    /// The key of this caller: two callers who think of the same key have two. Hex.
    #[must_use]
    pub fn of(&self, caller: &str) -> String {
        hashed(&[b"lintel.idempotency.key.v1", caller.as_bytes(), self.0.as_bytes()])
    }
}

/// The rest of a structured string, from behind its first quote.
fn unquote(quoted: &str) -> Result<String, KeyError> {
    let (mut text, mut chars) = (String::new(), quoted.chars());
    loop {
        match chars.next() {
            // Parameters behind it mean nothing here, and nothing is guessed.
            Some('"') => return if chars.as_str().is_empty() { Ok(text) } else { Err(KeyError::Malformed) },
            Some('\\') => match chars.next() {
                Some(escaped @ ('"' | '\\')) => text.push(escaped),
                _ => return Err(KeyError::Malformed),
            },
            Some(letter @ ' '..='~') => text.push(letter),
            _ => return Err(KeyError::Malformed),
        }
    }
}

/// What was asked, as far as it decides whether two requests are the same.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a str,
    /// The path with its query.
    pub target: &'a str,
    /// The `Content-Type`.
    pub content_type: &'a str,
    /// The body.
    pub body: &'a [u8],
}

impl Request<'_> {
    /// The digest, in hex. The boundary of a form is drawn anew each time the same form is sent: it does not count. What is no form,
    /// or has a boundary that none may have, counts as it is.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut kind = self.content_type.split(';');
        let essence = kind.next().unwrap_or_default().trim().to_ascii_lowercase();
        let boundary = kind
            .filter_map(|parameter| parameter.trim().split_once('='))
            .find(|(name, _)| name.eq_ignore_ascii_case("boundary"))
            .map(|(_, value)| value.trim_matches('"'))
            .filter(|value| essence.starts_with("multipart/") && (1..=MAX_BOUNDARY).contains(&value.len()));
        let mut parts: Vec<&[u8]> =
            vec![b"lintel.idempotency.request.v1", self.method.as_bytes(), self.target.as_bytes(), essence.as_bytes()];
        match boundary {
            Some(boundary) => parts.extend(split(self.body, format!("--{boundary}").as_bytes())),
            None => parts.push(self.body),
        }
        hashed(&parts)
    }
}

/// What is between the places where `separator` stands.
fn split<'a>(body: &'a [u8], separator: &[u8]) -> Vec<&'a [u8]> {
    let (mut parts, mut from) = (Vec::new(), 0);
    // Not by looking at every place anew: a body can be made of beginnings of its boundary.
    for at in memchr::memmem::find_iter(body, separator) {
        parts.push(&body[from..at]);
        from = at + separator.len();
    }
    parts.push(&body[from..]);
    parts
}

fn hashed(parts: &[&[u8]]) -> String {
    let mut context = Context::new(&SHA256);
    for part in parts {
        // The length in front, so that two parts never run into one another.
        context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(part);
    }
    context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is kept of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The keyed hash of what was asked.
    pub request: [u8; 32],
    /// The last attempt.
    pub attempt: Uuid,
    /// Whether it has changed anything.
    pub changed: bool,
    /// Until when it may be under way.
    pub held_until: OffsetDateTime,
    /// The key's end.
    pub expires_at: OffsetDateTime,
    /// What was answered, if that is known.
    pub status: Option<u16>,
    /// The sealed answer, if it is kept.
    pub answer: Option<Vec<u8>>,
}

/// What is to be done about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Carry it out, in the place of what is kept.
    CarryOut,
    /// Give the answer of this attempt again.
    Replay(Uuid, Vec<u8>),
    /// The key was used for something else.
    OtherRequest,
    /// It is being carried out.
    UnderWay,
    /// It was carried out; its answer is not kept.
    AnswerGone(u16),
    /// It may have been carried out in part or whole: whoever did it was cut off.
    OutcomeUnknown,
}

/// Judges a request by what is kept of its key.
#[must_use]
pub fn judge(kept: &Kept, request: &[u8; 32], now: OffsetDateTime) -> Verdict {
    if kept.expires_at <= now {
        return Verdict::CarryOut;
    }
    if kept.request != *request {
        return Verdict::OtherRequest;
    }
    match (kept.status, &kept.answer) {
        (Some(_), Some(answer)) => Verdict::Replay(kept.attempt, answer.clone()),
        (Some(status), None) => Verdict::AnswerGone(status),
        (None, _) if now < kept.held_until => Verdict::UnderWay,
        (None, _) if kept.changed => Verdict::OutcomeUnknown,
        (None, _) => Verdict::CarryOut,
    }
}

/// Whether an answer is an outcome: faults of the hub and requests to come again later are none.
#[must_use]
pub fn is_outcome(status: u16) -> bool {
    status < 500 && !matches!(status, 408 | 425 | 429)
}

/// The ids that an answer is about: those of the path, and those anywhere in its body; each once.
/// `None` if there are more than can be kept: then the answer cannot be taken along with all that is erased.
#[must_use]
pub fn about(path: &str, body: &[u8]) -> Option<Vec<Uuid>> {
    let mut ids = Vec::new();
    let mut note = |text: &str| {
        if let Ok(id) = text.parse()
            && !ids.contains(&id)
        {
            ids.push(id);
        }
    };
    path.split('/').for_each(&mut note);
    if let Ok(body) = serde_json::from_slice(body) {
        strings(&body, &mut note);
    }
    (ids.len() <= MAX_ABOUT).then_some(ids)
}

/// Every string of a value, however deep: parsing has bounded the depth.
fn strings(value: &serde_json::Value, note: &mut impl FnMut(&str)) {
    match value {
        serde_json::Value::String(text) => note(text),
        serde_json::Value::Array(values) => values.iter().for_each(|value| strings(value, note)),
        serde_json::Value::Object(members) => members.values().for_each(|value| strings(value, note)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use time::macros::datetime;

    fn key(values: &[&str]) -> Result<Key, KeyError> {
        Key::parse(values.iter().map(|value| value.as_bytes()))
    }

    #[test]
    fn a_key_may_be_in_quotes_or_without_and_is_the_same() {
        let plain = key(&["8e03978e-40d5-43dd-bc93-6894a57f9324"]).unwrap();
        assert_eq!(key(&["\"8e03978e-40d5-43dd-bc93-6894a57f9324\""]).unwrap(), plain);
        assert_eq!(key(&[r#""a \"b\" \\ c""#]).unwrap(), Key(String::from(r#"a "b" \ c"#)));
        assert!(key(&[&"k".repeat(MAX_KEY)]).is_ok());
    }

    #[test]
    fn what_is_no_key_is_refused_with_its_reason() {
        for (values, wrong) in [
            (vec!["a", "a"], KeyError::Several),
            (vec![""], KeyError::Empty),
            (vec!["\"\""], KeyError::Empty),
            (vec!["\"a"], KeyError::Malformed),
            (vec!["\"a\";b=1"], KeyError::Malformed),
            (vec!["\"a\\x\""], KeyError::Malformed),
            (vec!["a b"], KeyError::Malformed),
            (vec!["a, b"], KeyError::Malformed),
            (vec!["\"ü\""], KeyError::Malformed),
        ] {
            assert_eq!(key(&values), Err(wrong), "{values:?}");
        }
        assert_eq!(key(&[&"k".repeat(MAX_KEY + 1)]), Err(KeyError::TooLong));
        assert_eq!(Key::parse([&b"\xff"[..]].into_iter()), Err(KeyError::Malformed));
    }

    #[test]
    fn two_callers_have_two_keys() {
        let key = key(&["one"]).unwrap();
        assert_eq!(key.of("api_key:a"), key.of("api_key:a"));
        assert_ne!(key.of("api_key:a"), key.of("api_key:b"));
    }

    fn json(body: &[u8]) -> Request<'_> {
        Request { method: "POST", target: "/v1/people?x=1", content_type: "application/json", body }
    }

    #[test]
    fn everything_that_was_asked_is_in_the_digest() {
        let digest = json(b"{}").digest();
        assert_eq!(digest.len(), 64);
        assert_eq!(Request { content_type: "Application/JSON; charset=utf-8", ..json(b"{}") }.digest(), digest);
        assert_ne!(json(b"{ }").digest(), digest);
        assert_ne!(Request { target: "/v1/people", ..json(b"{}") }.digest(), digest);
        assert_ne!(Request { method: "PUT", ..json(b"{}") }.digest(), digest);
        assert_ne!(Request { content_type: "text/plain", ..json(b"{}") }.digest(), digest);
    }

    #[test]
    fn a_form_is_the_same_under_another_boundary_and_another_with_other_contents() {
        let form = |boundary: &str, photo: &str| {
            let body = format!("--{boundary}\r\nphoto={photo}\r\n--{boundary}--\r\n");
            let kind = format!("multipart/form-data; boundary={boundary}");
            Request { method: "POST", target: "/", content_type: &kind, body: body.as_bytes() }.digest()
        };
        assert_eq!(form("aaaa", "1"), form("bbbbbb", "1"));
        assert_ne!(form("aaaa", "1"), form("aaaa", "2"));
        let (quoted, body) = ("multipart/form-data; boundary=\"q\"", b"--q\r\nphoto=1\r\n--q--\r\n");
        let quoted = Request { method: "POST", target: "/", content_type: quoted, body };
        assert_eq!(quoted.digest(), form("q", "1"));
    }

    const NOW: OffsetDateTime = datetime!(2026-11-29 10:00 UTC);

    fn kept() -> Kept {
        Kept {
            request: [1; 32],
            attempt: Uuid::from_u128(7),
            changed: false,
            held_until: NOW + HELD,
            expires_at: NOW + KEPT,
            status: None,
            answer: None,
        }
    }

    fn verdict(kept: Kept) -> Verdict {
        judge(&kept, &[1; 32], NOW)
    }

    #[test]
    fn what_was_answered_is_answered_again() {
        let done = Kept { changed: true, status: Some(201), answer: Some(vec![5]), ..kept() };
        assert_eq!(verdict(done.clone()), Verdict::Replay(Uuid::from_u128(7), vec![5]));
        assert_eq!(judge(&done, &[2; 32], NOW), Verdict::OtherRequest);
        assert_eq!(verdict(Kept { answer: None, ..done.clone() }), Verdict::AnswerGone(201));
        assert_eq!(judge(&done, &[2; 32], NOW + KEPT), Verdict::CarryOut);
    }

    #[test]
    fn what_is_under_way_is_waited_for_and_then_depends_on_what_it_changed() {
        assert_eq!(verdict(kept()), Verdict::UnderWay);
        let over = Kept { held_until: NOW, ..kept() };
        assert_eq!(verdict(over.clone()), Verdict::CarryOut);
        assert_eq!(verdict(Kept { changed: true, ..over }), Verdict::OutcomeUnknown);
    }

    #[test]
    fn faults_and_requests_to_come_again_are_no_outcome() {
        assert!([200, 201, 202, 204, 400, 404, 409, 422].into_iter().all(is_outcome));
        assert!(![408, 425, 429, 500, 503, 504].into_iter().any(is_outcome));
    }

    #[test]
    fn an_answer_is_about_the_ids_in_its_path_and_anywhere_in_it() {
        let [one, two, three] = [1, 2, 3].map(Uuid::from_u128);
        let body = format!(r#"{{"id":"{two}","name":"x","session":{{"result":[{{"person_id":"{three}"}},"{one}"]}}}}"#);
        let found = about(&format!("/v1/people/{one}/enrolments"), body.as_bytes()).unwrap();
        assert_eq!(found.len(), 3);
        assert!([one, two, three].iter().all(|id| found.contains(id)));
        assert_eq!(about("/v1/people", b"no json"), Some(Vec::new()));
        let many = |count: u128| {
            serde_json::to_vec(&(0..count).map(Uuid::from_u128).map(|id| id.to_string()).collect::<Vec<_>>())
        };
        assert_eq!(about("/v1/people", &many(64).unwrap()).unwrap().len(), MAX_ABOUT);
        assert_eq!(about("/v1/people", &many(65).unwrap()), None);
    }

    #[test]
    fn what_is_no_form_counts_as_it_is_and_so_does_a_boundary_that_no_form_may_have() {
        let digest =
            |content_type: &str, body: &[u8]| Request { method: "POST", target: "/", content_type, body }.digest();
        let json = "application/json; boundary=q";
        assert_ne!(digest(json, b"--q{}"), digest("application/json; boundary=r", b"--r{}"));
        let of = |length: usize| {
            let boundary = "b".repeat(length);
            digest(&format!("multipart/form-data; boundary={boundary}"), format!("--{boundary}x").as_bytes())
        };
        assert_eq!(of(1), of(MAX_BOUNDARY));
        assert_ne!(of(1), of(MAX_BOUNDARY + 1));
    }

    proptest! {
        #[test]
        fn whatever_is_quoted_is_read_again(text in "[ -~]{1,255}") {
            let quoted = format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
            prop_assert_eq!(key(&[&quoted]), Ok(Key(text)));
        }

        #[test]
        fn no_header_makes_it_panic(value in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Key::parse([value.as_slice()].into_iter());
        }

        /// Two attempts of one key never both change something: the second begins only if the first has not, and is gone.
        #[test]
        fn another_attempt_follows_only_one_that_changed_nothing(changed in any::<bool>(), later in 0_i64..100_000, done in any::<bool>()) {
            let kept = Kept { changed, status: done.then_some(201), ..kept() };
            let now = NOW + Duration::seconds(later);
            if judge(&kept, &[1; 32], now) == Verdict::CarryOut {
                prop_assert!(now >= kept.expires_at || (!changed && !done && now >= kept.held_until));
            }
        }
    }
}

//! The last lines of the log, in memory, for an operator who collects them.
//!
//! In: lines as they are written. Out: the newest of them, within a bound, redacted. The agent never logs names, pictures,
//! vectors or keys; [`redact`] is the second look, for what a library, an operating system's message or a camera's address
//! may bring. Lost at a restart: the journal has the older ones.

use std::collections::VecDeque;
use std::io;

use parking_lot::Mutex;
use wire_contract::command::MAX_LOG_BYTES;

/// What is kept: as much as may be collected at once. A quiet agent writes that in days, a debugging one in minutes.
const KEPT_BYTES: usize = MAX_LOG_BYTES as usize;
/// A longer line is cut: one line must not push out all others.
const LINE_BYTES: usize = 16 * 1024;

/// The last lines. Full means that the oldest go.
#[derive(Debug, Default)]
pub struct LogRing(Mutex<Lines>);

#[derive(Debug, Default)]
struct Lines {
    lines: VecDeque<String>,
    bytes: usize,
}

impl LogRing {
    fn push(&self, text: &str) {
        for line in text.lines().filter(|line| !line.is_empty()) {
            let line: String = cut(line).to_owned();
            let mut kept = self.0.lock();
            kept.bytes += line.len() + 1;
            kept.lines.push_back(line);
            while kept.bytes > KEPT_BYTES {
                let Some(oldest) = kept.lines.pop_front() else { break };
                kept.bytes -= oldest.len() + 1;
            }
        }
    }

    /// The newest lines that fit `max_bytes`, the oldest of them first, each redacted and ended by a line feed.
    #[must_use]
    pub fn newest(&self, max_bytes: usize) -> String {
        let lines: Vec<String> = self.0.lock().lines.iter().cloned().collect();
        let mut chosen = Vec::new();
        let mut bytes = 0;
        for line in lines.iter().rev().map(|line| redact(line)) {
            bytes += line.len() + 1;
            if bytes > max_bytes {
                break;
            }
            chosen.push(line);
        }
        chosen.iter().rev().flat_map(|line| [line.as_str(), "\n"]).collect()
    }
}

fn cut(line: &str) -> &str {
    if line.len() <= LINE_BYTES {
        return line;
    }
    let end = (0..=LINE_BYTES).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
    &line[..end]
}

impl io::Write for &LogRing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line without what must not leave the device: user and password of an address, e-mail addresses, tokens, and long runs of
/// hexadecimal or base64 that could be a key, a hash of a credential, or a vector. Ids (32 digits with hyphens) stay.
#[must_use]
pub fn redact(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut word = String::new();
    for letter in line.chars() {
        // What a secret may be made of, and what joins user, password and host in an address.
        if letter.is_ascii_alphanumeric() || "+/=_-.:@%~!$&*".contains(letter) {
            word.push(letter);
        } else {
            out.push_str(&redacted(&word));
            word.clear();
            out.push(letter);
        }
    }
    out.push_str(&redacted(&word));
    out
}

fn redacted(word: &str) -> std::borrow::Cow<'_, str> {
    if let Some(at) = word.find('@') {
        // `rtsp://user:password@host/path` keeps its host; `somebody@example.org` keeps nothing.
        return match word.find("://").filter(|scheme| *scheme < at) {
            Some(scheme) => format!("{}***@{}", &word[..scheme + 3], &word[at + 1..]).into(),
            None => "***".into(),
        };
    }
    if word.starts_with("lintel-claim-v1.") || word.split(['.', ':', '=']).any(looks_secret) {
        return "***".into();
    }
    word.into()
}

/// 40 letters and digits in a row, as no id, path element or name of ours has.
fn looks_secret(part: &str) -> bool {
    let longest = part.split(['-', '_', '/']).map(str::len).max().unwrap_or(0);
    longest >= 40 || (part.len() >= 80 && part.contains('/') && part.contains('+'))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// As the log's formatter does: a line at a time.
    fn write(mut ring: &LogRing, text: &str) {
        ring.write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn the_newest_lines_are_kept_within_the_bound() {
        let ring = LogRing::default();
        for n in 0..20_000 {
            write(&ring, &format!("{{\"event\":\"line\",\"n\":{n},\"text\":\"{}\"}}\n", "x ".repeat(30)));
        }
        let all = ring.newest(usize::MAX);
        assert!(all.len() <= KEPT_BYTES && all.ends_with('\n'), "{}", all.len());
        assert!(all.contains("\"n\":19999") && !all.contains("\"n\":0,"));
        let few = ring.newest(1_000);
        assert!(few.len() <= 1_000 && few.lines().last().unwrap().contains("\"n\":19999"));
        assert_eq!(ring.newest(10), "");
    }

    #[test]
    fn what_must_not_leave_the_device_does_not() {
        for secret in [
            "rtsp://admin:hunter2@10.0.0.7/stream",
            "anna.schmidt@example.org",
            "lintel-claim-v1.eyJodWIi",
            "key=MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY",
            "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b",
        ] {
            let line = format!(
                "{{\"error\":\"camera {secret}: refused\",\"device\":\"018f3c1e-0000-7000-8000-000000000002\"}}"
            );
            let told = redact(&line);
            assert!(told.contains("***") && told.contains("018f3c1e-0000-7000-8000-000000000002"), "{told}");
            for part in ["hunter2", "admin", "anna", "eyJodWIi", "MDEyMzQ1", "6b86b273ff"] {
                assert!(!told.contains(part), "{told}");
            }
        }
        let plain = r#"{"timestamp":"2026-11-28T22:00:00.000Z","component":"sync.driver","broker":"hub.example:8883"}"#;
        assert_eq!(redact(plain), plain);
    }

    #[test]
    fn a_line_without_end_does_not_push_out_the_others() {
        let ring = LogRing::default();
        write(&ring, "first\n");
        write(&ring, &format!("{}\n", "é ".repeat(LINE_BYTES)));
        assert!(ring.newest(usize::MAX).starts_with("first\n"));
        assert!(ring.newest(usize::MAX).len() < LINE_BYTES + 10);
    }
}

//! Trace context as W3C has it (Trace Context, level 1): by which a request is followed through several programs.
//!
//! In: the headers `traceparent` and `tracestate`, and random bytes. Out: the trace of the request with a span of the hub's own. What is
//! malformed is as good as absent: a trace begins here. Deliberately absent: headers as such, and whoever collects traces.

use std::fmt;

/// Longer lists of other programs' states are not passed on: they would only fill answers.
const MAX_STATE_BYTES: usize = 512;
/// As many members the recommendation allows.
const MAX_STATE_MEMBERS: usize = 32;
/// What is drawn for a trace is a number of four bytes.
const DRAWN_BELOW: f64 = 4_294_967_296.0;

/// A place in a trace: prints as `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    trace: [u8; 16],
    span: [u8; 8],
    /// The caller's span.
    parent: Option<[u8; 8]>,
    sampled: bool,
}

impl Trace {
    /// The trace of a request that came with this header, if it came with one that can be read; a new one otherwise. The span is
    /// new in any case.
    #[must_use]
    pub fn of(header: Option<&str>, random: [u8; 24]) -> Self {
        header.and_then(Self::parse).map_or_else(|| Self::begin(random), |caller| caller.child(random))
    }

    /// Begins a trace.
    #[must_use]
    pub fn begin(random: [u8; 24]) -> Self {
        let trace = std::array::from_fn(|index| random[8 + index]);
        Self { trace: nonzero(trace), span: span(random), parent: None, sampled: true }
    }

    /// A span of the hub's own in the same trace.
    fn child(self, random: [u8; 24]) -> Self {
        Self { span: span(random), parent: Some(self.span), ..self }
    }

    /// Decides of a trace that begins here whether it is sampled, so that this `share` of all are, in [0, 1]; every hub decides alike.
    /// Of a caller's trace the caller has decided.
    #[must_use]
    pub fn sampled_by(self, share: f64) -> Self {
        if self.parent.is_some() {
            return self;
        }
        let drawn = u32::from_be_bytes(std::array::from_fn(|index| self.trace[12 + index]));
        Self { sampled: f64::from(drawn) / DRAWN_BELOW < share, ..self }
    }

    /// Whether its spans are kept.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.sampled
    }

    /// Reads a `traceparent`. A later version may have more behind what is known, and is read as far as that.
    fn parse(text: &str) -> Option<Self> {
        let (known, more) = text.split_at_checked(55)?;
        let mut fields = known.split('-');
        let version = hex::<1>(fields.next()?)?[0];
        let trace = hex::<16>(fields.next()?)?;
        let span = hex::<8>(fields.next()?)?;
        let flags = hex::<1>(fields.next()?)?[0];
        let whole = fields.next().is_none()
            && match version {
                0 => more.is_empty(),
                0xff => false,
                _ => more.is_empty() || more.starts_with('-'),
            };
        let named = trace != [0; 16] && span != [0; 8];
        (whole && named).then_some(Self { trace, span, parent: None, sampled: flags & 1 == 1 })
    }

    /// The trace.
    #[must_use]
    pub fn trace(&self) -> [u8; 16] {
        self.trace
    }

    /// The hub's span.
    #[must_use]
    pub fn span(&self) -> [u8; 8] {
        self.span
    }

    /// The caller's span, if the trace is theirs.
    #[must_use]
    pub fn parent(&self) -> Option<[u8; 8]> {
        self.parent
    }

    /// The trace, in hex.
    #[must_use]
    pub fn trace_id(&self) -> String {
        in_hex(&self.trace)
    }

    /// The hub's span, in hex.
    #[must_use]
    pub fn span_id(&self) -> String {
        in_hex(&self.span)
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace_id(), self.span_id(), u8::from(self.sampled))
    }
}

/// Whether the state that other programs have put beside a `traceparent` may be passed on. It is nobody's but theirs to read.
#[must_use]
pub fn passes_on(parent: Option<&str>, state: &str) -> bool {
    let printable = |byte: u8| (0x20..=0x7e).contains(&byte);
    parent.and_then(Trace::parse).is_some()
        && state.len() <= MAX_STATE_BYTES
        && state.split(',').count() <= MAX_STATE_MEMBERS
        && state.bytes().all(printable)
        && state.split(',').all(|member| member.trim().is_empty() || member.contains('='))
}

fn span(random: [u8; 24]) -> [u8; 8] {
    nonzero(std::array::from_fn(|index| random[index]))
}

/// All zeros mean that there is none.
fn nonzero<const N: usize>(mut bytes: [u8; N]) -> [u8; N] {
    if bytes == [0; N] {
        bytes[N - 1] = 1;
    }
    bytes
}

/// Lower-case hex of exactly so many bytes.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let digits: Vec<u8> = text.bytes().map(digit).collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair.iter().fold(0, |sum, digit| sum * 16 + digit)).collect();
    (digits.len() == 2 * N).then_some(bytes)?.try_into().ok()
}

fn in_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const RANDOM: [u8; 24] = [7; 24];

    fn kept(header: &str) -> bool {
        Trace::of(Some(header), RANDOM).trace_id() == TRACE
    }

    #[test]
    fn a_callers_trace_goes_on_with_a_span_of_the_hub() {
        let parent = format!("00-{TRACE}-00f067aa0ba902b7-00");
        let trace = Trace::of(Some(&parent), RANDOM);
        assert_eq!(trace.to_string(), format!("00-{TRACE}-0707070707070707-00"), "and it says whether it is sampled");
        assert_eq!((in_hex(&trace.trace()), trace.span()), (TRACE.to_owned(), [7; 8]));
        assert_eq!(trace.parent(), Some([0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]));
        assert!(kept(&format!("00-{TRACE}-00f067aa0ba902b7-01")));
        assert!(kept(&format!("cc-{TRACE}-00f067aa0ba902b7-01-what-will-be")), "a later version");
    }

    #[test]
    fn a_caller_decides_whether_their_trace_is_sampled_and_the_share_of_the_others() {
        for (flags, sampled) in [("00", false), ("01", true)] {
            let trace = Trace::of(Some(&format!("00-{TRACE}-00f067aa0ba902b7-{flags}")), RANDOM);
            for share in [0.0, 1.0] {
                assert_eq!(trace.sampled_by(share).is_sampled(), sampled, "{flags} {share}");
            }
        }
        // The last four bytes decide, and of the whole range the least is in every share but none, the greatest in all alone.
        let drawn = |last: [u8; 4]| {
            let random = std::array::from_fn(|index| if index < 20 { 7 } else { last[index - 20] });
            move |share| Trace::begin(random).sampled_by(share).is_sampled()
        };
        let (least, middle, greatest) = (drawn([0; 4]), drawn([0x80, 0, 0, 0]), drawn([0xff; 4]));
        assert_eq!([0.0, 0.001, 1.0].map(least), [false, true, true]);
        assert_eq!([0.5, 0.501, 1.0].map(middle), [false, true, true]);
        assert_eq!([0.0, 0.999, 1.0].map(greatest), [false, false, true]);
        assert_eq!(Trace::begin(RANDOM).parent(), None);
    }

    #[test]
    fn what_is_malformed_begins_a_trace() {
        for wrong in [
            String::new(),
            format!("00-{TRACE}-00f067aa0ba902b7"),
            format!("00-{TRACE}-00f067aa0ba902b7-1"),
            format!("00-{TRACE}-00f067aa0ba902b7-01-more"),
            format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            format!("cc-{TRACE}-00f067aa0ba902b7-01.more"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-00f067aa0ba902b-701"),
            format!("00_{TRACE}-00f067aa0ba902b7-01"),
            format!(" 00-{TRACE}-00f067aa0ba902b7-01"),
        ] {
            assert!(!kept(&wrong), "{wrong}");
            assert!(!passes_on(Some(&wrong), "a=1"), "{wrong}");
        }
        let nobody = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        assert_eq!(Trace::of(Some(&nobody), RANDOM), Trace::begin(RANDOM));
        assert!(!Trace::begin([0; 24]).to_string().contains("0000000000000000-"), "zeros mean that there is none");
    }

    #[test]
    fn state_is_passed_on_beside_a_trace_that_is() {
        let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
        let passes = |state: &str| passes_on(Some(&parent), state);
        assert!(passes("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE") && passes("a=1, b=2"));
        assert!(!passes_on(None, "a=1"));
        for wrong in ["a", "a=\u{7f}", &format!("a={}", "x".repeat(512)), &["a=1"; 33].join(",")] {
            assert!(!passes(wrong), "{wrong}");
        }
    }
}

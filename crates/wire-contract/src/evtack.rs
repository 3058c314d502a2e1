//! What the hub has committed: the only message that empties an outbox. Sealed, on `down/evtack`, not retained.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::codes::Code;
use crate::encoding::V1;
use crate::ids::{Sequence, StreamId};

/// What the hub thought of the last batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything through `through` is committed.
    Ok,
    /// The batch began after `through + 1`; nothing of it was written. Send from `through + 1`.
    Rewind,
    /// A sequence came with another event id than the committed one: two devices use one identity, or the outbox was
    /// rolled back. The device must start a new stream.
    Conflict,
}

/// The hub's acknowledgement, read from the committed row after the commit. On its start the hub sends one for every
/// stream that it knows, so that devices resend at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct EvtAck {
    /// Payload version.
    pub v: V1,
    /// The hub's epoch. A higher one than before means that the hub was restored: resend from its `through + 1`.
    pub hub_epoch: u32,
    /// The stream.
    pub stream: StreamId,
    /// Every event up to here, and none after it, is committed. 0: none.
    pub through: Sequence,
    /// What the hub thought of the last batch.
    pub verdict: Verdict,
}

/// The answer to an authentic batch that can never be stored: an [`EvtAck`] whose verdict is `conflict`, so that a
/// device that knows nothing else begins a new stream instead of sending the batch for ever, and why. What the old
/// stream still held stays with the device for whoever looks into it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct EvtRefusal {
    /// What every device understands.
    #[serde(flatten)]
    pub ack: EvtAck,
    /// Why: [`Code::BatchRefused`].
    pub code: Code,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_reads_as_an_acknowledgement_with_the_verdict_conflict() {
        let ack =
            EvtAck { v: V1, hub_epoch: 1, stream: StreamId([7; 16]), through: Sequence(3), verdict: Verdict::Conflict };
        let refusal = EvtRefusal { ack, code: Code::BatchRefused };
        let json = serde_json::to_string(&refusal).unwrap();
        assert_eq!(serde_json::from_str::<EvtAck>(&json).unwrap(), ack);
        assert_eq!(serde_json::from_str::<EvtRefusal>(&json).unwrap(), refusal);
        assert!(json.contains(r#""code":"batch_refused""#), "{json}");
    }
}

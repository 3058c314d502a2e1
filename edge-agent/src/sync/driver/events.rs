//! The driver's accounts with the outbox: batches out, the hub's acknowledgements in.

use edge_store::{Acknowledged, Outbox, OutboxError, OutboxStats};
use time::OffsetDateTime;
use wire_contract::batch::{MAX_BATCH_EVENTS, Push};
use wire_contract::{BatchBuilder, EvtAck, Sequence, StreamId, UpChannel, Verdict};

use super::super::sender::Resend;
use super::super::transport::{Connect, Parcel, Shipment};
use super::{Connection, Driver};
use crate::stages::record::Happening;

impl<C: Connect> Driver<C> {
    /// Takes up the outbox where it stands: at the start, after a new stream, after a line came up.
    pub(super) async fn adopt_stream(&mut self) {
        let stats = match self.on_outbox(Outbox::stats).await {
            Ok(stats) => stats,
            Err(error) => return self.trouble("outbox_unreadable", &error),
        };
        self.last_recorded = stats.last_sequence;
        if self.stream != Some(stats.stream) {
            self.stream = Some(stats.stream);
            self.sender.reset(stats.acknowledged_through, self.now());
        }
    }

    pub(super) async fn on_evtack(&mut self, ack: EvtAck) {
        if let Err(error) = self.apply_evtack(ack).await {
            self.trouble("outbox_not_acknowledged", &error);
        }
    }

    async fn apply_evtack(&mut self, ack: EvtAck) -> Result<(), OutboxError> {
        let stats = self.on_outbox(Outbox::stats).await?;
        let known_epoch = self.on_outbox(Outbox::hub_epoch).await?;
        let through = ack.through.0;
        if ack.stream.0 != *stats.stream.as_bytes() {
            tracing::debug!(event = "evtack_of_another_stream", stream = %ack.stream, "ignored");
            return Ok(());
        }
        if u64::from(ack.hub_epoch) < known_epoch {
            tracing::error!(
                event = "evtack_of_an_older_hub",
                alarm = true,
                found = ack.hub_epoch,
                expected = known_epoch,
                "ignored"
            );
            return Ok(());
        }
        if ack.verdict == Verdict::Conflict || through > stats.last_sequence {
            return self.end_in_conflict(&stats, through).await;
        }
        if u64::from(ack.hub_epoch) > known_epoch && known_epoch > 0 {
            self.follow_restored_hub(ack, &stats).await?;
        } else {
            self.take_word(ack, &stats, known_epoch).await?;
        }
        let at = self.wall();
        self.status.send_modify(|status| status.last_acknowledged_at = Some(at));
        Ok(())
    }

    /// The hub was restored from a backup: what it lost becomes pending again and is sent from there.
    async fn follow_restored_hub(&mut self, ack: EvtAck, stats: &OutboxStats) -> Result<(), OutboxError> {
        let (epoch, stream, through) = (u64::from(ack.hub_epoch), stats.stream, ack.through.0);
        let after = self.on_outbox(move |outbox| outbox.rewind(epoch, stream, through)).await?;
        tracing::warn!(event = "hub_restored", hub_epoch = epoch, through, "sending what the restored hub lacks");
        if after > through {
            tracing::error!(
                event = "events_no_longer_kept",
                alarm = true,
                from = through + 1,
                until = after,
                "the restored hub lacks events that this device has given up"
            );
        }
        self.sender.reset(after, self.now());
        Ok(())
    }

    /// An acknowledgement of the hub as it is known, or the first that this stream ever got.
    async fn take_word(&mut self, ack: EvtAck, stats: &OutboxStats, known_epoch: u64) -> Result<(), OutboxError> {
        let (stream, through) = (stats.stream, ack.through.0);
        if known_epoch == 0 {
            let epoch = u64::from(ack.hub_epoch);
            self.on_outbox(move |outbox| outbox.rewind(epoch, stream, through)).await?;
        }
        let at = std::time::SystemTime::from(self.sync.clock.wall().utc);
        let done = self.on_outbox(move |outbox| outbox.acknowledge(stream, through, at)).await?;
        if let Acknowledged::Ahead { .. } = done {
            return self.end_in_conflict(stats, through).await;
        }
        if through < stats.acknowledged_through && ack.verdict == Verdict::Rewind {
            tracing::error!(
                event = "hub_lost_events",
                alarm = true,
                through,
                acknowledged = stats.acknowledged_through,
                "the hub asks for events that it had acknowledged in the same epoch; it must raise its epoch"
            );
        }
        let now = self.now();
        let resend = match ack.verdict {
            Verdict::Rewind => self.sender.rewind(through, now),
            Verdict::Ok | Verdict::Conflict => self.sender.acknowledged(through, now),
        };
        if let Some(why) = resend {
            self.resending(why);
        }
        Ok(())
    }

    async fn end_in_conflict(&mut self, stats: &OutboxStats, through: u64) -> Result<(), OutboxError> {
        tracing::error!(
            event = "stream_conflict", alarm = true, stream = %stats.stream, last = stats.last_sequence, through,
            "the hub has other events under this stream: another device uses this identity, or this outbox was rolled back; a new stream begins"
        );
        self.begin_new_stream(stats).await
    }

    /// Sets the stream aside. What waited in it becomes one gap in the new one.
    async fn begin_new_stream(&mut self, stats: &OutboxStats) -> Result<(), OutboxError> {
        let until = self.sync.clock.wall().utc;
        let time = std::time::SystemTime::from(until);
        let aside = self.on_outbox(move |outbox| outbox.begin_new_stream(time)).await?;
        tracing::error!(
            event = "stream_renewed", alarm = true, stream = %stats.stream, pending = stats.pending,
            kept_as = aside.as_ref().map(|path| path.display().to_string()),
            "a new stream has begun; what was pending in the old one is kept aside"
        );
        if stats.pending > 0 {
            let from = stats.oldest_pending_at.map_or(until, OffsetDateTime::from).min(until);
            let at = self.now();
            self.put_on_record(Happening::StreamRenewed { from, until, count: stats.pending, at });
        }
        self.adopt_stream().await;
        Ok(())
    }

    pub(super) fn resending(&self, why: Resend) {
        tracing::info!(event = "resending", ?why, "events that the hub has not acknowledged are sent again");
    }

    pub(super) async fn send_batches(&mut self) {
        while let Connection::Up { max_batch, .. } = self.connection {
            self.last_recorded = self.last_recorded.max(*self.recorded.borrow_and_update());
            let Some(after) = self.sender.next(self.last_recorded) else { return };
            let entries = self.on_outbox(move |outbox| outbox.pending(after, MAX_BATCH_EVENTS, max_batch)).await;
            let entries = match entries {
                Ok(entries) => entries,
                Err(error) => return self.outbox_unreadable(&error).await,
            };
            let Some((last, json)) = self.build(&entries, max_batch) else { return };
            let Some(ring) = &self.ring else { return };
            let topic = ring.up_topic(UpChannel::Evt);
            let payload = ring.wrap(&topic, &json);
            if !self.publish(Shipment { topic, payload, retain: false, parcel: Parcel::Events }) {
                return;
            }
            self.sender.sent(last, self.now());
        }
    }

    /// One batch of as many entries as fit, with its last sequence.
    fn build(&self, entries: &[edge_store::Entry], max_batch: usize) -> Option<(u64, Vec<u8>)> {
        let stream = StreamId(*self.stream?.as_bytes());
        let mut builder = BatchBuilder::within(stream, max_batch);
        for entry in entries {
            match builder.push(Sequence(entry.sequence), &entry.event) {
                Push::Taken => {}
                Push::Full | Push::Gap => break,
                Push::TooLong => {
                    tracing::error!(
                        event = "event_too_long",
                        alarm = true,
                        sequence = entry.sequence,
                        bytes = entry.event.len(),
                        "it can never be sent"
                    );
                    break;
                }
            }
        }
        let (_, last, json) = builder.finish()?;
        Some((last.0, json))
    }

    async fn outbox_unreadable(&mut self, error: &OutboxError) {
        self.trouble("outbox_unreadable", error);
        if matches!(error, OutboxError::Corrupt { .. })
            && let Ok(stats) = self.on_outbox(Outbox::stats).await
            && let Err(error) = self.begin_new_stream(&stats).await
        {
            self.trouble("outbox_not_renewed", &error);
        }
    }
}

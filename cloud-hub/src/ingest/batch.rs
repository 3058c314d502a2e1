//! One batch: one transaction, one tenant, one verdict. What simply follows what is stored is taken together with others
//! ([`super::together`]); here everything else is looked at.

use std::sync::Arc;

use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::mpsc;
use uuid::Uuid;
use wire_contract::envelope::EnvelopeError;
use wire_contract::event::{Reason, StreamConflictData};
use wire_contract::{
    Batch, BatchError, Code, DownChannel, EventData, EvtAck, EvtRefusal, Sequence, StreamId, V1, Verdict,
};

use crate::chain::chain;
use crate::clock::Clock;
use crate::domain::event::{NewEvent, Origin, json as json_of};
use crate::domain::ids::{DeviceId, EventId, TenantId};
use crate::domain::message::{Incoming, Outgoing};
use crate::domain::verdict::{self, Ruling};
use crate::keys::{Accepted, DeviceLinks, KeysError};
use crate::metrics::broker as measured;
use crate::store::audit::{self, Entry};
use crate::store::{Database, StoreError, TenantTx, devices, events, routes, streams};

/// A message that is no batch of a device of ours. Nothing was written and nothing is answered.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The registry does not know the device, or knows it under another tenant.
    #[error("device {device} is not one of tenant {tenant}")]
    NotRegistered {
        /// The tenant that the topic names.
        tenant: TenantId,
        /// The device that the topic names.
        device: DeviceId,
    },
    /// The envelope is not of that device.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The payload is no batch.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The batch breaks the rules of a stream.
    #[error(transparent)]
    Rule(#[from] verdict::BatchError),
    /// Keys or database.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// Database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The transaction failed that this batch shared with others.
    #[error(transparent)]
    Together(Arc<Refused>),
}

impl Refused {
    /// Whether the device did something wrong, rather than the hub being in trouble.
    #[must_use]
    pub fn by_the_devices_fault(&self) -> bool {
        !matches!(self, Self::Keys(_) | Self::Store(_) | Self::Together(_))
    }

    /// Whether the database could not be reached or gave up, so that the same may succeed when it is back.
    pub(super) fn is_for_want_of_the_database(&self) -> bool {
        match self {
            Self::Store(error) | Self::Keys(KeysError::Store(error)) => {
                matches!(error, StoreError::Database(_)) && !error.is_about_rows()
            }
            Self::Together(shared) => shared.is_for_want_of_the_database(),
            _ => false,
        }
    }

    /// Whether a transaction of several batches failed for what may be the matter with one of them.
    pub(super) fn may_be_one_batch_alone(&self) -> bool {
        match self {
            Self::Store(error) | Self::Keys(KeysError::Store(error)) => error.may_be_one_alone(),
            _ => true,
        }
    }
}

/// Takes batches in.
#[derive(Clone, Debug)]
pub struct Ingest {
    pub(super) db: Database,
    pub(super) links: DeviceLinks,
    pub(super) clock: Clock,
}

/// What the transaction decided.
struct Decided {
    stream: StreamId,
    verdict: Verdict,
    stored: usize,
    /// Events that were there before.
    repeated: usize,
    /// Whether the batch was one that can never be stored.
    refused: bool,
}

impl Decided {
    /// Counts what was committed.
    fn measure(&self) {
        measured::batch(match self.verdict {
            _ if self.refused => measured::Batch::Refused,
            Verdict::Ok => measured::Batch::Committed { events: self.stored, repeated: self.repeated },
            Verdict::Rewind => measured::Batch::Rewind,
            Verdict::Conflict => measured::Batch::Conflict,
        });
    }
}

impl Ingest {
    /// Ingests into this database, with these link keys.
    #[must_use]
    pub fn new(db: Database, links: DeviceLinks, clock: Clock) -> Self {
        Self { db, links, clock }
    }

    /// Takes one message in and puts the acknowledgement into `acks`. Returns how many events were new.
    ///
    /// When it fails, nothing was committed that had not been before, and nothing is acknowledged: the device sends
    /// again. (If the database's answer to the commit is lost, the batch may be committed; then it comes again as
    /// duplicates and is acknowledged.)
    pub async fn take(&self, message: Incoming, acks: &mpsc::Sender<Outgoing>) -> Result<usize, Refused> {
        let tenant = message.tenant;
        self.take_all(tenant, vec![message], acks).await.pop().expect("one message has one result")
    }

    /// The same in a transaction of its own, whatever the message is.
    pub(super) async fn take_alone(&self, message: Incoming, acks: &mpsc::Sender<Outgoing>) -> Result<usize, Refused> {
        let (tenant, device) = (message.tenant, message.device);
        if routes::tenant_of_device(&self.db, device).await? != Some(tenant) {
            return Err(Refused::NotRegistered { tenant, device });
        }
        let this = self.clone();
        let decided = self.db.tenant(tenant, move |tx| Box::pin(async move { this.write(tx, &message).await })).await?;
        decided.measure();
        let ack = self.ack(tenant, device, &decided).await?;
        // A closed channel means that the hub is stopping; the device asks again when it is back.
        let _ = acks.send(ack).await;
        Ok(decided.stored)
    }

    /// The transaction. Whatever it returns `Ok` with is committed next.
    async fn write(&self, tx: &mut TenantTx, message: &Incoming) -> Result<Decided, Refused> {
        let (device, now) = (message.device, self.clock.now());
        let accepted = self.links.accepted(tx, device).await?;
        let payload = self.links.verify(&accepted, &message.topic(), &message.payload)?;
        let batch = match Batch::decode(payload) {
            Ok(batch) => batch,
            Err(error) => return self.refuse(tx, device, Batch::stream_of(payload), error, now).await,
        };
        let stream = batch.stream.to_string();
        let pairs: Vec<(u64, Uuid)> =
            batch.events.iter().filter_map(|event| event.sequence.map(|sequence| (sequence.0, event.id.0))).collect();
        let locked = streams::lock(tx, device, &stream).await?;
        let (first, last) = batch.range()?;
        let stored = events::stored_ids(tx, device, &stream, first.0, last.0).await?;
        let decided = |verdict, stored| Decided { stream: batch.stream, verdict, stored, repeated: 0, refused: false };
        devices::seen(tx, device, now).await?;
        match verdict::rule(locked.committed, &stored, &pairs)? {
            Ruling::Rewind => Ok(decided(Verdict::Rewind, 0)),
            Ruling::Conflict { index } => {
                self.conflict(tx, device, &batch, index, now).await?;
                Ok(decided(Verdict::Conflict, 0))
            }
            Ruling::Store { first_new, through } => {
                let new = new_events(&batch, &stream, device, first_new);
                let ids: Vec<Uuid> = new.iter().map(|event| event.id.0).collect();
                if let Some(known) = events::known_ids(tx, &ids).await?.first() {
                    // The id of an event that came another way: not ours to overwrite, nor to store twice.
                    let index = batch.events.iter().position(|event| event.id.0 == *known).unwrap_or(first_new);
                    self.conflict(tx, device, &batch, index, now).await?;
                    return Ok(decided(Verdict::Conflict, 0));
                }
                if !new.is_empty() {
                    self.store(tx, device, &stream, &new, through, now).await?;
                }
                let repeated = batch.events.len() - new.len();
                Ok(Decided { repeated, ..decided(Verdict::Ok, new.len()) })
            }
        }
    }

    async fn store(
        &self,
        tx: &mut TenantTx,
        device: DeviceId,
        stream: &str,
        new: &[NewEvent],
        through: u64,
        now: OffsetDateTime,
    ) -> Result<(), Refused> {
        streams::set_committed(tx, device, stream, through).await?;
        let entry = Entry {
            actor: &format!("device:{device}"),
            action: audit::Action::EventsCommit,
            object_kind: "device",
            object_id: Some(device.0),
            detail: json!({ "stream": stream, "through": through, "count": new.len() }),
        };
        audit::write(tx, entry).await?;
        // Last, because it locks the tenant's feed: other devices of the tenant wait from here to the commit only.
        events::append(tx, new, now).await?;
        Ok(())
    }

    /// A clone: keeps what it sent, tells the operator once, advances nothing.
    async fn conflict(
        &self,
        tx: &mut TenantTx,
        device: DeviceId,
        batch: &Batch,
        index: usize,
        now: OffsetDateTime,
    ) -> Result<(), Refused> {
        let stream = batch.stream.to_string();
        let kept: Vec<(u64, Uuid, Value)> = batch.events[index..]
            .iter()
            .map(|event| (event.sequence.map_or(0, |sequence| sequence.0), event.id.0, body(event)))
            .collect();
        events::quarantine(tx, device, &stream, &kept).await?;
        let first = kept.first().map(|event| Sequence(event.0));
        self.tell_conflict(tx, device, batch.stream, first, Code::StreamConflict, now).await
    }

    /// An authentic batch that no hub can store: nothing of it is written, and the device is told so that it does not
    /// send it for ever. A batch that does not even name its stream cannot be answered.
    async fn refuse(
        &self,
        tx: &mut TenantTx,
        device: DeviceId,
        stream: Option<StreamId>,
        error: BatchError,
        now: OffsetDateTime,
    ) -> Result<Decided, Refused> {
        let Some(stream) = stream else { return Err(error.into()) };
        tracing::error!(%device, %stream, error = %chain(&error), "a batch can never be stored; the device is told to begin a new stream");
        streams::lock(tx, device, &stream.to_string()).await?;
        devices::seen(tx, device, now).await?;
        self.tell_conflict(tx, device, stream, None, Code::BatchRefused, now).await?;
        Ok(Decided { stream, verdict: Verdict::Conflict, stored: 0, repeated: 0, refused: true })
    }

    /// Tells the operator, once a stream.
    async fn tell_conflict(
        &self,
        tx: &mut TenantTx,
        device: DeviceId,
        stream: StreamId,
        sequence: Option<Sequence>,
        code: Code,
        now: OffsetDateTime,
    ) -> Result<(), Refused> {
        if !streams::mark_conflict(tx, device, &stream.to_string()).await? {
            return Ok(());
        }
        let entry = Entry {
            actor: "hub",
            action: audit::Action::StreamConflict,
            object_kind: "device",
            object_id: Some(device.0),
            detail: json!({ "stream": stream, "sequence": sequence, "code": code }),
        };
        audit::write(tx, entry).await?;
        let data = EventData::StreamConflict(StreamConflictData {
            alarm: true,
            device: wire_contract::DeviceId(device.0),
            stream,
            sequence,
            reason: Reason::of(code),
        });
        let id = EventId(self.clock.new_id());
        events::append(tx, &[NewEvent::from_hub(id, Some(device.to_string()), now, &data)], now).await?;
        Ok(())
    }

    /// The acknowledgement, from the committed row.
    async fn ack(&self, tenant: TenantId, device: DeviceId, decided: &Decided) -> Result<Outgoing, Refused> {
        let (this, stream, verdict, refused) = (self.clone(), decided.stream, decided.verdict, decided.refused);
        self.db
            .tenant(tenant, move |tx| {
                Box::pin(async move {
                    let through = streams::committed(tx, device, &stream.to_string()).await?.unwrap_or(0);
                    let accepted = this.links.accepted(tx, device).await?;
                    this.seal_ack(tenant, &accepted, stream, through, verdict, refused)
                })
            })
            .await
    }

    /// One acknowledgement, sealed for its device.
    pub(super) fn seal_ack(
        &self,
        tenant: TenantId,
        accepted: &Accepted,
        stream: StreamId,
        through: u64,
        verdict: Verdict,
        refused: bool,
    ) -> Result<Outgoing, Refused> {
        let hub_epoch = self.links.custody().keyring().hub_epoch();
        let ack = EvtAck { v: V1, hub_epoch, stream, through: Sequence(through), verdict };
        let json = if refused {
            serde_json::to_vec(&EvtRefusal { ack, code: Code::BatchRefused })
        } else {
            serde_json::to_vec(&ack)
        };
        let json = json.expect("an acknowledgement is a plain struct");
        Ok(self.links.seal(tenant, accepted, DownChannel::Evtack, &json)?)
    }
}

pub(super) fn new_events(batch: &Batch, stream: &str, device: DeviceId, first_new: usize) -> Vec<NewEvent> {
    batch.events[first_new..]
        .iter()
        .map(|event| NewEvent {
            id: EventId(event.id.0),
            kind: event.kind.clone(),
            origin: Some(Origin {
                device,
                stream: stream.to_owned(),
                sequence: event.sequence.map_or(0, |sequence| sequence.0),
            }),
            occurred_at: event.time.to_offset_date_time(),
            body: json_of(event),
        })
        .collect()
}

fn body(event: &wire_contract::CloudEvent) -> Value {
    serde_json::to_value(event).expect("an event is a plain struct with string keys")
}

//! What a device says on `up/gallery`: verified, stored, and compared with what the hub has at that version.
//!
//! In: messages. Out: a [`Judgement`] for each gallery. Nothing is sent from here.

use std::collections::{BTreeSet, HashMap};

use gallery_log::Root;
use time::OffsetDateTime;
use wire_contract::envelope::EnvelopeError;
use wire_contract::event::GalleryPoint;
use wire_contract::gallery::{GalleryRebuild, GalleryStand, GalleryState};
use wire_contract::healing::{GalleryHashes, HealingError};
use wire_contract::{Code, GalleryDown, GalleryUp, Hash32, V1};

use crate::domain::ids::{DeviceId, GalleryId};
use crate::domain::message::Incoming;
use crate::keys::{Accepted, DeviceLinks, KeysError};
use crate::publish::records::Position;
use crate::store::devices::{DeviceGallery, Reported};
use crate::store::galleries::snapshots;
use crate::store::{StoreError, TenantTx, devices, galleries};

/// Why a message of a device came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReportError {
    #[error("the device is not one of that tenant")]
    NotRegistered,
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    #[error("report is not valid")]
    Malformed(#[from] serde_json::Error),
    #[error(transparent)]
    Hashes(#[from] HealingError),
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ReportError {
    /// Whether reports that were judged together failed for what may be the matter with one of them.
    pub(super) fn may_be_one_report_alone(&self) -> bool {
        match self {
            Self::Store(error) | Self::Keys(KeysError::Store(error)) => error.may_be_one_alone(),
            _ => true,
        }
    }
}

/// What a device said.
pub(super) enum Said {
    /// Where its galleries stand, and what that means.
    Stands(Vec<(GalleryId, Judgement)>),
    /// The bucket hashes of one that differs.
    Hashes(GalleryHashes),
    /// What a newer agent says, or something of a gallery that is no longer its own.
    Nothing,
}

/// What a report means for one gallery.
pub(super) enum Judgement {
    /// It is as it should be there.
    At(Position),
    /// Its epoch is over: it must fetch the keys of this one.
    FetchLink {
        /// The hub's epoch.
        epoch: u32,
        /// Where it stands in its own.
        from: Position,
    },
    /// It has another root than the hub had at that version.
    Differs(Divergence),
    /// It has a version that the hub does not have.
    Ahead(Divergence),
    /// Nothing can be sent: its epoch is higher than the hub's.
    Hopeless(Divergence),
}

/// A gallery that is not what was sent to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Divergence {
    /// The epoch that the device names.
    pub(super) epoch: u32,
    /// Where it stands.
    pub(super) stand: GalleryStand,
    /// The hub's epoch.
    pub(super) hub_epoch: u32,
    /// The hub's version.
    pub(super) hub_version: u64,
}

impl Divergence {
    fn of(own: &DeviceGallery, state: &GalleryState) -> Self {
        Self {
            epoch: state.epoch,
            stand: GalleryStand { version: state.version, root: state.root },
            hub_epoch: own.epoch,
            hub_version: own.version,
        }
    }

    pub(super) fn reported(&self) -> GalleryPoint {
        GalleryPoint { epoch: self.epoch, version: self.stand.version, root: Some(self.stand.root) }
    }

    pub(super) fn expected(&self) -> GalleryPoint {
        GalleryPoint { epoch: self.hub_epoch, version: self.hub_version, root: None }
    }
}

/// The order to throw a gallery away, as the answer to a report.
pub(super) fn rebuild(gallery: GalleryId, epoch: u32, reason: Code, answers: Option<GalleryStand>) -> GalleryDown {
    GalleryDown::Rebuild(GalleryRebuild { v: V1, gallery: wire_contract::GalleryId(gallery.0), epoch, reason, answers })
}

/// Judges and stores what devices of one tenant say. What is not the device's word, or no report, is an error of its own; where the
/// database or a key fails nothing is stored at all.
pub(super) async fn judge_all(
    tx: &mut TenantTx,
    links: &DeviceLinks,
    messages: &[Incoming],
    now: OffsetDateTime,
) -> Result<Vec<Result<Said, ReportError>>, ReportError> {
    let devices: BTreeSet<DeviceId> = messages.iter().map(|message| message.device).collect();
    let devices: Vec<DeviceId> = devices.into_iter().collect();
    let accepted = links.accepted_of(tx, &devices).await?;
    let held = devices::galleries_of(tx, &devices).await?;
    let (mut roots, mut heard, mut judged) = (Roots::default(), BTreeSet::new(), Vec::with_capacity(messages.len()));
    for message in messages {
        let said = match read(links, &accepted, message) {
            Ok(said) => said,
            Err(error) => {
                judged.push(Err(error));
                continue;
            }
        };
        heard.insert(message.device);
        // A gallery that is not among these is no longer assigned: the device drops it when it next fetches its link.
        let held = held.get(&message.device).map_or(&[][..], Vec::as_slice);
        let own = |gallery: wire_contract::GalleryId| held.iter().find(|own| own.gallery.0 == gallery.0);
        judged.push(Ok(match said {
            GalleryUp::State { galleries: states, .. } => {
                let mut judgements = Vec::new();
                for state in states {
                    let Some(own) = own(state.gallery) else { continue };
                    let judgement = find(tx, &mut roots, own, &state).await?;
                    store(tx, message.device, own, &state, &judgement, now).await?;
                    judgements.push((own.gallery, judgement));
                }
                Said::Stands(judgements)
            }
            GalleryUp::Hashes(hashes) => match own(hashes.gallery) {
                Some(own) if own.epoch == hashes.epoch => Said::Hashes(hashes),
                _ => Said::Nothing,
            },
            GalleryUp::Unknown => Said::Nothing,
        }));
    }
    // Last, because batches of the same devices wait for these rows.
    devices::seen_all(tx, &heard.into_iter().collect::<Vec<_>>(), now).await?;
    Ok(judged)
}

fn read(
    links: &DeviceLinks,
    accepted: &HashMap<DeviceId, Accepted>,
    message: &Incoming,
) -> Result<GalleryUp, ReportError> {
    let accepted = accepted.get(&message.device).ok_or(ReportError::NotRegistered)?;
    Ok(serde_json::from_slice(links.verify(accepted, &message.topic(), &message.payload)?)?)
}

/// The log's roots that were looked up: a fleet that has been told of a change reports one and the same version.
#[derive(Default)]
struct Roots(HashMap<(GalleryId, u32, u64), Option<Root>>);

impl Roots {
    async fn at(&mut self, tx: &mut TenantTx, own: &DeviceGallery, version: u64) -> Result<Option<Root>, StoreError> {
        let place = (own.gallery, own.epoch, version);
        if let Some(known) = self.0.get(&place) {
            return Ok(*known);
        }
        let found = galleries::root_at(tx, own.gallery, own.epoch, version).await?;
        self.0.insert(place, found);
        Ok(found)
    }
}

async fn store(
    tx: &mut TenantTx,
    device: DeviceId,
    own: &DeviceGallery,
    state: &GalleryState,
    judgement: &Judgement,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let differs = matches!(judgement, Judgement::Differs(_) | Judgement::Ahead(_) | Judgement::Hopeless(_));
    let root = state.root.0.to_vec();
    let reported = Reported { epoch: state.epoch, version: state.version, root, at: now, differs };
    let equal = (state.epoch, state.version, &reported.root) == (own.epoch, own.version, &own.root);
    if own.snapshot.is_some() {
        snapshots::used(tx, device, own.gallery, state.epoch, state.version).await?;
    }
    devices::report_gallery(tx, device, own.gallery, &reported, equal).await
}

async fn find(
    tx: &mut TenantTx,
    roots: &mut Roots,
    own: &DeviceGallery,
    state: &GalleryState,
) -> Result<Judgement, StoreError> {
    let at = |genuine_through| Judgement::At(Position { epoch: own.epoch, version: state.version, genuine_through });
    let divergence = Divergence::of(own, state);
    if state.epoch != own.epoch {
        let from = Position { epoch: state.epoch, version: state.version, genuine_through: 0 };
        let older = state.epoch < own.epoch;
        return Ok(if older {
            Judgement::FetchLink { epoch: own.epoch, from }
        } else {
            Judgement::Hopeless(divergence)
        });
    }
    if state.version < own.compacted_to {
        // The log has no root of it any more, and a snapshot replaces it whole.
        return Ok(at(state.version));
    }
    if state.version > own.version {
        return Ok(Judgement::Ahead(divergence));
    }
    let expected = roots.at(tx, own, state.version).await?;
    if expected.is_some_and(|root| Hash32(root.0) == state.root) {
        return Ok(at(state.version));
    }
    // Where an erased person was live, a device may rightly have a stand-in and with it another root.
    if galleries::is_whole_at(tx, own.gallery, own.epoch, state.version).await? {
        return Ok(Judgement::Differs(divergence));
    }
    Ok(at(0))
}

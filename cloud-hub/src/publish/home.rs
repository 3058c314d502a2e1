//! What Home Assistants are told, for the tenants that want it: each claimed device with its doors, whether it is connected,
//! and what its events mean for locks and last persons.
//!
//! In: the registry, looked at every [`LOOK_EVERY`], and events as the feed publishes them. Out: messages, most of them kept
//! by the broker. What the broker keeps is said again at each session, since the embedded one has no disk, and taken back
//! when a device is no longer claimed, a person was deleted, or the tenant does not want it any more.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use wire_contract::EventData;
use wire_contract::home::{Announced, Door, Said};
use wire_contract::{CloudEvent, Topic};

use super::Publisher;
use super::outbox::{Outbox, Receipt};
use crate::domain::cursor::Cursor;
use crate::domain::event::FeedEvent;
use crate::domain::ids::{DeviceId, TenantId};
use crate::domain::message::Outgoing;
use crate::store::devices::{Device, DeviceState};
use crate::store::{StoreError, TenantTx, devices, events, places, routes};

/// How late a device's presence, a new door or a revocation may be told.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The name among the feed's readers that says that a tenant's devices were announced.
const MARK: &str = "home_assistant";
/// So many events back the present states of locks and persons are looked for, once in a hub's life.
const RECALLED: u64 = 1_000;

/// Whose devices are announced.
#[derive(Clone, Debug, Default)]
pub struct HomeSettings {
    /// Of these tenants.
    pub tenants: BTreeSet<TenantId>,
    /// Of these of them the doors may be opened, too.
    pub unlock: BTreeSet<TenantId>,
}

/// What was said and what holds.
pub(super) struct Home {
    settings: HomeSettings,
    /// Whether nothing is left, in this session, of tenants that do not want it any more.
    strangers_seen: bool,
    devices: HashMap<DeviceId, Announced>,
    /// Kept by the broker in this session, by topic.
    said: HashMap<Topic, Vec<u8>>,
    /// Locks and persons, by the spelling of their topics; they outlive sessions.
    states: BTreeMap<String, (TenantId, Said)>,
    recalled: BTreeSet<TenantId>,
}

/// A tenant's devices that are claimed, with whether they are connected, and those that are not any more.
struct Registered {
    claimed: Vec<(Announced, bool)>,
    gone: Vec<Announced>,
}

impl Home {
    pub(super) fn new(settings: HomeSettings) -> Self {
        Self {
            settings,
            strangers_seen: false,
            devices: HashMap::new(),
            said: HashMap::new(),
            states: BTreeMap::new(),
            recalled: BTreeSet::new(),
        }
    }

    /// The broker may have forgotten everything.
    pub(super) fn begin_session(&mut self) {
        self.said.clear();
        self.strangers_seen = false;
    }

    /// Says what has changed; `false` if the broker did not take something.
    pub(super) async fn look(&mut self, publisher: &Publisher, outbox: &Outbox) -> Result<bool, StoreError> {
        if !self.strangers_seen {
            self.strangers_seen = self.take_back(publisher, outbox).await?;
        }
        let mut taken = self.strangers_seen;
        for tenant in self.settings.tenants.clone() {
            taken &= self.look_at(tenant, publisher, outbox).await?;
        }
        Ok(taken)
    }

    async fn look_at(&mut self, tenant: TenantId, publisher: &Publisher, outbox: &Outbox) -> Result<bool, StoreError> {
        let may_unlock = self.settings.unlock.contains(&tenant);
        let recall = self.recalled.insert(tenant);
        let read = publisher.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                let found = registered(tx, tenant, may_unlock).await?;
                let mut past = Vec::new();
                if recall {
                    let through = events::reader(tx, super::feed::READER).await?;
                    let after = Cursor(through.0.saturating_sub(RECALLED));
                    past = events::page(tx, after, u32::try_from(RECALLED).unwrap_or(u32::MAX), None).await?;
                    past.retain(|event| event.position <= through.0);
                    events::advance_reader(tx, MARK, through).await?;
                }
                Ok::<_, StoreError>((found, past))
            })
        });
        let read = read.await;
        if read.is_err() {
            self.recalled.remove(&tenant);
        }
        let (Registered { claimed, gone }, past) = read?;
        let mut wanted = Vec::new();
        for device in gone {
            self.devices.remove(&DeviceId(device.device.0));
            let taken_back = device.withdrawal();
            for said in &taken_back {
                self.states.remove(&said.topic.to_string());
            }
            wanted.extend(taken_back);
        }
        for (device, online) in claimed {
            wanted.push(device.discovery(env!("CARGO_PKG_VERSION")));
            wanted.push(device.availability(online));
            self.devices.insert(DeviceId(device.device.0), device);
        }
        for event in &past {
            drop(self.follows(tenant, event));
        }
        wanted.extend(self.states.values().filter(|(of, _)| *of == tenant).map(|(_, said)| said.clone()));
        self.say(tenant, wanted, outbox).await
    }

    /// Says what is not said yet in this session. `true` if the broker has all of it.
    async fn say(&mut self, tenant: TenantId, wanted: Vec<Said>, outbox: &Outbox) -> Result<bool, StoreError> {
        let mut under_way = Vec::new();
        for said in wanted {
            if said.topic.kept_by_the_broker() && self.said.get(&said.topic) == Some(&said.payload) {
                continue;
            }
            let message = Outgoing { topic: said.topic, payload: said.payload.clone() };
            under_way.push((said, outbox.send_with_receipt(message).await));
        }
        let mut all = true;
        for (said, receipt) in under_way {
            if receipt.await.is_ok_and(|said| said != Receipt::Refused) {
                self.said.insert(said.topic, said.payload);
            } else {
                tracing::debug!(client_id = %tenant, topic = %said.topic, "a Home Assistant was not told; it is told again");
                all = false;
            }
        }
        Ok(all)
    }

    /// What an event of the feed means.
    pub(super) fn follows(&mut self, tenant: TenantId, event: &FeedEvent) -> Vec<Said> {
        if !self.settings.tenants.contains(&tenant) {
            return Vec::new();
        }
        let Ok(body) = serde_json::from_str::<CloudEvent>(event.body.get()) else { return Vec::new() };
        if let Ok(EventData::PersonDeleted(deleted)) = body.typed() {
            return self.forget_person(tenant, deleted.person.to_string().as_bytes());
        }
        // The hub's own events name the device that they are about.
        let named = body.data["device"].as_str().and_then(|id| id.parse().ok());
        let Some(device) = event.device.or(named).and_then(|id| self.devices.get(&id)) else { return Vec::new() };
        if device.tenant.0 != tenant.0 {
            return Vec::new();
        }
        let follows = device.states(&body);
        for said in follows.iter().filter(|said| said.topic.kept_by_the_broker()) {
            self.states.insert(said.topic.to_string(), (tenant, said.clone()));
        }
        follows
    }

    /// This goes out now, in its place among the events.
    pub(super) fn goes_out(&mut self, said: &Said) {
        if said.topic.kept_by_the_broker() {
            self.said.insert(said.topic, said.payload.clone());
        }
    }

    /// Nobody reads from the broker who was let in last once that person is deleted.
    fn forget_person(&mut self, tenant: TenantId, person: &[u8]) -> Vec<Said> {
        let shown = self.states.values_mut().filter(|(of, said)| *of == tenant && said.payload == person);
        shown
            .map(|(_, said)| {
                said.payload.clear();
                said.clone()
            })
            .collect()
    }

    /// Takes back what was announced of tenants that do not want it any more. `true` when there is nothing left of it.
    async fn take_back(&mut self, publisher: &Publisher, outbox: &Outbox) -> Result<bool, StoreError> {
        let mut all = true;
        for tenant in routes::tenants(&publisher.db).await? {
            if self.settings.tenants.contains(&tenant) {
                continue;
            }
            let found = publisher.db.tenant(tenant, move |tx| {
                Box::pin(async move {
                    if !events::has_reader(tx, MARK).await? {
                        return Ok(None);
                    }
                    registered(tx, tenant, false).await.map(Some)
                })
            });
            let Some(Registered { claimed, gone }) = found.await? else { continue };
            let devices = claimed.into_iter().map(|(device, _)| device).chain(gone);
            let wanted = devices.flat_map(|device| device.withdrawal()).collect();
            if self.say(tenant, wanted, outbox).await? {
                publisher.db.tenant(tenant, |tx| Box::pin(events::forget_reader(tx, MARK))).await?;
            } else {
                all = false;
            }
        }
        Ok(all)
    }
}

async fn registered(tx: &mut TenantTx, tenant: TenantId, may_unlock: bool) -> Result<Registered, StoreError> {
    let mut doors: HashMap<DeviceId, Vec<Door>> = HashMap::new();
    for door in places::doors(tx, None).await? {
        if let (Some(device), Some(local_id)) = (door.device_id, door.local_id) {
            doors.entry(device).or_default().push(Door { id: door.id.0, local_id, name: door.name });
        }
    }
    let mut found = Registered { claimed: Vec::new(), gone: Vec::new() };
    for device in devices::list(tx).await? {
        let announced = announced(&device, tenant, doors.remove(&device.id).unwrap_or_default(), may_unlock);
        match device.state {
            DeviceState::Claimed => found.claimed.push((announced, device.online)),
            DeviceState::Revoked => found.gone.push(announced),
            DeviceState::Created => {}
        }
    }
    Ok(found)
}

fn announced(device: &Device, tenant: TenantId, doors: Vec<Door>, may_unlock: bool) -> Announced {
    let version = device.versions.as_ref().and_then(|versions| versions["agent"].as_str()).map(str::to_owned);
    Announced {
        tenant: wire_contract::TenantId(tenant.0),
        device: wire_contract::DeviceId(device.id.0),
        name: device.name.clone(),
        agent_version: version,
        doors,
        may_unlock,
    }
}

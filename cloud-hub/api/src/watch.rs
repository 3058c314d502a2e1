//! Signals of an intrusion, fed where requests begin and end: each becomes an audit entry and an event of the tenant, a line of the
//! log and a count, and tightens the limits of the caller for a while.
//!
//! Deliberately absent: what a signal is (`domain::intrusion`), and who is watched (`limit::watch`). Nobody waits for what is told:
//! a request is answered as it would be without.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;
use tracing::Instrument as _;
use uuid::Uuid;
use wire_contract::EventData;
use wire_contract::event::IntrusionData;

use super::auth::{Caller, Who};
use super::state::Api;
use hub_domain::event::NewEvent;
use hub_domain::ids::{ApiKeyId, EventId, PlatformKeyId, TenantId};
use hub_domain::intrusion::{Signal, network};
use hub_domain::tenant::Resource;
use hub_host::chain::chain;
use hub_host::metrics::security;
use hub_store::audit::{self, Action};
use hub_store::{StoreError, events, platform_keys, routes, tenants};

/// Who is watched.
#[derive(Clone, Copy, Debug)]
struct Whom {
    tenant: TenantId,
    kind: &'static str,
    id: Uuid,
}

/// In the extensions of an answer: how many people it shows, or templates it gives out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown(pub(super) u32);

impl From<&Caller> for Whom {
    fn from(caller: &Caller) -> Self {
        let (kind, id) = match caller.who {
            Who::Key(key) => ("api_key", key.0),
            Who::User(user) => ("user", user.user.0),
            Who::Session(session) => ("session", session.0),
        };
        Self { tenant: caller.tenant, kind, id }
    }
}

/// By which the watch knows a caller.
pub(super) fn id_of(caller: &Caller) -> Uuid {
    Whom::from(caller).id
}

/// A caller has come from an address.
pub(super) fn came(api: &Arc<Api>, caller: &Caller, address: IpAddr) {
    // Users walk from one network into the next, and a session is short: only keys stay where they are.
    let Who::Key(key) = caller.who else { return };
    if let Some(networks) = api.watch.came_from(key.0, network(address)) {
        raise(api, Whom::from(caller), Signal::ImpossibleTravel, networks.into());
    }
}

/// A caller was answered, who asked for what is `named` by the path, if it names anything.
pub(super) fn answered(api: &Arc<Api>, caller: &Caller, named: Option<&str>, response: &Response) {
    let whom = Whom::from(caller);
    if response.status() == StatusCode::NOT_FOUND
        && let Some(ids) = named.and_then(|path| api.watch.not_there(whom.id, path))
    {
        raise(api, whom, Signal::CrossTenantProbing, ids.into());
    }
    if let Some(Shown(people)) = response.extensions().get()
        && let Some(looked_at) = api.watch.looked_at(whom.id, *people)
    {
        let api = Arc::clone(api);
        tokio::spawn(async move { scraped(&api, whom, looked_at).await }.in_current_span());
    }
}

/// A key came with a wrong secret. Nobody waits for what follows: how long a refusal takes says nothing of whether there is such a key.
pub(super) fn refused(api: &Arc<Api>, key: ApiKeyId) {
    if let Some(count) = api.watch.refused(key.0) {
        let api = Arc::clone(api);
        tokio::spawn(async move { burst(&api, key, count).await }.in_current_span());
    }
}

/// The same for a key of the platform. There is no tenant to be told: it is in the log and in the metrics, if there is such a key.
pub(super) fn platform_key_refused(api: &Arc<Api>, key: PlatformKeyId) {
    let Some(count) = api.watch.refused(key.0) else { return };
    let (db, signal) = (api.db.clone(), Signal::AuthenticationBurst);
    let told = async move {
        match platform_keys::exists(&db, key).await {
            Ok(true) => {
                security::intrusion(signal.as_str());
                tracing::warn!(event = "intrusion_signal", signal = signal.as_str(), caller = "platform_key", id = %key, count, "a caller behaves as an intruder would");
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(event = "intrusion_not_told", cause = %chain(&error), "a burst is not told of");
            }
        }
    };
    tokio::spawn(told.in_current_span());
}

/// So many wrong secrets of a key: of its tenant, if there is such a key.
async fn burst(api: &Api, key: ApiKeyId, count: u32) {
    match routes::tenant_of_api_key(&api.db, key).await {
        Ok(Some(tenant)) => {
            let whom = Whom { tenant, kind: "api_key", id: key.0 };
            tell(api, whom, Signal::AuthenticationBurst, count.into()).await;
        }
        // No key of anybody: there is nobody to tell. The address is not listened to for a while in any case.
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(event = "intrusion_not_told", cause = %chain(&error), "a burst is not told of");
        }
    }
}

async fn scraped(api: &Api, whom: Whom, looked_at: u64) {
    let counted = api.db.tenant(whom.tenant, |tx| Box::pin(tenants::count(tx, Resource::People))).await;
    match counted {
        Ok(people) if api.watch.is_scraping(whom.id, looked_at, people) => {
            tell(api, whom, Signal::TemplateScraping, looked_at).await;
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(event = "intrusion_not_told", cause = %chain(&error), "people cannot be counted"),
    }
}

fn raise(api: &Arc<Api>, whom: Whom, signal: Signal, count: u64) {
    let api = Arc::clone(api);
    tokio::spawn(async move { tell(&api, whom, signal, count).await }.in_current_span());
}

async fn tell(api: &Api, whom: Whom, signal: Signal, count: u64) {
    let Whom { tenant, kind, id } = whom;
    // A key whose secret is guessed at is the victim: whoever uses it rightly is not slowed down.
    if signal != Signal::AuthenticationBurst {
        api.watch.tighten(id, signal.tightens_for());
    }
    security::intrusion(signal.as_str());
    tracing::warn!(event = "intrusion_signal", client_id = %tenant, signal = signal.as_str(), caller = kind, %id, count, "a caller behaves as an intruder would");
    let (now, event) = (api.clock.now(), EventId(api.clock.new_id()));
    let told = api.db.tenant(tenant, move |tx| {
        Box::pin(async move {
            let detail = json!({ "signal": signal.as_str(), "count": count });
            let entry = audit::Entry {
                actor: "hub",
                action: Action::IntrusionSignal,
                object_kind: kind,
                object_id: Some(id),
                detail,
            };
            audit::write(tx, entry).await?;
            let data = IntrusionData {
                alarm: true,
                signal: signal.as_str().to_owned(),
                caller_kind: kind.to_owned(),
                caller: id,
                count,
            };
            let event = NewEvent::from_hub(event, None, now, &EventData::Intrusion(data));
            events::append(tx, &[event], now).await?;
            Ok::<_, StoreError>(())
        })
    });
    if let Err(error) = told.await {
        tracing::error!(event = "intrusion_not_told", cause = %chain(&error), "a signal is in this log alone");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_is_counted() {
        let words: Vec<&str> = Signal::ALL.iter().map(|signal| signal.as_str()).collect();
        assert_eq!(words, security::SIGNALS);
    }
}

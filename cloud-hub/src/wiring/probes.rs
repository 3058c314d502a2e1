//! How the parts are that the API does not know itself: broker, key store, vector table, audit, shared limits.

use std::sync::Arc;

use tokio::sync::watch;
use uuid::Uuid;

use crate::api::health::{Component, Probe};
use crate::audit::Trouble;
use crate::domain::ids::PersonId;
use crate::keys::{Custody, KeysError};
use crate::limit::Limiter;
use crate::store::{Database, StoreError, routes, templates};

/// One probe for each part.
pub(super) fn all(
    db: &Database,
    custody: &Custody,
    broker: watch::Receiver<bool>,
    audit: watch::Receiver<Trouble>,
    limiter: &Arc<Limiter>,
) -> Vec<Probe> {
    let (for_keys, for_vectors, custody, limiter) = (db.clone(), db.clone(), custody.clone(), Arc::clone(limiter));
    let mut probes: Vec<Probe> = vec![
        Box::new(move || Box::pin(std::future::ready(broker_state(*broker.borrow())))),
        Box::new(move || Box::pin(read_key_store(for_keys.clone(), custody.clone()))),
        Box::new(move || Box::pin(read_vectors(for_vectors.clone()))),
        Box::new(move || Box::pin(std::future::ready(audit_state(*audit.borrow())))),
    ];
    if limiter.shared_answers().is_some() {
        probes.push(Box::new(move || Box::pin(std::future::ready(shared_limits(limiter.shared_answers())))));
    }
    probes
}

fn shared_limits(answers: Option<bool>) -> Component {
    if answers == Some(false) {
        Component::warn("shared_limits", "does not answer: each hub counts by itself")
    } else {
        Component::pass("shared_limits")
    }
}

fn audit_state(trouble: Trouble) -> Component {
    match trouble {
        Trouble { sealing: true, .. } => {
            Component::warn("audit", "entries have no place in the chain yet; see the log")
        }
        Trouble { heads: true, .. } => Component::warn(
            "audit",
            "signed heads cannot be written outside the database: see the log and [audit] heads",
        ),
        Trouble { .. } => Component::pass("audit"),
    }
}

fn broker_state(connected: bool) -> Component {
    if connected {
        Component::pass("broker")
    } else {
        Component::warn("broker", "not connected: events wait at the doors")
    }
}

/// Asks for the key of nobody: the right answer is that there is none.
async fn read_key_store(db: Database, custody: Custody) -> Component {
    let tenants = match routes::tenants(&db).await {
        Ok(tenants) => tenants,
        Err(_) => return Component::fail("key_store", "cannot be judged without the database"),
    };
    let Some(tenant) = tenants.first() else { return Component::pass("key_store") };
    match custody.person_key(*tenant, PersonId(Uuid::nil())).await {
        Ok(_) | Err(KeysError::NoPersonKey(_)) => Component::pass("key_store"),
        Err(KeysError::Persons { .. }) => Component::fail("key_store", "the person key store cannot be read"),
        Err(_) => Component::fail("key_store", "the tenants' keys cannot be read"),
    }
}

async fn read_vectors(db: Database) -> Component {
    match any_missing(&db).await {
        Ok(false) => Component::pass("vector_table"),
        Ok(true) => Component::warn("vector_table", "searchable vectors are being rebuilt"),
        Err(_) => Component::fail("vector_table", "cannot be read"),
    }
}

async fn any_missing(db: &Database) -> Result<bool, StoreError> {
    for tenant in routes::tenants(db).await? {
        let missing = db.tenant(tenant, |tx| Box::pin(templates::without_vector(tx, None, 1))).await?;
        if !missing.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

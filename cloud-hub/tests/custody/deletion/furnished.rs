//! A tenant that has a row in every table that there is, and what can be counted of it.

use std::collections::BTreeMap;

use cloud_hub::domain::api_key::ApiKey;
use cloud_hub::domain::event::NewEvent;
use cloud_hub::domain::ids::{DeviceId, EndpointId, EventId, PersonId, TenantId};
use cloud_hub::domain::permission::{Grant, Role};
use cloud_hub::keys::{Anchored, Entered, NotThem, WantedApiKey};
use cloud_hub::store::logins::Kind;
use cloud_hub::store::{StoreError, events};
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;
use wire_contract::EventData;
use wire_contract::event::PersonDeletedData;
use zeroize::Zeroizing;

use crate::support::{Place, SPACE, TestHub, template};

/// The one table of which a row stays.
pub(super) const STAYS: &str = "erased_tenant";

pub(super) struct Furnished {
    pub(super) tenant: TenantId,
    pub(super) device: DeviceId,
    pub(super) people: Vec<PersonId>,
    pub(super) key: ApiKey,
}

/// What no ordinary day brings, or what takes a device to bring it.
const RARE: &[&str] = &[
    "INSERT INTO door (tenant_id, id, site_id, device_id, local_id, name)
     SELECT tenant_id, gen_random_uuid(), site_id, id, 'front', 'canary door' FROM device WHERE tenant_id = $1",
    "INSERT INTO session (tenant_id, id, kind, state, person_id, expires_at, ended_at)
     SELECT tenant_id, gen_random_uuid(), 'enrolment', 'completed', id, now(), now() FROM person WHERE tenant_id = $1",
    "INSERT INTO session_frame (tenant_id, session_id, number, accepted, reasons, look)
     SELECT tenant_id, id, 0, false, '{canary}', '{\"canary\": 1}' FROM session WHERE tenant_id = $1",
    "INSERT INTO user_totp (tenant_id, user_id, secret_sealed, begun_at) SELECT tenant_id, id, 'canary', now() FROM app_user WHERE tenant_id = $1",
    "INSERT INTO recovery_code (tenant_id, user_id, mac) SELECT tenant_id, id, decode(repeat('00', 32), 'hex') FROM app_user WHERE tenant_id = $1",
    "INSERT INTO tenant_role (tenant_id, id, name, permissions, created_at, changed_at)
     VALUES ($1, gen_random_uuid(), 'canary', '{events:read}', now(), now())",
    "UPDATE app_user SET role = 'own', own_role = (SELECT id FROM tenant_role WHERE tenant_id = $1) WHERE tenant_id = $1",
    "INSERT INTO stream (tenant_id, device_id, stream) SELECT tenant_id, id, repeat('a', 32) FROM device WHERE tenant_id = $1",
    "INSERT INTO event_quarantine (tenant_id, id, device_id, stream, sequence, event_id, body)
     SELECT tenant_id, gen_random_uuid(), id, repeat('a', 32), 1, gen_random_uuid(), '{\"canary\": 1}' FROM device WHERE tenant_id = $1",
    "INSERT INTO feed_cursor (tenant_id, name) VALUES ($1, 'broker')",
    "INSERT INTO device_gallery (tenant_id, device_id, gallery_id)
     SELECT d.tenant_id, d.id, g.id FROM device d JOIN gallery g USING (tenant_id) WHERE d.tenant_id = $1",
    "INSERT INTO gallery_snapshot (tenant_id, id, device_id, gallery_id, epoch, version, created_at, expires_at)
     SELECT d.tenant_id, gen_random_uuid(), d.id, g.id, 1, 1, now(), now() FROM device d JOIN gallery g USING (tenant_id) WHERE d.tenant_id = $1",
    "INSERT INTO gallery_buried (tenant_id, gallery_id, object_id) SELECT tenant_id, id, gen_random_uuid() FROM gallery WHERE tenant_id = $1",
    "INSERT INTO command (tenant_id, id, device_id, kind, actor, issued_at, expires_at, changed_at)
     SELECT tenant_id, gen_random_uuid(), id, 'collect_logs', 'operator', now(), now() + interval '1 s', now() FROM device WHERE tenant_id = $1",
    "INSERT INTO device_log (tenant_id, command_id, device_id, lines, collected_at)
     SELECT tenant_id, id, device_id, 'canary', now() FROM command WHERE tenant_id = $1",
    "INSERT INTO twin_desired (tenant_id, device_id, version, settings, actor, created_at)
     SELECT tenant_id, id, 1, '{}', 'operator', now() FROM device WHERE tenant_id = $1",
    "INSERT INTO idempotency_key (tenant_id, key_index, request_index, attempt, held_until, expires_at, status, answer_sealed)
     VALUES ($1, decode(repeat('00', 32), 'hex'), decode(repeat('00', 32), 'hex'), gen_random_uuid(), now(), now(), 201, 'canary')",
    "INSERT INTO person_key_change (tenant_id, generation) VALUES ($1, 1)",
    "INSERT INTO idempotency_use (tenant_id, keys, bytes) VALUES ($1, 1, 6)",
    "INSERT INTO twin_reported (tenant_id, device_id, state, settings, restart_needed, reported_at, since)
     SELECT tenant_id, id, 'none', '{}', '[]', now(), now() FROM device WHERE tenant_id = $1",
];

/// Makes the tenant. The sealer must run: a head of its audit is one of the rows.
pub(super) async fn furnish(hub: &TestHub, superuser: &mut PgConnection) -> Furnished {
    let Place { tenant, device, .. } = hub.place().await;
    let mut people = Vec::new();
    for number in 0..5 {
        let person = hub.person(tenant, &format!("canary-{number}")).await;
        hub.enrol(tenant, person, number).await;
        people.push(person);
    }
    let not_them = NotThem {
        space_id: SPACE.to_owned(),
        model_version: "1".to_owned(),
        quality: 0.5,
        embedding: template(20).embedding,
        confirmed: true,
    };
    let anchored = hub.custody.add_anchor(tenant, people[0], not_them, "test").await.unwrap();
    assert!(matches!(anchored, Anchored::Made { .. }));
    let custody = &hub.custody;
    let key =
        custody.create_api_key(tenant, WantedApiKey::of("canary", Grant::all_of(Role::Owner)), "test").await.unwrap();
    custody.create_consumer(tenant, "canary", false, "test").await.unwrap();
    let password = || Zeroizing::new(String::from("correct horse battery"));
    let user = custody.create_user(tenant, "canary", Role::Auditor, "test").await.unwrap();
    assert!(custody.accept_invitation(&user.token, password()).await.unwrap());
    let entered = custody.log_in(tenant, "canary", password(), Kind::Tokens).await.unwrap();
    assert!(matches!(entered, Entered::In(_)));
    let refused = custody.log_in(tenant, "nobody", password(), Kind::Tokens).await.unwrap();
    assert!(!matches!(refused, Entered::In(_)));
    let endpoint = EndpointId(Uuid::new_v4());
    custody.create_webhook(tenant, endpoint, "https://canary.example/", None, "test").await.unwrap();
    custody.issue_claim(tenant, device, "test").await.unwrap();
    let now = hub.clock.now();
    let happened: Result<(), StoreError> = hub
        .db
        .tenant(tenant, move |tx| {
            Box::pin(async move {
                let person = wire_contract::PersonId(Uuid::nil());
                for _ in 0..40 {
                    let data = EventData::PersonDeleted(PersonDeletedData { person });
                    events::append(tx, &[NewEvent::from_hub(EventId(Uuid::new_v4()), None, now, &data)], now).await?;
                }
                Ok(())
            })
        })
        .await;
    happened.unwrap();
    for statement in RARE {
        sqlx::query(*statement).bind(tenant.0).execute(&mut *superuser).await.unwrap();
    }
    Furnished { tenant, device, people, key }
}

/// The tables that may have a tenant's rows, from the standard's catalogue: another one than the program asks.
pub(super) async fn tables(superuser: &mut PgConnection) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT c.table_name::text FROM information_schema.columns c JOIN information_schema.tables t USING (table_schema, table_name)
         WHERE c.table_schema = 'public' AND c.column_name = 'tenant_id' AND t.table_type = 'BASE TABLE' ORDER BY 1",
    )
    .fetch_all(superuser)
    .await
    .unwrap()
}

/// How many rows of a tenant each table has, and a hash of what they say.
pub(super) async fn told(superuser: &mut PgConnection, tenant: TenantId) -> BTreeMap<String, (i64, String)> {
    let mut told = BTreeMap::new();
    for table in tables(superuser).await {
        let statement = format!(
            "SELECT count(*), coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '') FROM \"{table}\" t WHERE tenant_id = $1"
        );
        let found = sqlx::query_as(AssertSqlSafe(statement)).bind(tenant.0).fetch_one(&mut *superuser).await.unwrap();
        told.insert(table, found);
    }
    told
}

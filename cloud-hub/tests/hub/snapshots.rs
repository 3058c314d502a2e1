//! A gallery whole over HTTPS, as the real hub gives it: to its device alone, from any byte on; and the command line for the logs.

use reqwest::{Method, StatusCode};
use ring::digest::{SHA256, digest};
use serde_json::Value;
use uuid::Uuid;
use wire_contract::ClaimAnswer;
use wire_contract::snapshot::{SnapshotAnswer, Wanted};

use super::devices::{Device, code, made};
use super::process::{Hub, data_dir, read, skipped};

/// Puts a snapshot on offer as the publisher does when a device reports; its id.
pub(crate) async fn offered(hub: &Hub, device: &str) -> Uuid {
    let id = Uuid::new_v4();
    sqlx::query(
        "INSERT INTO gallery_snapshot (tenant_id, id, device_id, gallery_id, epoch, version, created_at, expires_at)
         SELECT d.tenant_id, $1, d.id, g.id, g.epoch, g.version, now(), now() + interval '1 hour'
         FROM device d JOIN gallery g ON g.tenant_id = d.tenant_id AND g.site_id = d.site_id WHERE d.id = $2::uuid",
    )
    .bind(id)
    .bind(device)
    .execute(&mut hub.superuser().await)
    .await
    .unwrap();
    id
}

#[tokio::test]
async fn a_snapshot_is_given_to_its_device_alone_and_from_any_byte_on() {
    if skipped("a_snapshot_is_given_to_its_device_alone_and_from_any_byte_on") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let tenant = hub.tenant("Acme");
    let (id, token) = made(&hub, &tenant, "entrance").await;
    let device = Device::new();
    let claim: ClaimAnswer = serde_json::from_value(device.claim(&hub, &token).await.1).unwrap();
    for n in 0..6 {
        hub.person(&tenant, &format!("p{n}")).await;
    }
    let snapshot = offered(&hub, &id).await;
    let (path, client) =
        (format!("{}/v1/device/snapshots/{snapshot}", hub.https()), device.client(&hub, &claim.certificate_chain));
    let get = |at: &str, range: Option<String>| {
        let mut call = client.get(at.to_owned());
        if let Some(range) = range {
            call = call.header("range", range);
        }
        async move { call.send().await.unwrap() }
    };
    let early = read(get(&path, None).await).await;
    assert_eq!(code(&early), (410, "snapshot_gone"), "there is no content before its manifest was made");

    let (status, answer) = read(get(&format!("{path}/manifest"), None).await).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let answer: SnapshotAnswer = serde_json::from_value(answer).unwrap();
    let manifest = answer.manifest;
    let wanted = Wanted {
        snapshot,
        tenant: claim.tenant,
        device: claim.device,
        gallery: manifest.gallery,
        epoch: 1,
        version: 6,
    };
    manifest.verify(&claim.hub_keys, &wanted).unwrap();
    assert_eq!(manifest.records, 6);

    let whole = get(&path, None).await;
    assert_eq!(whole.status(), StatusCode::OK);
    assert_eq!(whole.headers()["content-type"], "application/octet-stream");
    assert!(whole.headers().get("content-encoding").is_none(), "sealed bytes are not compressed");
    let whole = whole.bytes().await.unwrap();
    assert_eq!(whole.len() as u64, manifest.content_bytes());
    assert_eq!(digest(&SHA256, &whole).as_ref(), manifest.chunks[0].sha256.0);
    for from in [0, 1, 17, whole.len() / 2, whole.len() - 1] {
        let rest = get(&path, Some(format!("bytes={from}-"))).await;
        assert_eq!(rest.status(), StatusCode::PARTIAL_CONTENT);
        let told = format!("bytes {from}-{}/{}", whole.len() - 1, whole.len());
        assert_eq!(rest.headers()["content-range"], told.as_str());
        assert_eq!(rest.bytes().await.unwrap(), whole[from..], "from byte {from} on");
    }
    let behind = get(&path, Some(format!("bytes={}-", whole.len()))).await;
    assert_eq!(behind.status(), StatusCode::RANGE_NOT_SATISFIABLE);

    // How far it is, for people.
    let listed = hub.cli(&["devices", "list", "--tenant", &tenant.id]);
    let shown = &listed["devices"][0]["galleries"][0]["snapshot"];
    assert_eq!((shown["percent"].as_u64(), shown["bytes"].as_u64()), (Some(100), Some(whole.len() as u64)), "{shown}");

    // Nobody else's.
    let (_, token) = made(&hub, &tenant, "back door").await;
    let other = Device::new();
    let chain = serde_json::from_value::<ClaimAnswer>(other.claim(&hub, &token).await.1).unwrap().certificate_chain;
    for at in [path.clone(), format!("{path}/manifest")] {
        let stolen = read(other.client(&hub, &chain).get(&at).send().await.unwrap()).await;
        assert_eq!(code(&stolen), (410, "snapshot_gone"));
        assert_eq!(code(&read(hub.client().get(&at).send().await.unwrap()).await), (401, "unauthorized"));
    }
    let gone = hub.call(&tenant, Method::DELETE, &format!("/v1/devices/{id}"), None).await;
    assert_eq!(gone.0, StatusCode::NO_CONTENT);
    assert_eq!(code(&read(get(&path, None).await).await), (403, "device_revoked"));
}

#[tokio::test]
async fn the_command_line_shows_and_shortens_the_logs() {
    if skipped("the_command_line_shows_and_shortens_the_logs") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let tenant = hub.tenant("Acme");
    hub.site(&tenant).await;
    let first = hub.person(&tenant, "p1").await;
    hub.person(&tenant, "p2").await;
    let gone = hub.call(&tenant, Method::DELETE, &format!("/v1/people/{first}"), None).await;
    assert_eq!(gone.0, StatusCode::NO_CONTENT);
    let log = |answer: &Value| {
        let log = &answer["logs"][0];
        ["version", "compacted_to", "live", "records", "buried"].map(|field| log[field].as_u64().unwrap())
    };
    assert_eq!(log(&hub.cli(&["galleries", "list", "--tenant", &tenant.id])), [3, 0, 1, 3, 0]);
    let young = hub.cli(&["galleries", "compact", "--tenant", &tenant.id]);
    assert_eq!((log(&young), young["logs"][0]["removed"].as_u64()), ([3, 0, 1, 3, 0], Some(0)), "a week is kept");
    sqlx::query("UPDATE gallery_record SET at = now() - interval '8 days'")
        .execute(&mut hub.superuser().await)
        .await
        .unwrap();
    let done = hub.cli(&["galleries", "compact", "--tenant", &tenant.id]);
    assert_eq!((log(&done), done["logs"][0]["removed"].as_u64()), ([3, 3, 1, 1, 1], Some(2)));
}

//! The key that signs for devices is replaced from the command line of a running hub: whoever pinned it before is led to the present one by
//! every answer, and the audit of before verifies.

use std::path::Path;

use reqwest::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;
use wire_contract::claim::HubKey;
use wire_contract::snapshot::{SnapshotAnswer, Wanted};
use wire_contract::succession::trusted;
use wire_contract::{ClaimAnswer, HubTime, LinkAnswer, Nonce, Succession};

use super::devices::{Device, made};
use super::process::{Hub, Tenant, command, data_dir, output, read, serve, skipped};
use super::renewals::renew;
use super::snapshots::offered;

/// A device with what it pinned at its claim.
struct Claimed {
    id: String,
    device: Device,
    claim: ClaimAnswer,
}

async fn claimed(hub: &Hub, tenant: &Tenant, name: &str) -> Claimed {
    let (id, token) = made(hub, tenant, name).await;
    let device = Device::new();
    let (status, claim) = device.claim(hub, &token).await;
    assert_eq!(status, StatusCode::OK, "{claim}");
    Claimed { id, device, claim: serde_json::from_value(claim).unwrap() }
}

impl Claimed {
    /// What the device believes after it was told this, and has kept nothing of what it was told before.
    fn believes(&self, said: &[Succession]) -> Vec<HubKey> {
        trusted(&self.claim.hub_keys, said)
    }

    /// Everything that has a signature of the hub, asked for by a device that slept until now. Returns the key that signs.
    async fn takes_everything(&self, hub: &Hub) -> Uuid {
        let chain = &self.claim.certificate_chain;
        let (_, link) = self.device.link(hub, chain).await;
        let link: LinkAnswer = serde_json::from_value(link).unwrap();
        link.server_time.verify(&self.believes(&link.successions), self.id.parse().unwrap()).unwrap();

        let nonce = Nonce([7; 32]);
        let asked = hub.client().post(format!("{}/v1/time", hub.https())).json(&json!({ "v": 1, "nonce": nonce }));
        let time: HubTime = serde_json::from_value(read(asked.send().await.unwrap()).await.1).unwrap();
        time.verify(&self.believes(&time.successions), &nonce).unwrap();

        // One at a time is on offer.
        sqlx::query("DELETE FROM gallery_snapshot").execute(&mut hub.superuser().await).await.unwrap();
        let snapshot = offered(hub, &self.id).await;
        let path = format!("{}/v1/device/snapshots/{snapshot}/manifest", hub.https());
        let answer = read(self.device.client(hub, chain).get(path).send().await.unwrap()).await.1;
        let SnapshotAnswer { manifest, successions, .. } = serde_json::from_value(answer).unwrap();
        let (tenant, device, gallery) = (self.claim.tenant, self.claim.device, manifest.gallery);
        let wanted = Wanted { snapshot, tenant, device, gallery, epoch: manifest.epoch, version: manifest.version };
        manifest.verify(&self.believes(&successions), &wanted).unwrap();

        let renewed = self.renewed(hub).await;
        renewed.server_time.verify(&self.believes(&renewed.successions), self.id.parse().unwrap()).unwrap();
        let signers = [link.server_time.key_id, time.key_id, manifest.key_id, renewed.server_time.key_id];
        assert!(signers.iter().all(|signer| *signer == signers[0]), "{signers:?}");
        signers[0]
    }

    async fn renewed(&self, hub: &Hub) -> ClaimAnswer {
        let (status, answer) = renew(hub, &self.device, &self.claim.certificate_chain, &Device::new()).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        serde_json::from_value(answer).unwrap()
    }
}

/// The keys that sign, or signed, as the status says.
fn told(status: &Value) -> Vec<(String, String)> {
    let keys = status["keys"].as_array().unwrap().iter();
    let signing = keys.filter(|key| key["what"] == "signs for devices");
    signing.map(|key| (key["key"].as_str().unwrap().to_owned(), key["state"].as_str().unwrap().to_owned())).collect()
}

/// Whether a file anywhere in a folder has these bytes in it.
fn lies_in(dir: &Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(dir).unwrap().flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return lies_in(&path, bytes);
        }
        std::fs::read(path).is_ok_and(|file| file.windows(bytes.len()).any(|some| some == bytes))
    })
}

#[tokio::test]
async fn a_device_that_slept_through_changes_of_the_signing_key_believes_every_answer() {
    if skipped("a_device_that_slept_through_changes_of_the_signing_key_believes_every_answer") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let tenant = hub.tenant("Acme");
    hub.person(&tenant, "p1").await;
    let keys = dir.path().join("keys");
    let early = claimed(&hub, &tenant, "entrance").await;
    let first = early.takes_everything(&hub).await;
    assert!(early.claim.successions.is_empty(), "nothing was ever replaced");
    // The private half of a PKCS#8 of Ed25519 begins at its seventeenth byte.
    let secret = std::fs::read(keys.join("signing.p8")).unwrap()[16..48].to_vec();
    assert!(lies_in(&keys, &secret));

    for (order, why) in [
        (&["retire-signing"][..], "no signing key before"),
        (&["rotate", "signing", "--copied"], "no next signing key"),
    ] {
        let mut early = command(dir.path());
        early.arg("keys").args(order);
        let refused = output(early);
        assert!(!refused.status.success());
        assert!(String::from_utf8_lossy(&refused.stderr).contains(why), "{refused:?}");
    }
    let status = hub.cli(&["keys", "rotate", "signing"]);
    let verifies = (format!("signing {first}"), String::from("verifies"));
    assert_eq!(told(&status), [(String::from("signing.p8"), String::from("in use")), verifies]);
    assert!(!lies_in(&keys, &secret), "the key before is destroyed");
    let second = early.takes_everything(&hub).await;
    assert_ne!(second, first);
    let renewed = early.renewed(&hub).await;
    assert_eq!(renewed.hub_keys.iter().map(|key| key.key_id).collect::<Vec<_>>(), [second, first]);

    for _ in 0..2 {
        hub.cli(&["keys", "rotate", "signing"]);
    }
    let third = early.takes_everything(&hub).await;
    assert!(third != second && third != first);
    let late = claimed(&hub, &tenant, "back door").await;
    assert_eq!((late.claim.hub_keys.len(), late.takes_everything(&hub).await), (4, third));

    // A start, and then no key before is named any more; whoever slept is led all the same.
    assert!(hub.stop().success());
    let hub = Hub::start(dir.path());
    assert_eq!(early.takes_everything(&hub).await, third);
    assert_eq!(told(&hub.cli(&["keys", "status"])).len(), 4);
    assert_eq!(told(&hub.cli(&["keys", "retire-signing"])), [(String::from("signing.p8"), String::from("in use"))]);
    assert_eq!(early.renewed(&hub).await.hub_keys.iter().map(|key| key.key_id).collect::<Vec<_>>(), [third]);
    assert_eq!(early.takes_everything(&hub).await, third);
    let audited: Vec<(Value,)> =
        sqlx::query_as("SELECT detail FROM audit_entry WHERE action = 'hub.signing_key' ORDER BY at, id")
            .fetch_all(&mut hub.superuser().await)
            .await
            .unwrap();
    assert_eq!(audited.len(), 4);
    assert_eq!(audited[0].0, json!({ "key": second, "before": first }));
    assert_eq!(audited[3].0["retired"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn the_audit_of_before_verifies_by_the_hubs_folder_or_by_an_old_key_and_what_leads_on_from_it() {
    if skipped("the_audit_of_before_verifies_by_the_hubs_folder_or_by_an_old_key_and_what_leads_on_from_it") {
        return;
    }
    let (dir, evidence) = (data_dir(), tempfile::tempdir().unwrap());
    let heads = evidence.path().join("hub-1");
    let start = || {
        let mut command = serve(dir.path());
        command.env("LINTEL__AUDIT__HEADS", &heads).env("LINTEL__AUDIT__HEADS_EVERY", "1s");
        Hub::from_command(command, dir.path())
    };
    // A clean stop signs everything that is there.
    let hub = start();
    let tenant = hub.tenant("Acme");
    let early = claimed(&hub, &tenant, "entrance").await;
    assert!(hub.stop().success());
    for _ in 0..2 {
        let hub = start();
        hub.cli(&["keys", "rotate", "signing"]);
        hub.person(&tenant, &Uuid::new_v4().to_string()).await;
        assert!(hub.stop().success());
    }
    let hub = start();
    let verify = |more: &[&str]| {
        let mut verify = command(dir.path());
        verify.env("LINTEL__AUDIT__HEADS", &heads).args(["audit", "verify", "-o", "json"]).args(more);
        let output = output(verify);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap(), serde_json::from_str::<Value>(&text).unwrap_or(json!(error)))
    };
    let is_well = |more: &[&str]| {
        let (code, report) = verify(more);
        assert_eq!(code == 0, report["ok"] == json!(true), "{report}");
        code == 0
    };
    assert!(is_well(&[]), "{}", verify(&[]).1);

    // Somebody who has no folder of keys, but the key of then.
    let keys = dir.path().join("keys");
    for name in ["signing.p8", "signing-successions.json"] {
        std::fs::rename(keys.join(name), dir.path().join(name)).unwrap();
    }
    let old = hex::encode(&early.claim.hub_keys[0].public_key.0);
    assert!(is_well(&["--key", &old]), "{}", verify(&["--key", &old]).1);
    assert!(!is_well(&["--key", &hex::encode([7; 32])]), "what the folder of heads says is believed of nobody");
    std::fs::remove_file(heads.join("signing-successions.json")).unwrap();
    assert!(!is_well(&["--key", &old]), "nothing leads from it to the key of now");
    drop(hub);
}

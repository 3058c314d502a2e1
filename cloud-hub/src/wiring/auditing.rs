//! The audit's settings as its parts want them, and `cloud-hub audit verify`: without the hub's control socket, so that it can be
//! asked whoever runs, and whether or not.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use wire_contract::Bytes;
use wire_contract::claim::HubKey;
use wire_contract::succession::{MAX_SUCCESSIONS, trusted};

use super::parts;
use crate::audit::heads::successions;
use crate::audit::{HeadSettings, Progress, Request, Verified, verify};
use crate::cli::Verification;
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::audit::HubKeys;
use crate::domain::audit::finding::Finding;
use crate::domain::audit::verifier::Report;
use crate::domain::ids::TenantId;
use crate::embedded::{Layout, postgres};
use crate::keys::{SigningKey, SigningPast, signing_key_id};
use crate::store::Database;

/// Progress on a terminal is told after so many entries.
const TELL_EVERY: u64 = 100_000;

/// Where heads go.
pub(super) fn head_settings(config: &Config) -> HeadSettings {
    HeadSettings { dir: heads_dir(config), every: config.audit.heads_every.0, log: config.audit.log_heads }
}

fn heads_dir(config: &Config) -> PathBuf {
    let configured = config.audit.heads.get().map(std::path::Path::to_path_buf);
    configured.unwrap_or_else(|| Layout::new(&config.data.dir).audit_heads_dir())
}

/// Verifies the audit; returns what to print, and whether all is well.
pub async fn verify_audit(config: &Config, options: Verification, clock: Clock) -> Result<(String, bool)> {
    let app = if config.embedded.enabled || config_has_no_database(config) {
        postgres::app_of(&Layout::new(&config.data.dir))
            .context("the hub's own Postgres (it runs while the hub does)")?
    } else {
        parts::url(&config.database.url, &config.database.url_file, "database.url")?
    };
    let db = Database::new(app, 2);
    db.check().await?;
    let dirs = if options.heads.is_empty() { vec![heads_dir(config)] } else { options.heads.clone() };
    let keys = hub_keys(config, &options.keys, &dirs)?;
    let request = Request { tenant: options.tenant.map(TenantId), dirs, keys, archived: options.archived };
    let verified = verify(&db, request, clock.now(), told()).await?;
    db.close().await;
    let text = if options.json { format!("{}\n", as_json(&verified)) } else { as_text(&verified) };
    Ok((text, verified.is_well()))
}

/// Without an address the database can only be the hub's own.
fn config_has_no_database(config: &Config) -> bool {
    config.database.url.reveal().is_empty() && config.database.url_file.get().is_none()
}

/// The hub's present key, if its file is here, with those before that it knows of; those that were named; and all that they lead to, by what
/// the hub's folder or those of heads have of successors.
fn hub_keys(config: &Config, named: &[String], heads: &[PathBuf]) -> Result<HubKeys> {
    let dir = Layout::new(&config.data.dir).keys_dir();
    let past = SigningPast::in_dir(&dir).context("the hub's signing keys of before")?;
    let mut keys = Vec::new();
    match SigningKey::public_in(&dir) {
        Ok((_, key)) => {
            keys.push(hub_key(&key));
            keys.extend(past.before);
        }
        Err(error) if named.is_empty() => {
            return Err(error).context("the hub's signing key; name its public half by --key");
        }
        Err(_) => {}
    }
    for text in named {
        let mut key = [0; 32];
        if hex::decode_to_slice(text, &mut key).is_err() {
            bail!("--key {text}: a public key has 64 hex digits");
        }
        keys.push(hub_key(&key));
    }
    let mut told = vec![past.successions];
    for dir in heads {
        told.push(successions(dir).with_context(|| format!("heads in {}", dir.display()))?);
    }
    // Once more for each: one may lead on from what a later one leads to. No more at a time than a device looks at.
    for _ in 0..told.len() {
        for some in told.iter().flat_map(|told| told.chunks(MAX_SUCCESSIONS)) {
            keys = trusted(&keys, some);
        }
    }
    let as_bytes = |key: HubKey| Some((key.key_id, key.public_key.0.try_into().ok()?));
    Ok(keys.into_iter().filter_map(as_bytes).collect())
}

fn hub_key(public: &[u8; 32]) -> HubKey {
    HubKey { key_id: signing_key_id(public), public_key: Bytes(public.to_vec()) }
}

/// Tells somebody who looks on how far it is.
fn told() -> impl FnMut(Progress) {
    let (watched, mut next) = (std::io::stderr().is_terminal(), TELL_EVERY);
    move |Progress { tenant, tenants, entries }| {
        if watched && entries >= next {
            next = entries + TELL_EVERY;
            let _ = writeln!(std::io::stderr(), "tenant {tenant} of {tenants}, {entries} entries");
        }
    }
}

fn as_json(verified: &Verified) -> Value {
    let finding = |finding: &Finding| json!({ "kind": finding.kind(), "position": finding.position(), "what": finding.to_string(), "advice": finding.advice() });
    let report = |report: &Report| {
        json!({
            "tenant": report.tenant.0, "ok": report.is_well(), "entries": report.entries, "covered": report.covered,
            "heads": report.heads, "erased_at": report.erased_at.map(wire_contract::Timestamp::from), "findings": report.findings.iter().map(finding).collect::<Vec<_>>(), "more": report.more,
        })
    };
    json!({
        "ok": verified.is_well(),
        "tenants": verified.reports.iter().map(report).collect::<Vec<_>>(),
        "bad_lines": verified.bad_lines.iter().map(finding).collect::<Vec<_>>(),
    })
}

fn as_text(verified: &Verified) -> String {
    let mut text = String::new();
    for report in &verified.reports {
        let verdict = if report.is_well() { "well" } else { "NOT AS IT WAS" };
        let Report { tenant, entries, covered, heads, erased_at, .. } = report;
        let left = erased_at.map_or_else(
            || format!("{entries} entries"),
            |at| format!("erased on {}, its receipt is there", at.date()),
        );
        let _ = writeln!(text, "tenant {tenant}: {verdict}; {left}, {heads} heads, signed up to {covered}");
        for finding in &report.findings {
            let _ = writeln!(text, "  {finding}\n    {}", finding.advice());
        }
        if report.more > 0 {
            let _ = writeln!(text, "  and {} more", report.more);
        }
    }
    for finding in &verified.bad_lines {
        let _ = writeln!(text, "{finding}\n  {}", finding.advice());
    }
    if verified.reports.is_empty() {
        text.push_str("there are no tenants\n");
    }
    text
}

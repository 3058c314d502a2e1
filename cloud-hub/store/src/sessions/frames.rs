//! What the frames of an open session gave. Templates come and go sealed; what is told of a look tells nobody from another.

use face_core::liveness::EyeLook;
use face_core::{HeadPose, PassiveScores};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::FromRow;

use super::super::{StoreError, TenantTx};
use hub_domain::ids::SessionId;
use hub_domain::session::life::Look;

/// One frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Its place in the attempts of the session, from 0.
    pub number: u32,
    /// Whether it can be compared.
    pub accepted: bool,
    /// How good it is, in [0, 1]; none when there was not exactly one face.
    pub quality: Option<f32>,
    /// Why not, the most helpful first: stable codes.
    pub reasons: Vec<String>,
    /// What it says of life.
    pub look: Option<Look>,
    /// The template's space and the sealed template, of one that was accepted.
    pub sealed: Option<(String, Vec<u8>)>,
}

#[derive(FromRow)]
struct FrameRow {
    number: i32,
    accepted: bool,
    quality: Option<f32>,
    reasons: Vec<String>,
    look: Option<Value>,
    space_id: Option<String>,
    sealed: Option<Vec<u8>>,
}

/// The stored form of a look.
#[derive(Serialize, Deserialize)]
struct Written {
    at_ms: u64,
    pose: [f32; 3],
    passive: Option<[f32; 2]>,
    glow: Option<f32>,
    eyes: Option<[f32; 2]>,
    /// In text: JSON's numbers have 53 bits in many a program.
    digest: Option<String>,
    prompt: Option<u16>,
}

fn written(look: &Look) -> Value {
    json!(Written {
        at_ms: look.at_ms,
        pose: [look.pose.yaw_deg, look.pose.pitch_deg, look.pose.roll_deg],
        passive: look.passive.map(|scores| [scores.boxed, scores.square]),
        glow: look.glow,
        eyes: look.eyes.map(|eyes| [eyes.aspect_ratio, eyes.closed]),
        digest: look.digest.map(|digest| digest.to_string()),
        prompt: look.prompt,
    })
}

fn read(value: Value) -> Result<Look, StoreError> {
    let unreadable = |_| StoreError::Unreadable { what: "session_frame.look", reason: "not as this program writes it" };
    let Written { at_ms, pose: [yaw_deg, pitch_deg, roll_deg], passive, glow, eyes, digest, prompt } =
        serde_json::from_value(value).map_err(unreadable)?;
    Ok(Look {
        at_ms,
        pose: HeadPose { yaw_deg, pitch_deg, roll_deg },
        passive: passive.map(|[boxed, square]| PassiveScores { boxed, square }),
        glow,
        eyes: eyes.map(|[aspect_ratio, closed]| EyeLook { aspect_ratio, closed }),
        digest: digest.and_then(|digest| digest.parse().ok()),
        prompt,
    })
}

/// The frames of the present attempt, in the order in which they were taken.
pub async fn all(tx: &mut TenantTx, session: SessionId) -> Result<Vec<Frame>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<FrameRow> = sqlx::query_as(
        "SELECT number, accepted, quality, reasons, look, space_id, sealed FROM session_frame
         WHERE tenant_id = $1 AND session_id = $2 ORDER BY number",
    )
    .bind(tenant)
    .bind(session.0)
    .fetch_all(tx.conn())
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Frame {
                number: row.number.unsigned_abs(),
                accepted: row.accepted,
                quality: row.quality,
                reasons: row.reasons,
                look: row.look.map(read).transpose()?,
                sealed: row.space_id.zip(row.sealed),
            })
        })
        .collect()
}

/// Adds frames.
pub async fn add(tx: &mut TenantTx, session: SessionId, frames: &[Frame]) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    for frame in frames {
        sqlx::query(
            "INSERT INTO session_frame (tenant_id, session_id, number, accepted, quality, reasons, look, space_id, sealed)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(tenant)
        .bind(session.0)
        .bind(i32::try_from(frame.number).unwrap_or(i32::MAX))
        .bind(frame.accepted)
        .bind(frame.quality)
        .bind(&frame.reasons)
        .bind(frame.look.as_ref().map(written))
        .bind(frame.sealed.as_ref().map(|(space, _)| space))
        .bind(frame.sealed.as_ref().map(|(_, sealed)| sealed))
        .execute(tx.conn())
        .await?;
    }
    Ok(())
}

/// Removes all of them.
pub async fn remove(tx: &mut TenantTx, session: SessionId) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("DELETE FROM session_frame WHERE tenant_id = $1 AND session_id = $2")
        .bind(tenant)
        .bind(session.0)
        .execute(tx.conn())
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_read_as_it_was_written() {
        let look = Look {
            at_ms: 1_234,
            pose: HeadPose { yaw_deg: 1.5, pitch_deg: -8.5, roll_deg: 0.25 },
            passive: Some(PassiveScores { boxed: 0.5, square: 0.75 }),
            glow: Some(1.0),
            eyes: Some(EyeLook { aspect_ratio: 0.3, closed: 0.1 }),
            digest: Some(u64::MAX - 1),
            prompt: Some(2),
        };
        assert_eq!(read(written(&look)).unwrap(), look);
        let bare = Look { passive: None, glow: None, eyes: None, digest: None, prompt: None, ..look };
        assert_eq!(read(written(&bare)).unwrap(), bare);
        assert!(read(json!({ "at_ms": -1 })).is_err());
    }
}

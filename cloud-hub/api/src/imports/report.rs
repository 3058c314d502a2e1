//! What an import says of itself, line by line.

use axum::body::Bytes;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;
use wire_contract::Code;

use hub_recognition::enroller::Photograph;

/// What became of a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Created,
    Updated,
    Unchanged,
    Skipped,
    Refused,
}

/// What became of their photographs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fate {
    /// They are a template now.
    Enrolled,
    /// A template was made of the same photographs before.
    Unchanged,
    Refused,
}

/// What came of one row.
#[derive(Debug, Serialize)]
pub(super) struct RowReport {
    #[serde(rename = "type")]
    kind: &'static str,
    line: u64,
    external_id: Option<String>,
    pub(super) result: Outcome,
    /// Whom it is about; none for whoever would be made, or was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    person_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) enrolment: Option<EnrolmentReport>,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Value>,
}

impl RowReport {
    pub(super) fn of(line: u64, external_id: Option<String>, result: Outcome, person_id: Option<Uuid>) -> Self {
        Self { kind: "row", line, external_id, result, person_id, enrolment: None, problem: None }
    }

    pub(super) fn refused(line: u64, external_id: Option<String>, problem: Value) -> Self {
        Self { problem: Some(problem), ..Self::of(line, external_id, Outcome::Refused, None) }
    }
}

/// What came of a row's photographs.
#[derive(Debug, Serialize)]
pub(super) struct EnrolmentReport {
    pub(super) result: Fate,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) template_id: Option<Uuid>,
    pub(super) photographs: Vec<PhotographReport>,
    /// Another person who looks the same, and was allowed to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) duplicate_allowed: Option<Value>,
    /// Why they were refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<Value>,
}

/// What came of one photograph.
#[derive(Debug, Serialize)]
pub(super) struct PhotographReport {
    file: String,
    accepted: bool,
    quality: Option<f32>,
    reasons: Vec<Code>,
}

/// Each photograph's fate, by its name.
pub(super) fn fates(names: &[String], fates: Vec<Photograph>) -> Vec<PhotographReport> {
    fates
        .into_iter()
        .map(|fate| PhotographReport {
            file: names.get(fate.index).cloned().unwrap_or_default(),
            accepted: fate.accepted,
            quality: fate.quality,
            reasons: fate.reasons,
        })
        .collect()
}

/// How many of what.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Counts {
    /// Rows that were worked at.
    rows: u64,
    created: u64,
    updated: u64,
    unchanged: u64,
    skipped: u64,
    refused: u64,
    /// Templates that were made.
    enrolled: u64,
    /// Photographs that were enrolled before.
    enrolled_before: u64,
    /// People whose photographs were refused.
    photographs_refused: u64,
}

impl Counts {
    pub(super) fn add(&mut self, row: &RowReport) {
        self.rows += 1;
        *match row.result {
            Outcome::Created => &mut self.created,
            Outcome::Updated => &mut self.updated,
            Outcome::Unchanged => &mut self.unchanged,
            Outcome::Skipped => &mut self.skipped,
            Outcome::Refused => &mut self.refused,
        } += 1;
        if let Some(enrolment) = &row.enrolment {
            *match enrolment.result {
                Fate::Enrolled => &mut self.enrolled,
                Fate::Unchanged => &mut self.enrolled_before,
                Fate::Refused => &mut self.photographs_refused,
            } += 1;
        }
    }

    pub(super) fn told(&self) -> Value {
        json!(self)
    }
}

/// One line.
pub(super) fn line(value: &impl Serialize) -> Bytes {
    let mut line = serde_json::to_vec(value).expect("a report of plain structs is JSON");
    line.push(b'\n');
    Bytes::from(line)
}

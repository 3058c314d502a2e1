//! One row: who it is about, and what becomes of them.

use serde_json::{Map, Value};
use wire_contract::Code;

use super::report::{Outcome, RowReport};
use super::run::{Archive, Import};
use super::{OnExisting, run};
use crate::body;
use crate::people::{NewPerson, PersonChanges};
use crate::problem::ApiError;
use hub_domain::ids::PersonId;
use hub_domain::people::Profile;
use hub_roster::Row;
use hub_store::people::Person;

impl Import {
    /// Makes or changes the person of a row, then enrols their photographs. An error is of the row, which changed nothing.
    pub(super) async fn person(&self, row: Row, before: Option<u64>, archive: &Archive) -> Result<RowReport, ApiError> {
        let external_id = run::external_id(&row).map(str::to_owned);
        let Row { line, fields, photographs } = row;
        let fields = fields.map_err(|error| ApiError::because(Code::InvalidRequest, error.to_string()))?;
        if let Some(before) = before {
            let detail = format!("line {before} is about the same external_id");
            return Err(ApiError::because(Code::Conflict, detail));
        }
        self.check_photographs(&photographs, archive)?;
        let known = match &external_id {
            Some(id) => self.api.custody.person_with(self.importer.tenant, id.clone()).await?,
            None => None,
        };
        let (outcome, person) = match known {
            None => self.create(fields).await?,
            Some((person, _)) if self.query.on_existing == OnExisting::Skip => {
                return Ok(RowReport::of(line, external_id, Outcome::Skipped, Some(person.id.0)));
            }
            Some(_) if self.query.on_existing == OnExisting::Refuse => {
                return Err(ApiError::because(Code::Conflict, "a person with this external_id is there already"));
            }
            Some((person, profile)) => self.update(fields, person, profile).await?,
        };
        let mut report = RowReport::of(line, external_id, outcome, person.map(|person| person.0));
        if !photographs.is_empty() {
            report.enrolment = Some(self.photographs(person, photographs, archive).await?);
        }
        Ok(report)
    }

    /// Somebody new; none in a dry run.
    async fn create(&self, fields: Map<String, Value>) -> Result<(Outcome, Option<PersonId>), ApiError> {
        let (profile, sites) = body::parse::<NewPerson>(Value::Object(fields))?.checked()?;
        if self.query.dry_run {
            let mut room = self.room.lock();
            room.people = match room.people {
                Some(0) => {
                    let detail = "this tenant would have more people than it may have";
                    return Err(ApiError::because(Code::QuotaReached, detail));
                }
                left => left.map(|left| left - 1),
            };
            return Ok((Outcome::Created, None));
        }
        let id = PersonId(self.api.clock.new_id());
        self.api.custody.create_person(self.importer.tenant, id, profile, sites, &self.importer.actor).await?;
        Ok((Outcome::Created, Some(id)))
    }

    /// Somebody who is there already. Where they are known was said when they were made.
    async fn update(
        &self,
        mut fields: Map<String, Value>,
        person: Person,
        profile: Profile,
    ) -> Result<(Outcome, Option<PersonId>), ApiError> {
        fields.remove("site_ids");
        let changes: PersonChanges = body::parse(Value::Object(fields))?;
        changes.check()?;
        let id = person.id;
        let changed = if self.query.dry_run {
            changes.apply(profile.clone()) != profile
        } else {
            let (tenant, actor) = (self.importer.tenant, &self.importer.actor);
            let change = self.api.custody.change_person(tenant, id, None, |profile| changes.apply(profile), actor);
            change.await?.0.revision != person.revision
        };
        Ok((if changed { Outcome::Updated } else { Outcome::Unchanged }, Some(id)))
    }
}

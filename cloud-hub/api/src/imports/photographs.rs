//! The photographs of one row, enrolled as a request with them would be.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use serde_json::json;
use wire_contract::{Code, Problem};

use super::report::{self, EnrolmentReport, Fate, PhotographReport};
use super::run::{Archive, Import};
use crate::MAX_FORM_BYTES;
use crate::enrolments;
use crate::problem::ApiError;
use hub_domain::ids::PersonId;
use hub_keys::{Enrolment, Origin, Photographs};
use hub_recognition::enroller::{Place, Refusal};
use hub_roster::PhotographError;
use hub_store::audit;

/// Between two tries to get a place among enrolments.
const TRY_AGAIN: Duration = Duration::from_millis(100);

impl Import {
    /// What can be said before anything of the row is done.
    pub(super) fn check_photographs(&self, names: &[String], archive: &Archive) -> Result<(), ApiError> {
        if names.is_empty() {
            return Ok(());
        }
        let most = self.api.settings.enrolment.max_photos;
        if names.len() > most {
            let message = format!("names more than {most} photographs");
            return Err(ApiError::field("/photos", Code::InvalidField, message));
        }
        let Some(archive) = archive else {
            let message = "names photographs, which come in a ZIP with the list: this is a list alone";
            return Err(ApiError::field("/photos", Code::InvalidField, message));
        };
        let archive = archive.lock();
        let missing = names.iter().enumerate().filter(|(_, name)| !archive.has(name));
        let missing: Vec<(usize, &String)> = missing.collect();
        if missing.is_empty() {
            return Ok(());
        }
        let problem = missing.into_iter().fold(Problem::of(Code::MissingField), |problem, (number, name)| {
            let message = PhotographError::Missing { name: name.chars().take(100).collect() }.to_string();
            problem.field(format!("/photos/{number}"), Code::MissingField, message)
        });
        Err(problem.into())
    }

    /// Enrols them. What is wrong with them is said in the report, for the person is made or changed by now; an error is of the
    /// import.
    pub(super) async fn photographs(
        &self,
        person: Option<PersonId>,
        names: Vec<String>,
        archive: &Archive,
    ) -> Result<EnrolmentReport, ApiError> {
        let refused = |problem: &ApiError, photographs| EnrolmentReport {
            result: Fate::Refused,
            template_id: None,
            photographs,
            duplicate_allowed: None,
            problem: Some(problem.told()),
        };
        let mut fates = Vec::new();
        match self.enrol(person, &names, archive, &mut fates).await {
            Ok(report) => Ok(report),
            Err(error) if matches!(error.code(), Code::Unavailable | Code::Timeout) => Err(error),
            Err(error) => {
                if let Some(person) = person.filter(|_| !self.query.dry_run) {
                    self.note_refusal(person, error.code()).await?;
                }
                Ok(refused(&error, fates))
            }
        }
    }

    async fn enrol(
        &self,
        person: Option<PersonId>,
        names: &[String],
        archive: &Archive,
        fates: &mut Vec<PhotographReport>,
    ) -> Result<EnrolmentReport, ApiError> {
        let tenant = self.importer.tenant;
        // So many photographs are in memory, whatever the number of rows.
        let _turn = self.with_photographs.acquire().await.map_err(|error| ApiError::internal(&error))?;
        let photographs = self.read(names, archive).await?;
        let mark = Photographs::of(photographs.clone()).await?;
        let mut report = EnrolmentReport {
            result: Fate::Unchanged,
            template_id: None,
            photographs: Vec::new(),
            duplicate_allowed: None,
            problem: None,
        };
        if let (Some(person), Some((space, _))) = (person, self.api.enroller.space())
            && let Some(template) = self.api.custody.template_made_of(tenant, person, space.id, mark.clone()).await?
        {
            report.template_id = Some(template.0);
            return Ok(report);
        }
        let place = self.place().await;
        let template = match self.api.enroller.enrol(place, photographs).await {
            Ok(template) => template,
            Err(Refusal::Photographs(code, judged)) => {
                *fates = report::fates(names, judged);
                return Err(ApiError::of(code));
            }
            Err(refusal) => return Err(enrolments::refused(refusal)),
        };
        *fates = report::fates(names, template.photographs.clone());
        let sameness = enrolments::sameness(&template, self.query.allow_duplicate);
        let actor = &self.importer.actor;
        let duplicate = match person.filter(|_| !self.query.dry_run) {
            Some(person) => {
                let wanted = (enrolments::new_template(&template, Some(mark)), sameness);
                match self.api.custody.enrol_unless_known(tenant, person, Origin::Import, wanted, actor).await? {
                    Enrolment::Known(other) => return Err(enrolments::is_duplicate(&other)),
                    Enrolment::Made(made, duplicate) => {
                        report.template_id = Some(made.0);
                        duplicate
                    }
                }
            }
            None => {
                // Whoever would only be made goes by the import's id.
                let person = person.unwrap_or(PersonId(self.id));
                let found = self.api.custody.duplicate(tenant, person, sameness, actor).await?;
                if let Some(other) = found.filter(|_| !self.query.allow_duplicate) {
                    return Err(enrolments::is_duplicate(&other));
                }
                if self.query.dry_run {
                    self.take_room()?;
                }
                found
            }
        };
        report.duplicate_allowed = duplicate.as_ref().map(hub_keys::duplicate_told);
        report.result = Fate::Enrolled;
        report.photographs = std::mem::take(fates);
        Ok(report)
    }

    fn take_room(&self) -> Result<(), ApiError> {
        let mut room = self.room.lock();
        room.templates = match room.templates {
            Some(0) => {
                let detail = "this tenant would have more templates than it may have";
                return Err(ApiError::because(Code::QuotaReached, detail));
            }
            left => left.map(|left| left - 1),
        };
        Ok(())
    }

    async fn read(&self, names: &[String], archive: &Archive) -> Result<Vec<Bytes>, ApiError> {
        let (names, archive) = (names.to_vec(), archive.as_ref().map(Arc::clone));
        let read = tokio::task::spawn_blocking(move || {
            let Some(archive) = archive else { return Ok(Vec::new()) };
            let (mut photographs, mut total) = (Vec::new(), 0);
            for name in &names {
                let bytes = archive.lock().read(name)?;
                total += bytes.len();
                if total > MAX_FORM_BYTES {
                    let (name, most) = (String::from("the photographs of this row"), MAX_FORM_BYTES as u64);
                    return Err(PhotographError::TooLarge { name, most });
                }
                photographs.push(Bytes::from(bytes));
            }
            Ok(photographs)
        });
        read.await.map_err(|error| ApiError::internal(&error))?.map_err(|error| {
            let code = match &error {
                PhotographError::Missing { .. } => Code::MissingField,
                PhotographError::TooLarge { .. } | PhotographError::AllTooLarge { .. } => Code::PhotoTooLarge,
                PhotographError::Damaged { .. } => Code::PhotoUnreadable,
            };
            ApiError::because(code, error.to_string())
        })
    }

    /// A place among enrolments. Whoever enrols one person is told to come back; an import waits.
    async fn place(&self) -> Place {
        loop {
            match self.api.enroller.enter() {
                Ok(place) => return place,
                Err(_) => tokio::time::sleep(TRY_AGAIN).await,
            }
        }
    }

    async fn note_refusal(&self, person: PersonId, code: Code) -> Result<(), ApiError> {
        let (actor, import) = (self.importer.actor.clone(), self.id);
        let noted = self.api.db.tenant(self.importer.tenant, move |tx| {
            Box::pin(async move {
                let detail = json!({ "import": import, "code": code.as_str() });
                let (action, object_kind) = (audit::Action::TemplateRefuse, "person");
                let entry = audit::Entry { actor: &actor, action, object_kind, object_id: Some(person.0), detail };
                audit::write(tx, entry).await?;
                Ok::<_, ApiError>(())
            })
        });
        noted.await
    }
}

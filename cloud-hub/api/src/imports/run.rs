//! An import under way: rows in, lines out, an end for whatever reason.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use uuid::Uuid;
use wire_contract::Code;

use super::place::Place;
use super::report::{self, Counts, RowReport};
use super::{ImportQuery, Importer};
use crate::problem::ApiError;
use crate::state::Api;
use hub_domain::tenant::Resource;
use hub_roster::{Format, List, Photographs, Row};
use hub_store::{StoreError, audit, tenants};

/// Rows that are worked at together: their commits share the disk's one.
const TOGETHER: usize = 8;
/// Rows whose photographs are in memory at once, and wait for a worker of enrolments: others want them too.
const WITH_PHOTOGRAPHS: usize = 2;
/// Whoever reads nothing for so long has gone.
const UNREAD: Duration = Duration::from_secs(60);

/// An import under way.
pub(super) struct Import {
    pub(super) api: Arc<Api>,
    pub(super) importer: Importer,
    pub(super) query: ImportQuery,
    /// Its id, in reports and in the audit.
    pub(super) id: Uuid,
    /// How many people and templates there may still be: only counted when nothing is made.
    pub(super) room: Mutex<Room>,
    pub(super) with_photographs: Semaphore,
}

/// What the quotas leave; `None` is without end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) people: Option<u64>,
    pub(super) templates: Option<u64>,
}

/// The photographs of an import, one read at a time.
pub(super) type Archive = Option<Arc<Mutex<Photographs<File>>>>;

/// Why an import ends before its last row.
enum Cut {
    /// Nobody reads what comes of it.
    Unread,
    /// Told to the reader.
    Because(Cow<'static, str>),
}

impl Cut {
    const fn because(why: &'static str) -> Self {
        Self::Because(Cow::Borrowed(why))
    }
}

impl Import {
    /// Notes that it begins.
    pub(super) async fn begin(
        api: &Arc<Api>,
        importer: Importer,
        query: ImportQuery,
        format: Format,
        rows: u64,
    ) -> Result<Self, ApiError> {
        let id = api.clock.new_id();
        let detail = json!({
            "rows": rows, "format": format.as_str(), "dry_run": query.dry_run, "on_existing": query.on_existing.as_str(),
        });
        let actor = importer.actor.clone();
        let room = api.db.tenant(importer.tenant, move |tx| {
            Box::pin(async move {
                audit::write(tx, entry(&actor, audit::Action::PersonImport, id, detail)).await?;
                let agreement = tenants::get(tx).await?.agreement;
                let mut left = [None; 2];
                for (left, resource) in left.iter_mut().zip([Resource::People, Resource::Templates]) {
                    if let Some(quota) = agreement.quota(resource) {
                        *left = Some(quota.saturating_sub(tenants::count(tx, resource).await?));
                    }
                }
                let [people, templates] = left;
                Ok::<_, ApiError>(Room { people, templates })
            })
        });
        let room = Mutex::new(room.await?);
        let with_photographs = Semaphore::new(WITH_PHOTOGRAPHS);
        Ok(Self { api: Arc::clone(api), importer, query, id, room, with_photographs })
    }

    /// Works at every row, or at as many as it may.
    pub(super) async fn run(
        self,
        list: List<File>,
        photographs: Option<Photographs<File>>,
        lines: mpsc::Sender<Result<Bytes, io::Error>>,
        place: Place,
    ) {
        let mut counts = Counts::default();
        let archive: Archive = photographs.map(|photographs| Arc::new(Mutex::new(photographs)));
        let cut = self.rows(list, &archive, &lines, &mut counts).await.err();
        self.note_end(&counts, cut.as_ref()).await;
        // Whoever reads the last line may begin the next one.
        drop(place);
        let mut summary = counts.told();
        summary["type"] = json!("summary");
        summary["import_id"] = json!(self.id);
        summary["dry_run"] = json!(self.query.dry_run);
        summary["complete"] = json!(cut.is_none());
        if let Some(Cut::Because(why)) = cut {
            summary["reason"] = json!(why);
        }
        let _ = say(&lines, report::line(&summary)).await;
    }

    async fn rows(
        &self,
        mut list: List<File>,
        archive: &Archive,
        lines: &mpsc::Sender<Result<Bytes, io::Error>>,
        counts: &mut Counts,
    ) -> Result<(), Cut> {
        let begin = json!({
            "type": "begin", "import_id": self.id, "rows": list.count(), "dry_run": self.query.dry_run,
        });
        say(lines, report::line(&begin)).await?;
        let mut first_lines: HashMap<String, u64> = HashMap::new();
        loop {
            if self.api.stop.is_cancelled() {
                return Err(Cut::because("the hub stops: send the file once more"));
            }
            self.goes_on().await?;
            let read = tokio::task::spawn_blocking(move || list.some(TOGETHER).map(|rows| (list, rows)));
            let rows;
            (list, rows) = read.await.map_err(io::Error::other).flatten().map_err(|error| {
                tracing::error!(event = "import_unreadable", client_id = %self.importer.tenant, %error, "the file of an import cannot be read any more");
                Cut::because("the file cannot be read any more: the hub's log says why")
            })?;
            if rows.is_empty() {
                return Ok(());
            }
            let work: Vec<_> = rows
                .into_iter()
                .map(|row| {
                    let before = twice(&mut first_lines, &row);
                    self.row(row, before, archive)
                })
                .collect();
            // All of them to their ends: a row is never left half done, and what was done is told before the import ends for another.
            let (done, cut) = apart(futures::future::join_all(work).await);
            done.iter().for_each(|row| counts.add(row));
            for row in &done {
                say(lines, report::line(row)).await?;
            }
            if let Some(cut) = cut {
                return Err(cut);
            }
        }
    }

    /// Whether whoever began it may go on.
    async fn goes_on(&self) -> Result<(), Cut> {
        let Some(caller) = self.importer.caller else { return Ok(()) };
        let now = self.api.clock.now();
        let asked =
            self.api.db.tenant(self.importer.tenant, move |tx| Box::pin(async move { caller.goes_on(tx, now).await }));
        match asked.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Cut::because("the key or the log-in has ended")),
            Err(error) => Err(self.cut_by(&error.into())),
        }
    }

    async fn row(&self, row: Row, before: Option<u64>, archive: &Archive) -> Result<RowReport, Cut> {
        let (line, external_id) = (row.line, external_id(&row).map(str::to_owned));
        match self.person(row, before, archive).await {
            Ok(report) => Ok(report),
            Err(error) if matches!(error.code(), Code::Unavailable | Code::Timeout) => Err(self.cut_by(&error)),
            Err(error) => Ok(RowReport::refused(line, external_id, error.told())),
        }
    }

    /// What concerns every row that is still to come.
    fn cut_by(&self, error: &ApiError) -> Cut {
        tracing::warn!(event = "import_cut", client_id = %self.importer.tenant, code = %error.code(), "an import ends before its last row");
        let why = error.detail().unwrap_or("the database does not answer");
        Cut::Because(format!("{why}: send the file once more").into())
    }

    async fn note_end(&self, counts: &Counts, cut: Option<&Cut>) {
        let (id, actor, mut detail) = (self.id, self.importer.actor.clone(), counts.told());
        detail["complete"] = json!(cut.is_none());
        let noted = self.api.db.tenant(self.importer.tenant, move |tx| {
            Box::pin(async move { audit::write(tx, entry(&actor, audit::Action::PersonImported, id, detail)).await })
        });
        if let Err(error) = noted.await {
            let _: StoreError = error;
            tracing::error!(event = "import_end_not_noted", client_id = %self.importer.tenant, import = %id, "the end of an import is not in the audit");
        }
    }
}

fn entry(actor: &str, action: audit::Action, id: Uuid, detail: Value) -> audit::Entry<'_> {
    audit::Entry { actor, action, object_kind: "import", object_id: Some(id), detail }
}

/// What was done, in its order, and the first reason to end.
fn apart<T, E>(results: Vec<Result<T, E>>) -> (Vec<T>, Option<E>) {
    let (mut done, mut first) = (Vec::new(), None);
    for result in results {
        match result {
            Ok(one) => done.push(one),
            Err(error) => first = first.or(Some(error)),
        }
    }
    (done, first)
}

/// On which line somebody with the same external id was before. Two rows about one person contradict one another, or say nothing new.
fn twice(first_lines: &mut HashMap<String, u64>, row: &Row) -> Option<u64> {
    let id = external_id(row)?;
    if let Some(line) = first_lines.get(id) {
        return Some(*line);
    }
    first_lines.insert(id.to_owned(), row.line);
    None
}

pub(super) fn external_id(row: &Row) -> Option<&str> {
    row.fields.as_ref().ok()?.get("external_id")?.as_str()
}

async fn say(lines: &mpsc::Sender<Result<Bytes, io::Error>>, line: Bytes) -> Result<(), Cut> {
    match tokio::time::timeout(UNREAD, lines.send(Ok(line))).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(Cut::Unread),
    }
}

#[cfg(test)]
mod tests {
    use super::apart;

    #[test]
    fn rows_that_were_done_beside_one_that_ends_the_import_are_told() {
        assert_eq!(apart(vec![Ok(1), Err("away"), Ok(3), Err("still away")]), (vec![1, 3], Some("away")));
        assert_eq!(apart::<_, &str>(vec![Ok(1)]), (vec![1], None));
    }
}

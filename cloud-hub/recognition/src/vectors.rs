//! A gallery that is too large for the hub's memory, searched in the database.
//!
//! In: a probe. Out: what the index in memory would have found, with the same scores: vectors in the database propose, templates
//! are unsealed as they are needed, the nearest first, and scored as [`super::Warm`] scores. Nothing is kept from one search to
//! the next, so that whoever was deleted before a search began is found by none.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use face_core::clarity::MAX_INDULGENCE;
use face_core::gallery::{PersonId, Ranked};
use face_core::{Embedding, Space};
use tokio::sync::{Semaphore, SemaphorePermit};
use uuid::Uuid;

use super::comparisons::NotCompared;
use super::galleries::GalleryError;
use super::paths::SearchPath;
use super::warm::{Own, score};
use hub_domain::ids::{self, TemplateId, TenantId};
use hub_host::metrics::recognition as measured;
use hub_keys::{Custody, Row, Way};

/// Vectors that are asked for first. They cost next to nothing once all were looked at; of a million they are those that are more than
/// three deviations above the mean.
const FIRST: u32 = 1_000;
/// And how many times as many when those were not enough.
const DEEPER: u32 = 8;
/// Templates that are unsealed at once: seldom are more needed.
const UNSEALED: usize = 64;

/// By how much the cosine of two rotated vectors may be below that of the templates at stored precision: rotation, and sums in
/// another order, 1e-5 each; 18 bits a component, 9e-5.
const ROUNDED: f32 = 2e-4;

/// Searches at once. Each has a connection and a processor of the database for a tenth of a second and more.
const AT_ONCE: usize = 4;
/// And that wait for one of them.
const WAITING: usize = 64;

/// Who may search the database at the moment; all tenants together.
pub(super) struct Turns {
    places: Semaphore,
    at_once: Semaphore,
}

impl Default for Turns {
    fn default() -> Self {
        Self { places: Semaphore::new(AT_ONCE + WAITING), at_once: Semaphore::new(AT_ONCE) }
    }
}

impl Turns {
    async fn next(&self) -> Result<(SemaphorePermit<'_>, SemaphorePermit<'_>), NotCompared> {
        let place = self.places.try_acquire().map_err(|_| NotCompared::Busy)?;
        let turn = self.at_once.acquire().await.map_err(|_| NotCompared::Crashed)?;
        Ok((place, turn))
    }
}

/// One tenant's gallery of one space, in the database.
#[derive(Clone)]
pub struct Vectors {
    pub(super) custody: Custody,
    pub(super) turns: Arc<Turns>,
    pub(super) tenant: TenantId,
    pub(super) space: Space,
    pub(super) templates: usize,
}

impl Vectors {
    /// Compares a probe with one person alone: with their own templates, of which nobody else's is read.
    pub(super) async fn own(&self, person: PersonId, probe: &Embedding) -> Result<Own, GalleryError> {
        let person = ids::PersonId(person.0);
        let templates = self.custody.templates_of(self.tenant, &self.space, person).await?;
        let anchors = self.custody.anchors_of(self.tenant, &self.space, vec![person]).await?;
        let scores = |rows: &[Row]| rows.iter().map(|(_, row)| score(&row.1, probe)).collect::<Vec<_>>();
        Ok(Own::of(&scores(&templates), &scores(&anchors)))
    }

    /// How alike the probe is to the negative anchors of these people.
    pub(super) async fn anchors(&self, probe: &Embedding, of: &[Ranked]) -> Result<Vec<Ranked>, GalleryError> {
        let people = of.iter().map(|row| ids::PersonId(row.person.0)).collect();
        let anchors = self.custody.anchors_of(self.tenant, &self.space, people).await?;
        Ok(anchors.iter().map(|row| ranked(row, probe)).collect())
    }

    /// The nearest people, each by their best template, the nearest first; `limit` of them, if there are so many; among `only`
    /// these, if they are named.
    ///
    /// Exact where all vectors were looked at. Rotation keeps cosines, and a score is at most [`MAX_INDULGENCE`] above its cosine. So
    /// nobody whose vector is further away than *c* scores more than *c* and that; as soon as `limit` people do, they are the
    /// nearest, and each by their best template. Vectors come in the order of their cosines: templates are unsealed, and more
    /// vectors asked for, until this holds or there are no more. The second-best person, to whom the margin is measured, is found
    /// with a `limit` of two.
    ///
    /// The index may leave out somebody who is near. What it leads to is judged in the same way, and where it does not lead far enough
    /// for that, all vectors are looked at.
    pub(super) async fn nearest_people(
        &self,
        probe: &Embedding,
        limit: usize,
        only: Option<Vec<Uuid>>,
    ) -> Result<Vec<Ranked>, GalleryError> {
        let _turn = self.turns.next().await?;
        let (mut best, mut scored) = (Best::default(), HashSet::new());
        // The index knows nothing of people: among few of them it would be followed to its end.
        let (mut k, mut by_index, only) = (FIRST, only.is_none(), only.map(Arc::new));
        loop {
            let (way, mut near) =
                self.custody.near(self.tenant, &self.space, probe, (only.clone(), by_index), k).await?;
            measured::searched(SearchPath::from(way).as_str());
            let (furthest, all) = (near.last().map(|last| last.similarity), near.len() < k as usize);
            near.retain(|near| scored.insert(near.template));
            for next in near.chunks(UNSEALED) {
                if best.are_nearest(limit, next[0].similarity) {
                    return Ok(best.people(limit));
                }
                let ids: Vec<TemplateId> = next.iter().map(|near| near.template).collect();
                for row in self.custody.templates_with(self.tenant, &self.space, ids).await? {
                    best.take(ranked(&row, probe));
                }
            }
            let decided = furthest.is_some_and(|cosine| best.are_nearest(limit, cosine));
            match way {
                _ if decided => return Ok(best.people(limit)),
                Way::Scan if all => return Ok(best.people(limit)),
                Way::Scan => k = k.saturating_mul(DEEPER),
                Way::Index => by_index = false,
            }
        }
    }
}

fn ranked((template, row): &Row, probe: &Embedding) -> Ranked {
    Ranked { person: row.0, template: *template, similarity: score(&row.1, probe) }
}

/// Each person's best template so far.
#[derive(Default)]
struct Best(HashMap<PersonId, Ranked>);

impl Best {
    fn take(&mut self, row: Ranked) {
        let best = self.0.entry(row.person).or_insert(row);
        if order(&row, best).is_lt() {
            *best = row;
        }
    }

    /// Whether nobody whose vector is at most as near as this can come before the `limit`-th of them.
    fn are_nearest(&self, limit: usize, cosine: f32) -> bool {
        let beyond = cosine + MAX_INDULGENCE + ROUNDED;
        self.0.values().filter(|row| row.similarity.value() > beyond).count() >= limit
    }

    fn people(self, limit: usize) -> Vec<Ranked> {
        let mut people: Vec<Ranked> = self.0.into_values().collect();
        people.sort_unstable_by(order);
        people.truncate(limit);
        people
    }
}

/// The best first, equal ones by id: as an index in memory has them.
fn order(a: &Ranked, b: &Ranked) -> std::cmp::Ordering {
    b.similarity.value().total_cmp(&a.similarity.value()).then(a.template.cmp(&b.template))
}

#[cfg(test)]
mod tests {
    use face_core::Similarity;
    use face_core::gallery::TemplateId as Template;

    use super::*;

    fn row(person: u128, template: u128, score: f32) -> Ranked {
        Ranked {
            person: PersonId(Uuid::from_u128(person)),
            template: Template(Uuid::from_u128(template)),
            similarity: Similarity::new(score),
        }
    }

    #[test]
    fn people_are_the_nearest_once_nobody_further_away_can_score_as_much() {
        let mut best = Best::default();
        for row in [row(1, 1, 0.7), row(1, 2, 0.75), row(2, 3, 0.3)] {
            best.take(row);
        }
        assert!(best.are_nearest(1, 0.7) && !best.are_nearest(1, 0.72), "indulged, 0.72 may score 0.758");
        assert!(best.are_nearest(2, 0.26) && !best.are_nearest(2, 0.27));
        assert!(!best.are_nearest(3, -1.0), "there is no third");
        assert_eq!(best.people(5), [row(1, 2, 0.75), row(2, 3, 0.3)]);
    }

    #[test]
    fn equal_scores_are_in_the_order_of_ids_whichever_comes_first() {
        for rows in [[row(1, 9, 0.5), row(2, 4, 0.5), row(1, 3, 0.5)], [row(1, 3, 0.5), row(2, 4, 0.5), row(1, 9, 0.5)]]
        {
            let mut best = Best::default();
            rows.into_iter().for_each(|row| best.take(row));
            assert_eq!(best.people(2), [row(1, 3, 0.5), row(2, 4, 0.5)]);
        }
    }

    #[tokio::test]
    async fn whoever_finds_no_place_is_told_at_once() {
        let turns = Turns::default();
        let _others = turns.places.acquire_many(u32::try_from(AT_ONCE + WAITING - 1).unwrap()).await.unwrap();
        let mine = turns.next().await.unwrap();
        assert_eq!(turns.next().await.err(), Some(NotCompared::Busy));
        drop(mine);
        assert!(turns.next().await.is_ok());
    }
}

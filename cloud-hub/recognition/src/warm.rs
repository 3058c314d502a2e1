//! One tenant's gallery of one space, unsealed and ready to search.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use face_core::embedding::dot;
use face_core::gallery::{PersonId, Ranked, TemplateId};
use face_core::{DIM, Embedding, Gallery as _, Similarity};
use face_index::{BuildError, Engine, Snapshot, at_stored_precision};
use tokio::time::Instant;

/// Templates and anchors as they were at a stamp, and the index over them.
pub struct Warm {
    /// The changes that are in it.
    pub(super) stamp: i64,
    pub(super) rows: Rows,
    /// When all of it was last read, not only what had changed.
    pub(super) read: Instant,
    /// When it took its place.
    pub(super) made: Instant,
    index: Snapshot,
    of_person: HashMap<PersonId, Vec<TemplateId>>,
    anchors_of_person: HashMap<PersonId, Vec<TemplateId>>,
}

/// One person's own templates and anchors compared with a probe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Own {
    /// The best of the templates.
    pub best: Option<f32>,
    /// The nearest of the anchors.
    pub anchor: Option<f32>,
    /// How many templates there are.
    pub templates: usize,
}

impl Own {
    /// Of the scores of a person's templates and anchors.
    pub(super) fn of(templates: &[Similarity], anchors: &[Similarity]) -> Self {
        let best = |scores: &[Similarity]| scores.iter().map(|score| score.value()).max_by(f32::total_cmp);
        Self { best: best(templates), anchor: best(anchors), templates: templates.len() }
    }
}

/// How alike a template and a probe are, to the bit as the index says it.
pub(super) fn score(template: &Embedding, probe: &Embedding) -> Similarity {
    let cosine = dot(&at_stored_precision(template), probe.as_slice());
    Similarity::docked(cosine, probe.handicap(), template.handicap())
}

/// Whose it is, and the vector; shared with the gallery of before, of which most stays.
pub(super) type Row = Arc<(PersonId, Embedding)>;

/// Unsealed templates and anchors, by their ids.
#[derive(Clone, Default)]
pub(super) struct Rows {
    pub(super) templates: HashMap<TemplateId, Row>,
    pub(super) anchors: HashMap<TemplateId, Row>,
}

/// A row, with its two counts of who has it.
const ROW: usize = size_of::<(PersonId, Embedding)>() + 2 * size_of::<usize>();
/// Its place among others, of which an eighth is free at least.
const PLACE: usize = size_of::<(TemplateId, Row)>();
/// What the index keeps of it.
const INDEXED: usize = DIM + DIM * 5 / 4 + 3 * size_of::<f32>();

impl Rows {
    fn in_order(rows: &HashMap<TemplateId, Row>) -> Vec<(PersonId, TemplateId, Embedding)> {
        let mut rows: Vec<_> = rows.iter().map(|(id, row)| (row.0, *id, row.1.clone())).collect();
        // By id: equal scores are decided alike by every hub.
        rows.sort_unstable_by_key(|(_, id, _)| *id);
        rows
    }
}

fn by_person(rows: &HashMap<TemplateId, Row>) -> HashMap<PersonId, Vec<TemplateId>> {
    let mut people: HashMap<PersonId, Vec<TemplateId>> = HashMap::new();
    for (id, row) in rows {
        people.entry(row.0).or_default().push(*id);
    }
    people
}

impl Warm {
    pub(super) fn build(stamp: i64, rows: Rows, read: Instant) -> Result<Self, BuildError> {
        let index = Snapshot::build(Rows::in_order(&rows.templates), Engine::Auto)?;
        let index = index.with_anchors(Rows::in_order(&rows.anchors));
        let (of_person, anchors_of_person) = (by_person(&rows.templates), by_person(&rows.anchors));
        Ok(Self { stamp, rows, read, made: Instant::now(), index, of_person, anchors_of_person })
    }

    /// Compares a probe with one person alone, scored as a search scores.
    #[must_use]
    pub fn own(&self, person: PersonId, probe: &Embedding) -> Own {
        let scores = |of: &HashMap<PersonId, Vec<TemplateId>>, rows: &HashMap<TemplateId, Row>| {
            let ids = of.get(&person).into_iter().flatten();
            ids.filter_map(|id| rows.get(id)).map(|row| score(&row.1, probe)).collect::<Vec<_>>()
        };
        let templates = scores(&self.of_person, &self.rows.templates);
        Own::of(&templates, &scores(&self.anchors_of_person, &self.rows.anchors))
    }

    /// The index.
    #[must_use]
    pub fn index(&self) -> &Snapshot {
        &self.index
    }

    /// The nearest people that are wanted, each by their best template, the nearest first; `limit` of them, if there are so many.
    #[must_use]
    pub fn nearest_people(&self, probe: &Embedding, limit: usize, wanted: impl Fn(PersonId) -> bool) -> Vec<Ranked> {
        if limit == 0 {
            return Vec::new();
        }
        // One person may have many templates, and be nearest with all of them: the search is deepened until there are enough.
        let mut depth = limit.saturating_mul(4).max(16);
        loop {
            let mut seen = HashSet::new();
            let rows = self.index.search(probe, depth).into_iter();
            let best: Vec<Ranked> =
                rows.filter(|row| wanted(row.person) && seen.insert(row.person)).take(limit).collect();
            if best.len() == limit || depth >= self.templates() {
                return best;
            }
            depth = depth.saturating_mul(4);
        }
    }

    /// Templates in it.
    #[must_use]
    pub fn templates(&self) -> usize {
        self.index.len()
    }

    /// What it takes of the memory, near enough.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let rows = |rows: &HashMap<TemplateId, Row>| rows.len() * ROW + rows.capacity() * 8 / 7 * PLACE;
        self.index.vector_bytes() + rows(&self.rows.templates) + rows(&self.rows.anchors)
    }

    /// What so many templates and anchors would take, before they are read.
    pub(super) fn bytes_of(templates: usize, anchors: usize) -> usize {
        let rows = |n: usize| n.saturating_mul(ROW) + (n.saturating_mul(8) / 7).next_power_of_two() * PLACE;
        templates.saturating_mul(INDEXED) + rows(templates) + rows(anchors)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use face_core::DIM;
    use uuid::Uuid;

    use super::*;

    /// A probe along one axis.
    pub(crate) fn axis(number: usize) -> Embedding {
        Embedding::from_raw(std::array::from_fn(|i| f32::from(u8::from(i == number)))).unwrap()
    }

    /// So many people, each somewhere between two axes.
    pub(crate) fn gallery(people: usize) -> Arc<Warm> {
        let between = |number: usize| {
            let (axis, round) = (number % (DIM - 1), (number / (DIM - 1)) as f32);
            let slant = |i: usize| if i == axis + 1 { 0.3 + 1e-3 * round } else { f32::from(u8::from(i == axis)) };
            Embedding::from_raw(std::array::from_fn(slant)).unwrap()
        };
        let row = |number: usize| {
            let id = number as u128 + 1;
            (TemplateId(Uuid::from_u128(id)), Arc::new((person(id), between(number))))
        };
        let rows = Rows { templates: (0..people).map(row).collect(), anchors: HashMap::new() };
        Arc::new(Warm::build(1, rows, Instant::now()).unwrap())
    }

    fn person(number: u128) -> PersonId {
        PersonId(Uuid::from_u128(number))
    }

    /// One person with many templates, and ten more with one each, further and further away.
    fn warm() -> Warm {
        let towards = |slant: f32| {
            let mut raw = [0.0; DIM];
            (raw[0], raw[1]) = (1.0, slant);
            Embedding::from_raw(raw).unwrap()
        };
        let many = (0..60).map(|number| (1, towards(0.001 * number as f32)));
        let others = (2..12).map(|number| (number, towards(0.2 * number as f32)));
        let rows = many.chain(others).enumerate();
        let templates = rows.map(|(id, (who, embedding))| {
            (TemplateId(Uuid::from_u128(id as u128)), Arc::new((person(who), embedding)))
        });
        let rows = Rows { templates: templates.collect(), anchors: HashMap::new() };
        Warm::build(1, rows, Instant::now()).unwrap()
    }

    #[test]
    fn what_a_gallery_takes_is_known_before_it_is_read() {
        for people in [1, 100, 3_000] {
            let (told, taken) = (Warm::bytes_of(people, 0), gallery(people).bytes());
            assert!(told >= taken * 9 / 10 && told <= taken * 11 / 10, "{people}: {told} were told, {taken} are taken");
        }
        assert!(Warm::bytes_of(100, 10) > Warm::bytes_of(100, 0), "anchors take room too");
        assert!((300..400).contains(&(Warm::bytes_of(100_000, 0) >> 20)), "the settings' example");
    }

    #[test]
    fn nobody_is_hidden_behind_another_ones_many_templates() {
        let (warm, probe) = (warm(), axis(0));
        let people = |limit, wanted: &dyn Fn(PersonId) -> bool| -> Vec<PersonId> {
            warm.nearest_people(&probe, limit, wanted).iter().map(|row| row.person).collect()
        };
        assert_eq!(people(3, &|_| true), [person(1), person(2), person(3)]);
        assert_eq!(people(2, &|who| who.0.as_u128() > 9), [person(10), person(11)]);
        assert_eq!(people(50, &|_| true).len(), 11, "all there are");
        assert_eq!(people(0, &|_| true), []);
    }
}

//! Who is enrolled, seen from the decision: a snapshot that ranks templates and knows its people.
//!
//! Deliberately absent: how a snapshot is stored, synchronised or searched (`edge-store`, `gallery-log`, `face-index`).

use uuid::Uuid;

use crate::embedding::{Embedding, Similarity};

/// A person, as the hub names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersonId(pub Uuid);

/// One template of a person; a person may have several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TemplateId(pub Uuid);

/// One row of a search result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranked {
    /// Whose template it is.
    pub person: PersonId,
    /// Which template.
    pub template: TemplateId,
    /// How alike probe and template are.
    pub similarity: Similarity,
}

/// An immutable snapshot of a gallery. Swapping to a newer one is the program's business.
pub trait Gallery: Send + Sync {
    /// The `k` most similar templates, best first; ties keep gallery order. Must agree with [`crate::embedding::rank`].
    fn search(&self, probe: &Embedding, k: usize) -> Vec<Ranked>;

    /// How alike the probe is to the negative anchors of the people among `ranked`: pictures of which somebody said that they
    /// do not show that person. In no particular order; `template` names the anchor. Scored as [`Gallery::search`] scores
    /// templates, so that one picture that is both gives two equal rows.
    fn anchors(&self, probe: &Embedding, ranked: &[Ranked]) -> Vec<Ranked>;

    /// Whether the person is in this snapshot. Asked again at the relay call.
    fn contains(&self, person: PersonId) -> bool;

    /// Number of templates.
    fn len(&self) -> usize;

    /// Whether there is no template at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Enough rows for an open-set decision: the search is deepened until the second-best *person* is among them, or
    /// every row is. Without this a person with many templates would hide the rival that the margin is measured to.
    fn candidates(&self, probe: &Embedding) -> Vec<Ranked> {
        let mut k = FIRST_DEPTH;
        loop {
            let rows = self.search(probe, k);
            if is_deep_enough(&rows, k, self.len()) {
                return rows;
            }
            k = k.saturating_mul(4);
        }
    }
}

/// Rows asked for first: people have at most ten enrolment photographs, so one search is nearly always enough.
pub const FIRST_DEPTH: usize = 16;

/// Whether rows decide: the second-best person is among them, or every row is. `k` of the gallery's `len` were asked for.
#[must_use]
pub fn is_deep_enough(rows: &[Ranked], k: usize, len: usize) -> bool {
    let rival = rows.first().is_some_and(|best| rows.iter().any(|row| row.person != best.person));
    rival || rows.len() < k || k >= len
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedding::{DIM, rank};

    struct Rows(Vec<(PersonId, Embedding)>);

    impl Gallery for Rows {
        fn search(&self, probe: &Embedding, k: usize) -> Vec<Ranked> {
            let embeddings: Vec<Embedding> = self.0.iter().map(|row| row.1.clone()).collect();
            rank(probe, &embeddings, k)
                .into_iter()
                .map(|(index, cosine)| Ranked {
                    person: self.0[index].0,
                    template: TemplateId(Uuid::from_u128(index as u128)),
                    similarity: Similarity::new(cosine),
                })
                .collect()
        }

        fn anchors(&self, _: &Embedding, _: &[Ranked]) -> Vec<Ranked> {
            Vec::new()
        }

        fn contains(&self, person: PersonId) -> bool {
            self.0.iter().any(|row| row.0 == person)
        }

        fn len(&self) -> usize {
            self.0.len()
        }
    }

    fn towards(axis: usize, slant: f32) -> Embedding {
        let mut raw = [0.0; DIM];
        raw[axis] = 1.0;
        raw[axis + 1] = slant;
        Embedding::from_raw(raw).unwrap()
    }

    #[test]
    fn the_rival_is_found_behind_forty_templates_of_one_person() {
        let many = PersonId(Uuid::from_u128(1));
        let rival = PersonId(Uuid::from_u128(2));
        let mut rows: Vec<_> = (0..40).map(|i| (many, towards(0, i as f32 * 0.01))).collect();
        rows.push((rival, towards(1, 0.0)));
        let found = Rows(rows).candidates(&towards(0, 0.0));
        assert!(found.iter().any(|row| row.person == rival));
    }

    #[test]
    fn a_gallery_of_one_person_ends_the_search() {
        let only = PersonId(Uuid::from_u128(1));
        let rows = Rows((0..40).map(|i| (only, towards(0, i as f32 * 0.01))).collect());
        assert_eq!(rows.candidates(&towards(0, 0.0)).len(), 40);
        assert!(Rows(Vec::new()).candidates(&towards(0, 0.0)).is_empty());
    }
}

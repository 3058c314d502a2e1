//! Which pictures show one person, which show two, and of which nobody said.
//!
//! In: rows of pairs and, where they are, labels. Out: [`People`]. Labels tell everybody apart. Without them, pairs that
//! are the same join their pictures into groups, and two groups are different people where a pair says so; of the rest
//! it is not known, and such a pair of pictures is never counted. No I/O.

use std::collections::{HashMap, HashSet};

use super::lists::Pair;

/// A row of pairs that cannot be true together with the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Contradiction {
    pub(crate) line: usize,
    pub(crate) same: bool,
}

/// What is known of who is who.
#[derive(Debug)]
pub(crate) struct People {
    /// The person on each picture.
    person: Vec<u32>,
    n_people: usize,
    known: Known,
}

/// Which two people are known to be different.
#[derive(Debug)]
enum Known {
    /// Any two: they have labels.
    All,
    /// These, the smaller number first: pairs said so.
    These(HashSet<(u32, u32)>),
}

impl People {
    /// People from a label for each picture; the pairs must agree with it.
    pub(crate) fn labelled(labels: &[usize], pairs: &[Pair]) -> Result<Self, Contradiction> {
        let against = pairs.iter().find(|pair| (labels[pair.pictures[0]] == labels[pair.pictures[1]]) != pair.same);
        match against {
            Some(pair) => Err(Contradiction { line: pair.line, same: pair.same }),
            None => Ok(Self::number(labels, Known::All)),
        }
    }

    /// People from pairs alone: what is the same is joined, what is said to be different is remembered.
    pub(crate) fn joined(n_pictures: usize, pairs: &[Pair]) -> Result<Self, Contradiction> {
        let mut groups = Groups((0..n_pictures).collect());
        for pair in pairs.iter().filter(|pair| pair.same) {
            groups.join(pair.pictures);
        }
        let roots: Vec<usize> = (0..n_pictures).map(|picture| groups.root(picture)).collect();
        let mut people = Self::number(&roots, Known::All);
        let mut different = HashSet::new();
        for pair in pairs.iter().filter(|pair| !pair.same) {
            let [a, b] = pair.pictures.map(|picture| people.of(picture));
            if a == b {
                return Err(Contradiction { line: pair.line, same: false });
            }
            different.insert((a.min(b), a.max(b)));
        }
        people.known = Known::These(different);
        Ok(people)
    }

    /// Numbers the people in the order in which they first appear.
    fn number(keys: &[usize], known: Known) -> Self {
        let mut numbers: HashMap<usize, u32> = HashMap::new();
        let mut person = Vec::with_capacity(keys.len());
        for key in keys {
            let next = u32::try_from(numbers.len()).expect("fewer people than 2^32");
            person.push(*numbers.entry(*key).or_insert(next));
        }
        Self { person, n_people: numbers.len(), known }
    }

    /// Whether two pictures show one person; none when nobody said.
    pub(crate) fn same(&self, a: usize, b: usize) -> Option<bool> {
        let (a, b) = (self.person[a], self.person[b]);
        if a == b {
            return Some(true);
        }
        match &self.known {
            Known::All => Some(false),
            Known::These(different) => different.contains(&(a.min(b), a.max(b))).then_some(false),
        }
    }

    /// The person on a picture.
    pub(crate) fn of(&self, picture: usize) -> u32 {
        self.person[picture]
    }

    pub(crate) fn len(&self) -> usize {
        self.n_people
    }
}

/// Union and find.
struct Groups(Vec<usize>);

impl Groups {
    fn root(&mut self, mut picture: usize) -> usize {
        while self.0[picture] != picture {
            self.0[picture] = self.0[self.0[picture]];
            picture = self.0[picture];
        }
        picture
    }

    fn join(&mut self, pictures: [usize; 2]) {
        let [a, b] = pictures.map(|picture| self.root(picture));
        self.0[a.max(b)] = a.min(b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(line: usize, a: usize, b: usize, same: bool) -> Pair {
        Pair { line, pictures: [a, b], same, fold: None }
    }

    #[test]
    fn pairs_alone_tell_what_follows_from_them_and_no_more() {
        let pairs =
            [pair(2, 0, 1, true), pair(3, 1, 2, true), pair(4, 3, 4, true), pair(5, 0, 3, false), pair(6, 5, 0, false)];
        let people = People::joined(6, &pairs).unwrap();
        assert_eq!(people.len(), 3);
        assert_eq!(people.same(0, 2), Some(true), "joined through picture 1");
        assert_eq!(people.same(2, 4), Some(false), "the people of pictures 0 and 3 differ");
        assert_eq!(people.same(5, 3), None, "nobody said");
    }

    #[test]
    fn labels_tell_everybody_apart() {
        let people = People::labelled(&[7, 1, 7], &[]).unwrap();
        assert_eq!((people.same(0, 2), people.same(0, 1), people.of(2)), (Some(true), Some(false), 0));
    }

    #[test]
    fn a_row_against_the_others_or_against_the_labels_is_found() {
        let against = [pair(2, 0, 1, true), pair(3, 1, 2, true), pair(4, 0, 2, false)];
        assert_eq!(People::joined(3, &against).unwrap_err(), Contradiction { line: 4, same: false });
        for (labels, same) in [([0, 1], true), ([0, 0], false)] {
            let found = People::labelled(&labels, &[pair(2, 0, 1, same)]).unwrap_err();
            assert_eq!(found, Contradiction { line: 2, same });
        }
    }
}

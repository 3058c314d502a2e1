//! Each way to tamper with a chain, and the words in which it is found.

use ring::signature::{Ed25519KeyPair, KeyPair as _};
use time::macros::datetime;
use uuid::Uuid;

use super::*;
use crate::audit::{Entry, chain};

const TENANT: TenantId = TenantId(Uuid::from_u128(1));
const KEY: Uuid = Uuid::from_u128(5);

fn pair() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
}

fn keys() -> HubKeys {
    HubKeys::from([(KEY, pair().public_key().as_ref().try_into().unwrap())])
}

/// A chain, and heads after every fifth entry.
struct Case {
    rows: Vec<Sealed>,
    heads: Vec<Head>,
    published: Published,
}

fn entry(number: u128) -> Entry {
    Entry {
        tenant: TENANT,
        id: Uuid::from_u128(1_000 + number),
        at: datetime!(2026-11-29 10:00 UTC) + time::Duration::seconds(i64::try_from(number).unwrap()),
        actor: String::from("operator"),
        action: String::from("person.create"),
        object_kind: String::from("person"),
        object_id: Some(Uuid::from_u128(number)),
        detail: format!(r#"{{"number": {number}}}"#),
    }
}

fn sealed(entries: Vec<Entry>) -> Vec<Sealed> {
    let links = chain(TENANT, None, &entries);
    entries.into_iter().zip(links).map(|(entry, link)| Sealed { entry, link }).collect()
}

fn heads(rows: &[Sealed], number: impl Fn(u64) -> u64) -> Vec<Head> {
    let fifth = rows.iter().skip(4).step_by(5);
    let sign = |(index, row): (usize, &Sealed)| {
        let place = (row.link.position, row.link.hash);
        Head::sign(&pair(), KEY, TENANT, number(index as u64 + 1), place, row.entry.at)
    };
    fifth.enumerate().map(sign).collect()
}

impl Case {
    fn of(count: u128) -> Self {
        let rows = sealed((0..count).map(entry).collect());
        let heads = heads(&rows, |number| number);
        let last = heads.len() as u64;
        Self { rows, heads, published: Published { before: last, after: last } }
    }

    fn report(&self) -> Report {
        let mut verifier = Verifier::new(TENANT, &self.heads, self.published, &keys(), false);
        for row in &self.rows {
            verifier.entry(row.clone());
        }
        verifier.finish(None, true)
    }

    fn findings(&self) -> Vec<Finding> {
        self.report().findings
    }
}

#[test]
fn a_chain_as_it_was_sealed_is_well() {
    let case = Case::of(23);
    let report = case.report();
    assert!(report.is_well(), "{:?}", report.findings);
    assert_eq!((report.entries, report.covered, report.heads), (23, 20, 4));
    let nothing = Case { rows: Vec::new(), heads: Vec::new(), published: Published::default() };
    assert!(nothing.report().is_well());
}

#[test]
fn an_entry_that_was_edited_is_named() {
    let mut case = Case::of(10);
    case.rows[6].entry.actor = String::from("nobody");
    assert_eq!(case.findings(), [Finding::Edited { position: 7, id: case.rows[6].entry.id }]);
    let mut case = Case::of(10);
    case.rows[6].link.previous[0] ^= 1;
    assert_eq!(case.findings(), [Finding::Edited { position: 7, id: case.rows[6].entry.id }]);
    // Its own hash too: the next one does not follow it.
    let mut case = Case::of(10);
    case.rows[6].entry.actor = String::from("nobody");
    case.rows[6].link = case.rows[6].entry.link(7, case.rows[6].link.previous);
    assert_eq!(case.findings(), [Finding::Unlinked { position: 8 }]);
}

#[test]
fn what_was_taken_out_put_in_moved_or_swapped_is_named() {
    let mut case = Case::of(20);
    case.rows.drain(6..9);
    assert_eq!(case.findings(), [Finding::Gap { from: 7, to: 9 }]);

    let mut case = Case::of(20);
    let mut doubled = case.rows[6].clone();
    doubled.entry.id = Uuid::nil();
    case.rows.insert(7, doubled);
    assert_eq!(case.findings(), [Finding::Inserted { position: 7, id: Uuid::nil() }]);

    // Those behind the hole moved up to close it.
    let mut case = Case::of(20);
    case.rows.remove(6);
    for row in &mut case.rows[6..] {
        row.link.position -= 1;
    }
    let findings = case.findings();
    assert_eq!(findings[0], Finding::Moved { from: 7, to: 19, was: 8 }, "{findings:?}");

    let mut case = Case::of(20);
    let (one, other) = (case.rows[3].entry.clone(), case.rows[12].entry.clone());
    (case.rows[3].entry, case.rows[12].entry) = (other, one);
    assert_eq!(case.findings(), [Finding::Swapped { first: 4, second: 13 }]);
}

#[test]
fn a_tail_that_is_missing_and_a_chain_made_anew_are_found_by_the_heads_alone() {
    let mut case = Case::of(20);
    case.rows.truncate(17);
    assert_eq!(case.findings(), [Finding::TailMissing { last: 17, signed: 20 }]);
    case.heads.truncate(3);
    case.published = Published { before: 3, after: 3 };
    assert_eq!(case.findings(), [], "whoever has all heads until here finds nothing: they are the only witness");

    let mut case = Case::of(20);
    let mut entries: Vec<Entry> = case.rows.iter().map(|row| row.entry.clone()).collect();
    entries[7].actor = String::from("nobody");
    case.rows = sealed(entries);
    assert_eq!(case.findings(), [Finding::Rechained { good: 5, position: 10, number: 2 }]);
    case.heads.clear();
    case.published = Published::default();
    assert_eq!(case.findings(), [Finding::NoHeads { entries: 20 }]);
}

#[test]
fn an_old_database_is_found_and_stays_found_when_it_goes_on() {
    let mut case = Case::of(20);
    case.rows.truncate(10);
    case.published = Published { before: 2, after: 2 };
    let missing = Finding::TailMissing { last: 10, signed: 20 };
    assert_eq!(case.findings(), [Finding::DatabaseOlder { known: 2, published: 4 }, missing]);

    let mut entries: Vec<Entry> = case.rows.iter().map(|row| row.entry.clone()).collect();
    entries.extend((100..120).map(entry));
    case.rows = sealed(entries);
    let anew = heads(&case.rows, |number| number);
    case.heads.extend(anew.into_iter().skip(2));
    case.published = Published { before: 6, after: 6 };
    let findings = case.findings();
    assert!(findings.contains(&Finding::TwoHeads { number: 3 }) && findings.contains(&Finding::TwoHeads { number: 4 }));
}

#[test]
fn heads_that_are_missing_forged_or_of_a_strange_key_are_named() {
    let mut case = Case::of(20);
    case.heads.remove(1);
    assert_eq!(case.findings(), [Finding::HeadsMissing { from: 2, to: 2 }]);
    let mut case = Case::of(20);
    case.heads.truncate(2);
    assert_eq!(case.findings(), [Finding::HeadsMissing { from: 3, to: 4 }]);
    let mut case = Case::of(20);
    case.heads[1].hash = [9; 32];
    assert_eq!(case.findings(), [Finding::ForgedHead { number: 2 }]);
    let mut case = Case::of(20);
    case.heads[3].key_id = Uuid::nil();
    assert_eq!(case.findings(), [Finding::UnknownKey { number: 4, key_id: Uuid::nil() }]);
    // A line that a crash made the hub write twice is one head.
    let mut case = Case::of(20);
    let again = case.heads[2].clone();
    case.heads.insert(3, again);
    assert!(case.report().is_well());
}

#[test]
fn two_heads_of_one_place_agree_or_are_named() {
    let mut case = Case::of(20);
    let (row, last) = (case.rows[19].clone(), case.rows[19].link.hash);
    let sign = |hash| Head::sign(&pair(), KEY, TENANT, 5, (row.link.position, hash), row.entry.at);
    // Nothing came in between: it says the same once more.
    case.heads.push(sign(last));
    case.published = Published { before: 5, after: 5 };
    assert!(case.report().is_well(), "{:?}", case.findings());
    case.heads[4] = sign([9; 32]);
    assert!(case.findings().contains(&Finding::TwoHeads { number: 5 }));
}

#[test]
fn heads_that_were_put_away_are_not_missed_when_one_says_so() {
    let mut case = Case::of(20);
    case.heads.drain(..2);
    assert_eq!(case.findings(), [Finding::HeadsMissing { from: 1, to: 2 }]);
    let mut verifier = Verifier::new(TENANT, &case.heads, case.published, &keys(), true);
    case.rows.iter().for_each(|row| verifier.entry(row.clone()));
    assert!(verifier.finish(None, true).is_well());
}

#[test]
fn entries_without_a_place_are_told_and_much_that_is_wrong_is_counted() {
    let case = Case::of(5);
    let mut verifier = Verifier::new(TENANT, &case.heads, case.published, &keys(), false);
    case.rows.iter().for_each(|row| verifier.entry(row.clone()));
    assert_eq!(verifier.finish(Some((2, 40)), true).findings, [Finding::Unplaced { entries: 2, seconds: 40 }]);
    let mut case = Case::of(500);
    for row in &mut case.rows {
        row.entry.actor.push('x');
    }
    let report = case.report();
    assert_eq!((report.findings.len(), report.more), (100, 400));
}

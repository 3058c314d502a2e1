//! What people and programs read of each finding.

use std::collections::BTreeSet;

use super::*;

/// One of each kind, with numbers that differ, so that none can stand in for another.
fn all() -> Vec<Finding> {
    let id = Uuid::from_u128(0xab);
    vec![
        Finding::Gap { from: 21, to: 23 },
        Finding::Edited { position: 21, id },
        Finding::Inserted { position: 21, id },
        Finding::Moved { from: 21, to: 23, was: 25 },
        Finding::Swapped { first: 21, second: 23 },
        Finding::Unlinked { position: 21 },
        Finding::TailMissing { last: 20, signed: 23 },
        Finding::Rechained { good: 19, position: 21, number: 4 },
        Finding::NoHeads { entries: 30 },
        Finding::HeadsMissing { from: 31, to: 33 },
        Finding::DatabaseOlder { known: 30, published: 33 },
        Finding::TwoHeads { number: 30 },
        Finding::ForgedHead { number: 30 },
        Finding::UnknownKey { number: 30, key_id: id },
        Finding::Unplaced { entries: 30, seconds: 40 },
        Finding::NoTenant,
        Finding::Deleting,
        Finding::ForgedReceipt,
        Finding::ReceiptDiffers { number: 30 },
        Finding::BadLine { place: "heads.jsonl:30".into() },
    ]
}

#[test]
fn each_finding_has_a_word_of_its_own_that_its_name_spells() {
    let words: BTreeSet<&str> = all().iter().map(Finding::kind).collect();
    assert_eq!(words.len(), all().len());
    for finding in all() {
        let debug = format!("{finding:?}");
        let name = debug.split([' ', '{']).next().unwrap();
        assert_eq!(finding.kind().replace('_', ""), name.to_lowercase());
    }
}

#[test]
fn what_is_about_entries_says_where_to_look_first_and_what_is_about_heads_does_not() {
    for finding in all() {
        let about_entries = !finding.to_string().contains("30") && !finding.to_string().contains("31");
        let about_entries = about_entries && !finding.to_string().contains("tenant");
        assert_eq!(finding.position(), about_entries.then_some(21), "{finding:?}");
    }
}

#[test]
fn every_number_of_a_finding_is_in_its_sentence() {
    for finding in all() {
        let (debug, said) = (format!("{finding:?}"), finding.to_string());
        for number in debug.split(|c: char| !c.is_ascii_digit()).filter(|digits| digits.len() == 2) {
            // A tail is missing from behind the last entry.
            let number = if finding.kind() == "tail_missing" && number == "20" { "21" } else { number };
            assert!(said.contains(number), "{debug}: {said}");
        }
    }
}

#[test]
fn one_that_is_missing_is_told_as_one() {
    for (finding, words) in [
        (Finding::Gap { from: 7, to: 7 }, "entry 7 is missing"),
        (Finding::Gap { from: 7, to: 8 }, "entries 7 to 8 are missing"),
        (Finding::HeadsMissing { from: 7, to: 7 }, "head 7 is missing"),
        (Finding::HeadsMissing { from: 7, to: 8 }, "heads 7 to 8 are missing"),
        (Finding::TailMissing { last: 7, signed: 9 }, "entries 8 to 9 were signed and are missing at the end"),
    ] {
        assert_eq!(finding.to_string(), words);
    }
}

#[test]
fn advice_tells_a_changed_database_from_an_old_one_and_from_missing_files() {
    let with = |words: &str| -> Vec<&str> {
        all().iter().filter(|finding| finding.advice().contains(words)).map(Finding::kind).collect()
    };
    let changed =
        ["gap", "edited", "inserted", "moved", "swapped", "unlinked", "rechained", "forged_receipt", "receipt_differs"];
    assert_eq!(with("rights over the database"), changed);
    assert_eq!(with("older database"), ["tail_missing", "database_older", "two_heads"]);
    assert_eq!(with("--heads"), ["no_heads", "heads_missing"]);
    assert_eq!(with("--key"), ["unknown_key"]);
    assert_eq!(with("its disk is ill"), ["forged_head", "bad_line"]);
    assert!(all().iter().all(|finding| finding.advice().len() > 20));
}

//! Judges a tenant's chain against itself and against the heads that were signed of it.
//!
//! In: heads in any order, then sealed entries by position, each once. Out: what is wrong and where. Memory: the heads, and
//! the few entries that did not fit; never the chain. Without heads a chain proves only that it is whole: whoever may write
//! the database may cut its end off, or make it anew.

use std::collections::BTreeMap;

use time::OffsetDateTime;

use super::finding::Finding;
use super::{Hash, Head, HubKeys, Sealed, Signature, genesis};
use crate::erasure::{LastHead, Receipt};
use crate::ids::TenantId;

/// Findings that are told one by one; more of them say no more.
const TOLD: usize = 100;
/// Entries that did not fit and are kept to see whether two of them stand in each other's place.
const MISFITS: usize = 64;
/// How far from its place an entry is looked for: as many as somebody may have put in or taken out at one place.
const REACH: u64 = 8;

/// What the database says of the heads it has published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// The last one whose line was on the disk before the files were read.
    pub before: u64,
    /// The last one that was signed at all, asked after the files were read.
    pub after: u64,
}

/// What became of a tenant's chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whose.
    pub tenant: TenantId,
    /// How many sealed entries there are.
    pub entries: u64,
    /// Up to which one a head vouches for them.
    pub covered: u64,
    /// How many heads there are.
    pub heads: u64,
    /// When the tenant was erased, if it was: then there are no entries, and its heads are held against its receipt.
    pub erased_at: Option<OffsetDateTime>,
    /// What is wrong, the first of it.
    pub findings: Vec<Finding>,
    /// How much more is wrong.
    pub more: u64,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.findings.is_empty()
    }
}

/// A verification under way.
pub struct Verifier {
    report: Report,
    /// The good heads by position. Two of one position say the same or are told of already.
    signed: BTreeMap<u64, (u64, Hash)>,
    last: (u64, Hash),
    misfits: Vec<Sealed>,
    /// Which finding is of the entries that were moved last: more of them belong to it.
    moved: Option<usize>,
    rechained: bool,
}

impl Verifier {
    /// Begins with the heads that were found. `archived`: the first ones were put away and are not expected.
    #[must_use]
    pub fn new(tenant: TenantId, heads: &[Head], published: Published, keys: &HubKeys, archived: bool) -> Self {
        let report =
            Report { tenant, entries: 0, covered: 0, heads: 0, erased_at: None, findings: Vec::new(), more: 0 };
        let mut verifier = Self {
            report,
            signed: BTreeMap::new(),
            last: (0, genesis(tenant)),
            misfits: Vec::new(),
            moved: None,
            rechained: false,
        };
        verifier.judge_heads(heads, published, keys, archived);
        verifier
    }

    fn judge_heads(&mut self, heads: &[Head], published: Published, keys: &HubKeys, archived: bool) {
        let mut by_number: BTreeMap<u64, &Head> = BTreeMap::new();
        let mut before = None;
        for head in heads {
            let signature = head.signature(keys);
            match signature {
                Signature::Good => {}
                Signature::Bad => self.find(Finding::ForgedHead { number: head.number }),
                Signature::UnknownKey => {
                    self.find(Finding::UnknownKey { number: head.number, key_id: head.key_id });
                }
            }
            match by_number.insert(head.number, head) {
                // Written again after a crash.
                Some(same) if same == head => continue,
                Some(_) => self.find(Finding::TwoHeads { number: head.number }),
                None => {}
            }
            if signature == Signature::Good {
                let other = self.signed.insert(head.position, (head.number, head.hash));
                if other.is_some_and(|(number, hash)| number != head.number && hash != head.hash) {
                    self.find(Finding::TwoHeads { number: head.number });
                }
            }
        }
        self.report.heads = by_number.len() as u64;
        for number in by_number.keys().copied() {
            let expected = before.map_or(if archived { number } else { 1 }, |before| before + 1);
            if number > expected {
                self.find(Finding::HeadsMissing { from: expected, to: number - 1 });
            }
            before = Some(number);
        }
        let last = before.unwrap_or(0);
        if published.before > last {
            let from = if archived && last == 0 { published.before } else { last + 1 };
            self.find(Finding::HeadsMissing { from, to: published.before });
        }
        if last > published.after {
            self.find(Finding::DatabaseOlder { known: published.after, published: last });
        }
    }

    /// Takes in the next entry, by position.
    pub fn entry(&mut self, sealed: Sealed) {
        self.report.entries += 1;
        let link = sealed.link;
        let expected = self.last.0 + 1;
        if link.position < expected {
            self.find(Finding::Inserted { position: link.position, id: sealed.entry.id });
            return;
        }
        let follows = link.position == expected;
        if !follows {
            self.find(Finding::Gap { from: expected, to: link.position - 1 });
            // What stood in the gap was found to be missing; its heads need not be found again.
            self.signed = self.signed.split_off(&link.position);
        }
        if sealed.entry.link(link.position, link.previous).hash == link.hash {
            if follows && link.previous != self.last.1 {
                self.find(Finding::Unlinked { position: link.position });
            }
        } else {
            // The hash in the column may still be the one that was sealed, so the next entry is held against it.
            self.misfit(sealed);
        }
        self.last = (link.position, link.hash);
        self.hold_against_head(link.position, &link.hash);
    }

    fn hold_against_head(&mut self, position: u64, hash: &Hash) {
        let Some((number, signed)) = self.signed.remove(&position) else { return };
        if signed == *hash {
            if !self.rechained {
                self.report.covered = position;
            }
        } else if !self.rechained {
            // Every later head differs too, and says no more.
            self.rechained = true;
            self.find(Finding::Rechained { good: self.report.covered, position, number });
        }
    }

    fn misfit(&mut self, sealed: Sealed) {
        let link = sealed.link;
        let near = (1..=REACH).flat_map(|by| [link.position.checked_sub(by), link.position.checked_add(by)]).flatten();
        let was = near.into_iter().find(|was| sealed.entry.link(*was, link.previous).hash == link.hash);
        if let Some(was) = was {
            let run = self.moved.and_then(|index| self.report.findings.get_mut(index));
            if let Some(Finding::Moved { from, to, was: first }) = run
                && *to + 1 == link.position
                && link.position - *from == was.wrapping_sub(*first)
            {
                *to = link.position;
                return;
            }
            self.moved = Some(self.report.findings.len());
            self.find(Finding::Moved { from: link.position, to: link.position, was });
            return;
        }
        if self.misfits.len() < MISFITS {
            self.misfits.push(sealed);
        } else {
            self.find(Finding::Edited { position: link.position, id: sealed.entry.id });
        }
    }

    /// Takes in that the database does not have the tenant at all.
    pub fn no_tenant(&mut self) {
        self.find(Finding::NoTenant);
    }

    /// Takes in what is left of a tenant whose entries are gone: its last head, and the receipt once it is there.
    pub fn erased(&mut self, last: Option<LastHead>, receipt: Option<&Receipt>, keys: &HubKeys) {
        match receipt {
            None => self.find(Finding::Deleting),
            Some(receipt) => {
                self.report.erased_at = Some(receipt.erased.finished_at);
                match receipt.signature(keys) {
                    Signature::Good => {}
                    Signature::Bad => self.find(Finding::ForgedReceipt),
                    Signature::UnknownKey => {
                        let number = last.map_or(0, |last| last.number);
                        self.find(Finding::UnknownKey { number, key_id: receipt.key_id });
                    }
                }
            }
        }
        if let Some(last) = last
            && let Some((number, (head, hash))) = self.signed.last_key_value().map(|(at, head)| (*at, *head))
        {
            if (number, head, hash) == (last.position, last.number, last.hash) {
                self.report.covered = last.position;
            } else {
                self.find(Finding::ReceiptDiffers { number: last.number });
            }
        }
        // Their entries are not missing: they were removed after these heads.
        self.signed.clear();
    }

    /// Ends the verification. `unplaced`: how many entries have waited too long for a place, and how long the first.
    /// `settled`: whether entries are old enough that a head of them must be there.
    #[must_use]
    pub fn finish(mut self, unplaced: Option<(u64, u64)>, settled: bool) -> Report {
        self.tell_misfits();
        let last = self.last.0;
        if let Some((signed, _)) = self.signed.last_key_value()
            && *signed > last
        {
            let signed = *signed;
            self.find(Finding::TailMissing { last, signed });
        }
        if self.report.heads == 0 && self.report.entries > 0 && settled {
            self.find(Finding::NoHeads { entries: self.report.entries });
        }
        if let Some((entries, seconds)) = unplaced {
            self.find(Finding::Unplaced { entries, seconds });
        }
        self.report
    }

    /// Two entries that each fit in the other's place were swapped; the others were edited.
    fn tell_misfits(&mut self) {
        let mut misfits = std::mem::take(&mut self.misfits);
        while let Some(one) = (!misfits.is_empty()).then(|| misfits.remove(0)) {
            let fits = |entry: &Sealed, place: &Sealed| {
                entry.entry.link(place.link.position, place.link.previous).hash == place.link.hash
            };
            match misfits.iter().position(|other| fits(&one, other) && fits(other, &one)) {
                Some(index) => {
                    let other = misfits.remove(index);
                    self.find(Finding::Swapped { first: one.link.position, second: other.link.position });
                }
                None => self.find(Finding::Edited { position: one.link.position, id: one.entry.id }),
            }
        }
    }

    fn find(&mut self, finding: Finding) {
        if self.report.findings.len() < TOLD {
            self.report.findings.push(finding);
        } else {
            self.report.more += 1;
        }
    }
}

#[cfg(test)]
mod tests;

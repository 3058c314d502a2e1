//! Each way to tamper with an audit, done to a copy of it. The tamperer knows how chains are made, and has no signing key.

use cloud_hub::domain::audit::verifier::Published;
use cloud_hub::domain::audit::{Entry, Head, Sealed, chain};
use cloud_hub::domain::ids::TenantId;
use time::Duration;
use uuid::Uuid;

use crate::rig::random::Random;

/// A tenant's audit with its heads, all of which cover it to its end.
#[derive(Clone)]
pub struct Evidence {
    /// Whose.
    pub tenant: TenantId,
    /// The database's rows, by position.
    pub rows: Vec<Sealed>,
    /// The lines outside.
    pub heads: Vec<Head>,
    /// What the database says it has published.
    pub published: Published,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A column of an entry, or of its place, says something else.
    Edit,
    /// Entries are taken out.
    Delete,
    /// Entries are taken out and those behind them close the gap.
    Close,
    /// An entry is put in beside another.
    Insert,
    /// An entry is put in, and those behind it make room.
    MakeRoom,
    /// Two entries change their places.
    Swap,
    /// The end goes, and what the database knows of its heads with it.
    Truncate,
    /// An entry is edited and the rest hashed anew, as it should be.
    Rechain,
    /// The database of an earlier head is back.
    OldDatabase,
    /// The same, and it went on since: other entries, with heads that the hub signed itself.
    OldDatabaseGoesOn,
    /// Lines of heads are gone.
    DropHeads,
    /// A head says something else.
    EditHead,
}

impl Kind {
    /// All there are.
    pub const ALL: &[Self] = &[
        Self::Edit,
        Self::Delete,
        Self::Close,
        Self::Insert,
        Self::MakeRoom,
        Self::Swap,
        Self::Truncate,
        Self::Rechain,
        Self::OldDatabase,
        Self::OldDatabaseGoesOn,
        Self::DropHeads,
        Self::EditHead,
    ];

    /// As the row's figures name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Edit => "edit",
            Self::Delete => "delete",
            Self::Close => "close",
            Self::Insert => "insert",
            Self::MakeRoom => "make_room",
            Self::Swap => "swap",
            Self::Truncate => "truncate",
            Self::Rechain => "rechain",
            Self::OldDatabase => "old_database",
            Self::OldDatabaseGoesOn => "old_database_goes_on",
            Self::DropHeads => "drop_heads",
            Self::EditHead => "edit_head",
        }
    }
}

/// Signs a head as the hub would: what an old database that goes on leads to.
pub type Signer<'a> = &'a dyn Fn(TenantId, u64, (u64, [u8; 32])) -> Head;

/// Tampers with a copy.
#[must_use]
pub fn tamper(evidence: &Evidence, kind: Kind, random: &mut Random, sign: Signer<'_>) -> Evidence {
    let mut left = evidence.clone();
    let count = left.rows.len();
    let at = pick(random, count);
    match kind {
        Kind::Edit => edit(&mut left.rows[at], random),
        Kind::Delete => drop(left.rows.drain(at..(at + 1 + pick(random, 4)).min(count))),
        Kind::Close => {
            let at = pick(random, count - 1);
            left.rows.remove(at);
            left.rows[at..].iter_mut().for_each(|row| row.link.position -= 1);
        }
        Kind::Insert => left.rows.insert(at, forged(&evidence.rows[at])),
        Kind::MakeRoom => {
            left.rows[at..].iter_mut().for_each(|row| row.link.position += 1);
            left.rows.insert(at, forged(&evidence.rows[at]));
        }
        Kind::Swap => {
            let other = (at + 1 + pick(random, count - 1)) % count;
            let (one, two) = (left.rows[at].entry.clone(), left.rows[other].entry.clone());
            (left.rows[at].entry, left.rows[other].entry) = (two, one);
        }
        Kind::Truncate => {
            left.rows.truncate(at);
            // Whoever may delete entries may also turn back what is known of heads.
            left.published = known(&left, at as u64);
        }
        Kind::Rechain => {
            let mut entries: Vec<Entry> = left.rows.iter().map(|row| row.entry.clone()).collect();
            entries[at].actor.push('x');
            left.rows = sealed(evidence.tenant, entries);
        }
        Kind::OldDatabase | Kind::OldDatabaseGoesOn => {
            let head = &evidence.heads[pick(random, evidence.heads.len() - 1)];
            left.rows.truncate(usize::try_from(head.position).unwrap_or(0));
            left.published = Published { before: head.number, after: head.number };
            if kind == Kind::OldDatabaseGoesOn {
                go_on(&mut left, evidence.rows.len() + pick(random, 10), sign);
            }
        }
        Kind::DropHeads => {
            let at = pick(random, left.heads.len());
            left.heads.drain(at..(at + 1 + pick(random, 3)).min(evidence.heads.len()));
        }
        Kind::EditHead => edit_head(&mut left, random),
    }
    left.rows.retain(|row| row.entry.tenant == evidence.tenant);
    left.rows.sort_by_key(|row| (row.link.position, row.entry.id));
    left
}

fn pick(random: &mut Random, below: usize) -> usize {
    usize::try_from(random.below(below as u64)).unwrap_or(0)
}

fn edit(row: &mut Sealed, random: &mut Random) {
    let bit = 1 << random.below(8);
    let byte = pick(random, 32);
    match random.below(11) {
        0 => row.entry.tenant = TenantId(Uuid::from_u128(1)),
        1 => row.entry.id = Uuid::from_u128(row.entry.id.as_u128() ^ (1 << random.below(120))),
        2 => row.entry.at += Duration::microseconds(1 << random.below(40)),
        3 => row.entry.actor.push('x'),
        4 => row.entry.action = String::from("person.create "),
        5 => row.entry.object_kind.insert(0, 'x'),
        6 => row.entry.object_id = row.entry.object_id.map_or(Some(Uuid::nil()), |_| None),
        // What many readers take for the same number.
        7 => row.entry.detail = row.entry.detail.replacen("0.1", "0.10000000000000000001", 1) + " ",
        8 => row.link.position += 10_000,
        9 => row.link.previous[byte] ^= bit,
        _ => row.link.hash[byte] ^= bit,
    }
    if row.entry.detail.ends_with(' ') && !row.entry.detail.contains("0.1000") {
        row.entry.detail = String::from(r#"{"score": 2}"#);
    }
}

/// An entry of the tamperer's own at the place of another, with a hash that would be right there.
fn forged(beside: &Sealed) -> Sealed {
    let mut entry = beside.entry.clone();
    entry.id = Uuid::from_u128(!entry.id.as_u128());
    entry.actor = String::from("somebody else");
    let link = entry.link(beside.link.position, beside.link.previous);
    Sealed { entry, link }
}

fn known(left: &Evidence, last: u64) -> Published {
    let known = left.heads.iter().filter(|head| head.position <= last).map(|head| head.number).max().unwrap_or(0);
    Published { before: known, after: known }
}

fn sealed(tenant: TenantId, entries: Vec<Entry>) -> Vec<Sealed> {
    let links = chain(tenant, None, &entries);
    entries.into_iter().zip(links).map(|(entry, link)| Sealed { entry, link }).collect()
}

fn go_on(left: &mut Evidence, until: usize, sign: Signer<'_>) {
    let mut entries: Vec<Entry> = left.rows.iter().map(|row| row.entry.clone()).collect();
    while entries.len() < until {
        let Some(mut entry) = entries.last().cloned() else { return };
        entry.id = Uuid::from_u128(entry.id.as_u128().wrapping_add(1));
        entries.push(entry);
    }
    left.rows = sealed(left.tenant, entries);
    if let Some(last) = left.rows.last() {
        let number = left.published.after + 1;
        left.heads.push(sign(left.tenant, number, (last.link.position, last.link.hash)));
        left.published = Published { before: number, after: number };
    }
}

fn edit_head(left: &mut Evidence, random: &mut Random) {
    let at = pick(random, left.heads.len());
    let head = &mut left.heads[at];
    match random.below(6) {
        0 => head.number += 1,
        1 => head.position += 1,
        2 => head.hash[pick(random, 32)] ^= 1,
        3 => head.at += Duration::seconds(1),
        4 => head.key_id = Uuid::nil(),
        _ => head.signature[pick(random, 64)] ^= 1,
    }
}

//! What can be wrong with an audit, in words: what, where, and what to do.

use std::fmt;

use uuid::Uuid;

/// Something that is wrong with a tenant's chain or with its heads. Positions are of entries, numbers of heads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Entries are not there.
    Gap {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// An entry says something else than what was sealed.
    Edited {
        /// Where.
        position: u64,
        /// Which.
        id: Uuid,
    },
    /// There is one more entry at a place that has one.
    Inserted {
        /// Where.
        position: u64,
        /// Which.
        id: Uuid,
    },
    /// Entries stand one place, or more, from where they were sealed: something before them was put in or taken out.
    Moved {
        /// The first, as it stands.
        from: u64,
        /// The last, as it stands.
        to: u64,
        /// Where the first was sealed.
        was: u64,
    },
    /// Two entries stand in each other's place.
    Swapped {
        /// The one.
        first: u64,
        /// The other.
        second: u64,
    },
    /// An entry does not follow the one before it.
    Unlinked {
        /// Where.
        position: u64,
    },
    /// A signed head is ahead of the database.
    TailMissing {
        /// The last entry in the database.
        last: u64,
        /// The last that was signed.
        signed: u64,
    },
    /// The chain is whole in itself, and another one than was signed.
    Rechained {
        /// Up to here it is what was signed.
        good: u64,
        /// Here it is not.
        position: u64,
        /// By this head.
        number: u64,
    },
    /// There are entries for longer than a head takes, and no head was ever published.
    NoHeads {
        /// How many entries.
        entries: u64,
    },
    /// Lines of heads are not there.
    HeadsMissing {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// The heads know of more heads than the database does: it is an older one.
    DatabaseOlder {
        /// The last head that the database knows.
        known: u64,
        /// The last that was published.
        published: u64,
    },
    /// Two heads of one number say different things: the database was an older one when the second was signed.
    TwoHeads {
        /// The number.
        number: u64,
    },
    /// A head is not what the hub signed.
    ForgedHead {
        /// The number.
        number: u64,
    },
    /// A head was signed with a key that nobody here knows.
    UnknownKey {
        /// The number.
        number: u64,
        /// The key.
        key_id: Uuid,
    },
    /// Entries have no place although they were written long ago.
    Unplaced {
        /// How many.
        entries: u64,
        /// How long ago the first was written.
        seconds: u64,
    },
    /// There is a chain or a head of a tenant that the database does not have.
    NoTenant,
    /// The tenant is being deleted and its entries are going.
    Deleting,
    /// What is left of a tenant that was erased is not what the hub signed.
    ForgedReceipt,
    /// What is left of a tenant that was erased says another last head than is outside.
    ReceiptDiffers {
        /// The head's number.
        number: u64,
    },
    /// A line of a file of heads is none.
    BadLine {
        /// File and line.
        place: String,
    },
}

impl Finding {
    /// One word, for programs.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Gap { .. } => "gap",
            Self::Edited { .. } => "edited",
            Self::Inserted { .. } => "inserted",
            Self::Moved { .. } => "moved",
            Self::Swapped { .. } => "swapped",
            Self::Unlinked { .. } => "unlinked",
            Self::TailMissing { .. } => "tail_missing",
            Self::Rechained { .. } => "rechained",
            Self::NoHeads { .. } => "no_heads",
            Self::HeadsMissing { .. } => "heads_missing",
            Self::DatabaseOlder { .. } => "database_older",
            Self::TwoHeads { .. } => "two_heads",
            Self::ForgedHead { .. } => "forged_head",
            Self::UnknownKey { .. } => "unknown_key",
            Self::Unplaced { .. } => "unplaced",
            Self::NoTenant => "no_tenant",
            Self::Deleting => "deleting",
            Self::ForgedReceipt => "forged_receipt",
            Self::ReceiptDiffers { .. } => "receipt_differs",
            Self::BadLine { .. } => "bad_line",
        }
    }

    /// The first entry that it is about; of heads and lines none.
    #[must_use]
    pub fn position(&self) -> Option<u64> {
        match self {
            Self::Gap { from: position, .. }
            | Self::Edited { position, .. }
            | Self::Inserted { position, .. }
            | Self::Moved { from: position, .. }
            | Self::Swapped { first: position, .. }
            | Self::Unlinked { position }
            | Self::Rechained { position, .. } => Some(*position),
            Self::TailMissing { last, .. } => Some(last + 1),
            _ => None,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Gap { .. }
            | Self::Edited { .. }
            | Self::Inserted { .. }
            | Self::Moved { .. }
            | Self::Swapped { .. }
            | Self::Unlinked { .. }
            | Self::Rechained { .. } => {
                "somebody with rights over the database changed it: keep database, heads and logs as they are, look in a backup from before"
            }
            Self::TailMissing { .. } | Self::DatabaseOlder { .. } | Self::TwoHeads { .. } => {
                "an older database is in use: if you restored a backup, note it, move the folder of heads aside and keep it; if not, keep everything as it is"
            }
            Self::NoHeads { .. } | Self::HeadsMissing { .. } => {
                "look for the folder's other files and other hubs' folders (--heads for each; --archived if the first were put away), and in the health of the audit"
            }
            Self::ForgedHead { .. } | Self::BadLine { .. } => {
                "somebody changed the file, or its disk is ill: compare with its copies"
            }
            Self::UnknownKey { .. } => {
                "name the hub's former key by --key; if the hub never had another, the head is not its own"
            }
            Self::Unplaced { .. } => "the hub places them when it runs; if it runs, see its log for audit_not_sealed",
            Self::NoTenant => {
                "compare with a backup: the hub removes a tenant only when it is told to, and leaves a receipt in the database"
            }
            Self::Deleting => "verify again once `cloud-hub tenants show` says that it is erased",
            Self::ForgedReceipt | Self::ReceiptDiffers { .. } => {
                "somebody with rights over the database removed the tenant, or changed what is left of it: keep everything as it is, look in a backup from before"
            }
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gap { from, to } if from == to => write!(f, "entry {from} is missing"),
            Self::Gap { from, to } => write!(f, "entries {from} to {to} are missing"),
            Self::Edited { position, id } => write!(f, "entry {position} ({id}) was changed after it was sealed"),
            Self::Inserted { position, id } => write!(f, "entry {id} was put in beside entry {position}"),
            Self::Moved { from, to, was } => write!(f, "entries {from} to {to} were moved: {from} was sealed as {was}"),
            Self::Swapped { first, second } => write!(f, "entries {first} and {second} stand in each other's place"),
            Self::Unlinked { position } => write!(f, "entry {position} does not follow the entry before it"),
            Self::TailMissing { last, signed } => {
                write!(f, "entries {} to {signed} were signed and are missing at the end", last + 1)
            }
            Self::Rechained { good, position, number } => write!(
                f,
                "the chain was made anew after entry {good}: entry {position} is another one than head {number} signed"
            ),
            Self::NoHeads { entries } => write!(f, "there are {entries} entries and no head of them"),
            Self::HeadsMissing { from, to } if from == to => write!(f, "head {from} is missing"),
            Self::HeadsMissing { from, to } => write!(f, "heads {from} to {to} are missing"),
            Self::DatabaseOlder { known, published } => {
                write!(f, "the database knows of {known} heads, and {published} were published")
            }
            Self::TwoHeads { number } => write!(f, "there are two different heads {number}"),
            Self::ForgedHead { number } => write!(f, "head {number} is not what the hub signed"),
            Self::UnknownKey { number, key_id } => write!(f, "head {number} was signed with the unknown key {key_id}"),
            Self::Unplaced { entries, seconds } => {
                write!(f, "{entries} entries have no place, the oldest for {seconds} s")
            }
            Self::NoTenant => f.write_str("the database does not have this tenant"),
            Self::Deleting => f.write_str("the tenant is being deleted, and entries of its audit are going"),
            Self::ForgedReceipt => f.write_str("what is left of this erased tenant is not what the hub signed"),
            Self::ReceiptDiffers { number } => {
                write!(f, "what is left of this erased tenant does not end with head {number} as it was signed")
            }
            Self::BadLine { place } => write!(f, "{place} is no line of a head"),
        }
    }
}

#[cfg(test)]
mod tests;

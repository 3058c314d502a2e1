//! What becomes of audit entries after their commit: a place in the tenant's chain, a signed head outside the database, and a
//! verdict for whoever asks whether all of it is as it was.
//!
//! In: entries without a place, and a folder. Out: entries with one, lines of heads, reports. Imports `domain`, `store` and
//! `keys`. Deliberately absent: who may look at entries (`api`), and the writing of them (`store::audit`).

pub mod heads;
mod sealer;
mod verification;

pub use sealer::{HeadSettings, Sealer, Trouble};
pub use verification::{Progress, Request, Verified, VerifyError, verify};

//! What lies in a database whoever gets at it: seals that are worth nothing in another place, and no vector that is a person's
//! without a key.
//!
//! [`sealed`] makes a row of every sealed column and reads each through the product; [`scan`] looks for vectors in files of any kind.
//! [`traffic`] replaces keys while everybody works, [`kills`] kills the hub meanwhile; [`theft`] takes the disk and looks for faces.

pub mod kills;
pub mod readers;
pub mod scan;
pub mod sealed;
pub mod theft;
pub mod traffic;

pub use scan::Scan;
pub use sealed::{Place, Sealed};

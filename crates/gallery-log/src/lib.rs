//! gallery-log

//! wire-contract

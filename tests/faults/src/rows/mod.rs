//! The rows of the fault matrix, in its order. A new row is one module (or its place in a family's module) and one line in
//! [`ALL`]; `tests/rows.rs` fails until it has a small run too.

mod access_lines;
mod audit_tampering;
mod backlog;
mod bad_certificates;
mod bad_packets;
mod broker_kills;
mod camera_restarts;
mod cancelled_requests;
mod claim_races;
mod clock_jumps;
mod cross_tenant;
mod damages;
mod each_call;
mod fleet_load;
mod fsyncs;
mod full_disks;
mod herd;
mod hub_kills;
mod id_theft;
mod kills;
mod limits;
mod lost_sessions;
mod modelled_cuts;
mod nemesis;
mod out_of_memory;
mod postgres_kills;
mod power_cuts;
mod rebuilding;
mod renewals;
mod replays;
mod replicas;
mod revocations;
mod sealed_secrets;
mod simulation;
mod starts;
mod stopped_consumers;
mod tombstones;

use crate::row::Row;

/// Every row, in the order in which `scripts/soak all` runs them.
pub static ALL: &[&Row] = &[
    &kills::D1,
    &each_call::D2,
    &power_cuts::D3,
    &modelled_cuts::D4,
    &fsyncs::D5,
    &full_disks::D6,
    &damages::D7,
    &starts::D8,
    &out_of_memory::D9,
    &nemesis::M1,
    &broker_kills::M2,
    &lost_sessions::M3,
    &replays::M4,
    &tombstones::M5,
    &backlog::M6,
    &bad_packets::M7,
    &herd::M8,
    &stopped_consumers::M9,
    &id_theft::M10,
    &simulation::M11,
    &clock_jumps::C1,
    &renewals::C2,
    &bad_certificates::I1,
    &revocations::I2,
    &access_lines::I3,
    &claim_races::I4,
    &hub_kills::H1,
    &postgres_kills::H2,
    &cancelled_requests::H3,
    &cross_tenant::S1,
    &replicas::S3,
    &limits::S8,
    &audit_tampering::S9,
    &sealed_secrets::S10,
    &fleet_load::L1,
    &camera_restarts::V1,
];

/// The row of this id, in any case; `restarts` is the name that V1 had before there was a matrix.
#[must_use]
pub fn find(id: &str) -> Option<&'static Row> {
    let id = if id == "restarts" { "V1" } else { id };
    ALL.iter().find(|row| row.id.eq_ignore_ascii_case(id)).copied()
}

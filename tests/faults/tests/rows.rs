//! Each row of the fault lab with its small count, on every run of the tests. `scripts/soak` runs the same code for long.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::path::Path;

use fault_lab::lab::Setting;
use fault_lab::{Lab, rows};

/// Runs a row with its small count; a row that lacks something says so and is listed by scripts/test.
fn small(id: &str) {
    let row = rows::find(id).unwrap();
    let bin_dir = Path::new(env!("CARGO_BIN_EXE_store-worker")).parent().unwrap().to_path_buf();
    let setting = Setting { bin_dir, state: None, resume: false, progress: false, first_seed: 0 };
    let outcome = Lab::run(row, row.small, setting);
    let line = serde_json::to_string(&outcome).unwrap();
    if outcome.skipped {
        let _ = writeln!(std::io::stderr(), "SKIPPED row {id}: {}", outcome.why[0]);
        return;
    }
    let _ = writeln!(std::io::stderr(), "{line}");
    assert!(outcome.ok, "{line}");
}

/// One test a row; and none is forgotten.
macro_rules! small_rows {
    ($($name:ident: $id:literal,)*) => {
        $(#[test]
        fn $name() {
            small($id);
        })*

        #[test]
        fn every_row_has_its_small_run() {
            let tested = [$($id),*];
            let listed: Vec<_> = rows::ALL.iter().map(|row| row.id).collect();
            assert_eq!(listed, tested);
        }
    };
}

small_rows! {
    d1_a_killed_process_has_lost_nothing_promised: "D1",
    d2_a_kill_at_any_call_loses_nothing_promised: "D2",
    d3_a_power_cut_loses_nothing_promised: "D3",
    d4_a_modelled_power_cut_loses_nothing_promised: "D4",
    d5_no_promise_rests_on_a_failed_fsync: "D5",
    d6_a_full_disk_stops_no_door_and_loses_no_access_event: "D6",
    d7_every_damage_is_noticed_or_harmless: "D7",
    d8_a_start_with_damaged_stores_and_no_hub_is_decided_in_time: "D8",
    d9_a_process_out_of_memory_is_back_soon_and_has_lost_nothing: "D9",
    m1_nothing_is_lost_doubled_or_disordered_whatever_breaks: "M1",
    m2_nothing_depends_on_the_brokers_disk: "M2",
    m3_a_lost_session_with_a_full_window_keeps_no_device: "M3",
    m4_what_is_sent_again_has_no_effect: "M4",
    m5_nobody_who_was_deleted_comes_back: "M5",
    m6_what_was_buffered_is_uploaded_in_order: "M6",
    m7_packets_that_are_no_messages_harm_nobody: "M7",
    m8_all_devices_are_back_after_a_broker_restart: "M8",
    m9_who_stands_still_fills_no_memory_and_loses_nothing: "M9",
    m10_nobodys_session_is_taken_over: "M10",
    m11_no_seed_loses_doubles_or_disorders_an_event: "M11",
    c1_no_jump_of_a_clock_opens_a_door_or_closes_one: "C1",
    c2_no_device_is_ever_without_a_certificate: "C2",
    i1_bad_certificates_are_refused_for_the_right_reason: "I1",
    i2_a_revoked_device_is_out_within_five_seconds: "I2",
    i3_no_device_reaches_anothers_topics: "I3",
    i4_a_claim_token_has_one_winner: "I4",
    h1_what_is_acknowledged_is_committed_with_its_effects: "H1",
    h2_the_hub_recovers_from_postgres_by_itself: "H2",
    h3_nothing_is_left_behind_by_clients_that_leave: "H3",
    s1_nothing_of_another_tenant_is_seen_by_any_operation: "S1",
    s3_what_is_taken_away_at_one_hub_is_refused_at_the_other: "S3",
    s8_a_million_limits_fit_and_are_exact: "S8",
    s9_whatever_is_done_to_an_audit_is_found: "S9",
    s10_seals_keep_their_places_keys_are_replaced_unnoticed_and_a_stolen_disk_tells_nothing: "S10",
    l1_a_fleet_learns_and_forgets_people_at_once: "L1",
    v1_camera_pipelines_made_anew_leave_nothing_behind: "V1",
}

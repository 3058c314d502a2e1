//! libFuzzer on the target that LINTEL_FUZZ_TARGET names. Built and run by scripts/fuzz.

#![no_main]

use std::sync::OnceLock;

use fuzz_targets::{TARGETS, Target};

static TARGET: OnceLock<Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let name = std::env::var("LINTEL_FUZZ_TARGET").unwrap_or_default();
        let found = TARGETS.into_iter().find(|target| target.name == name);
        let target = found.unwrap_or_else(|| panic!("LINTEL_FUZZ_TARGET={name:?} is none of the targets"));
        // The seeds become files where libFuzzer looks for them; it keeps what is new beside them.
        if let Some(folder) = std::env::var_os("LINTEL_FUZZ_SEEDS") {
            for (index, seed) in (target.seeds)().into_iter().enumerate() {
                let path = std::path::Path::new(&folder).join(format!("seed-{index}"));
                std::fs::write(path, seed).expect("the folder of the seeds can be written");
            }
        }
        let _ = TARGET.set(target);
    },
    |bytes: &[u8]| (TARGET.get().expect("set at the start").run)(bytes)
);

//! Makes cargo look at the migrations, which are compiled in.
//!
//! The macro that embeds them names them by absolute path, so that a copy of the sources that shares a target folder
//! would go on using the original's.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}

//! The program `edge-agent`. Everything is in the library; this file only starts it.

use std::process::ExitCode;

fn main() -> ExitCode {
    edge_agent::cli::main()
}

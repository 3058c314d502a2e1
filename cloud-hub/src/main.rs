//! Thin binary: arguments, configuration, exit codes. Everything else is the library's.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use cloud_hub::cli::{Cli, EXIT_CONFIGURATION, Task};
use cloud_hub::clock::Clock;
use cloud_hub::config::Config;
use cloud_hub::wiring;

fn main() -> ExitCode {
    let task = match Cli::parse().task(std::env::vars()) {
        Ok(task) => task,
        Err(error) => return fail(&error.to_string(), EXIT_CONFIGURATION),
    };
    // Before any TLS: the libraries below would otherwise not know which of their providers to take.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        return fail("the TLS provider cannot be installed", 1);
    }
    match task {
        Task::Print(text) => print(&text),
        Task::Ask(question) => match run(question.ask()) {
            Ok(text) => print(&text),
            Err(error) => fail(&error.to_string(), error.exit_code()),
        },
        Task::Copy(copy) => match run(copy.run()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error.to_string(), error.exit_code()),
        },
        Task::Import(import) => match run(import.run()) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => fail(&error.to_string(), error.exit_code()),
        },
        Task::Verify(config, asked) => match run(wiring::verify_audit(&config, asked, Clock::system())) {
            Ok((text, true)) => print(&text),
            Ok((text, false)) => {
                print(&text);
                ExitCode::FAILURE
            }
            Err(error) => fail(&format!("{error:#}"), 1),
        },
        Task::Migrate(config) => finish(&config, async |config| wiring::migrate(&config).await),
        Task::Serve(config) => finish(&config, async |config| wiring::serve(config, Clock::system()).await),
    }
}

fn finish(config: &Config, work: impl AsyncFnOnce(Config) -> anyhow::Result<()>) -> ExitCode {
    wiring::start_logging(&config.log.level, Clock::system());
    match run(work(config.clone())) {
        Ok(()) => ExitCode::SUCCESS,
        // The alternate form prints every cause.
        Err(error) => fail(&format!("{error:#}"), 1),
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("the operating system refuses threads or sockets at start: nothing can run").block_on(work)
}

/// Data go to stdout; a closed pipe is the reader's wish.
fn print(text: &str) -> ExitCode {
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// Errors go to stderr, in one line.
fn fail(message: &str, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "cloud-hub: {message}");
    ExitCode::from(code)
}

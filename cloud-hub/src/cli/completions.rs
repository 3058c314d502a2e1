//! Completion scripts for shells, made from the command line itself.

use clap::CommandFactory as _;

use super::Cli;

pub(super) const HELP: &str = "Examples:
  cloud-hub completions bash > /etc/bash_completion.d/cloud-hub
  cloud-hub completions zsh > \"${fpath[1]}/_cloud-hub\"
  cloud-hub completions fish > ~/.config/fish/completions/cloud-hub.fish";

pub(super) fn script(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "cloud-hub", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

//! What is to go wrong in a worker, as it is told on its command line.

use std::path::PathBuf;
use std::str::FromStr;

/// Which of the calls that change the state directory goes wrong, counted from 1 over all threads, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nothing.
    Nothing,
    /// SIGKILL just before the call is made.
    KillBefore(u64),
    /// SIGKILL in the middle: a write has written half of its bytes, another call is over.
    KillWithin(u64),
    /// Of the fsyncs alone: this one says EIO and does nothing, the next ones succeed, as a kernel's do.
    FailSync(u64),
    /// Nothing goes wrong, but every call is written to this file, with its bytes.
    Record(PathBuf),
}

/// Not a plan.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a plan: nothing, kill-before:N, kill-within:N, fail-sync:N or record:FILE")]
pub struct NoPlan;

impl FromStr for Plan {
    type Err = NoPlan;

    fn from_str(text: &str) -> Result<Self, NoPlan> {
        let Some((what, which)) = text.split_once(':') else {
            return if text == "nothing" { Ok(Self::Nothing) } else { Err(NoPlan) };
        };
        let number = || which.parse().map_err(|_| NoPlan);
        match what {
            "kill-before" => Ok(Self::KillBefore(number()?)),
            "kill-within" => Ok(Self::KillWithin(number()?)),
            "fail-sync" => Ok(Self::FailSync(number()?)),
            "record" => Ok(Self::Record(which.into())),
            _ => Err(NoPlan),
        }
    }
}

impl std::fmt::Display for Plan {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => out.write_str("nothing"),
            Self::KillBefore(n) => write!(out, "kill-before:{n}"),
            Self::KillWithin(n) => write!(out, "kill-within:{n}"),
            Self::FailSync(n) => write!(out, "fail-sync:{n}"),
            Self::Record(file) => write!(out, "record:{}", file.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_survives_the_command_line() {
        let plans =
            [Plan::Nothing, Plan::KillBefore(3), Plan::KillWithin(4), Plan::FailSync(5), Plan::Record("/tmp/x".into())];
        for plan in plans {
            assert_eq!(plan.to_string().parse(), Ok(plan));
        }
        assert_eq!("kill-before:x".parse::<Plan>(), Err(NoPlan));
    }
}

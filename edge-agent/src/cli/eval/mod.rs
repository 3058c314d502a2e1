//! `edge-agent eval`: recognition measured on anybody's pictures, with the very code of the door.

mod print;
mod print_liveness;
mod report;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use face_core::liveness::Demand;
use serde_json::json;

use super::{Exit, Output, output};
use crate::clock::SystemClock;
use crate::config::Config;
use crate::eval::{self, EvalError, Gate, PairsReport, Question};
use crate::logging::chain;

const PAIRS_HELP: &str = "\
Examples:
  edge-agent eval pairs --images faces --pairs faces/pairs.csv
  edge-agent eval pairs --images faces --pairs pairs.csv --gate enrol -o json
  edge-agent eval pairs --images faces --labels labels.csv
  edge-agent eval pairs --images faces --pairs pairs.csv --against plain

Lists: CSV with the header a,b,same or a,b,same,fold (same is 1 for one person and 0 for two), paths relative to --images. \
Labels have the header path,person. A file labels.csv beside the pairs is taken without being named; without labels only \
what follows from the pairs themselves is known of who is who.

How it counts: accuracy is over the listed pairs, with the threshold of each fold from the other folds; without folds it \
is that of the best single threshold, which is optimistic. All else is over every two pictures of the list. A picture \
without a template is named and counted in fte: a listed pair with it counts as wrong, a genuine pair as refused, an \
impostor pair is left out. A rate is reported from 3 / rate impostor pairs on (rule of three), else it is null. \
Intervals: 95 %, bootstrap of people. JPEG, PNG, PGM and PPM are read; at most 10,000 pictures.";

const IDENTIFY_HELP: &str = "\
Examples:
  edge-agent eval identify --images faces --labels faces/labels.csv
  edge-agent eval identify --images faces --labels labels.csv --seed 7 -o json

Labels: CSV with the header path,person, paths relative to --images.

How it counts: who is enrolled, and with which pictures, is drawn 10 times from the seed; pictures that the hub would \
refuse as two people are not enrolled together. People with four or more pictures come to the door with those that are \
left after three; the gallery is filled with others, and everybody else is a stranger. FPIR is the share of the \
strangers' pictures that open the door, FNIR the share of the enrolled people's pictures that do not open it in their \
name; the margin of the policy `default` holds. A probe without a template is a miss; a stranger's is left out. A rate is \
reported from 3 / rate strangers' pictures on (rule of three), else it is null. Intervals: 95 %, bootstrap of people.";

const LIVENESS_HELP: &str = "\
Examples:
  edge-agent eval liveness --list liveness/list.csv --root liveness
  edge-agent eval liveness --list list.csv --root clips --level strict -o json

List: CSV with the header path,label,species, paths relative to --root. The label is live or attack; an attack names its \
species, such as print or replay. What a file is, its content says: JPEG, PNG, PGM and PPM are still pictures, all else is \
a video. A picture or video that cannot be read to its end stops the measurement.

How it counts: each video is watched as a door's camera of the default size and rate would, at its own times. It is live \
if a door that knew the face would have opened at any moment; else an attack if it was called one at any moment; else \
challenge (undecided) or insufficient (too little to see). A still picture is never live. APCER: attacks called live, for \
each species. BPCER: living persons called an attack. Arrivals: the watching starts anew at each half second, up to 2.5 s \
before the end. Ablation: the same findings without each method, and with each method alone.";

const REPORT_HELP: &str = "\
Examples:
  edge-agent eval report --images faces --pairs faces/pairs.csv --out report.html
  edge-agent eval report --images faces --labels labels.csv --liveness-list clips/list.csv --liveness-root clips --out report.html

Writes one HTML page that needs nothing else: the figures of `eval pairs`, ROC, DET, score histograms and the \
error-versus-reject curve, and with the two liveness arguments the report card of `eval liveness`. It names files and \
shows no picture.";

/// Verbs of `eval`.
#[derive(Debug, Subcommand)]
pub enum EvalCommand {
    /// Same person or not: accuracy, true accepts at each false accept rate, equal error rate, thresholds.
    #[command(after_help = PAIRS_HELP)]
    Pairs(PairsArgs),
    /// Who is it, if anybody: misses at each rate of strangers let in, for several gallery sizes.
    #[command(after_help = IDENTIFY_HELP)]
    Identify(IdentifyArgs),
    /// Alive or not: attacks called live by kind of attack, living persons refused, time to decision, ablation.
    #[command(after_help = LIVENESS_HELP)]
    Liveness(LivenessArgs),
    /// All of it on one page, with drawings.
    #[command(after_help = REPORT_HELP)]
    Report(ReportArgs),
}

/// Arguments of `eval report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    #[command(flatten)]
    pairs: PairsArgs,

    /// List of presentations for the liveness report card: path,label,species.
    #[arg(long, value_name = "FILE.csv", requires = "liveness_root")]
    liveness_list: Option<PathBuf>,

    /// The folder that the paths of that list are relative to.
    #[arg(long, value_name = "DIR", requires = "liveness_list")]
    liveness_root: Option<PathBuf>,

    /// What a door asks for before a face counts as alive.
    #[arg(long, value_enum, default_value_t = LevelName::Standard)]
    level: LevelName,

    /// Where the page is written.
    #[arg(long, value_name = "FILE.html")]
    out: PathBuf,
}

/// Arguments of `eval liveness`.
#[derive(Debug, Args)]
pub struct LivenessArgs {
    /// List of presentations: path,label,species.
    #[arg(long, value_name = "FILE.csv")]
    list: PathBuf,

    /// The folder that the paths of the list are relative to.
    #[arg(long, value_name = "DIR")]
    root: PathBuf,

    /// What a door asks for before a face counts as alive.
    #[arg(long, value_enum, default_value_t = LevelName::Standard)]
    level: LevelName,
}

/// The levels by name, as in a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LevelName {
    /// The passive model alone.
    Basic,
    /// And a sign of life.
    Standard,
    /// And a blink or a turn of the head, over twice the frames.
    Strict,
}

impl LevelName {
    fn demand(self) -> (&'static str, Demand) {
        match self {
            Self::Basic => ("basic", Demand::basic()),
            Self::Standard => ("standard", Demand::standard()),
            Self::Strict => ("strict", Demand::strict()),
        }
    }
}

/// Arguments of `eval pairs`.
#[derive(Debug, Args)]
pub struct PairsArgs {
    #[command(flatten)]
    pictures: PicturesArgs,

    /// List of pairs: a,b,same[,fold].
    #[arg(long, value_name = "FILE.csv", required_unless_present = "labels")]
    pairs: Option<PathBuf>,

    /// Who is on each picture: path,person. Without --pairs all these pictures are compared.
    #[arg(long, value_name = "FILE.csv")]
    labels: Option<PathBuf>,
}

/// Arguments of `eval identify`.
#[derive(Debug, Args)]
pub struct IdentifyArgs {
    #[command(flatten)]
    pictures: PicturesArgs,

    /// Who is on each picture: path,person.
    #[arg(long, value_name = "FILE.csv")]
    labels: PathBuf,
}

/// Arguments of both.
#[derive(Debug, Args)]
struct PicturesArgs {
    /// The folder that the paths of the lists are relative to.
    #[arg(long, value_name = "DIR")]
    images: PathBuf,

    /// The model pack, one of `edge-agent models list`. Without it: the one in use.
    #[arg(long, value_name = "NAME")]
    pack: Option<String>,

    /// The quality that a face must have: that of a face before a door, or that of an enrolment photograph.
    #[arg(long, value_enum, default_value_t = GateName::Match)]
    gate: GateName,

    /// Measure another pipeline on the same pictures too, and by how much the door's own differs.
    #[arg(long, value_enum, value_name = "PIPELINE")]
    against: Option<Pipeline>,

    /// Where the random draws start. The same seed gives the same figures.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
}

/// Pipelines to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Pipeline {
    /// One pass for the landmarks and one for the embedding.
    Plain,
}

/// The gates by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum GateName {
    /// A face before a door.
    Match,
    /// An enrolment photograph.
    Enrol,
}

impl PicturesArgs {
    fn question(&self) -> Question {
        let gate = match self.gate {
            GateName::Match => Gate::Match,
            GateName::Enrol => Gate::Enrol,
        };
        let against_plain = self.against == Some(Pipeline::Plain);
        Question { images: self.images.clone(), pack: self.pack.clone(), gate, seed: self.seed, against_plain }
    }
}

pub(super) fn eval(command: &EvalCommand, config: &Config, form: Output) -> Exit {
    let told = match command {
        EvalCommand::Pairs(args) => args
            .measured(config)
            .map(|report| if form == Output::Json { print::pairs_json(&report) } else { print::pairs_table(&report) }),
        EvalCommand::Report(args) => return report(args, config, form),
        EvalCommand::Identify(args) => eval::identify(&args.pictures.question(), &args.labels, config).map(|report| {
            if form == Output::Json { print::identify_json(&report) } else { print::identify_table(&report) }
        }),
        EvalCommand::Liveness(args) => {
            let (level, demand) = args.level.demand();
            eval::liveness::liveness(&args.list, &args.root, level, &demand, config).map(|report| {
                if form == Output::Json { print_liveness::json(&report) } else { print_liveness::table(&report) }
            })
        }
    };
    match told {
        Ok(text) => output::text(&text),
        Err(error) => refused(&error),
    }
}

impl PairsArgs {
    fn measured(&self, config: &Config) -> Result<PairsReport, EvalError> {
        eval::pairs(&self.pictures.question(), self.pairs.as_deref(), self.labels.as_deref(), config)
    }
}

fn report(args: &ReportArgs, config: &Config, form: Output) -> Exit {
    // Found out now, not after minutes of measuring.
    if args.out.is_dir() || !args.out.parent().is_none_or(|dir| dir.as_os_str().is_empty() || dir.is_dir()) {
        output::problem(&format!(
            "{}: cannot be written there; name a file in a folder that exists",
            args.out.display()
        ));
        return Exit::Failure;
    }
    let measured = args.pairs.measured(config).and_then(|pairs| {
        let lists = args.liveness_list.as_deref().zip(args.liveness_root.as_deref());
        let (level, demand) = args.level.demand();
        let liveness =
            lists.map(|(list, root)| eval::liveness::liveness(list, root, level, &demand, config)).transpose()?;
        Ok((pairs, liveness))
    });
    let (pairs, liveness) = match measured {
        Ok(measured) => measured,
        Err(error) => return refused(&error),
    };
    let page = report::page(&pairs, liveness.as_ref(), &SystemClock::utc().date().to_string());
    match report::write(&args.out, &page) {
        Ok(()) => output::object(&json!({"written": args.out.display().to_string(), "bytes": page.len()}), form),
        Err(error) => {
            output::problem(&format!("{}: cannot be written: {error}", args.out.display()));
            Exit::Failure
        }
    }
}

fn refused(error: &EvalError) -> Exit {
    output::problem(&match error {
        // Their sources are already in their messages.
        EvalError::List(_) | EvalError::Unreadable { .. } | EvalError::Media(_) => error.to_string(),
        other => chain(other),
    });
    Exit::Failure
}

//! What a presentation amounts to: one word, and when it was said.
//!
//! In: [`Watched`] and the [`Demand`] of a door. Out: [`Decided`]. Pure.

use std::time::Duration;

use face_core::liveness::{
    Demand, Findings, LivenessPolicy, LivenessVerdict, LivenessWindow, Method, judge, judge_still,
};

use super::watch::{Moment, Watched};

/// The four answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Decision {
    /// A door that knows the face would have opened.
    Live,
    /// It was called an attack, and never live.
    Attack,
    /// Neither: a person would have been asked to do something, or to stay.
    Challenge,
    /// Too little was seen to say anything.
    Insufficient,
}

impl Decision {
    /// Its name in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Attack => "attack",
            Self::Challenge => "challenge",
            Self::Insufficient => "insufficient",
        }
    }
}

/// A decision with its circumstances.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Decided {
    pub(crate) decision: Decision,
    /// Mean passive score of the moment that decided, else of the last one.
    pub(crate) score: Option<f32>,
    /// From the face's first frame to the deciding one.
    pub(crate) after: Option<Duration>,
    /// The method that called it an attack, or that was missing.
    pub(crate) by: Option<Method>,
}

/// Judges all that was seen. The worst that a door could do counts: a presentation that was live at any moment is live,
/// whatever was said of it before or after; then one that was called an attack at any moment is an attack.
pub(super) fn decide(watched: &Watched, demand: &Demand) -> Decided {
    if let Some(scores) = &watched.still {
        let Some(scores) = scores else { return Decided::insufficient(None) };
        let score = Some(scores.mean());
        return match judge_still(*scores, &LivenessPolicy::default()) {
            Some(by) if demand.deciding().has(by) => {
                Decided { decision: Decision::Attack, score, after: None, by: Some(by) }
            }
            _ => Decided::insufficient(score),
        };
    }
    let verdicts = watched.moments.iter().map(|moment| (moment, judge(&moment.findings, demand)));
    let mut best: Option<(u8, Decided)> = None;
    for (moment, verdict) in verdicts {
        let (rank, decided) = decided_at(moment, &verdict);
        // Of equal ones the first tells when it was decided; while undecided, the last tells what is missing.
        let newer = best.is_none_or(|(before, _)| rank > before || (rank == before && rank < 2));
        if newer {
            best = Some((rank, decided));
        }
    }
    best.map_or_else(|| Decided::insufficient(None), |(_, decided)| decided)
}

impl Decided {
    fn insufficient(score: Option<f32>) -> Self {
        Self { decision: Decision::Insufficient, score, after: None, by: None }
    }
}

fn decided_at(moment: &Moment, verdict: &LivenessVerdict) -> (u8, Decided) {
    let passive = moment.findings.of(Method::Passive).score;
    let after = Some(moment.since_arrival);
    match *verdict {
        LivenessVerdict::Live { score } => {
            (3, Decided { decision: Decision::Live, score: Some(score), after, by: None })
        }
        LivenessVerdict::Attack { by, score } => {
            (2, Decided { decision: Decision::Attack, score: Some(score), after, by: Some(by) })
        }
        LivenessVerdict::Watch { missing, score } => {
            (1, Decided { decision: Decision::Challenge, score: Some(score), after: None, by: Some(missing) })
        }
        LivenessVerdict::Collecting { .. } | LivenessVerdict::Unavailable => (0, Decided::insufficient(passive)),
    }
}

/// Arrivals at each half second of a presentation: how long each took to be called live, or none when it never was.
///
/// The evidence of the frames is the same, only the window starts anew, as it does for somebody who arrives then.
/// Arrivals in the last `least` of the clip are left out: they had no time.
pub(super) fn arrivals(watched: &Watched, demand: &Demand, least: Duration) -> Vec<Option<Duration>> {
    const STEP: Duration = Duration::from_millis(500);
    let mut found = Vec::new();
    let mut start = Duration::ZERO;
    while start + least <= watched.length {
        found.push(first_live(&watched.moments, demand, start));
        start += STEP;
    }
    found
}

fn first_live(moments: &[Moment], demand: &Demand, start: Duration) -> Option<Duration> {
    let moments = moments.iter().skip_while(|moment| moment.at < start);
    let track = moments.clone().next()?.track;
    let mut window = LivenessWindow::new(LivenessPolicy::default());
    let mut arrived = None;
    for moment in moments.filter(|moment| moment.track == track) {
        let arrived = *arrived.get_or_insert(moment.at);
        let Some(evidence) = &moment.evidence else { continue };
        window.push(evidence.clone());
        let findings: Findings = window.findings();
        if judge(&findings, demand).is_live() {
            return Some(moment.at - arrived);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use face_core::liveness::{Check, CheckState};
    use face_core::{PassiveScores, TrackId};

    use super::*;

    fn still(boxed: f32, square: f32) -> Decided {
        let watched = Watched { still: Some(Some(PassiveScores { boxed, square })), ..Watched::default() };
        decide(&watched, &Demand::standard())
    }

    /// A video whose looks found these states of the passive model and of the change, 100 ms apart.
    fn video(states: &[(CheckState, CheckState)]) -> Decided {
        let moments = states.iter().zip(0u64..).map(|((passive, temporal), index)| Moment {
            track: TrackId(1),
            at: Duration::from_millis(100 * index),
            since_arrival: Duration::from_millis(100 * index),
            findings: Findings::over(20)
                .with(Method::Passive, Check::measured(*passive, 0.7))
                .with(Method::Temporal, Check::measured(*temporal, 1.0)),
            evidence: None,
        });
        let watched = Watched { moments: moments.collect(), n_frames: states.len(), ..Watched::default() };
        decide(&watched, &Demand::standard())
    }

    #[test]
    fn a_still_picture_is_never_live() {
        assert_eq!(still(1.0, 1.0).decision, Decision::Insufficient);
        assert_eq!((still(0.03, 0.99).decision, still(0.03, 0.99).by), (Decision::Attack, Some(Method::Passive)));
        let nobody = Watched { still: Some(None), ..Watched::default() };
        assert_eq!(decide(&nobody, &Demand::standard()).decision, Decision::Insufficient);
        assert_eq!(decide(&Watched::default(), &Demand::standard()).decision, Decision::Insufficient);
    }

    #[test]
    fn the_worst_that_a_door_could_have_done_counts() {
        use CheckState::{Fail, Pass, Undecided};
        let opened = video(&[(Fail, Pass), (Pass, Undecided), (Pass, Pass), (Pass, Fail)]);
        assert_eq!((opened.decision, opened.after), (Decision::Live, Some(Duration::from_millis(200))));
        let refused = video(&[(Pass, Undecided), (Fail, Pass), (Pass, Undecided)]);
        assert_eq!((refused.decision, refused.by), (Decision::Attack, Some(Method::Passive)));
        let unsure = video(&[(Pass, Undecided), (Undecided, Pass)]);
        assert_eq!((unsure.decision, unsure.by), (Decision::Challenge, Some(Method::Passive)));
    }
}

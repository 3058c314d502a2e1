//! The report card: error rates per kind of attack, by ISO/IEC 30107-3, and how little so few presentations can prove.
//!
//! In: labels and decisions. Out: [`Card`]. Pure.

use std::collections::BTreeMap;

use super::decision::Decision;
use crate::eval::lists::{Label, Presentation};

/// How often each answer was given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) live: usize,
    pub(crate) attack: usize,
    pub(crate) challenge: usize,
    pub(crate) insufficient: usize,
}

impl Tally {
    pub(crate) fn n(&self) -> usize {
        self.live + self.attack + self.challenge + self.insufficient
    }

    fn count(&mut self, decision: Decision) {
        *match decision {
            Decision::Live => &mut self.live,
            Decision::Attack => &mut self.attack,
            Decision::Challenge => &mut self.challenge,
            Decision::Insufficient => &mut self.insufficient,
        } += 1;
    }

    /// Share of the presentations that got one answer; 0 of none is 0.
    pub(crate) fn share(&self, answers: usize) -> f64 {
        if self.n() == 0 { 0.0 } else { answers as f64 / self.n() as f64 }
    }

    /// The rate that `answers` of all do not exclude with 95 % confidence (Clopper and Pearson, one-sided): with none of
    /// five wrong, up to 45 % may be.
    pub(crate) fn at_most(&self, answers: usize) -> f64 {
        let n = self.n();
        if answers >= n {
            return 1.0;
        }
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..60 {
            let middle = (low + high) / 2.0;
            if binomial_up_to(answers, n, middle) > 0.05 { low = middle } else { high = middle }
        }
        high
    }
}

/// Probability of at most `k` hits in `n` trials.
fn binomial_up_to(k: usize, n: usize, p: f64) -> f64 {
    let mut term = (1.0 - p).powi(i32::try_from(n).unwrap_or(i32::MAX));
    let mut sum = term;
    for hits in 0..k {
        term *= (n - hits) as f64 / (hits + 1) as f64 * p / (1.0 - p);
        sum += term;
    }
    sum
}

/// The rates of one set of decisions.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Card {
    /// Each kind of attack by name.
    pub(crate) species: BTreeMap<String, Tally>,
    /// Living persons, stills among them.
    pub(crate) live: Tally,
    /// Living persons on video: the only ones that can be called live.
    pub(crate) live_videos: Tally,
}

impl Card {
    pub(super) fn of<'a>(decided: impl Iterator<Item = (&'a Presentation, bool, Decision)>) -> Self {
        let mut card = Self { species: BTreeMap::new(), live: Tally::default(), live_videos: Tally::default() };
        for (presentation, is_still, decision) in decided {
            match presentation.label {
                Label::Attack => card.species.entry(presentation.species.clone()).or_default().count(decision),
                Label::Live => {
                    card.live.count(decision);
                    if !is_still {
                        card.live_videos.count(decision);
                    }
                }
            }
        }
        card
    }

    /// All attacks together.
    pub(crate) fn attacks(&self) -> Tally {
        self.species.values().fold(Tally::default(), |sum, tally| Tally {
            live: sum.live + tally.live,
            attack: sum.attack + tally.attack,
            challenge: sum.challenge + tally.challenge,
            insufficient: sum.insufficient + tally.insufficient,
        })
    }

    /// The kind of attack with the highest APCER (attacks called live); of equal ones, that which is least often called an
    /// attack.
    pub(crate) fn worst(&self) -> Option<(&str, f64)> {
        let key = |tally: &Tally| (tally.share(tally.live), -tally.share(tally.attack));
        let worst = self.species.iter().max_by(|a, b| {
            let ((rate_a, found_a), (rate_b, found_b)) = (key(a.1), key(b.1));
            rate_a.total_cmp(&rate_b).then(found_a.total_cmp(&found_b))
        });
        worst.map(|(name, tally)| (name.as_str(), tally.share(tally.live)))
    }

    /// Living persons called an attack.
    pub(crate) fn bpcer(&self) -> f64 {
        self.live.share(self.live.attack)
    }

    /// Relative impostor attack presentation accept rate: the worst APCER plus the share of living persons on video that
    /// no door would have let in. It takes every attack to look like somebody enrolled and every person to be known, so
    /// that it is an upper bound of both.
    pub(crate) fn riapar(&self) -> f64 {
        let refused = self.live_videos.n() - self.live_videos.live;
        self.worst().map_or(0.0, |(_, rate)| rate) + self.live_videos.share(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presentation(label: Label, species: &str) -> Presentation {
        Presentation { line: 2, path: "x".to_owned(), label, species: species.to_owned() }
    }

    fn card(rows: &[(Label, &str, bool, Decision)]) -> Card {
        let presentations: Vec<_> = rows.iter().map(|(label, species, ..)| presentation(*label, species)).collect();
        Card::of(presentations.iter().zip(rows).map(|(presentation, row)| (presentation, row.2, row.3)))
    }

    #[test]
    fn the_rates_are_those_of_the_standard() {
        use {Decision as D, Label as L};
        let card = card(&[
            (L::Attack, "print", false, D::Attack),
            (L::Attack, "print", false, D::Live),
            (L::Attack, "replay", false, D::Challenge),
            (L::Live, "", false, D::Live),
            (L::Live, "", false, D::Attack),
            (L::Live, "", true, D::Insufficient),
        ]);
        assert_eq!(card.worst(), Some(("print", 0.5)));
        assert_eq!((card.attacks().n(), card.attacks().attack), (3, 1));
        assert!((card.bpcer() - 1.0 / 3.0).abs() < 1e-12);
        assert!((card.riapar() - (0.5 + 0.5)).abs() < 1e-12, "one print in two, one person in two");
    }

    #[test]
    fn of_kinds_that_never_pass_the_least_recognised_is_named() {
        use {Decision as D, Label as L};
        let card = card(&[(L::Attack, "mask", false, D::Challenge), (L::Attack, "replay", false, D::Attack)]);
        assert_eq!(card.worst(), Some(("mask", 0.0)));
    }

    #[test]
    fn few_presentations_prove_little() {
        let five = Tally { attack: 5, ..Tally::default() };
        assert!((five.at_most(0) - 0.4507).abs() < 1e-4, "1 - 0.05^(1/5)");
        let many = Tally { live: 1, attack: 99, ..Tally::default() };
        assert!((many.at_most(1) - 0.0466).abs() < 1e-3, "{}", many.at_most(1));
        assert_eq!(Tally { live: 2, ..Tally::default() }.at_most(2), 1.0);
    }
}

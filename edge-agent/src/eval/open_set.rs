//! Everybody against a gallery in which not everybody is: who is missed, and who is taken for somebody.
//!
//! In: one template a picture (none where it gave none), the person on each, and how several photographs become one
//! template. Out: [`OpenSet`] for a gallery size. The decision is `face_core::identify` with the margin of the door. Who
//! is enrolled, with which pictures, is drawn several times from a seed. No I/O, no clock.

use std::collections::HashMap;

use face_core::{Embedding, Identification, OpenSetPolicy, PersonId, Ranked, Similarity, TemplateId, identify};
use uuid::Uuid;

use super::against::{AtRates, Difference};
use super::bootstrap::{Random, interval, replicates};
use super::rates::{FALSE_POSITIVE_RATES, Rate, threshold_at};

/// How often who is enrolled is drawn anew.
pub(crate) const DRAWS: usize = 10;
const REPLICATES: usize = 400;

/// The pictures of a measurement.
pub(crate) struct Album<'a> {
    pub(crate) templates: &'a [Option<Embedding>],
    /// The pictures of each person.
    pub(crate) people: &'a [Vec<usize>],
    /// One template from several photographs, or none where the hub would refuse them as photographs of two people.
    pub(crate) average: &'a (dyn Fn(&[usize]) -> Option<Embedding> + Sync),
    pub(crate) margin: f32,
    pub(crate) seed: u64,
}

/// The figures of one gallery size and one number of enrolment pictures.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OpenSet {
    /// People in the gallery.
    pub(crate) n: usize,
    /// Enrolment pictures of each.
    pub(crate) enrolled: usize,
    /// Enrolled people who come to the door.
    pub(crate) n_mated_people: usize,
    /// Their probes, in the draw with the fewest.
    pub(crate) n_mated: usize,
    /// Probes of people who are not enrolled, in the draw with the fewest.
    pub(crate) n_strangers: usize,
    /// Probing people who could not be enrolled, over all draws: all their probes count as missed.
    pub(crate) n_unenrolled: usize,
    pub(crate) points: Vec<Point>,
}

/// What can be said of one false positive rate.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Point {
    pub(crate) rate: Rate,
    /// None when there are too few strangers for this rate.
    pub(crate) found: Option<FoundMisses>,
}

/// Figures at a supported rate, means over the draws.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FoundMisses {
    pub(crate) threshold: f64,
    /// Share of the probes of enrolled people that open nothing in their name.
    pub(crate) misses: f64,
    pub(crate) misses_interval: Option<(f64, f64)>,
}

/// A probe's score, minus infinity when it opens nothing, and its person.
type Probe = (f32, u32);

/// The probes of one draw, each list the highest score first.
#[derive(Debug, Default)]
struct Drawn {
    mated: Vec<Probe>,
    strangers: Vec<Probe>,
    n_mated_people: usize,
    n_unenrolled: usize,
}

/// A person of the gallery: the pictures to enrol with (none when they never agree), and to come to the door with.
struct Member {
    person: usize,
    enrol: Option<Vec<usize>>,
    first: Option<usize>,
    probes: Vec<usize>,
}

/// Who is enrolled in one draw.
struct Plan {
    members: Vec<Member>,
    /// Pictures of people who are not enrolled.
    strangers: Vec<(usize, usize)>,
}

impl Album<'_> {
    /// Enrolment pictures kept aside for everybody who comes to the door: the same for 1 and 3, so that both meet the
    /// same probes. One, where nobody has more than three pictures.
    pub(crate) fn reserve(&self) -> usize {
        if self.people.iter().any(|pictures| pictures.len() >= 4) { 3 } else { 1 }
    }

    /// Gallery sizes worth measuring: those that leave as many people outside, and larger ones that leave enough
    /// strangers' pictures for the laxest rate.
    pub(crate) fn sizes(&self) -> Vec<usize> {
        let (people, pictures) = (self.people.len(), self.people.iter().map(Vec::len).sum::<usize>());
        let laxest = usize::try_from(FALSE_POSITIVE_RATES[0].trials_needed()).unwrap_or(usize::MAX);
        let per_person = pictures as f64 / people.max(1) as f64;
        let allowed = |n: usize| {
            // With the people who have most pictures enrolled, the others have about one each.
            n <= people / 2 || (n < people && (people - n) as f64 * per_person.min(1.0) >= 0.8 * laxest as f64)
        };
        let sizes: Vec<usize> = [10, 30, 100, 300, 1_000, 3_000, 10_000].into_iter().filter(|n| allowed(*n)).collect();
        if sizes.is_empty() { vec![(people / 2).max(1)] } else { sizes }
    }

    /// Measures a gallery of `n` people with `enrolled` pictures each (at most the reserve).
    pub(crate) fn measure(&self, n: usize, enrolled: usize, threads: usize) -> OpenSet {
        let drawn = self.draws(n, enrolled);
        let least = |count: fn(&Drawn) -> usize| drawn.iter().map(count).min().unwrap_or(0);
        let (n_mated, n_strangers) = (least(|draw| draw.mated.len()), least(|draw| draw.strangers.len()));
        let points = FALSE_POSITIVE_RATES.into_iter().map(|rate| {
            let supported = rate.is_supported_by(n_strangers) && n_mated > 0;
            Point { rate, found: supported.then(|| self.found(&drawn, rate, threads)).flatten() }
        });
        OpenSet {
            n,
            enrolled,
            n_mated_people: least(|draw| draw.n_mated_people),
            n_mated,
            n_strangers,
            n_unenrolled: drawn.iter().map(|draw| draw.n_unenrolled).sum(),
            points: points.collect(),
        }
    }

    fn draws(&self, n: usize, enrolled: usize) -> Vec<Drawn> {
        let plans = (0..DRAWS as u64).map(|draw| self.plan(n, &mut Random::stream(self.seed, draw)));
        plans.map(|plan| self.probe(&plan, enrolled)).collect()
    }

    /// Misses beside those of another pipeline on the same pictures: the same people are enrolled in both, in the same
    /// order of their pictures, and the same people are drawn for the interval.
    pub(crate) fn against(&self, plain: &Self, n: usize, enrolled: usize, threads: usize) -> AtRates {
        let (ours, plain) = (self.draws(n, enrolled), plain.draws(n, enrolled));
        let mean = |drawn: &[Drawn], rate: Rate, weight: &dyn Fn(u32) -> u64| {
            let each: Vec<f64> = drawn.iter().filter_map(|draw| Some(misses(draw, rate, weight)?.1)).collect();
            (!each.is_empty()).then(|| each.iter().sum::<f64>() / each.len() as f64)
        };
        let difference = |rate: Rate| {
            let enough = |draw: &Drawn| rate.is_supported_by(draw.strangers.len()) && !draw.mated.is_empty();
            if !ours.iter().chain(&plain).all(enough) {
                return None;
            }
            let drawn = replicates(REPLICATES, threads, self.seed, |random| {
                let weights = random.resample(self.people.len());
                let weight = |person: u32| weights[person as usize];
                Some(mean(&ours, rate, &weight)? - mean(&plain, rate, &weight)?)
            });
            let (plain, ours) = (mean(&plain, rate, &|_| 1)?, mean(&ours, rate, &|_| 1)?);
            Some(Difference { plain, ours, interval: interval(drawn.into_iter().flatten().collect()) })
        };
        FALSE_POSITIVE_RATES.into_iter().map(|rate| (rate, difference(rate))).collect()
    }

    /// Draws who is enrolled: first people with pictures left to come with, then others to fill the gallery.
    fn plan(&self, n: usize, random: &mut Random) -> Plan {
        let reserve = self.reserve();
        let mut order: Vec<usize> = (0..self.people.len()).collect();
        random.shuffle(&mut order);
        // Stable: within each of the two kinds the order stays drawn.
        order.sort_by_key(|person| self.people[*person].len() <= reserve);
        let outside = order.split_off(n.min(order.len()));
        let members = order.into_iter().map(|person| self.member(person, reserve, random)).collect();
        let strangers =
            outside.iter().flat_map(|person| self.people[*person].iter().map(|picture| (*person, *picture)));
        Plan { members, strangers: strangers.collect() }
    }

    fn member(&self, person: usize, reserve: usize, random: &mut Random) -> Member {
        let mut pictures = self.people[person].clone();
        random.shuffle(&mut pictures);
        let comes = pictures.len() > reserve;
        let wanted = if comes { reserve } else { pictures.len() };
        let enrol = self.agreeing(&pictures, wanted);
        let first = pictures.iter().copied().find(|picture| self.templates[*picture].is_some());
        let aside = enrol.clone().unwrap_or_else(|| pictures[..wanted].to_vec());
        let probes =
            if comes { pictures.into_iter().filter(|picture| !aside.contains(picture)).collect() } else { Vec::new() };
        Member { person, enrol, first, probes }
    }

    /// The first pictures in order that make one template: whoever enrols takes another picture when one is refused.
    fn agreeing(&self, pictures: &[usize], wanted: usize) -> Option<Vec<usize>> {
        (0..pictures.len()).find_map(|start| {
            let mut chosen: Vec<usize> = Vec::with_capacity(wanted);
            for picture in &pictures[start..] {
                chosen.push(*picture);
                if self.templates[*picture].is_none() || (self.average)(&chosen).is_none() {
                    chosen.pop();
                }
                if chosen.len() == wanted {
                    return Some(chosen);
                }
            }
            None
        })
    }

    /// Enrols as planned and shows everybody to the gallery.
    fn probe(&self, plan: &Plan, enrolled: usize) -> Drawn {
        let n_mated_people = plan.members.iter().filter(|member| !member.probes.is_empty()).count();
        let mut drawn = Drawn { n_mated_people, ..Drawn::default() };
        let mut gallery = Vec::with_capacity(plan.members.len());
        for member in &plan.members {
            let template = match &member.enrol {
                Some(pictures) => (self.average)(&pictures[..enrolled.min(pictures.len())]),
                None if enrolled == 1 => member.first.and_then(|picture| self.templates[picture].clone()),
                None => None,
            };
            match template {
                Some(template) => gallery.push((person_id(member.person), template)),
                None if !member.probes.is_empty() => drawn.n_unenrolled += 1,
                None => {}
            }
        }
        for member in &plan.members {
            let number = number(member.person);
            drawn.mated.extend(member.probes.iter().map(|picture| {
                let own = self.opened(*picture, &gallery).filter(|(person, _)| *person == person_id(member.person));
                (own.map_or(f32::NEG_INFINITY, |(_, score)| score), number)
            }));
        }
        // A stranger's picture without a template opens nothing, and left in it would dilute the false positives.
        let seen = plan.strangers.iter().filter(|(_, picture)| self.templates[*picture].is_some());
        drawn.strangers.extend(seen.map(|(person, picture)| {
            (self.opened(*picture, &gallery).map_or(f32::NEG_INFINITY, |(_, score)| score), number(*person))
        }));
        drawn.mated.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        drawn.strangers.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        drawn
    }

    /// Whom a picture opens the door for when any score is enough; the margin still holds.
    fn opened(&self, picture: usize, gallery: &[(PersonId, Embedding)]) -> Option<(PersonId, f32)> {
        let probe = self.templates[picture].as_ref()?;
        let rows = gallery.iter().map(|(person, template)| Ranked {
            person: *person,
            template: TemplateId(person.0),
            similarity: probe.similarity(template),
        });
        let policy = OpenSetPolicy { threshold: Similarity::new(-1.0), margin: self.margin };
        match identify(&rows.collect::<Vec<_>>(), &policy) {
            Identification::Known { person, score, .. } => Some((person, score.value())),
            Identification::Unknown { .. } | Identification::Ambiguous { .. } | Identification::NotThem { .. } => None,
        }
    }

    fn found(&self, drawn: &[Drawn], rate: Rate, threads: usize) -> Option<FoundMisses> {
        let each: Vec<(f32, f64)> = drawn.iter().filter_map(|draw| misses(draw, rate, |_| 1)).collect();
        let n = each.len() as f64;
        let n_people = self.people.len();
        let again = replicates(REPLICATES, threads, self.seed, |random| {
            let weights = random.resample(n_people);
            let each: Vec<f64> = drawn
                .iter()
                .filter_map(|draw| Some(misses(draw, rate, |person| weights[person as usize])?.1))
                .collect();
            (!each.is_empty()).then(|| each.iter().sum::<f64>() / each.len() as f64)
        });
        (!each.is_empty()).then(|| FoundMisses {
            threshold: each.iter().map(|(threshold, _)| f64::from(*threshold)).sum::<f64>() / n,
            misses: each.iter().map(|(_, misses)| misses).sum::<f64>() / n,
            misses_interval: interval(again.into_iter().flatten().collect()),
        })
    }
}

/// Threshold and share of misses of one draw when each person counts by a weight; none when nobody is left.
fn misses(draw: &Drawn, rate: Rate, weight: impl Fn(u32) -> u64) -> Option<(f32, f64)> {
    let sum = |probes: &[Probe]| probes.iter().map(|(_, person)| weight(*person)).sum::<u64>();
    let (strangers, mated) = (sum(&draw.strangers), sum(&draw.mated));
    if strangers == 0 || mated == 0 {
        return None;
    }
    let threshold =
        threshold_at(rate.value, strangers, draw.strangers.iter().map(|(score, person)| (*score, weight(*person))));
    let threshold = threshold.max(-1.0);
    let hits = draw.mated.partition_point(|(score, _)| *score >= threshold);
    Some((threshold, 1.0 - sum(&draw.mated[..hits]) as f64 / mated as f64))
}

fn number(person: usize) -> u32 {
    u32::try_from(person).expect("fewer people than 2^32")
}

fn person_id(person: usize) -> PersonId {
    PersonId(Uuid::from_u128(person as u128 + 1))
}

/// The pictures of each person.
pub(crate) fn by_person(people: &[usize]) -> Vec<Vec<usize>> {
    let mut order: HashMap<usize, usize> = HashMap::new();
    let mut pictures: Vec<Vec<usize>> = Vec::new();
    for (picture, person) in people.iter().enumerate() {
        let next = order.len();
        let index = *order.entry(*person).or_insert(next);
        if index == pictures.len() {
            pictures.push(Vec::new());
        }
        pictures[index].push(picture);
    }
    pictures
}

#[cfg(test)]
mod tests;

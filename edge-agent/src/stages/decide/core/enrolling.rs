//! Taking a face at the door for somebody who is to be enrolled: the next one that the door would believe.
//!
//! In: an operator's order, then what the stages find. Out: one answer. A face is taken when it is the only one before the
//! camera, good enough to be recognised by, and alive by the door's own rules: a template of a photograph would let in
//! whoever holds it. Whether it becomes anybody's template is the hub's to say.

use face_core::{Embedding, MonoTime, TrackId};

use super::{Decider, Output};
use crate::stages::decide::{EnrolOrder, OrderTold, TakenFace, Told};

impl Decider {
    /// A newer order takes the place of one that waits: the operator has thought again.
    pub(super) fn enrol(&mut self, order: EnrolOrder) -> Vec<Output> {
        let before = self.enrolling.replace(order).map(|before| answer(before, Told::NobodyCame));
        before.into_iter().chain([Output::WakeAt(order.not_after)]).collect()
    }

    /// The face of this track, if an order waits for one and this is it.
    pub(super) fn take_face(&mut self, track: TrackId, now: MonoTime) -> Option<Output> {
        let order = self.enrolling.filter(|order| now <= order.not_after)?;
        if self.cases.len() != 1 {
            return None;
        }
        let case = self.cases.get(&track)?;
        let (report, search) = (case.report.as_ref()?, case.search.as_ref()?);
        let small = report.height_px.min(search.height_px) < self.rules.min_face_px;
        if small || !report.reasons.is_empty() || !report.models_answered {
            return None;
        }
        // None says that it is alive, or that the door asks for no life.
        let rules = &self.rules;
        let alive = rules
            .liveness
            .is_none_or(|liveness| case.liveness_judgement(report, search.shot_at, rules, liveness).is_none());
        if !alive {
            return None;
        }
        let face = TakenFace { embedding: Embedding::clone(&search.embedding), quality: search.quality };
        self.enrolling = None;
        Some(answer(order, Told::Taken(Box::new(face))))
    }

    /// Ends an order whose time is over, or that can have no answer any more.
    pub(super) fn nobody_came(&mut self, hopeless: bool, now: MonoTime) -> Option<Output> {
        let order = self.enrolling.filter(|order| hopeless || now >= order.not_after)?;
        self.enrolling = None;
        Some(answer(order, Told::NobodyCame))
    }
}

fn answer(order: EnrolOrder, outcome: Told) -> Output {
    Output::Answer(OrderTold { command: order.command, outcome })
}

//! Who a face is, as a door sees it: by the policy for the gallery that was searched, and by all shots of this visit.
//!
//! In: what identify found. Out: an [`Identification`], and the words of it for events.

use face_core::identify::{Identification, OpenSetPolicy, identify_with_anchors};

use super::{Case, Rules};
use crate::stages::decide::context::Identity;
use crate::stages::identify::Identified;

/// Who was found, by the policy for a gallery of the size that was searched.
pub(super) fn who(search: &Identified, rules: &Rules) -> (Identification, OpenSetPolicy) {
    let policy = rules.open_set.for_gallery(search.n_templates);
    (identify_with_anchors(&search.ranked, &search.anchors, &policy), policy)
}

impl Case {
    /// Who the face is by its newest shot. Whom an earlier shot was nearer to not being it is not, in this visit: who is
    /// taken for somebody does not get a new chance with each picture.
    pub(super) fn who(&self, search: &Identified, rules: &Rules) -> (Identification, OpenSetPolicy) {
        let (found, policy) = who(search, rules);
        match (found, self.disowned) {
            (
                Identification::Known { person, .. },
                Some(disowned @ Identification::NotThem { person: not_them, .. }),
            ) if person == not_them => (disowned, policy),
            _ => (found, policy),
        }
    }

    pub(super) fn identity(&self, rules: &Rules) -> Option<Identity> {
        let search = self.search.as_ref()?;
        let (found, policy) = self.who(search, rules);
        Some(Identity::of(&found, &policy, search.quality))
    }
}

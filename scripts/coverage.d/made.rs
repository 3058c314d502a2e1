//! What `scripts/coverage --self-test` measures: one function is tested and one is not.

/// Whether somebody may vote.
pub fn may_vote(age: u32) -> bool {
    age >= 18
}

/// Nobody asks for this.
pub fn forgotten(a: u32) -> u32 {
    let doubled = a * 2;
    doubled + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_within() {
        assert_eq!((may_vote(17), may_vote(18)), (false, true));
    }
}

//! Conditions of every kind of object in one shape.

use crate::status::{Condition, ConditionKind};

/// A reason word and a sentence, for a condition that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub reason: &'static str,
    pub message: String,
}

/// Whether a condition holds, its reason and its message.
pub(super) type Told = (bool, &'static str, String);

/// What follows from a problem: that the condition does not hold, or that it does for a `good` reason.
pub(super) fn holds_without(problem: Option<&Problem>, good: &'static str) -> Told {
    match problem {
        Some(problem) => (false, problem.reason, problem.message.clone()),
        None => (true, good, String::new()),
    }
}

/// A condition from what is told, about one generation of its object.
pub(super) fn condition(kind: ConditionKind, told: Told, generation: i64) -> Condition {
    let (holds, reason, message) = told;
    Condition {
        kind,
        holds,
        reason,
        message,
        observed_generation: generation,
    }
}

//! Conditions of a status: at most one of each type, with the time of its last change.

use skiff_proto::{Condition, Timestamp};

pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}

pub fn remove(conditions: &mut Vec<Condition>, type_: &str) {
    conditions.retain(|c| c.type_ != type_);
}

/// Replaces the condition unless status and reason stay; the transition time stays when
/// the status does.
pub fn set(conditions: &mut Vec<Condition>, mut new: Condition) {
    if let Some(current) = find(conditions, &new.type_) {
        if current.status == new.status && current.reason == new.reason {
            return;
        }
        if current.status == new.status {
            new.last_transition_time = current.last_transition_time;
        }
    }
    remove(conditions, &new.type_);
    conditions.push(new);
}

pub fn condition(
    type_: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Condition {
    Condition {
        type_: type_.into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        last_transition_time: Some(now),
        ..Condition::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transition_time_follows_the_status() {
        let at = |s| Timestamp::from_unix(s).expect("valid");
        let mut list = vec![condition("A", "True", "One", "m", at(1))];
        set(&mut list, condition("A", "True", "One", "other words", at(2)));
        assert_eq!(list, [condition("A", "True", "One", "m", at(1))]);
        set(&mut list, condition("A", "True", "Two", "m", at(2)));
        assert_eq!(list, [condition("A", "True", "Two", "m", at(1))]);
        set(&mut list, condition("A", "False", "Two", "m", at(3)));
        assert_eq!(list, [condition("A", "False", "Two", "m", at(3))]);
    }
}

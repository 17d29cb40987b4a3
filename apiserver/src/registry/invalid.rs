//! The `Invalid` status (422): all broken rules at once, as upstream words it.

use skiff_proto::Status;
use skiff_proto::status::{Cause, Details, reason};

use super::{FieldError, Kind};

pub(super) fn status(kind: &Kind, name: &str, errors: &[FieldError]) -> Status {
    let qualified = if kind.resource.group.is_empty() {
        kind.kind.to_owned()
    } else {
        format!("{}.{}", kind.kind, kind.resource.group)
    };
    let mut status = Status::new(
        reason::INVALID,
        format!("{qualified} {name:?} is invalid: {}", joined(errors)),
    );
    status.details = Some(Box::new(Details {
        name: name.to_owned(),
        group: kind.resource.group.to_string(),
        // Upstream names the kind here, not the resource.
        kind: kind.kind.to_owned(),
        causes: errors.iter().map(cause).collect(),
        ..Details::default()
    }));
    status
}

/// One error stands alone; several stand in brackets, each said once.
fn joined(errors: &[FieldError]) -> String {
    let mut texts: Vec<String> = Vec::new();
    for error in errors {
        let text = format!("{}: {}", error.field, error.message);
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    if let [text] = texts.as_slice() { text.clone() } else { format!("[{}]", texts.join(", ")) }
}

fn cause(error: &FieldError) -> Cause {
    Cause {
        reason: error.reason.to_owned(),
        message: error.message.clone(),
        field: error.field.clone(),
    }
}

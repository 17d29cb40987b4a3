//! Where in an object something stands: `spec.containers[0].name`. Linked through the call
//! stack, so that it costs nothing until an error tells it.

use std::fmt;

#[derive(Clone, Copy)]
pub(super) struct Path<'p> {
    above: Option<&'p Path<'p>>,
    step: Step<'p>,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Root,
    Field(&'p str),
    Index(usize),
    Key(&'p str),
}

impl<'p> Path<'p> {
    pub(super) const ROOT: Path<'static> = Path { above: None, step: Step::Root };

    pub(super) fn field(&'p self, name: &'p str) -> Path<'p> {
        Path { above: Some(self), step: Step::Field(name) }
    }

    pub(super) fn index(&'p self, at: usize) -> Path<'p> {
        Path { above: Some(self), step: Step::Index(at) }
    }

    /// An entry of a map: `limits[cpu]`.
    pub(super) fn key(&'p self, key: &'p str) -> Path<'p> {
        Path { above: Some(self), step: Step::Key(key) }
    }

    /// The path without indices, as type errors tell it.
    pub(super) fn without_indices(&self) -> String {
        let above = self.above.map(Path::without_indices).unwrap_or_default();
        match self.step {
            Step::Field(name) if above.is_empty() => name.to_owned(),
            Step::Field(name) => format!("{above}.{name}"),
            Step::Root | Step::Index(_) | Step::Key(_) => above,
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(above) = self.above {
            above.fmt(f)?;
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Field(name) if matches!(self.above, Some(Path { step: Step::Root, .. })) => {
                f.write_str(name)
            }
            Step::Field(name) => write!(f, ".{name}"),
            Step::Index(at) => write!(f, "[{at}]"),
            Step::Key(key) => write!(f, "[{key}]"),
        }
    }
}

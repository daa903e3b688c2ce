//! The builds of worker and api.

/// A build of worker and api.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// The workspace as it is.
    Current,
    /// The workspace with the patches of `e2e/sabotage` and the feature `faults`.
    Faulty,
    /// A later release: the workspace with one more field in the order, `gift_note`.
    Next,
}

impl Build {
    /// Returns the name of `worker` or `api` in this build.
    pub fn program(self, name: &str) -> String {
        match self {
            Self::Current => name.to_owned(),
            Self::Faulty => format!("{name}-faulty"),
            Self::Next => format!("{name}-next"),
        }
    }
}

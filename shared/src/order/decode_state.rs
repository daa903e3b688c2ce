//! State of the reader of a document: unknown fields, and the position of a fault.

use std::fmt::Write as _;

/// A fault in the shape of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    NotJson,
    WrongType,
    Missing,
    Duplicated,
    TooDeep,
}

impl Fault {
    const fn as_str(self) -> &'static str {
        match self {
            Self::NotJson => "not JSON",
            Self::WrongType => "wrong type or out of range",
            Self::Missing => "missing",
            Self::Duplicated => "duplicated",
            Self::TooDeep => "nested too deep",
        }
    }
}

/// State of a reader besides the order. It costs time only after a failure: the path is built while
/// the error returns.
#[derive(Default)]
pub(super) struct DecodeState {
    /// Number of unknown fields.
    pub(super) unknown_fields: u64,
    /// The object that holds the first unknown field.
    pub(super) first_unknown: Option<&'static str>,
    fault: Option<Fault>,
    /// Path to the fault, innermost step first.
    path: Vec<Step>,
}

enum Step {
    Field(&'static str),
    Index(usize),
}

impl DecodeState {
    /// Counts an unknown field of `entity`.
    pub(super) fn unknown_field(&mut self, entity: &'static str) {
        self.unknown_fields += 1;
        self.first_unknown.get_or_insert(entity);
    }

    /// Returns the error for a `fault` of `field`.
    pub(super) fn fault<E: serde::de::Error>(&mut self, field: &'static str, fault: Fault) -> E {
        self.fault = Some(fault);
        self.inside(field, E::custom(fault.as_str()))
    }

    /// Adds `field` to the path of an error in its value and returns the error.
    pub(super) fn inside<E>(&mut self, field: &'static str, error: E) -> E {
        self.path.push(Step::Field(field));
        error
    }

    /// Adds the position `index` of an array to the path of an error in its element and returns the
    /// error.
    pub(super) fn at<E>(&mut self, index: usize, error: E) -> E {
        self.path.push(Step::Index(index));
        error
    }

    /// Describes the position and the kind of the fault. Contains only our own words and names,
    /// because serde's messages quote the input.
    pub(super) fn describe(&self, error: &serde_json::Error) -> String {
        let fault = self.fault.unwrap_or_else(|| {
            // serde_json reports an integer beyond 64 bits as a type error, and one that even a
            // float cannot hold as a syntax error.
            if error.is_data() || error.to_string().starts_with("number out of range") {
                Fault::WrongType
            } else {
                Fault::NotJson
            }
        });
        let mut text = String::new();
        for step in self.path.iter().rev() {
            // Writing to a string cannot fail.
            let _ = match step {
                Step::Field(name) if text.is_empty() => write!(text, "{name}"),
                Step::Field(name) => write!(text, ".{name}"),
                Step::Index(index) => write!(text, "[{index}]"),
            };
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        let _ = write!(
            text,
            "{}, line {} column {}",
            fault.as_str(),
            error.line(),
            error.column()
        );
        text
    }
}

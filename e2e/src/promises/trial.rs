//! A promise and its trials.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::run::Run;

/// A promise and its trials.
#[derive(Debug)]
pub struct Promise {
    /// Number in `docs/promises.md`.
    pub number: u8,
    /// The promise.
    pub sentence: &'static str,
    /// The trials that try to break it.
    pub trials: &'static [Trial],
}

/// One attempt to break a promise.
#[derive(Debug)]
pub struct Trial {
    /// Name of the trial and of its test.
    pub name: &'static str,
    /// What the trial does to the system.
    pub fault: &'static str,
    /// Runs the trial. Panics if the promise is broken.
    pub body: fn(&mut Run),
}

impl Trial {
    /// Runs the trial and catches its panic.
    ///
    /// # Errors
    /// The message of the panic.
    pub fn run(&self, run: &mut Run) -> Result<(), String> {
        catch_unwind(AssertUnwindSafe(|| (self.body)(run))).map_err(|panic| text_of(&*panic))
    }
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic without a text".to_owned())
}

//! Keeps the memory of a process to itself. It holds passwords, tokens and personal data, which a
//! core dump would write to disk.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::output;

/// Forbids core dumps of this process. On Linux, other processes of the same user also cannot read
/// its memory or its environment, nor attach to it; root can. Call it before a secret is read.
pub fn forbid() {
    if let Err(error) = try_forbid() {
        output::warn(format_args!("cannot forbid core dumps: {error}"));
    }
}

fn try_forbid() -> io::Result<()> {
    // A dump to a pipe (`kernel.core_pattern = |…`) ignores the limit, so Linux needs both.
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};

        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    }
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if getrlimit(Resource::Core) != none {
        setrlimit(Resource::Core, none)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_not_dumpable_afterwards() {
        try_forbid().unwrap();
        #[cfg(target_os = "linux")]
        assert_eq!(
            rustix::process::dumpable_behavior().unwrap(),
            rustix::process::DumpableBehavior::NotDumpable
        );
        let limit = getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
        // Again, without the right to raise the limit.
        try_forbid().unwrap();
    }
}

//! Deliberate crashes and hangs, for end-to-end tests.
//!
//! With the feature `faults`, which a release build cannot have, [`CRASH_AT`] names the moment at
//! which a process crashes, and [`STALL_AT`] the moment at which it hangs. Without the feature, a
//! program contains no fault.

/// The environment variable that names the moment at which to crash, and at which pass of it, such
/// as `after_commit:3`.
pub const CRASH_AT: &str = "FAULT_CRASH_AT";

/// The environment variable that names the moment at which to hang forever, in the form of
/// [`CRASH_AT`].
pub const STALL_AT: &str = "FAULT_STALL_AT";

#[cfg(all(feature = "faults", not(debug_assertions)))]
compile_error!(
    "the feature `faults` crashes the process on purpose; build it with debug assertions only"
);

/// A moment at which the crash of a worker does the most harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before BEGIN.
    BeforeBegin,
    /// After the write of `orders`, before the write of its children.
    AfterUpsert,
    /// Just before COMMIT.
    BeforeCommit,
    /// Just after the answer to COMMIT.
    AfterCommit,
    /// After COMMIT, before the write to Redis.
    BeforeRedisWrite,
    /// After all writes, before the offset is stored.
    BeforeOffsetStored,
    /// While partitions are being revoked.
    InsideRevoke,
}

impl Moment {
    /// All moments.
    pub const ALL: [Self; 7] = [
        Self::BeforeBegin,
        Self::AfterUpsert,
        Self::BeforeCommit,
        Self::AfterCommit,
        Self::BeforeRedisWrite,
        Self::BeforeOffsetStored,
        Self::InsideRevoke,
    ];

    /// Returns the name of the moment in [`CRASH_AT`].
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BeforeBegin => "before_begin",
            Self::AfterUpsert => "after_upsert",
            Self::BeforeCommit => "before_commit",
            Self::AfterCommit => "after_commit",
            Self::BeforeRedisWrite => "before_redis_write",
            Self::BeforeOffsetStored => "before_offset_stored",
            Self::InsideRevoke => "inside_revoke",
        }
    }

    /// Passes the moment. Crashes or hangs if the environment names this pass.
    #[cfg(feature = "faults")]
    pub fn pass(self) {
        static CRASH: std::sync::LazyLock<Option<Chosen>> =
            std::sync::LazyLock::new(|| Chosen::from_variable(CRASH_AT));
        static STALL: std::sync::LazyLock<Option<Chosen>> =
            std::sync::LazyLock::new(|| Chosen::from_variable(STALL_AT));
        if CRASH.as_ref().is_some_and(|chosen| chosen.is_reached(self)) {
            std::process::abort();
        }
        if STALL.as_ref().is_some_and(|chosen| chosen.is_reached(self)) {
            // Lets the other tasks of the runtime continue.
            tokio::task::block_in_place(|| {
                loop {
                    std::thread::park();
                }
            });
        }
    }

    /// Does nothing: without the feature `faults`, every moment passes.
    #[cfg(not(feature = "faults"))]
    pub const fn pass(self) {}
}

/// A moment, and how many passes are left until its fault.
#[cfg(feature = "faults")]
struct Chosen {
    moment: String,
    left: std::sync::atomic::AtomicU64,
}

#[cfg(feature = "faults")]
impl Chosen {
    fn from_variable(name: &str) -> Option<Self> {
        let chosen = std::env::var(name).ok()?;
        let (moment, pass) = chosen.split_once(':')?;
        Some(Self {
            moment: moment.to_owned(),
            left: pass.parse::<u64>().ok()?.into(),
        })
    }

    /// Returns whether this pass of `moment` is the chosen one.
    fn is_reached(&self, moment: Moment) -> bool {
        use std::sync::atomic::Ordering;
        // Later passes wrap around and never reach 1 again.
        self.moment == moment.as_str() && self.left.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

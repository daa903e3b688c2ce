//! Deliberate faults, for the tests that prove that other tests can fail.
//!
//! With the feature `faults`, which a release build cannot have, [`BREAK`] names the rule that a
//! process breaks. [`CRASH_AT`] names the moment at which it crashes, and [`STALL_AT`] the moment
//! at which it hangs. Without the feature, a program contains no fault.

/// The environment variable that names the rule to break, such as `compare_and_set`.
pub const BREAK: &str = "FAULT_BREAK";

/// The environment variable that names the moment at which to hang forever, in the form of
/// [`CRASH_AT`].
pub const STALL_AT: &str = "FAULT_STALL_AT";

/// The environment variable that names the moment at which to crash, and at which pass of it, such
/// as `after_commit:3`.
pub const CRASH_AT: &str = "FAULT_CRASH_AT";

#[cfg(all(feature = "faults", not(debug_assertions)))]
compile_error!(
    "the feature `faults` breaks what the system promises: it is for builds with debug assertions only"
);

/// A rule without which the system would lose orders or return old ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invariant {
    /// The worker stores an offset only after every write of its record: Postgres, Redis or a
    /// repair mark, dead letter.
    OffsetAfterWrite,
    /// The stored offset is the lowest unfinished one, not the one behind the highest finished one.
    ContiguousOffset,
    /// A record of an earlier assignment of its partition moves no offset.
    EpochFence,
    /// A transient error is never treated as an error of the record.
    TransientIsNoVerdict,
    /// The children of an order are replaced only together with its row in `orders`.
    ChildrenFollowTheRow,
    /// Redis accepts no version that is older than the one it holds.
    CompareAndSet,
    /// A missing entry in Redis is created only from a row that was read or committed a moment ago.
    FreshFill,
    /// The local cache keeps nothing that was loaded before the announcement of a newer version.
    FillFence,
}

impl Invariant {
    /// All rules.
    pub const ALL: [Self; 8] = [
        Self::OffsetAfterWrite,
        Self::ContiguousOffset,
        Self::EpochFence,
        Self::TransientIsNoVerdict,
        Self::ChildrenFollowTheRow,
        Self::CompareAndSet,
        Self::FreshFill,
        Self::FillFence,
    ];

    /// Returns the name of the rule in [`BREAK`].
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OffsetAfterWrite => "offset_after_write",
            Self::ContiguousOffset => "contiguous_offset",
            Self::EpochFence => "epoch_fence",
            Self::TransientIsNoVerdict => "transient_is_no_verdict",
            Self::ChildrenFollowTheRow => "children_follow_the_row",
            Self::CompareAndSet => "compare_and_set",
            Self::FreshFill => "fresh_fill",
            Self::FillFence => "fill_fence",
        }
    }

    /// Returns whether this process breaks the rule.
    #[cfg(feature = "faults")]
    pub fn is_broken(self) -> bool {
        static BROKEN: std::sync::LazyLock<Option<String>> =
            std::sync::LazyLock::new(|| std::env::var(BREAK).ok());
        BROKEN.as_deref() == Some(self.as_str())
    }

    /// Returns false: without the feature `faults`, a process breaks no rule.
    #[cfg(not(feature = "faults"))]
    pub const fn is_broken(self) -> bool {
        false
    }
}

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

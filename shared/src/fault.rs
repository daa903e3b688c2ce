//! Faults on purpose, for the tests that show that other tests can fail. With the feature `faults`, which a release build
//! cannot have, [`BREAK`] names the rule that a process breaks, [`CRASH_AT`] the moment at which it dies and [`STALL_AT`] the
//! moment at which it stands still; without it nothing of this is left in a program.

/// The variable that names the rule to break, such as `compare_and_set`.
pub const BREAK: &str = "FAULT_BREAK";

/// The variable that names the moment at which to stand still for ever, in the form of [`CRASH_AT`].
pub const STALL_AT: &str = "FAULT_STALL_AT";

/// The variable that names the moment at which to die and at which pass of it, such as `after_commit:3`.
pub const CRASH_AT: &str = "FAULT_CRASH_AT";

#[cfg(all(feature = "faults", not(debug_assertions)))]
compile_error!(
    "the feature `faults` breaks what the system promises: it is for builds with debug assertions only"
);

/// A rule without which the system would lose orders or answer old ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// An offset is stored only after what it stands for.
    OffsetAfterWrite,
    /// The offset that is stored is the lowest unfinished one, not the one behind the highest finished one.
    ContiguousOffset,
    /// A record of an earlier assignment of its partition moves no offset.
    EpochFence,
    /// An error that will pass is no verdict on a record.
    TransientIsNoVerdict,
    /// The children of an order are replaced only together with a row that was.
    ChildrenFollowTheRow,
    /// Redis takes no version that is older than its own.
    CompareAndSet,
    /// A missing entry of Redis is created only by what was read a moment ago.
    FreshFill,
    /// The local cache keeps nothing that was loaded before an announcement of something newer.
    FillFence,
}

impl Rule {
    /// All of them.
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

    /// Its name in [`BREAK`].
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

    /// Whether this process breaks it.
    #[cfg(feature = "faults")]
    pub fn is_broken(self) -> bool {
        static BROKEN: std::sync::LazyLock<Option<String>> =
            std::sync::LazyLock::new(|| std::env::var(BREAK).ok());
        BROKEN.as_deref() == Some(self.as_str())
    }

    /// Whether this process breaks it: never.
    #[cfg(not(feature = "faults"))]
    pub const fn is_broken(self) -> bool {
        false
    }
}

/// A moment at which the death of a worker does the most harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before BEGIN.
    BeforeBegin,
    /// When `orders` is written and its children are not.
    AfterUpsert,
    /// Just before COMMIT.
    BeforeCommit,
    /// Just after COMMIT's answer.
    AfterCommit,
    /// Before what was committed goes to Redis.
    BeforeRedisWrite,
    /// When all is written and the offset is not stored.
    BeforeOffsetStored,
    /// When partitions are taken away.
    InsideRevoke,
}

impl Moment {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::BeforeBegin,
        Self::AfterUpsert,
        Self::BeforeCommit,
        Self::AfterCommit,
        Self::BeforeRedisWrite,
        Self::BeforeOffsetStored,
        Self::InsideRevoke,
    ];

    /// Its name in [`CRASH_AT`].
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

    /// Passes the moment, dies of it, or stands still.
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
            // The other tasks of the runtime go on.
            tokio::task::block_in_place(|| {
                loop {
                    std::thread::park();
                }
            });
        }
    }

    /// Passes the moment.
    #[cfg(not(feature = "faults"))]
    pub const fn pass(self) {}
}

/// A moment, and how often it is passed before something happens.
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

    /// Whether this pass of `moment` is the one.
    fn is_reached(&self, moment: Moment) -> bool {
        use std::sync::atomic::Ordering;
        // What passes later than that wraps around, and is never 1 again.
        self.moment == moment.as_str() && self.left.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

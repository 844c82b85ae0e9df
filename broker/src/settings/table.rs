//! Every setting of `millrace serve`, once: its name as a flag, a TOML key and an environment variable, its unit, its
//! default, its bounds and its line of documentation. Flags, `millrace config` and the README's table come from here.
//!
//! `--data-dir` is the TOML key `data-dir` and the variable `MILLRACE_DATA_DIR`; so for all.

/// What values a setting takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Any text that is not empty.
    Text,
    /// `HOST:PORT`; `[::1]:9092` for IPv6.
    Address,
    /// A whole number within bounds, both inclusive.
    Number {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// `true` or `false`.
    Switch,
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Flag without dashes and TOML key.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What the value counts, or the form of the text.
    pub unit: &'static str,
    /// Value when nobody says anything; `None`: derived at start-up, as `help` says.
    pub default: Option<&'static str>,
    /// What it does.
    pub help: &'static str,
}

impl Spec {
    /// Name of the environment variable.
    pub fn variable(&self) -> String {
        format!("MILLRACE_{}", self.name.replace('-', "_").to_ascii_uppercase())
    }
}

const fn text(name: &'static str, unit: &'static str, default: Option<&'static str>, help: &'static str) -> Spec {
    Spec { name, kind: Kind::Text, unit, default, help }
}

const fn address(name: &'static str, default: Option<&'static str>, help: &'static str) -> Spec {
    Spec { name, kind: Kind::Address, unit: "HOST:PORT", default, help }
}

const fn number(
    name: &'static str,
    unit: &'static str,
    (min, max): (u64, u64),
    default: Option<&'static str>,
    help: &'static str,
) -> Spec {
    Spec { name, kind: Kind::Number { min, max }, unit, default, help }
}

/// All settings, in the order that `millrace config` prints.
pub const SETTINGS: &[Spec] = &[
    text(
        "data-dir",
        "DIR",
        Some("./millrace-data"),
        "Directory of this process: lock, name, and by default log and metadata",
    ),
    address(
        "listen",
        Some("127.0.0.1:9092"),
        "Where shard 0 listens; shard i listens on PORT+i; port 0 takes free ports",
    ),
    address(
        "advertise",
        None,
        "What clients are told to connect to, shard i at PORT+i (default: as --listen; needed when that is 0.0.0.0 or [::])",
    ),
    Spec {
        name: "shared-port",
        kind: Kind::Switch,
        unit: "true|false",
        default: Some("false"),
        help: "One port and one Kafka node for all shards, for port mappings and load balancers; requests for other shards then take a way more. false: a port per shard",
    },
    text("name", "NAME", None, "Name of this process in the cluster (default: a random id kept in the data directory)"),
    text("zone", "ZONE", None, "Availability zone, told to clients as the rack (default: none)"),
    number(
        "shards",
        "shards",
        (1, 64),
        None,
        "Shards, one thread and, unless they share it, one port each (default: cores, less one above two cores, at most 16)",
    ),
    text(
        "object-store",
        "URL",
        None,
        "file:///DIR, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX (credentials, region and endpoint from the usual AWS_, GOOGLE_ or AZURE_ variables) or memory: (default: files under the data directory)",
    ),
    text(
        "metadata",
        "embedded:DIR|etcd://HOST:PORT,.../NAME",
        None,
        "Where ownership, topics and committed offsets are kept: a directory of this process, or a namespace of an etcd, version 3.4 or later (etcds:// with TLS; namespace millrace if none is given) (default: embedded:DATA-DIR/metadata; in memory with memory:)",
    ),
    text("etcd-user", "NAME", None, "User to sign in to etcd as (default: none)"),
    text("etcd-password-file", "FILE", None, "File with that user's password; a line break at its end is none of it"),
    text(
        "etcd-ca",
        "FILE",
        None,
        "Authorities (PEM) that the certificates of etcds:// are from (default: the system's)",
    ),
    text("etcd-cert", "FILE", None, "Client certificate (PEM) for etcds:// (default: none)"),
    text("etcd-key", "FILE", None, "Key (PEM) of that certificate"),
    number(
        "etcd-history-minutes",
        "minutes",
        (0, 60),
        Some("10"),
        "History that etcd keeps before this process compacts it, less where it grows fast; 0: left to whoever runs the etcd",
    ),
    number(
        "etcd-quota-mib",
        "MiB",
        (16, 65_536),
        None,
        "etcd's --quota-backend-bytes, which is warned of at 70 per cent, and by which commits of offsets are held back where it fills up (default: what etcd says, 2,048 where it does not)",
    ),
    address("admin", None, "HTTP address of /metrics, /healthz and /readyz (default: off)"),
    number("wal-lanes", "lanes", (1, 16), Some("1"), "Write-ahead logs that shards share, each with a thread"),
    number(
        "linger-ms",
        "milliseconds",
        (0, 10_000),
        None,
        "How long an upload waits for more records while others are under way (default: 0 on local disk and in memory, 25 on an object store)",
    ),
    number(
        "max-puts-per-second",
        "uploads per second",
        (1, 100_000),
        None,
        "Bound on small write-ahead uploads, which bounds the bill: an upload counts by how much it is below 256 KiB (default: 8 with a burst of 16 on an object store, else none)",
    ),
    number(
        "hedge-percent",
        "per cent",
        (0, 100),
        None,
        "Of a hundred uploads, and of a hundred reads, at most so many are sent a second time because they take longer than 95 of them; the first answer counts (default: 5 on an object store, else 0)",
    ),
    text(
        "store-model",
        "FILE",
        None,
        "Adds the latency and limits of another store, for measurements; what is served then is kept apart from what is there (default: none)",
    ),
    Spec {
        name: "fsync",
        kind: Kind::Switch,
        unit: "true|false",
        default: Some("true"),
        help: "Local disk: acknowledge after fdatasync; false survives a killed process but not a power loss, as Kafka's default",
    },
    number(
        "memory-mib",
        "MiB",
        (64, 1 << 20),
        Some("1024"),
        "Total of all buffers of this process, and besides that the size of the memory: store",
    ),
    text(
        "cold-cache-dir",
        "DIR",
        None,
        "Directory of this process on a local disk where what was read of segments in an object store is kept for the next reader; may be emptied at any stop (default: off)",
    ),
    number(
        "cold-cache-mib",
        "MiB",
        (64, 64 << 20),
        Some("4096"),
        "Bytes of all files in cold-cache-dir at most. About a quarter KiB of memory-mib goes with each MiB",
    ),
    number(
        "retention-check-ms",
        "milliseconds",
        (100, 24 * 3_600_000),
        Some("300000"),
        "How often every log is looked at for records that retention.ms and retention.bytes of its topic let go",
    ),
    number(
        "offsets-retention-minutes",
        "minutes",
        (1, 100 * 366 * 24 * 60),
        Some("10080"),
        "How long a committed offset is kept that nobody uses: in a group without members, or of a topic that no member subscribes to",
    ),
    Spec {
        name: "roll-segments",
        kind: Kind::Switch,
        unit: "true|false",
        default: Some("true"),
        help: "Committed records are rolled from the write-ahead log into a segment for each partition; false: they stay there. Without effect on the memory: store",
    },
    number(
        "roll-bytes",
        "bytes",
        (64 << 10, 1 << 30),
        Some("67108864"),
        "A partition is rolled when so many of its bytes are in no segment; a full segment has about that size",
    ),
    number(
        "roll-after-ms",
        "milliseconds",
        (1, 24 * 3_600_000),
        Some("60000"),
        "A partition with fewer bytes is rolled so long after the oldest of them, as far as the requests that this takes stay few beside those of the write-ahead log, and after a day in any case",
    ),
    number(
        "segment-check-ms",
        "milliseconds",
        (100, 7 * 24 * 3_600_000),
        Some("900000"),
        "How often segments are looked for that expired, were merged into others or are of deleted topics",
    ),
    number(
        "segment-grace-ms",
        "milliseconds",
        (100, 7 * 24 * 3_600_000),
        Some("600000"),
        "How long such a segment stays after it was found, for those who are reading it; on an object store also write-ahead objects that nothing needs",
    ),
    number(
        "journal-ms",
        "milliseconds",
        (1_000, 24 * 3_600_000),
        Some("60000"),
        "How often committed offsets, groups and settings are copied from the metadata store to the store of the log, if they changed: after a loss of the metadata store, millrace recover brings them back as of then. Without effect on the memory: store",
    ),
    number(
        "max-partitions",
        "partitions",
        (1, 1_000_000),
        Some("10000"),
        "Partitions of all topics together; a topic beyond it is refused with POLICY_VIOLATION. Each takes a few KiB of memory",
    ),
    number(
        "lease",
        "seconds",
        (2, 60),
        Some("5"),
        "Of a process among others: how long it may be silent before they take what it has. Shorter finds a dead one sooner, and a slow one too",
    ),
    number(
        "drain-timeout",
        "seconds",
        (0, 3_600),
        Some("30"),
        "Of a process among others: how long it serves on after SIGTERM until they have taken what it has; 0: not at all. A service manager must wait longer before it kills",
    ),
];

/// The setting of this name.
pub fn find(name: &str) -> Option<&'static Spec> {
    SETTINGS.iter().find(|spec| spec.name == name)
}

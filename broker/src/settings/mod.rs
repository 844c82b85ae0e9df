//! The effective settings: flag over environment variable over file over default, each with where it came from.
//!
//! Invariants:
//! 1. One table ([`table::SETTINGS`]) knows names, bounds and defaults; nothing else parses a setting.
//! 2. A value out of bounds, an unknown key of the file and a file that can't be read are errors that name the setting
//!    and where the value stands.

pub mod table;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};
use millrace_storage::meta::etcd::EtcdAddress;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use table::{Kind, SETTINGS, Spec};

/// Where a value came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// `--name`.
    Flag,
    /// `MILLRACE_NAME`.
    Variable(String),
    /// The file of `--config`.
    File(PathBuf),
    /// The table.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag => write!(f, "flag"),
            Origin::Variable(name) => write!(f, "{name}"),
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Default => write!(f, "default"),
        }
    }
}

/// A setting that can't be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SettingError {
    /// The value is not of the setting's kind or bounds.
    #[error("{name} = {value:?} (from {origin}): {problem}")]
    Value {
        /// The setting.
        name: &'static str,
        /// What was given.
        value: String,
        /// Where.
        origin: String,
        /// What is wrong.
        problem: String,
    },
    /// The file can't be read or is not TOML.
    #[error("settings file {path}: {problem}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Two settings contradict each other.
    #[error("{0}")]
    Contradiction(String),
}

/// Host and port of an address setting. The host may be a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostPort {
    /// Name or address, without brackets.
    pub host: String,
    /// Port; 0 = any free.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl HostPort {
    /// Reads `HOST:PORT` or `[IPV6]:PORT`.
    pub fn parse(text: &str) -> Result<HostPort, String> {
        let (host, port) = text.rsplit_once(':').ok_or("expected HOST:PORT")?;
        let port = port.parse().map_err(|_| format!("{port:?} is not a port"))?;
        let host = match host.strip_prefix('[') {
            Some(inner) => inner.strip_suffix(']').ok_or("a bracket is not closed")?,
            None if host.contains(':') => return Err("an IPv6 address needs brackets: [::1]:9092".to_owned()),
            None => host,
        };
        if host.is_empty() {
            return Err("the host is missing".to_owned());
        }
        Ok(HostPort { host: host.to_owned(), port })
    }
}

/// Every setting's text with its origin, before typing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Effective {
    values: BTreeMap<&'static str, (String, Origin)>,
}

/// The typed settings of `millrace serve`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Directory of the process.
    pub data_dir: PathBuf,
    /// Where shard 0 listens.
    pub listen: HostPort,
    /// One port for all shards.
    pub shared_port: bool,
    /// What clients are told; `None`: as `listen`.
    pub advertise: Option<HostPort>,
    /// Name of the process; `None`: kept in the data directory.
    pub name: Option<String>,
    /// Availability zone.
    pub zone: Option<String>,
    /// Shards; `None`: by the number of cores.
    pub shards: Option<u16>,
    /// URL of the object store; `None`: files under the data directory.
    pub object_store: Option<String>,
    /// `embedded:DIR` or an etcd; `None`: under the data directory, or in memory with `memory:`.
    pub metadata: Option<String>,
    /// User of the etcd.
    pub etcd_user: Option<String>,
    /// File with the user's password.
    pub etcd_password_file: Option<PathBuf>,
    /// Authorities of the etcd's certificates.
    pub etcd_ca: Option<PathBuf>,
    /// Client certificate.
    pub etcd_cert: Option<PathBuf>,
    /// Its key.
    pub etcd_key: Option<PathBuf>,
    /// History that the etcd keeps, minutes; 0: somebody else compacts it.
    pub etcd_history_minutes: u64,
    /// Quota of the etcd where it does not tell it, MiB.
    pub etcd_quota_mib: Option<u64>,
    /// Admin HTTP address.
    pub admin: Option<HostPort>,
    /// Lanes.
    pub wal_lanes: u16,
    /// Linger, milliseconds; `None`: by the kind of store.
    pub linger_ms: Option<u64>,
    /// Bound on uploads per second; `None`: by the kind of store.
    pub max_puts_per_second: Option<u32>,
    /// Share of uploads sent twice, per cent; `None`: by the kind of store.
    pub hedge_percent: Option<u32>,
    /// File that describes another store, whose manners this one takes on.
    pub store_model: Option<PathBuf>,
    /// fdatasync before acknowledging.
    pub fsync: bool,
    /// Total of all buffers, MiB.
    pub memory_mib: u64,
    /// Where blocks of segments are kept on disk.
    pub cold_cache_dir: Option<PathBuf>,
    /// How much of that, MiB.
    pub cold_cache_mib: u64,
    /// Between two looks for expired records, milliseconds.
    pub retention_check_ms: u64,
    /// How long a committed offset is kept that nobody uses, minutes.
    pub offsets_retention_minutes: u64,
    /// Whether committed records are rolled into segments.
    pub roll_segments: bool,
    /// Size at which a partition is rolled, bytes.
    pub roll_bytes: u64,
    /// Age at which a smaller one is, milliseconds.
    pub roll_after_ms: u64,
    /// Between two passes of the collector of segments, milliseconds.
    pub segment_check_ms: u64,
    /// How long segments that nothing names stay, milliseconds.
    pub segment_grace_ms: u64,
    /// Between two copies of offsets and groups in the store of the log, milliseconds.
    pub journal_ms: u64,
    /// Partitions of all topics together.
    pub max_partitions: u32,
    /// How long the others of a cluster wait for this process.
    pub lease: Duration,
    /// How long a graceful stop waits until the others have taken what it has.
    pub drain_timeout: Duration,
}

/// Adds the settings as flags, and `--config FILE`.
pub fn add_flags(command: Command) -> Command {
    let file = Arg::new("config")
        .long("config")
        .env("MILLRACE_CONFIG")
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help("TOML file with settings by the names of these flags");
    SETTINGS.iter().fold(command.arg(file), |command, spec| {
        let help = match spec.default {
            Some(default) => format!("{} (default: {default})", spec.help),
            None => spec.help.to_owned(),
        };
        command.arg(Arg::new(spec.name).long(spec.name).env(spec.variable()).value_name(spec.unit).help(help))
    })
}

impl Effective {
    /// Joins flags and variables (in `matches`), the file and the defaults.
    pub fn load(matches: &ArgMatches) -> Result<Effective, SettingError> {
        let path = matches.get_one::<PathBuf>("config");
        let mut file = path.map(|path| read_file(path)).transpose()?.unwrap_or_default();
        let mut values = BTreeMap::new();
        for spec in SETTINGS {
            let from_file = file.remove(spec.name);
            let given = matches.get_one::<String>(spec.name).cloned();
            let chosen = match (given, matches.value_source(spec.name), from_file) {
                (Some(value), Some(ValueSource::CommandLine), _) => Some((value, Origin::Flag)),
                (Some(value), _, _) => Some((value, Origin::Variable(spec.variable()))),
                (None, _, Some(value)) => Some((value, Origin::File(path.expect("a file was read").clone()))),
                (None, _, None) => spec.default.map(|value| (value.to_owned(), Origin::Default)),
            };
            if let Some((value, origin)) = chosen {
                check(spec, &value, &origin)?;
                values.insert(spec.name, (value, origin));
            }
        }
        if let Some((unknown, _)) = file.pop_first() {
            let path = path.expect("a file was read").clone();
            return Err(SettingError::File { path, problem: format!("{unknown:?} is not a setting") });
        }
        Ok(Effective { values })
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|(value, _)| value.as_str())
    }

    fn number<T: TryFrom<u64>>(&self, name: &str) -> Option<T> {
        let value: u64 = self.text(name)?.parse().expect("checked by load");
        Some(T::try_from(value).ok().expect("the table's bounds fit the type"))
    }

    fn seconds(&self, name: &str) -> Duration {
        Duration::from_secs(self.number(name).expect("has a default"))
    }

    fn address(&self, name: &str) -> Option<HostPort> {
        self.text(name).map(|text| HostPort::parse(text).expect("checked by load"))
    }

    /// The typed settings.
    pub fn settings(&self) -> Result<Settings, SettingError> {
        let settings = Settings {
            data_dir: PathBuf::from(self.text("data-dir").expect("has a default")),
            listen: self.address("listen").expect("has a default"),
            advertise: self.address("advertise"),
            name: self.text("name").map(str::to_owned),
            zone: self.text("zone").map(str::to_owned),
            shards: self.number("shards"),
            object_store: self.text("object-store").map(str::to_owned),
            metadata: self.text("metadata").map(str::to_owned),
            etcd_user: self.text("etcd-user").map(str::to_owned),
            etcd_password_file: self.text("etcd-password-file").map(PathBuf::from),
            etcd_ca: self.text("etcd-ca").map(PathBuf::from),
            etcd_cert: self.text("etcd-cert").map(PathBuf::from),
            etcd_key: self.text("etcd-key").map(PathBuf::from),
            etcd_history_minutes: self.number("etcd-history-minutes").expect("has a default"),
            etcd_quota_mib: self.number("etcd-quota-mib"),
            admin: self.address("admin"),
            wal_lanes: self.number("wal-lanes").expect("has a default"),
            linger_ms: self.number("linger-ms"),
            max_puts_per_second: self.number("max-puts-per-second"),
            hedge_percent: self.number("hedge-percent"),
            store_model: self.text("store-model").map(PathBuf::from),
            fsync: self.text("fsync") == Some("true"),
            memory_mib: self.number("memory-mib").expect("has a default"),
            cold_cache_dir: self.text("cold-cache-dir").map(PathBuf::from),
            cold_cache_mib: self.number("cold-cache-mib").expect("has a default"),
            retention_check_ms: self.number("retention-check-ms").expect("has a default"),
            offsets_retention_minutes: self.number("offsets-retention-minutes").expect("has a default"),
            shared_port: self.text("shared-port") == Some("true"),
            roll_segments: self.text("roll-segments") == Some("true"),
            roll_bytes: self.number("roll-bytes").expect("has a default"),
            roll_after_ms: self.number("roll-after-ms").expect("has a default"),
            segment_check_ms: self.number("segment-check-ms").expect("has a default"),
            segment_grace_ms: self.number("segment-grace-ms").expect("has a default"),
            journal_ms: self.number("journal-ms").expect("has a default"),
            max_partitions: self.number("max-partitions").expect("has a default"),
            lease: self.seconds("lease"),
            drain_timeout: self.seconds("drain-timeout"),
        };
        settings.check()?;
        Ok(settings)
    }

    /// A line per setting: name, value, unit, origin. For `millrace config`.
    pub fn table(&self) -> String {
        let rows: Vec<[String; 4]> = SETTINGS
            .iter()
            .map(|spec| match self.values.get(spec.name) {
                Some((value, origin)) => {
                    [spec.name.to_owned(), value.clone(), spec.unit.to_owned(), origin.to_string()]
                }
                None => [spec.name.to_owned(), "-".to_owned(), spec.unit.to_owned(), "derived at start-up".to_owned()],
            })
            .collect();
        let header = ["SETTING", "VALUE", "UNIT", "ORIGIN"].map(str::to_owned);
        let width = |column: usize| {
            rows.iter().chain([&header]).map(|row| row[column].len()).max().expect("the header is a row")
        };
        let widths = [width(0), width(1), width(2)];
        let line = |row: &[String; 4]| {
            let [name, value, unit, origin] = row;
            format!("{name:a$}  {value:b$}  {unit:c$}  {origin}\n", a = widths[0], b = widths[1], c = widths[2])
        };
        [&header].into_iter().chain(&rows).map(line).collect()
    }
}

impl Settings {
    fn check(&self) -> Result<(), SettingError> {
        let contradiction = |text: &str| Err(SettingError::Contradiction(text.to_owned()));
        if let Some(metadata) = &self.metadata
            && !EtcdAddress::is_one(metadata)
            && metadata.strip_prefix("embedded:").is_none_or(str::is_empty)
        {
            return contradiction("metadata: expected embedded:DIR or etcd://HOST:PORT,HOST:PORT/NAMESPACE");
        }
        if self.etcd_user.is_some() != self.etcd_password_file.is_some() {
            return contradiction("etcd-user and etcd-password-file: give both, or none");
        }
        if self.metadata.is_some() && self.object_store.as_deref() == Some("memory:") {
            return contradiction(
                "object-store memory: forgets everything, so metadata can't be kept: leave --metadata out",
            );
        }
        let unspecified = matches!(self.listen.host.as_str(), "0.0.0.0" | "::");
        if unspecified && self.advertise.is_none() {
            return contradiction(
                "listen is on every interface: say with --advertise HOST:PORT what clients shall connect to",
            );
        }
        if let Some(advertise) = &self.advertise
            && matches!(advertise.host.as_str(), "0.0.0.0" | "::")
        {
            return contradiction("advertise: clients can't connect to 0.0.0.0 or [::]");
        }
        let shards = u32::from(self.shards.unwrap_or(1));
        let past_end = |a: &HostPort| a.port != 0 && u32::from(a.port) + shards - 1 > u32::from(u16::MAX);
        if past_end(&self.listen) || self.advertise.as_ref().is_some_and(past_end) {
            return contradiction("shard i uses PORT+i: the port range ends above 65535");
        }
        if self.wal_lanes > self.shards.unwrap_or(u16::MAX) {
            return contradiction("wal-lanes: more lanes than shards would idle");
        }
        Ok(())
    }
}

fn read_file(path: &Path) -> Result<BTreeMap<String, String>, SettingError> {
    let error = |problem: String| SettingError::File { path: path.to_owned(), problem };
    let text = std::fs::read_to_string(path).map_err(|e| error(e.to_string()))?;
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| error(on_one_line(&text, &e)))?;
    let plain = |(key, value): (String, toml::Value)| match value {
        toml::Value::String(text) => Ok((key, text)),
        toml::Value::Integer(number) => Ok((key, number.to_string())),
        toml::Value::Boolean(switch) => Ok((key, switch.to_string())),
        other => Err(error(format!("{key}: a {} is not a value of any setting", other.type_str()))),
    };
    table.into_iter().map(plain).collect()
}

/// What is wrong with a file and where, without the picture of several lines that the parser draws.
fn on_one_line(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().and_then(|span| text.get(..span.start)).map(|before| before.matches('\n').count() + 1);
    let place = line.map(|line| format!("line {line}: ")).unwrap_or_default();
    format!("{place}{}", error.message().replace('\n', "; "))
}

fn check(spec: &Spec, value: &str, origin: &Origin) -> Result<(), SettingError> {
    let problem = match spec.kind {
        Kind::Text if value.is_empty() => Some("must not be empty".to_owned()),
        Kind::Text => None,
        Kind::Address => HostPort::parse(value).err(),
        Kind::Switch if matches!(value, "true" | "false") => None,
        Kind::Switch => Some("expected true or false".to_owned()),
        Kind::Number { min, max } => match value.parse::<u64>() {
            Ok(number) if (min..=max).contains(&number) => None,
            _ => Some(format!("expected a whole number of {} from {min} to {max}", spec.unit)),
        },
    };
    match problem {
        None => Ok(()),
        Some(problem) => {
            Err(SettingError::Value { name: spec.name, value: value.to_owned(), origin: origin.to_string(), problem })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(args: &[&str]) -> Result<Effective, SettingError> {
        let command = add_flags(Command::new("serve"));
        let matches = command.try_get_matches_from([&["serve"], args].concat()).expect("the flags exist");
        Effective::load(&matches)
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), text).expect("it can be written");
        file
    }

    #[test]
    fn without_arguments_the_defaults_hold() {
        let settings = load(&[]).and_then(|e| e.settings()).expect("defaults are valid");
        assert_eq!(settings.listen, HostPort { host: "127.0.0.1".into(), port: 9092 });
        assert!(settings.fsync);
        assert_eq!(settings.object_store, None);
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let file = file("fsync = false\nshards = 3\nzone = \"a\"\n");
        let path = file.path().to_str().expect("a plain path");
        let effective = load(&["--config", path, "--shards", "2"]).expect("valid");
        let settings = effective.settings().expect("valid");
        assert_eq!((settings.shards, settings.fsync, settings.zone.as_deref()), (Some(2), false, Some("a")));
        let table = effective.table();
        assert!(table.lines().any(|l| l.starts_with("shards ") && l.ends_with("flag")), "{table}");
        assert!(table.lines().any(|l| l.starts_with("fsync ") && l.ends_with(path)), "{table}");
        assert!(table.lines().any(|l| l.starts_with("listen ") && l.ends_with("default")), "{table}");
    }

    #[test]
    fn an_unknown_key_of_the_file_is_refused_by_name() {
        let file = file("shard = 3\n");
        let error = load(&["--config", file.path().to_str().expect("a plain path")]).expect_err("no such setting");
        assert!(error.to_string().contains("\"shard\" is not a setting"), "{error}");
    }

    #[test]
    fn a_value_out_of_bounds_names_the_setting_its_origin_and_the_bounds() {
        let error = load(&["--memory-mib", "1"]).expect_err("below the minimum");
        assert_eq!(
            error.to_string(),
            "memory-mib = \"1\" (from flag): expected a whole number of MiB from 64 to 1048576"
        );
    }

    #[test]
    fn listening_on_every_interface_needs_an_advertised_address() {
        let refused = load(&["--listen", "0.0.0.0:9092"]).and_then(|e| e.settings());
        assert!(matches!(refused, Err(SettingError::Contradiction(_))));
        let accepted = load(&["--listen", "0.0.0.0:9092", "--advertise", "kafka.example:9092"]);
        accepted.and_then(|e| e.settings()).expect("clients are told a name");
    }

    #[test]
    fn an_ipv6_address_needs_brackets_and_prints_with_them() {
        assert!(HostPort::parse("::1:9092").is_err());
        let address = HostPort::parse("[::1]:9092").expect("valid");
        assert_eq!(address.to_string(), "[::1]:9092");
    }

    #[test]
    fn every_default_is_valid_and_every_name_is_listed_once() {
        for (index, spec) in SETTINGS.iter().enumerate() {
            if let Some(default) = spec.default {
                check(spec, default, &Origin::Default).expect(spec.name);
            }
            assert!(SETTINGS[..index].iter().all(|other| other.name != spec.name), "{}", spec.name);
            assert!(table::find(spec.name).is_some());
        }
    }

    /// The rows of the README's table.
    fn readme_rows() -> String {
        let row = |spec: &Spec| {
            let default = spec.default.map_or_else(|| "derived".to_owned(), |value| format!("`{value}`"));
            format!("| `{}` | {default} | {} |\n", spec.name, spec.help.replace('|', "\\|"))
        };
        SETTINGS.iter().map(row).collect()
    }

    #[test]
    fn the_readme_lists_the_settings_as_they_are() {
        let readme = include_str!("../../../README.md");
        assert!(readme.contains(&readme_rows()), "put these rows into README.md:\n{}", readme_rows());
    }
}

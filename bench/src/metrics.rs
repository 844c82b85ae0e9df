//! What a broker says of itself: what it asked of its store, and its own share of acknowledgements. From its `/metrics`
//! (OpenMetrics text over HTTP/1.1), read before and after a window.
//!
//! 1. Bytes produced come from the same two readings as the requests, so that their ratio does not depend on when exactly
//!    the endpoint was read, nor on how often the broker publishes.
//! 2. Reading happens on a thread of its own: the load never waits for it.
//! 3. An answer is read up to [`ANSWER_LIMIT`] bytes; one that is no exposition is an error, never zeros.

use crate::ack_share::{self, AckShare, Buckets};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{self, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The longest wait for one read or write.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most that is read of an answer.
const ANSWER_LIMIT: u64 = 8 << 20;

/// What a broker asked of its store in a stretch of time.
#[derive(Clone, Copy, PartialEq, Serialize, Debug)]
pub(crate) struct StoreUse {
    /// How long the stretch was.
    pub seconds: f64,
    /// Bytes of batches that the broker appended meanwhile.
    pub produced_bytes: u64,
    /// Objects written, failed attempts included.
    pub puts: u64,
    /// Objects or parts of them read.
    pub gets: u64,
    /// Listings.
    pub lists: u64,
    /// Bytes of the objects written.
    pub sent_bytes: u64,
    /// Bytes read.
    pub received_bytes: u64,
}

/// What a broker says of a stretch of time.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Told {
    /// Its requests to its store.
    pub store: StoreUse,
    /// Its own share of acknowledgements, if there were any.
    pub ack_share: Option<AckShare>,
}

/// Why the metrics say nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MetricsError {
    /// Not `http://HOST:PORT/PATH`.
    #[error("metrics {0}: give http://HOST:PORT/metrics")]
    Url(String),
    /// The connection failed.
    #[error("metrics {0}: {1}")]
    Io(String, io::Error),
    /// Another answer than 200.
    #[error("metrics {0}: the answer is {1:?}")]
    Answer(String, String),
    /// A number is missing that was asked for.
    #[error("metrics {0}: there is no {1}")]
    Missing(String, &'static str),
}

/// Where metrics are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct MetricsUrl {
    authority: String,
    path: String,
}

impl std::str::FromStr for MetricsUrl {
    type Err = MetricsError;

    fn from_str(text: &str) -> Result<MetricsUrl, MetricsError> {
        let wrong = || MetricsError::Url(text.to_owned());
        let rest = text.strip_prefix("http://").ok_or_else(wrong)?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, "metrics"));
        // Both go into a request as they are.
        if authority.is_empty() || text.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return Err(wrong());
        }
        let authority = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
        Ok(MetricsUrl { authority, path: format!("/{path}") })
    }
}

impl std::fmt::Display for MetricsUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

/// The counters of a moment.
struct Reading {
    at: Instant,
    counters: BTreeMap<&'static str, u64>,
    acks: Buckets,
}

const PRODUCED: &str = "millrace_produced_bytes_total";
const PUTS: &str = "millrace_store_puts_total";
const GETS: &str = "millrace_store_gets_total";
const LISTS: &str = "millrace_store_lists_total";
const SENT: &str = "millrace_store_sent_bytes_total";
const RECEIVED: &str = "millrace_store_received_bytes_total";

impl MetricsUrl {
    fn read(&self) -> Result<Reading, MetricsError> {
        let text = self.get()?;
        let missing = |name| MetricsError::Missing(self.to_string(), name);
        let mut counters = BTreeMap::new();
        for name in [PRODUCED, PUTS, GETS, LISTS, SENT, RECEIVED] {
            counters.insert(name, sum(&text, name).ok_or_else(|| missing(name))?);
        }
        let acks = Buckets::read(&text).ok_or_else(|| missing(ack_share::NAME))?;
        Ok(Reading { at: Instant::now(), counters, acks })
    }

    /// The body of an answer with status 200.
    fn get(&self) -> Result<String, MetricsError> {
        let exchange = || -> io::Result<String> {
            let mut stream = TcpStream::connect(&self.authority)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            // HTTP/1.0: the answer comes whole, not in chunks, and ends with the connection.
            let request = format!("GET {} HTTP/1.0\r\nHost: {}\r\n\r\n", self.path, self.authority);
            stream.write_all(request.as_bytes())?;
            let mut answer = String::new();
            stream.take(ANSWER_LIMIT).read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = exchange().map_err(|error| MetricsError::Io(self.to_string(), error))?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.lines().next().unwrap_or_default();
        if status.split(' ').nth(1) != Some("200") {
            return Err(MetricsError::Answer(self.to_string(), status.to_owned()));
        }
        Ok(body.to_owned())
    }
}

/// The sum of a counter over all of its labels; `None` if there is no such counter.
fn sum(text: &str, name: &str) -> Option<u64> {
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let value = match rest.strip_prefix('{') {
            Some(labelled) => labelled.split_once("} ")?.1,
            None => rest.strip_prefix(' ')?,
        };
        // A timestamp may follow.
        value.split(' ').next()?.parse::<f64>().ok().filter(|value| *value >= 0.0)
    };
    let values: Vec<f64> = text.lines().filter_map(value).collect();
    if values.is_empty() { None } else { Some(values.iter().sum::<f64>() as u64) }
}

/// Reads at its start and at its end, on a thread of its own.
pub(crate) struct MetricsWatch {
    stop: SyncSender<()>,
    reader: JoinHandle<Result<Told, MetricsError>>,
}

impl MetricsWatch {
    /// Starts with a first reading.
    pub(crate) fn start(url: MetricsUrl) -> MetricsWatch {
        let (stop, stopped) = mpsc::sync_channel::<()>(1);
        let reader = std::thread::spawn(move || {
            let from = url.read()?;
            // Ends when the sender is dropped; nothing is ever sent.
            let _ = stopped.recv();
            let to = url.read()?;
            Ok(Told { store: between(&from, &to), ack_share: to.acks.since(&from.acks) })
        });
        MetricsWatch { stop, reader }
    }

    /// Ends with a second reading.
    pub(crate) fn end(self) -> Result<Told, MetricsError> {
        drop(self.stop);
        self.reader.join().expect("the reader does not panic")
    }
}

fn between(from: &Reading, to: &Reading) -> StoreUse {
    let grown = |name| to.counters[name].saturating_sub(from.counters[name]);
    StoreUse {
        seconds: (to.at - from.at).as_secs_f64(),
        produced_bytes: grown(PRODUCED),
        puts: grown(PUTS),
        gets: grown(GETS),
        lists: grown(LISTS),
        sent_bytes: grown(SENT),
        received_bytes: grown(RECEIVED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    /// Answers as many connections as there are bodies.
    fn serve(status: &'static str, bodies: Vec<String>) -> MetricsUrl {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/metrics", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for body in bodies {
                let (mut stream, _) = listener.accept().unwrap();
                let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let head: Vec<String> = lines.map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
                assert_eq!(head[0], "GET /metrics HTTP/1.0");
                let answer = format!("HTTP/1.0 {status}\r\nContent-Type: text/plain\r\n\r\n{body}");
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        url.parse().unwrap()
    }

    fn exposition(scale: u64) -> String {
        let line = |name: &str, value: u64| format!("# TYPE {name} counter\n{name}_total {value}\n");
        let store = [("puts", 2), ("gets", 3), ("lists", 1), ("sent_bytes", 400), ("received_bytes", 50)];
        let store: String =
            store.iter().map(|(name, value)| line(&format!("millrace_store_{name}"), value * scale)).collect();
        let produced = |shard: u64| format!("{PRODUCED}{{shard=\"{shard}\"}} {}\n", 100 * scale);
        let acks = format!("millrace_ack_share_seconds_bucket{{le=\"0.001\",shard=\"0\"}} {}\n", 5 * scale);
        format!("{store}{}{}{acks}# EOF\n", produced(0), produced(1))
    }

    #[test]
    fn what_was_used_is_the_difference_of_two_readings_over_all_shards() {
        let watch = MetricsWatch::start(serve("200 OK", vec![exposition(1), exposition(4)]));
        let Told { store: used, ack_share } = watch.end().unwrap();
        assert_eq!(ack_share.map(|share| (share.seals, share.p99_ms)), Some((15, Some(1.0))));
        assert_eq!((used.puts, used.gets, used.lists), (6, 9, 3));
        assert_eq!((used.sent_bytes, used.received_bytes, used.produced_bytes), (1_200, 150, 600));
    }

    #[test]
    fn an_answer_without_the_counters_is_an_error() {
        let missing = MetricsWatch::start(serve("200 OK", vec!["# EOF\n".to_owned()])).end();
        assert!(matches!(missing, Err(MetricsError::Missing(_, PRODUCED))), "{missing:?}");
        let without = exposition(1).replace("ack_share", "other");
        let shares = MetricsWatch::start(serve("200 OK", vec![without])).end();
        assert!(matches!(shares, Err(MetricsError::Missing(_, ack_share::NAME))), "{shares:?}");
        let refused = MetricsWatch::start(serve("404 Not Found", vec![String::new()])).end();
        assert!(matches!(refused, Err(MetricsError::Answer(..))), "{refused:?}");
    }

    #[test]
    fn counters_are_matched_by_their_whole_name() {
        let text = "a_total 1\na_total_more 5\na_total{x=\"1\"} 2 1700000000\nb 9\n";
        assert_eq!(sum(text, "a_total"), Some(3));
        assert_eq!(sum(text, "c"), None);
    }

    #[test]
    fn an_address_is_http_with_a_host_and_nothing_that_could_split_a_request() {
        assert_eq!("http://h:1".parse::<MetricsUrl>().unwrap().to_string(), "http://h:1/metrics");
        assert_eq!("http://h/x".parse::<MetricsUrl>().unwrap().to_string(), "http://h:80/x");
        for wrong in ["https://h/", "h:1", "http://", "http://h:1/a b", "http://h/\r\nX: y"] {
            assert!(wrong.parse::<MetricsUrl>().is_err(), "{wrong:?}");
        }
    }
}

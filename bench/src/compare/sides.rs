//! Who is compared: `NAME=HOST:PORT[,pid=PID][,metrics=URL]`. Pure.

use crate::metrics::MetricsUrl;
use std::str::FromStr;

/// A broker under comparison.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Side {
    /// What reports call it.
    pub name: String,
    /// HOST:PORT.
    pub bootstrap: String,
    /// Its process.
    pub pid: Option<u32>,
    /// Its metrics.
    pub metrics: Option<MetricsUrl>,
}

impl FromStr for Side {
    type Err = String;

    fn from_str(text: &str) -> Result<Side, String> {
        let (name, rest) = text.split_once('=').ok_or("give NAME=HOST:PORT[,pid=PID][,metrics=URL]")?;
        let mut parts = rest.split(',');
        let bootstrap = parts.next().unwrap_or_default().to_owned();
        if name.is_empty() || !bootstrap.contains(':') {
            return Err("give NAME=HOST:PORT[,pid=PID][,metrics=URL]".to_owned());
        }
        let mut side = Side { name: name.to_owned(), bootstrap, pid: None, metrics: None };
        for part in parts {
            match part.split_once('=') {
                Some(("pid", pid)) => side.pid = Some(pid.parse().map_err(|_| format!("{pid} is no process"))?),
                Some(("metrics", url)) => side.metrics = Some(url.parse().map_err(|error| format!("{error}"))?),
                _ => return Err(format!("{part} is neither pid=PID nor metrics=URL")),
            }
        }
        Ok(side)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_has_a_name_an_address_and_what_more_is_said() {
        let side: Side = "a=h:1,pid=7,metrics=http://h:2/metrics".parse().unwrap();
        assert_eq!((side.name.as_str(), side.bootstrap.as_str(), side.pid), ("a", "h:1", Some(7)));
        assert_eq!(side.metrics.unwrap().to_string(), "http://h:2/metrics");
        for wrong in ["a", "a=", "=h:1", "a=h:1,pid=x", "a=h:1,pid", "a=h:1,metrics=h:2", "a=h:1,more=1"] {
            assert!(wrong.parse::<Side>().is_err(), "{wrong}");
        }
    }
}

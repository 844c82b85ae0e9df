//! What was compared and what differed.

use crate::accepted::Accepted;
use crate::tree::PRESENT;
use millrace_protocol::api::{ADVERTISED, AdvertisedApi, ApiKey};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Write};

/// Characters of a value that are shown.
const SHOWN_CHARS: usize = 160;
/// Characters of a request that are shown.
const SHOWN_REQUEST_CHARS: usize = 1_000;
/// Differences that are shown; more are counted.
const SHOWN_DIFFERENCES: usize = 5_000;

/// One field that differs, apart from the version that it was seen in.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Difference {
    api: String,
    case: String,
    path: String,
    left: String,
    right: String,
}

/// Counts of one API.
#[derive(Clone, Default, Debug)]
struct Tally {
    versions: BTreeSet<i16>,
    requests: u64,
    equal: u64,
    accepted: u64,
}

/// What a run found.
#[derive(Debug)]
pub(crate) struct Report {
    accepted: Vec<Accepted>,
    /// What each accepted entry was needed for, by its place.
    used: BTreeMap<usize, BTreeSet<Difference>>,
    differences: BTreeMap<Difference, BTreeSet<i16>>,
    /// A request of each case that differs, by API and case.
    requests: BTreeMap<(String, String), String>,
    tallies: BTreeMap<ApiKey, Tally>,
}

impl Report {
    /// An empty one.
    pub(crate) fn new(accepted: Vec<Accepted>) -> Report {
        Report {
            accepted,
            used: BTreeMap::new(),
            differences: BTreeMap::new(),
            requests: BTreeMap::new(),
            tallies: BTreeMap::new(),
        }
    }

    /// Compares the two outcomes of one request. Whether they are the same but for what is accepted.
    pub(crate) fn compare(
        &mut self,
        api: ApiKey,
        version: i16,
        case: &str,
        left: &BTreeMap<String, String>,
        right: &BTreeMap<String, String>,
    ) -> bool {
        let mut found = Vec::new();
        let paths: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
        let mut missing: Option<&str> = None;
        for path in paths {
            // An element that only one side has differs once, not by every field.
            if missing.is_some_and(|element| path.starts_with(element)) {
                continue;
            }
            let value = |side: &BTreeMap<String, String>| side.get(path).cloned().unwrap_or("(absent)".to_owned());
            let (left, right) = (value(left), value(right));
            if left != right {
                missing = [&left, &right].contains(&&PRESENT.to_owned()).then_some(path.as_str());
                let (api, case) = (format!("{api:?}"), case.to_owned());
                found.push(Difference { api, case, path: path.clone(), left, right });
            }
        }
        let tally = self.tallies.entry(api).or_default();
        tally.versions.insert(version);
        tally.requests += 1;
        if found.is_empty() {
            tally.equal += 1;
            return true;
        }
        let mut unaccepted = 0;
        for difference in found {
            let Difference { api, case, path, left, right } = &difference;
            match self.accepted.iter().position(|entry| entry.matches([api, case, path, left, right])) {
                Some(at) => {
                    self.used.entry(at).or_default().insert(difference);
                }
                None => {
                    unaccepted += 1;
                    self.differences.entry(difference).or_default().insert(version);
                }
            }
        }
        tally.accepted += u64::from(unaccepted == 0);
        unaccepted == 0
    }

    /// Keeps what was sent, to be shown with what differs.
    pub(crate) fn keep_request(&mut self, api: ApiKey, case: &str, request: &impl Debug) {
        let key = (format!("{api:?}"), case.to_owned());
        self.requests.entry(key).or_insert_with(|| format!("{request:?}"));
    }

    /// Whether nothing differs that is not accepted and, after a `whole` run, nothing is accepted in vain.
    pub(crate) fn is_clean(&self, whole: bool) -> bool {
        self.differences.is_empty() && (!whole || self.used.len() == self.accepted.len())
    }

    /// Whether every version that Millrace advertises was asked.
    pub(crate) fn is_complete(&self) -> bool {
        self.unasked().next().is_none()
    }

    /// What Millrace advertises and nothing was compared of.
    fn unasked(&self) -> impl Iterator<Item = (ApiKey, BTreeSet<i16>)> {
        let missing = |api: &AdvertisedApi| {
            let asked =
                |version: &i16| self.tallies.get(&api.key).is_some_and(|tally| tally.versions.contains(version));
            (api.key, (api.min..=api.max).filter(|version| !asked(version)).collect::<BTreeSet<i16>>())
        };
        ADVERTISED.iter().map(missing).filter(|(_, versions)| !versions.is_empty())
    }

    /// For people: what each accepted entry was needed for.
    pub(crate) fn render_accepted(&self) -> String {
        let mut text = String::new();
        for (at, differences) in &self.used {
            let _ = writeln!(text, "ACCEPTED {}", self.accepted[*at].title());
            for Difference { api, case, path, left, right } in differences {
                let (left, right) = (shortened(left), shortened(right));
                let _ = writeln!(text, "    {api} | {case} | {path} | {left} | {right}");
            }
        }
        text
    }

    /// For people: differences, entries that nothing needed (of a `whole` run), a table by API.
    pub(crate) fn render(&self, whole: bool) -> String {
        let mut text = String::new();
        let mut last = None;
        for (difference, versions) in self.differences.iter().take(SHOWN_DIFFERENCES) {
            let Difference { api, case, path, left, right } = difference;
            let _ = writeln!(text, "DIFFERS {api} {} | {case} | {path}", ranges(versions));
            let _ = writeln!(text, "     left {}\n    right {}", shortened(left), shortened(right));
            // Once with all the differences of a case.
            if last != Some((api, case))
                && let Some(request) = self.requests.get(&(api.clone(), case.clone()))
            {
                let _ = writeln!(text, "     sent {}", cut(request, SHOWN_REQUEST_CHARS));
            }
            last = Some((api, case));
        }
        if self.differences.len() > SHOWN_DIFFERENCES {
            let _ = writeln!(text, "and {} more", self.differences.len() - SHOWN_DIFFERENCES);
        }
        for (at, entry) in self.accepted.iter().enumerate() {
            if whole && !self.used.contains_key(&at) {
                let _ = writeln!(text, "ACCEPTED IN VAIN {}", entry.title());
            }
        }
        for (api, versions) in self.unasked().filter(|_| whole) {
            let _ = writeln!(text, "NOT ASKED {api:?} {}", ranges(&versions));
        }
        let _ = writeln!(
            text,
            "{:24} {:>8} {:>8} {:>8} {:>8} {:>8}",
            "API", "versions", "requests", "equal", "accepted", "differ"
        );
        for (api, tally) in &self.tallies {
            let differ = tally.requests - tally.equal - tally.accepted;
            let Tally { versions, requests, equal, accepted } = tally;
            let (api, versions) = (format!("{api:?}"), ranges(versions));
            let _ = writeln!(text, "{api:24} {versions:>8} {requests:>8} {equal:>8} {accepted:>8} {differ:>8}");
        }
        text
    }
}

/// `0-3,5`.
fn ranges(versions: &BTreeSet<i16>) -> String {
    let mut runs: Vec<(i16, i16)> = Vec::new();
    for &version in versions {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == version => *last = version,
            _ => runs.push((version, version)),
        }
    }
    let run = |(first, last): &(i16, i16)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    runs.iter().map(run).collect::<Vec<_>>().join(",")
}

fn shortened(value: &str) -> String {
    cut(value, SHOWN_CHARS)
}

/// So many characters at most.
fn cut(value: &str, chars: usize) -> String {
    if value.chars().count() <= chars {
        return value.to_owned();
    }
    value.chars().take(chars).chain("…".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accepted::parse;

    fn leaves(error: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("error_code".to_owned(), error.to_owned())])
    }

    #[test]
    fn only_accepted_differences_leave_a_report_clean() {
        let mut report = Report::new(parse("Fetch | a | error_code | None | * | why").unwrap());
        assert!(report.is_clean(false) && !report.is_clean(true), "the entry is in vain");
        report.compare(ApiKey::Fetch, 4, "a", &leaves("None"), &leaves("OffsetOutOfRange"));
        assert!(report.is_clean(true) && !report.is_complete(), "a part of one API");
        report.compare(ApiKey::Fetch, 5, "b", &leaves("None"), &leaves("OffsetOutOfRange"));
        report.compare(ApiKey::Fetch, 6, "b", &leaves("None"), &leaves("OffsetOutOfRange"));
        assert!(!report.is_clean(false));
        assert!(report.render(true).contains("DIFFERS Fetch 5-6 | b | error_code"));
    }
}

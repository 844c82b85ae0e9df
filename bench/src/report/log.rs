//! HdrHistogram's text forms: the interval log that its processors and plotters read (version 1.3 of the log, V2
//! compressed histograms in base64), and the same payload alone for JSON.
//!
//! Start times count from the log's BaseTime; a series' name is its tag, with `-` for what a tag cannot hold.

use super::Report;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use std::time::Duration;

/// What the maximum of a line is divided by: nanoseconds to milliseconds, as its readers expect.
const MAX_DIVISOR: f64 = 1e6;
const IN_MEMORY: &str = "a histogram within its bounds is written to memory";

/// The log of a run: every interval of every series, by time.
pub(crate) fn interval_log(report: &Report) -> String {
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut writer = IntervalLogWriterBuilder::new()
        .add_comment("[Histogram log format version 1.3]")
        .add_comment(&format!("millrace-bench {}: {}", Report::version(), report.command))
        .add_comment("Values are nanoseconds; Interval_Max is in milliseconds.")
        .with_start_time(report.started)
        .with_base_time(report.started)
        .with_max_value_divisor(MAX_DIVISOR)
        .begin_log_with(&mut bytes, &mut serializer)
        .expect(IN_MEMORY);
    let mut lines: Vec<_> = report
        .result
        .series
        .iter()
        .flat_map(|series| series.intervals.iter().map(|interval| (interval, series.name.as_str())))
        .collect();
    lines.sort_by_key(|(interval, _)| interval.start); // stable: series stay in their order
    for (interval, name) in lines {
        let tag = tag(name);
        let length = interval.end - interval.start;
        let tag = Tag::new(&tag);
        writer.write_histogram(&interval.counts.latency, interval.start, length, tag).expect(IN_MEMORY);
    }
    String::from_utf8(bytes).expect("the log is text")
}

/// A tag ends at a comma or a blank.
fn tag(name: &str) -> String {
    name.chars().map(|c| if c == ',' || c.is_whitespace() { '-' } else { c }).collect()
}

/// A histogram as V2 compressed bytes in base64, what the last column of a log holds.
pub(crate) fn payload(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    IntervalLogWriterBuilder::new()
        .begin_log_with(&mut bytes, &mut serializer)
        .and_then(|mut writer| {
            writer.write_histogram(histogram, Duration::ZERO, Duration::ZERO, None).map_err(std::io::Error::other)
        })
        .expect(IN_MEMORY);
    let line = String::from_utf8(bytes).expect("the log is text");
    line.trim_end().rsplit(',').next().expect("the last column").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    #[test]
    fn a_log_has_its_start_every_interval_and_a_tag_for_each_series() {
        let text = interval_log(&samples::report());
        assert!(text.contains("#[StartTime: 1500000000.250 (seconds since epoch)]\n"), "{text}");
        let mut found = Vec::new();
        for entry in IntervalLogIterator::new(text.as_bytes()) {
            if let LogEntry::Interval(interval) = entry.unwrap() {
                let tag = interval.tag().unwrap().as_str().to_owned();
                found.push((interval.start_timestamp().as_secs(), interval.duration().as_secs(), tag, interval.max()));
            }
        }
        let expected = [(0, "produce", 1.0), (0, "end-to-end", 2.0), (1, "produce", 1.0), (1, "end-to-end", 2.0)];
        assert_eq!(found.len(), expected.len());
        for ((start, length, tag, max), (at, name, most)) in found.iter().zip(expected) {
            assert_eq!((*start, *length, tag.as_str()), (at, 1, name));
            assert!((max / most - 1.0).abs() < 0.002, "{max} is not about {most} ms");
        }
    }

    #[test]
    fn a_payload_is_the_standard_one() {
        let mut histogram = crate::result::latency_histogram();
        histogram.saturating_record(1_000_000);
        // The cookie of a V2 compressed histogram, 0x1c849314, is how every such payload begins.
        assert!(payload(&histogram).starts_with("HISTFAAA"), "{}", payload(&histogram));
    }
}

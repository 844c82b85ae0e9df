//! What a reader takes from fetch responses. Pure.
//!
//! 1. Every batch begins where the last one ended. Headers are always looked at; records only as [`Look`] asks.

use crate::load::recorder::Recorder;
use crate::load::template::STAMP_BYTES;
use crate::validate::Checker;
use bytes::Bytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::frame::decode_response;
use millrace_protocol::messages::FetchResponse;
use millrace_protocol::messages::fetch::PartitionData;
use millrace_protocol::records::{Batches, RecordBatch};
use std::collections::BTreeMap;
use std::io;

/// Version of Fetch that is spoken: the newest without tagged fields.
pub(crate) const FETCH_VERSION: i16 = 11;

/// What is looked at besides the headers of batches, and what is timed.
#[derive(Debug)]
pub(crate) enum Look {
    /// Nothing; a fetch that brought something, from when it was sent.
    Headers,
    /// The first record of each batch, whose value starts with when it was due; from then on.
    Stamps,
    /// Every record; nothing is timed.
    Identities(Checker),
}

/// What a reader does at the end of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// Ends once it has everything that was acknowledged.
    Everything,
    /// Starts again at offset 0 when it has everything, until the window is over.
    Again,
    /// Ends once it has what was there when it began, or when the window is over.
    Once,
}

/// A partition and the next offset to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Position {
    /// Which.
    pub partition: u32,
    /// From where.
    pub offset: i64,
}

/// Positions and counts of a reader.
#[derive(Debug)]
pub(crate) struct Intake {
    /// How far it is.
    pub positions: Vec<Position>,
    /// By partition, the place in `positions`.
    places: BTreeMap<i32, usize>,
    /// What it does at the end.
    pub way: Way,
    /// What it looks at.
    pub look: Look,
    /// What it counts.
    pub recorder: Recorder,
    /// How often it started again.
    pub passes: u64,
    /// Why leaders have to be asked for.
    pub misled: Option<String>,
}

impl Intake {
    /// Nothing read yet.
    pub(crate) fn new(positions: Vec<Position>, way: Way, look: Look, recorder: Recorder) -> Intake {
        let place = |(position, place): (&Position, usize)| {
            (i32::try_from(position.partition).expect("the command line bounds it"), place)
        };
        let places = positions.iter().zip(0..).map(place).collect();
        Intake { positions, places, way, look, recorder, passes: 0, misled: None }
    }

    /// Takes a response to a fetch that was sent at `asked_at`.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn take(&mut self, frame: &Bytes, correlation: i32, asked_at: u64, now: u64) -> io::Result<()> {
        let (answered, response) = decode_response::<FetchResponse>(frame, FETCH_VERSION).map_err(io::Error::other)?;
        if answered != correlation {
            return Err(io::Error::other(format!("an answer to no request ({answered})")));
        }
        if response.error_code != ErrorCode::None {
            self.recorder.failed(&format!("fetch: {:?}", response.error_code), 1);
        }
        let (mut records, mut bytes) = (0, 0);
        for partition in response.responses.iter().flat_map(|topic| &topic.partitions) {
            let Some(&place) = self.places.get(&partition.partition_index) else {
                self.recorder.failed("a fetched partition that was not asked for", 1);
                continue;
            };
            match partition.error_code {
                ErrorCode::None => {
                    let (more_records, more_bytes) = self.partition(place, partition, now);
                    records += more_records;
                    bytes += more_bytes;
                }
                ErrorCode::NotLeaderOrFollower
                | ErrorCode::LeaderNotAvailable
                | ErrorCode::UnknownTopicOrPartition
                | ErrorCode::FencedLeaderEpoch
                | ErrorCode::UnknownLeaderEpoch
                | ErrorCode::KafkaStorageError => self.misled = Some(format!("fetch: {:?}", partition.error_code)),
                code => self.recorder.failed(&format!("fetch: {code:?}"), 1),
            }
        }
        if records > 0 {
            self.recorder.answered(now, records, bytes);
            if matches!(self.look, Look::Headers) {
                self.recorder.timed(asked_at, now);
            }
        }
        Ok(())
    }

    /// Takes what came of one partition; gives the records and bytes.
    fn partition(&mut self, place: usize, data: &PartitionData, now: u64) -> (u64, u64) {
        let set = data.records.as_ref().map(millrace_protocol::record_set::RecordSet::concat).unwrap_or_default();
        let (mut records, mut bytes) = (0, 0);
        for batch in Batches::new(&set) {
            let Ok(batch) = batch else {
                self.recorder.failed("a batch that is none", 1);
                break;
            };
            let Position { partition, offset } = self.positions[place];
            if batch.last_offset() < offset {
                continue; // the answer may begin before the offset asked for
            }
            if batch.base_offset() > offset {
                self.recorder.failed("offsets left out", 1);
            }
            self.positions[place].offset = batch.last_offset() + 1;
            records += u64::from(batch.count().unsigned_abs());
            bytes += batch.bytes().len() as u64;
            self.look_at(&batch, partition, now);
        }
        if self.way == Way::Again && self.positions[place].offset >= data.high_watermark && data.high_watermark > 0 {
            self.positions[place].offset = 0;
            self.passes += 1;
        }
        (records, bytes)
    }

    fn look_at(&mut self, batch: &RecordBatch<'_>, partition: u32, now: u64) {
        match &mut self.look {
            Look::Headers => {}
            Look::Stamps => {
                let first = batch.records().next().and_then(Result::ok).and_then(|record| record.value);
                match first.and_then(|value| value.first_chunk::<STAMP_BYTES>()).map(|stamp| u64::from_be_bytes(*stamp))
                {
                    Some(due) if due <= now => self.recorder.timed(due, now),
                    _ => self.recorder.failed("a batch without a stamp of this run", 1),
                }
            }
            Look::Identities(checker) => {
                if batch.crc() != batch.computed_crc() {
                    self.recorder.failed("batches corrupted", 1);
                }
                for record in batch.records() {
                    match record {
                        Ok(record) => checker.read(partition, record.offset, record.value.unwrap_or_default()),
                        Err(_) => self.recorder.failed("a record that is none", 1),
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::recorder::live_cell;
    use crate::pace::SECOND;
    use millrace_protocol::frame::{LENGTH_BYTES, response_frame};
    use millrace_protocol::messages::fetch::FetchableTopicResponse;
    use millrace_protocol::records::BatchBuilder;

    /// Batches of two records with a stamp of 40, at these offsets.
    fn answer(bases: &[i64], error_code: ErrorCode) -> Bytes {
        let batch = |base: &i64| {
            let mut builder = BatchBuilder::new(5);
            builder.push(None, Some(&40_u64.to_be_bytes()));
            builder.push(None, Some(&[]));
            let mut batch = builder.finish();
            batch[..8].copy_from_slice(&base.to_be_bytes());
            batch
        };
        let records = Bytes::from(bases.iter().flat_map(batch).collect::<Vec<u8>>());
        let partition = PartitionData {
            partition_index: 3,
            error_code,
            high_watermark: bases.last().map_or(0, |base| base + 2),
            records: Some(records.into()),
            ..PartitionData::default()
        };
        let topic = FetchableTopicResponse { partitions: vec![partition], ..FetchableTopicResponse::default() };
        let response = FetchResponse { responses: vec![topic], ..FetchResponse::default() };
        Bytes::from(response_frame(&response, FETCH_VERSION, 1).unwrap().concat()).slice(LENGTH_BYTES..)
    }

    fn intake(way: Way, look: Look) -> Intake {
        let recorder = Recorder::new(0..SECOND, live_cell());
        Intake::new(vec![Position { partition: 3, offset: 1 }], way, look, recorder)
    }

    #[test]
    fn batches_are_followed_from_the_one_that_holds_the_offset_and_stamps_are_timed() {
        let mut intake = intake(Way::Everything, Look::Stamps);
        intake.take(&answer(&[0, 2], ErrorCode::None), 1, 50, 100).unwrap();
        intake.take(&answer(&[2, 4], ErrorCode::None), 1, 50, 100).unwrap();
        assert_eq!(intake.positions[0].offset, 6);
        assert!(intake.recorder.errors.is_empty());
        let total = intake.recorder.series("x").total;
        assert_eq!((total.requests, total.records, total.latency.len(), total.latency.max()), (2, 6, 3, 60));
    }

    #[test]
    fn offsets_left_out_and_errors_are_counted_and_a_moved_partition_is_told() {
        let mut intake = intake(Way::Everything, Look::Headers);
        intake.take(&answer(&[0, 4], ErrorCode::None), 1, 50, 100).unwrap();
        intake.take(&answer(&[], ErrorCode::OffsetOutOfRange), 1, 50, 100).unwrap();
        let errors: Vec<&String> = intake.recorder.errors.keys().collect();
        assert_eq!(errors, ["fetch: OffsetOutOfRange", "offsets left out"]);
        intake.take(&answer(&[], ErrorCode::NotLeaderOrFollower), 1, 50, 100).unwrap();
        assert!(intake.misled.is_some());
        assert!(intake.take(&answer(&[], ErrorCode::None), 2, 50, 100).is_err());
    }

    #[test]
    fn a_reader_that_goes_on_starts_again_at_the_end() {
        let mut intake = intake(Way::Again, Look::Headers);
        intake.take(&answer(&[0, 2], ErrorCode::None), 1, 50, 100).unwrap();
        assert_eq!((intake.positions[0].offset, intake.passes), (0, 1));
    }
}

//! What a producer sent: checked, then made the broker's own by patching it in place.
//!
//! The checks are those of Kafka 4 for a client's append (ProduceRequest, UnifiedLog, LogValidator), in its order, but:
//! - compressed records are not opened: for them counts and timestamps are believed as the header gives them;
//! - of an uncompressed batch the records' offsets must count up from 0 as well, which Kafka does not look at;
//! - the timestamp type LogAppendTime is refused for every topic, Kafka rewrites it for topics of CreateTime;
//! - a producer id needs an epoch of at least 0.
//!
//! Nothing here allocates.

use super::batch::{ATTRIBUTES, BASE_OFFSET, CRC, LEADER_EPOCH, MAX_TIMESTAMP};
use super::{Attributes, BatchError, Compression, RecordBatch, TimestampType};

/// What a topic demands of produced batches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProduceRules {
    /// `max.message.bytes`: the largest batch.
    pub max_batch_bytes: usize,
    /// `message.timestamp.type`. With [`TimestampType::LogAppendTime`] the producer's timestamps are not looked at.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max_ms: i64,
    /// Whether records must have keys (`cleanup.policy` holds `compact`).
    pub keys_required: bool,
}

impl Default for ProduceRules {
    /// Kafka's defaults.
    fn default() -> ProduceRules {
        ProduceRules {
            max_batch_bytes: 1_048_588,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            keys_required: false,
        }
    }
}

/// The producer fields of an idempotent batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchProducer {
    /// Producer id, ≥ 0.
    pub id: i64,
    /// Producer epoch, ≥ 0.
    pub epoch: i16,
    /// Sequence of the first record, ≥ 0.
    pub base_sequence: i32,
}

/// A produced batch that passed every check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Produced {
    /// Its bytes: the first ones of what was checked. Bytes of a cut second batch, which Kafka trims, may follow.
    pub length: usize,
    /// Its records, at least one.
    pub count: u32,
    /// Its largest timestamp, Unix milliseconds, −1 if none: as the records say, which the header may not.
    pub max_timestamp: i64,
    /// Its producer, if idempotent.
    pub producer: Option<BatchProducer>,
    /// Its codec. Zstd needs a Produce request of version 7 or above: the caller's to check.
    pub compression: Compression,
}

/// The one batch of a record set that a produce request holds for one partition. That it is none is said before anything
/// else that is wrong with a request.
///
/// # Errors
/// When there is no batch, or another behind it.
pub fn only_batch(record_set: &[u8]) -> Result<RecordBatch<'_>, BatchError> {
    let (batch, rest) = RecordBatch::split(record_set)?.ok_or(BatchError::Missing)?;
    // A second batch is refused before the first one is looked at; a cut one is not a batch.
    if !rest.is_empty() && RecordBatch::split(rest)?.is_some() {
        return Err(BatchError::MoreThanOne);
    }
    Ok(batch)
}

/// Checks the record set that a produce request holds for one partition; `now_ms` is the broker's clock in Unix
/// milliseconds.
pub fn check_produced(record_set: &[u8], rules: &ProduceRules, now_ms: i64) -> Result<Produced, BatchError> {
    let batch = only_batch(record_set)?;
    let attributes = batch.attributes();
    if attributes.is_transactional() {
        return Err(BatchError::Transactional);
    }
    if batch.base_offset() != 0 {
        return Err(BatchError::BaseOffset(batch.base_offset()));
    }
    let length = batch.bytes().len();
    if length > rules.max_batch_bytes {
        return Err(BatchError::TooLarge { bytes: length, limit: rules.max_batch_bytes });
    }
    let found = batch.computed_crc();
    if found != batch.crc() {
        return Err(BatchError::Crc { stored: batch.crc(), found });
    }
    let compression = attributes.compression()?;
    let count = check_counts(&batch)?;
    if attributes.is_control() {
        return Err(BatchError::Control);
    }
    let producer = check_producer(&batch)?;
    if attributes.timestamp_type() == TimestampType::LogAppendTime {
        return Err(BatchError::TimestampType);
    }
    let bounds = TimestampBounds::new(rules, now_ms);
    let max_timestamp = if compression == Compression::None {
        check_records(&batch, rules.keys_required, &bounds)?
    } else {
        bounds.check(batch.base_timestamp())?;
        bounds.check(batch.max_timestamp())?;
        batch.max_timestamp()
    };
    Ok(Produced { length, count, max_timestamp, producer, compression })
}

fn check_counts(batch: &RecordBatch<'_>) -> Result<u32, BatchError> {
    let (count, last_offset_delta) = (batch.count(), batch.last_offset_delta());
    let wrong = BatchError::Counts { count, last_offset_delta };
    if last_offset_delta < 0 || i64::from(last_offset_delta) + 1 != i64::from(count) {
        return Err(wrong);
    }
    u32::try_from(count).map_err(|_| wrong)
}

fn check_producer(batch: &RecordBatch<'_>) -> Result<Option<BatchProducer>, BatchError> {
    let (id, epoch, base_sequence) = (batch.producer_id(), batch.producer_epoch(), batch.base_sequence());
    if id < 0 {
        return Ok(None);
    }
    if epoch < 0 || base_sequence < 0 {
        return Err(BatchError::ProducerFields { epoch, sequence: base_sequence });
    }
    Ok(Some(BatchProducer { id, epoch, base_sequence }))
}

/// Walks the records of an uncompressed batch; gives the largest timestamp.
fn check_records(batch: &RecordBatch<'_>, keys_required: bool, bounds: &TimestampBounds) -> Result<i64, BatchError> {
    let mut max_timestamp = -1;
    for (index, record) in (0u32..).zip(batch.records()) {
        let record = record?;
        if record.offset != i64::from(index) {
            return Err(BatchError::Record { index, detail: "offset out of order" });
        }
        if keys_required && record.key.is_none() {
            return Err(BatchError::MissingKey(index));
        }
        bounds.check(record.timestamp)?;
        max_timestamp = max_timestamp.max(record.timestamp);
    }
    Ok(max_timestamp)
}

/// The timestamps that a topic accepts; saturating where Kafka's configuration says "any".
struct TimestampBounds {
    earliest: i64,
    latest: i64,
}

impl TimestampBounds {
    fn new(rules: &ProduceRules, now_ms: i64) -> TimestampBounds {
        match rules.timestamp_type {
            TimestampType::LogAppendTime => TimestampBounds { earliest: i64::MIN, latest: i64::MAX },
            TimestampType::CreateTime => TimestampBounds {
                earliest: now_ms.saturating_sub(rules.timestamp_before_max_ms),
                latest: now_ms.saturating_add(rules.timestamp_after_max_ms),
            },
        }
    }

    /// −1, no timestamp, is always accepted.
    fn check(&self, timestamp: i64) -> Result<(), BatchError> {
        if timestamp == -1 || (self.earliest..=self.latest).contains(&timestamp) {
            return Ok(());
        }
        Err(BatchError::Timestamp { timestamp, earliest: self.earliest, latest: self.latest })
    }
}

impl Produced {
    /// Makes the batch the broker's: base offset, leader epoch (both outside the CRC), and where they differ from what
    /// is there the timestamp type and max timestamp, with a new CRC. `append_time` is given for topics of
    /// [`TimestampType::LogAppendTime`]. `batch` is exactly the `length` bytes that were checked. Gives the max timestamp
    /// that the batch now has.
    pub fn patch(&self, batch: &mut [u8], base_offset: i64, leader_epoch: i32, append_time: Option<i64>) -> i64 {
        assert_eq!(batch.len(), self.length, "the bytes that were checked");
        batch[BASE_OFFSET].copy_from_slice(&base_offset.to_be_bytes());
        batch[LEADER_EPOCH].copy_from_slice(&leader_epoch.to_be_bytes());
        let max_timestamp = append_time.unwrap_or(self.max_timestamp);
        let view = RecordBatch::split(batch).ok().flatten().expect("it was checked").0;
        let mut attributes = view.attributes().0;
        if append_time.is_some() {
            attributes |= Attributes::LOG_APPEND_TIME;
        }
        if view.attributes().0 != attributes || view.max_timestamp() != max_timestamp {
            batch[ATTRIBUTES].copy_from_slice(&attributes.to_be_bytes());
            batch[MAX_TIMESTAMP].copy_from_slice(&max_timestamp.to_be_bytes());
            let crc = crc_fast::crc32_iscsi(&batch[CRC.end..]);
            batch[CRC].copy_from_slice(&crc.to_be_bytes());
        }
        max_timestamp
    }
}

//! [`ProduceView`]: a produce request as byte ranges of its frame.
//!
//! The frame still belongs to the reader alone, because base offsets and leader epochs are patched into the batches
//! before it is shared; so the view keeps ranges instead of slices.
//!
//! 1. Every range is within the frame it was read from, and those of texts hold UTF-8.
//! 2. A request of at most [`INLINE_TOPICS`] topics and [`INLINE_PARTITIONS`] partitions is read without an allocation.
//! 3. At most [`MAX_WITHOUT_BATCH`] topics and partitions carry no batch. Every other partition has the bytes of a batch
//!    header, so the memory for view and answer grows with the batches that a frame brings and not with its bytes.

use super::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use crate::api::ApiKey;
use crate::codec::{Message, Version, Wire};
use crate::frame::{Peek, RequestHeader};
use crate::records::HEADER_BYTES;
use crate::wire::{Cursor, DecodeError, DecodeErrorKind};
use smallvec::SmallVec;
use std::ops::Range;
use uuid::Uuid;

/// Topics held without an allocation.
pub const INLINE_TOPICS: usize = 2;

/// Partitions held without an allocation.
pub const INLINE_PARTITIONS: usize = 8;

/// Topics without a partition and partitions too short for a batch in one request. Clients send none; what is refused
/// for them is told for each. Six bytes make one, and each takes some hundred in memory.
pub const MAX_WITHOUT_BATCH: usize = 1024;

/// A produce request, versions 3 to 13.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProduceView {
    /// Key, version and correlation id.
    pub header: Peek,
    /// Where stands what the client calls itself, if it says so.
    pub client_id: Option<Range<usize>>,
    /// Where the transactional id stands, if there is one.
    pub transactional_id: Option<Range<usize>>,
    /// 0: no answer; 1: answer when appended; -1: answer when durable. Not checked yet.
    pub acks: i16,
    /// How long the client waits, in ms.
    pub timeout_ms: i32,
    /// The topics in order.
    pub topics: SmallVec<[TopicView; INLINE_TOPICS]>,
    /// The partitions of all topics in order.
    pub partitions: SmallVec<[PartitionView; INLINE_PARTITIONS]>,
}

/// A topic of a produce request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicView {
    /// Which topic.
    pub topic: TopicRef,
    /// Which of [`ProduceView::partitions`] are its.
    pub partitions: Range<usize>,
}

/// How a request names a topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TopicRef {
    /// By name, which stands here; up to version 12.
    Name(Range<usize>),
    /// By id, from version 13.
    Id(Uuid),
}

/// A partition of a produce request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionView {
    /// The partition.
    pub index: i32,
    /// Where its batches stand, `None` for null.
    pub records: Option<Range<usize>>,
}

impl ProduceView {
    /// Reads a frame (length prefix off), header included.
    ///
    /// # Errors
    /// When the bytes are not a produce request of a declared version, or more than [`MAX_WITHOUT_BATCH`] of its
    /// elements carry no batch.
    pub fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(frame);
        let (header, client_id) = RequestHeader::skip(&mut cursor)?;
        cursor.enter("ProduceRequest");
        if header.api_key != ApiKey::Produce.code() {
            return Err(cursor.error(DecodeErrorKind::ApiKey(header.api_key)));
        }
        if !ProduceRequest::VERSIONS.contains(&header.api_version) {
            return Err(cursor.error(DecodeErrorKind::Version(header.api_version)));
        }
        let version = Version { number: header.api_version, flexible: ApiKey::Produce.is_flexible(header.api_version) };
        let mut view = ProduceView {
            header,
            client_id,
            transactional_id: text(&mut cursor, version.flexible)?,
            acks: cursor.i16()?,
            timeout_ms: cursor.i32()?,
            topics: SmallVec::new(),
            partitions: SmallVec::new(),
        };
        let topics = not_null_count(&mut cursor, version.flexible, TopicProduceData::min_size(version))?;
        let mut without_batch = 0;
        for _ in 0..topics {
            view.read_topic(&mut cursor, version, &mut without_batch)?;
        }
        end_struct(&mut cursor, version)?;
        Ok(view)
    }

    /// Whether the view, read from `frame`, says the same as the declared request.
    pub(crate) fn agrees_with(&self, request: &ProduceRequest, frame: &[u8]) -> bool {
        let transactional_id = self.transactional_id.as_ref().map(|range| text_at(frame, range));
        let same_partition = |(view, data): (&PartitionView, &PartitionProduceData)| {
            view.index == data.index && view.records.clone().map(|range| &frame[range]) == data.records.as_deref()
        };
        let same_topic = |(view, data): (&TopicView, &TopicProduceData)| {
            let same_name = match &view.topic {
                TopicRef::Name(range) => data.name == text_at(frame, range),
                TopicRef::Id(id) => data.topic_id == *id,
            };
            let partitions = &self.partitions[view.partitions.clone()];
            same_name
                && partitions.len() == data.partition_data.len()
                && partitions.iter().zip(&data.partition_data).all(same_partition)
        };
        transactional_id == request.transactional_id.as_deref()
            && self.acks == request.acks
            && self.timeout_ms == request.timeout_ms
            && self.topics.len() == request.topic_data.len()
            && self.topics.iter().zip(&request.topic_data).all(same_topic)
    }

    fn read_topic(
        &mut self,
        cursor: &mut Cursor<'_>,
        version: Version,
        without_batch: &mut usize,
    ) -> Result<(), DecodeError> {
        cursor.enter("TopicProduceData");
        let topic = if version.number >= 13 {
            TopicRef::Id(cursor.uuid()?)
        } else {
            let name = text(cursor, version.flexible)?;
            TopicRef::Name(name.ok_or_else(|| cursor.error(DecodeErrorKind::Null))?)
        };
        let first = self.partitions.len();
        let count = not_null_count(cursor, version.flexible, PartitionProduceData::min_size(version))?;
        if count == 0 {
            one_more_without_batch(cursor, without_batch)?;
        }
        for _ in 0..count {
            cursor.enter("PartitionProduceData");
            let index = cursor.i32()?;
            let records = match cursor.length(version.flexible)? {
                Some(length) => Some(cursor.range(length)?),
                None => None,
            };
            end_struct(cursor, version)?;
            if records.as_ref().is_none_or(|range| range.len() < HEADER_BYTES) {
                one_more_without_batch(cursor, without_batch)?;
            }
            self.partitions.push(PartitionView { index, records });
        }
        self.topics.push(TopicView { topic, partitions: first..self.partitions.len() });
        end_struct(cursor, version)
    }
}

/// The text at `range`, a range that a [`ProduceView`] of this frame gave.
pub fn text_at<'a>(frame: &'a [u8], range: &Range<usize>) -> &'a str {
    std::str::from_utf8(&frame[range.clone()]).expect("invariant 1: the range holds UTF-8 of this frame")
}

/// Where a string stands, `None` for null.
fn text(cursor: &mut Cursor<'_>, flexible: bool) -> Result<Option<Range<usize>>, DecodeError> {
    let text = cursor.nullable_str(flexible)?;
    Ok(text.map(|text| cursor.position() - text.len()..cursor.position()))
}

fn not_null_count(cursor: &mut Cursor<'_>, flexible: bool, min_element: usize) -> Result<usize, DecodeError> {
    cursor.count(flexible, min_element)?.ok_or_else(|| cursor.error(DecodeErrorKind::Null))
}

/// Counts a topic or partition that brings no batch (invariant 3).
fn one_more_without_batch(cursor: &Cursor<'_>, count: &mut usize) -> Result<(), DecodeError> {
    *count += 1;
    if *count > MAX_WITHOUT_BATCH {
        return Err(cursor.error(DecodeErrorKind::WithoutBatch(MAX_WITHOUT_BATCH)));
    }
    Ok(())
}

/// Goes over the tagged fields that end a struct of a flexible version: ProduceRequest has none that we know.
fn end_struct(cursor: &mut Cursor<'_>, version: Version) -> Result<(), DecodeError> {
    if version.flexible { cursor.skip_tags() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::sample::{Sample, Sampler};
    use crate::frame::{LENGTH_BYTES, request_frame};

    #[test]
    fn the_view_says_what_the_declared_request_says() {
        let mut sampler = Sampler(1);
        for number in ProduceRequest::VERSIONS {
            let version = Version { number, flexible: ApiKey::Produce.is_flexible(number) };
            for _ in 0..200 {
                let request = ProduceRequest::sample(&mut sampler, version);
                let frame = request_frame(&request, number, 7, Some("client".into())).unwrap().concat();
                let frame = &frame[LENGTH_BYTES..];
                let view = ProduceView::decode(frame).unwrap();
                assert!(view.agrees_with(&request, frame));
                assert_eq!(view.client_id.map(|range| text_at(frame, &range)), Some("client"));
            }
        }
    }

    #[test]
    fn a_usual_request_is_read_without_an_allocation() {
        let partition_data = vec![PartitionProduceData::default(); INLINE_PARTITIONS / INLINE_TOPICS];
        let topic = TopicProduceData { partition_data, ..TopicProduceData::default() };
        let request = ProduceRequest { topic_data: vec![topic; INLINE_TOPICS], ..ProduceRequest::default() };
        let frame = request_frame(&request, 9, 7, None).unwrap().concat();
        let view = ProduceView::decode(&frame[LENGTH_BYTES..]).unwrap();
        assert_eq!(view.partitions.len(), INLINE_PARTITIONS);
        assert!(!view.topics.spilled() && !view.partitions.spilled());
    }

    #[test]
    fn elements_that_carry_no_batch_are_bounded_however_long_the_frame() {
        let frame = |partitions: usize, topics: usize| {
            let partition_data = vec![PartitionProduceData::default(); partitions];
            let topic = TopicProduceData { partition_data, ..TopicProduceData::default() };
            let mut topic_data = vec![topic];
            topic_data.extend(vec![TopicProduceData::default(); topics]);
            let batches = vec![PartitionProduceData { records: Some(vec![0; 1 << 20].into()), index: 0 }];
            topic_data.push(TopicProduceData { partition_data: batches, ..TopicProduceData::default() });
            let request = ProduceRequest { topic_data, ..ProduceRequest::default() };
            request_frame(&request, 9, 7, None).unwrap().concat()
        };
        let allowed = frame(MAX_WITHOUT_BATCH / 2, MAX_WITHOUT_BATCH / 2);
        assert!(ProduceView::decode(&allowed[LENGTH_BYTES..]).is_ok());
        for refused in [frame(MAX_WITHOUT_BATCH + 1, 0), frame(1, MAX_WITHOUT_BATCH), frame(1_000_000, 0)] {
            let error = ProduceView::decode(&refused[LENGTH_BYTES..]).unwrap_err();
            assert_eq!(error.kind, DecodeErrorKind::WithoutBatch(MAX_WITHOUT_BATCH));
        }
    }

    #[test]
    fn versions_before_three_are_refused_by_their_number() {
        for number in [-1, 0, 2, 14] {
            let mut frame = vec![0, 0];
            frame.extend_from_slice(&i16::to_be_bytes(number));
            frame.extend_from_slice(&[0, 0, 0, 7, 0xff, 0xff, 0, 0]);
            assert_eq!(ProduceView::decode(&frame).unwrap_err().kind, DecodeErrorKind::Version(number));
        }
    }
}

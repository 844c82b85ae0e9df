//! One segment held against what its manifest says of it, pure, in pieces of any size.

use super::findings::Finding;
use crate::compaction::Segment;
use crate::format::manifest::NamedSegment;
use crate::ids::TopicPartition;
use crate::segment::index::Comparison;
use crate::segment::{PlacedBatch, Scanned, SegmentIndex, SegmentScan, data_key, index_key};

/// The check of one segment, on its way.
pub struct SegmentLook<'a> {
    partition: TopicPartition,
    named: NamedSegment,
    scan: SegmentScan,
    index: Option<Comparison<'a>>,
    index_flaw: Option<String>,
}

impl<'a> SegmentLook<'a> {
    /// Begins with the segment that the manifest of `partition` names. `index`: if it can be read.
    ///
    /// # Errors
    /// The manifest gives it a size that no segment has.
    pub fn new(
        partition: TopicPartition,
        named: NamedSegment,
        index: Option<&'a SegmentIndex>,
    ) -> Result<SegmentLook<'a>, Finding> {
        let scan = SegmentScan::new(named.segment.bytes).map_err(|error| Finding::Damaged {
            key: data_key(partition, named.name, named.segment.base),
            detail: error.to_string(),
        })?;
        Ok(SegmentLook { partition, named, scan, index: index.map(Comparison::new), index_flaw: None })
    }

    /// Where the bytes that come next stand in the file.
    pub fn position(&self) -> u64 {
        self.scan.position()
    }

    /// Takes what is whole of `bytes`, which begin at [`SegmentLook::position`]; gives how many bytes that were.
    ///
    /// # Errors
    /// The file is damaged. The look is of no use then.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, Finding> {
        let (index, flaw) = (&mut self.index, &mut self.index_flaw);
        let compare = |placed: PlacedBatch<'_>| {
            let base = crate::ids::Offset(placed.batch.base_offset());
            if let Some(Err(error)) = index.as_mut().map(|index| index.batch(placed.position, base)) {
                flaw.get_or_insert(error.to_string());
            }
        };
        self.scan.take(bytes, compare).map_err(|error| Finding::Damaged {
            key: data_key(self.partition, self.named.name, self.named.segment.base),
            detail: error.to_string(),
        })
    }

    /// What is wrong with it, all bytes seen.
    pub fn finish(self) -> Vec<Finding> {
        let NamedSegment { name, segment, .. } = self.named;
        let key = data_key(self.partition, name, segment.base);
        let mut findings = Vec::new();
        match self.scan.finish() {
            Err(error) => findings.push(Finding::Damaged { key, detail: error.to_string() }),
            Ok(found) => findings.extend(compare(self.partition, &self.named, &found, key)),
        }
        let unmet = self.index.and_then(|index| index.finish().err()).map(|error| error.to_string());
        if let Some(detail) = self.index_flaw.or(unmet) {
            findings.push(Finding::Damaged { key: index_key(self.partition, name, segment.base), detail });
        }
        findings
    }
}

/// A whole file that is not the one the manifest means, or that lacks offsets.
fn compare(partition: TopicPartition, named: &NamedSegment, found: &Scanned, key: String) -> Option<Finding> {
    let Scanned { base, last, records, max_timestamp, hole, .. } = *found;
    let Segment { base: from, last: to, max_timestamp: newest, .. } = named.segment;
    if (base, last, records, max_timestamp) != (from, to, named.records, newest) {
        let holds = format!("it holds offsets {base} to {last} in {records} records up to timestamp {max_timestamp}");
        let detail = format!("{holds}, by its manifest {from} to {to} in {} up to {newest}", named.records);
        return Some(Finding::Contradiction { about: key, detail });
    }
    let (expected, came) = hole?;
    Some(Finding::Gap { partition, detail: format!("{key} goes on at {came} where {expected} was to come") })
}

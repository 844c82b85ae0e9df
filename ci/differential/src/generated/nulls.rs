//! Null where none may be: for every field of a request that is empty in one of some requests and may not be null, the same
//! request with null there.
//!
//! 1. Where such fields stand is found by reading: a length of nothing is made null, and a request that our own codec then
//!    refuses for that has one. A field whose null is allowed is a matter of the generated requests.
//! 2. Each field is sent once a version.

use super::{Generate, Maker};
use crate::dice::Dice;
use crate::pair::{Pair, Side};
use bytes::Bytes;
use millrace_protocol::codec::Request;
use millrace_protocol::frame::{LENGTH_BYTES, RequestHeader, request_frame};
use millrace_protocol::wire::{DecodeErrorKind, Reader};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Generated requests that are looked through for empty fields, beside the one of defaults.
const SAMPLES: u64 = 16;

/// Sends what this version of the request can be spoilt to.
pub(super) fn each<R: Generate>(pair: &mut Pair, version: i16, seed: u64) -> io::Result<()> {
    let mut sent = BTreeSet::new();
    for sample in 0..=SAMPLES {
        let make = |side: &Side| match sample {
            0 => R::default(),
            _ => R::generate(&mut Maker { side, version, dice: Dice(seed ^ (sample << 40)) }),
        };
        let of_right = spoilt(&make(&pair.right), version);
        for field in spoilt(&make(&pair.left), version).into_keys() {
            // Names of a broker's own may move what stands behind them, never away.
            if of_right.contains_key(field) && sent.insert(field) {
                let case = format!("null in {field}");
                let bytes = |side: &Side| spoilt(&make(side), version)[field].clone();
                pair.send_bytes((R::KEY, version), &case, true, bytes)?;
            }
        }
    }
    Ok(())
}

/// Frames of this request with one field null that may not be, by the name of the field.
fn spoilt<R: Request>(request: &R, version: i16) -> BTreeMap<&'static str, Bytes> {
    // Not every request of defaults has a form in every version.
    let Ok(frame) = request_frame(request, version, 1, None) else { return BTreeMap::new() };
    let frame = frame.concat();
    let (empty, null): (&[&[u8]], u8) =
        if R::KEY.is_flexible(version) { (&[&[1]], 0) } else { (&[&[0; 2], &[0; 4]], 0xff) };
    let mut found = BTreeMap::new();
    for at in LENGTH_BYTES..frame.len() {
        for length in empty.iter().filter(|length| frame[at..].starts_with(length)) {
            let mut frame = frame.to_vec();
            frame[at..at + length.len()].fill(null);
            let frame = Bytes::from(frame);
            if let Some((field, end)) = refused_for_null::<R>(&frame, version)
                && end == at + length.len()
            {
                found.entry(field).or_insert(frame);
            }
        }
    }
    found
}

/// The field for whose null our codec refuses a frame, and where in the frame it ends.
fn refused_for_null<R: Request>(frame: &Bytes, version: i16) -> Option<(&'static str, usize)> {
    let body = frame.slice(LENGTH_BYTES..);
    let mut reader = Reader::new(&body);
    RequestHeader::decode(&mut reader).ok()?;
    let error = R::decode(&mut reader, version).err()?;
    (error.kind == DecodeErrorKind::Null).then_some((error.field, LENGTH_BYTES + error.at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_protocol::messages::LeaveGroupRequest;
    use millrace_protocol::messages::leave_group::MemberIdentity;

    fn fields(version: i16) -> Vec<&'static str> {
        let members = if version < 3 { Vec::new() } else { vec![MemberIdentity::default()] };
        spoilt(&LeaveGroupRequest { members, ..Default::default() }, version).into_keys().collect()
    }

    #[test]
    fn every_empty_field_that_may_not_be_null_is_found_and_no_other() {
        assert_eq!(fields(2), ["LeaveGroupRequest.group_id", "LeaveGroupRequest.member_id"]);
        // An instance id and a reason may be null.
        for version in [3, 5] {
            assert_eq!(fields(version), ["LeaveGroupRequest.group_id", "MemberIdentity.member_id"]);
        }
        assert_eq!(
            spoilt(&LeaveGroupRequest::default(), 3).into_keys().collect::<Vec<_>>(),
            ["LeaveGroupRequest.group_id", "LeaveGroupRequest.members"]
        );
    }
}

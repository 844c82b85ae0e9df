//! A lane that may have been replaced looks at its next sequence: a FENCE there is the end of its log (PROTOCOL.md
//! section 5). It has no safety role; it ends stale reads by consumers of a broker nobody produces to.

use super::core::LaneCore;
use super::events::Effect;
use super::inflight::{Stands, judge};
use crate::ids::Seq;
use crate::store_error::StoreError;
use bytes::Bytes;

impl LaneCore {
    /// Looks, unless what is in flight will tell as well.
    pub(super) fn probe(&mut self) {
        if self.is_open() && self.stop.is_none() && self.flights.is_empty() && self.probing.is_none() {
            let seq = self.flights.next_seq();
            self.probing = Some(seq);
            self.effects.push_back(Effect::ReadHeader { wid: self.wid, seq });
        }
    }

    /// Whether an answer about `seq` may be that of a look.
    pub(super) fn is_probe(&self, seq: Seq) -> bool {
        self.probing == Some(seq)
    }

    /// The look ended. Anything but a fence decides nothing: what was put there meanwhile has an answer of its own.
    pub(super) fn on_probed(&mut self, seq: Seq, result: &Result<Option<Bytes>, StoreError>) {
        self.probing = None;
        let me = self.identity.writer();
        if let Ok(header) = result
            && matches!(judge(self.wid, seq, me, header.as_ref()), Stands::Fence)
        {
            self.fenced();
        }
    }
}

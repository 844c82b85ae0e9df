//! One write-ahead log as an audit saw it: where it ends, and what is missing before that.

use super::object::SeenObject;
use crate::format::checkpoint::Checkpoint;
use crate::format::object::ObjectKind;
use crate::ids::{BootId, Seq};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Sequences in flight at most (K of PROTOCOL.md): how far above the end of a log that was killed an object may stand.
const IN_FLIGHT: u64 = 16;

/// An object beside the write-ahead objects: a checkpoint or a chunk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Beside {
    pub(super) key: String,
    pub(super) bytes: u64,
    pub(super) written_ms: i64,
}

/// A checkpoint that can't be had whole.
#[derive(Clone, PartialEq, Debug)]
pub struct BrokenCheckpoint {
    /// Without its references, if that much can be read.
    pub bare: Option<Box<Checkpoint>>,
    /// What is wrong.
    pub detail: String,
}

/// What was seen of one log.
#[derive(Default)]
pub(super) struct SeenLog {
    /// Whole objects.
    pub(super) objects: BTreeMap<Seq, Rc<SeenObject>>,
    /// Objects that can't be read, with their sizes: told of already, so not missing.
    pub(super) damaged: BTreeMap<Seq, u64>,
    /// Whole checkpoints with their references, by number.
    pub(super) checkpoints: BTreeMap<u64, Checkpoint>,
    /// Checkpoints that can't be had whole.
    pub(super) broken: BTreeMap<u64, BrokenCheckpoint>,
    /// Everything in its folder of checkpoints.
    pub(super) beside: Vec<Beside>,
}

/// What stands at a sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stands {
    Data,
    Fence,
    /// Something that can't be read.
    Damaged,
    Nothing,
}

/// Where the objects of a log come to an end, by themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct End {
    /// The first sequence that is not data.
    pub(super) at: Seq,
    /// Whether a fence stands there.
    pub(super) fenced: bool,
    /// Whether what stands above says that there was data at `at`.
    pub(super) hole: bool,
}

impl SeenLog {
    pub(super) fn stands(&self, seq: Seq) -> Stands {
        match self.objects.get(&seq).map(|object| object.header.kind) {
            Some(ObjectKind::Data) => Stands::Data,
            Some(ObjectKind::Fence) => Stands::Fence,
            None if self.damaged.contains_key(&seq) => Stands::Damaged,
            None => Stands::Nothing,
        }
    }

    /// The end, walked to from `s`.
    pub(super) fn end(&self, s: Seq) -> End {
        let mut at = s;
        while matches!(self.stands(at), Stands::Data | Stands::Damaged) {
            at = at.next();
        }
        let fenced = self.stands(at) == Stands::Fence;
        let above = self.objects.range(at.next()..);
        // A fence above it means that the walker passed here; an object far above, that the writer was told it is there.
        let passed = |(seq, object): (&Seq, &Rc<SeenObject>)| {
            object.header.kind == ObjectKind::Fence || seq.0 > at.0 + IN_FLIGHT
        };
        let hole = !fenced && self.holds_data() && above.into_iter().any(passed);
        End { at, fenced, hole }
    }

    /// Whether any object of its writer is left; of a collected log only the fence is.
    pub(super) fn holds_data(&self) -> bool {
        self.objects.values().any(|object| object.header.kind == ObjectKind::Data) || !self.damaged.is_empty()
    }

    /// The process life that wrote it, if an object tells.
    pub(super) fn boot(&self) -> Option<BootId> {
        let data = self.objects.values().find(|object| object.header.kind == ObjectKind::Data);
        data.map(|object| object.header.writer.boot)
    }

    /// S and the low-water mark of the newest checkpoint.
    pub(super) fn bounds(&self) -> (Seq, Seq) {
        let number = self.newest();
        let bare = || self.broken.get(&number).and_then(|broken| broken.bare.as_deref());
        let checkpoint = self.checkpoints.get(&number).or_else(bare);
        checkpoint.map_or((Seq(0), Seq(0)), |checkpoint| (checkpoint.s, checkpoint.lw))
    }

    /// Number of the newest checkpoint that can be read or can't; 0 is none.
    pub(super) fn newest(&self) -> u64 {
        let whole = self.checkpoints.last_key_value().map(|(number, _)| *number);
        whole.max(self.broken.last_key_value().map(|(number, _)| *number)).unwrap_or(0)
    }
}

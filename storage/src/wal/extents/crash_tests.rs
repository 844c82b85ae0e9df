//! Extents over a disk that dies in the middle of writes and loses what was not synced.

use super::simulated::SimulatedFiles;
use super::*;
use crate::wal::conformance;
use futures::executor::block_on;
use proptest::prelude::*;

const LOG: Wid = Wid(42);

fn open(files: &Arc<SimulatedFiles>, fsync: bool) -> (ExtentWal, Vec<Dropped>) {
    ExtentWal::inline(files.clone(), fsync).expect("a crash is no corruption")
}

/// The bytes of object `seq`: 100 to 10,000 of them, none like another's. Never as short as a fence.
fn object(seq: u64) -> Bytes {
    let length = 100 + (seq * 7_919) % 9_900;
    Bytes::from((0..length).map(|at| (seq * 31 + at * 7) as u8).collect::<Vec<u8>>())
}

fn put(wal: &ExtentWal, seq: u64) -> Result<PutOutcome, StoreError> {
    let whole = object(seq);
    let middle = whole.len() / 3;
    block_on(wal.put_if_absent(LOG, Seq(seq), vec![whole.slice(..middle), whole.slice(middle..)]))
}

fn put_fence(wal: &ExtentWal, seq: u64) -> PutOutcome {
    block_on(wal.put_if_absent(LOG, Seq(seq), vec![Bytes::from(vec![0xfe; HEADER_BYTES])])).unwrap()
}

fn get(wal: &ExtentWal, seq: u64) -> Option<Bytes> {
    block_on(wal.read(LOG, Seq(seq), 0..u64::MAX)).unwrap()
}

#[derive(Clone, Copy, Debug)]
enum End {
    /// The process goes between two writes.
    Kill,
    /// The process goes after some bytes of the next write, its sync not reached.
    KillWriting(u64),
    /// The power goes, in the middle of a write or not.
    PowerFailure(Option<u64>),
}

fn ends() -> impl Strategy<Value = End> {
    prop_oneof![
        Just(End::Kill),
        (0u64..30_000).prop_map(End::KillWriting),
        prop::option::of(0u64..30_000).prop_map(End::PowerFailure),
    ]
}

/// Numbers below a bound from a seed.
fn chooser(seed: u64) -> impl FnMut(u64) -> u64 {
    use rand_chacha::rand_core::{RngCore, SeedableRng};
    let mut random = rand_chacha::ChaCha20Rng::seed_from_u64(seed);
    move |bound| random.next_u64() % bound
}

/// Writes objects 0.. until `count` or the crash; how many were acknowledged.
fn write_until(wal: &ExtentWal, files: &SimulatedFiles, count: u64, sync_at: u64, end: End) -> u64 {
    for seq in 0..count {
        if seq == sync_at {
            block_on(wal.sync_below(LOG, Seq(seq))).unwrap();
        }
        if seq + 1 == count
            && let End::KillWriting(bytes) | End::PowerFailure(Some(bytes)) = end
        {
            files.die_after(bytes);
        }
        match put(wal, seq) {
            Ok(outcome) => assert_eq!(outcome, PutOutcome::Stored),
            Err(_) => return seq,
        }
    }
    count
}

fn crash(files: &SimulatedFiles, end: End, seed: u64) {
    match end {
        End::Kill | End::KillWriting(_) => files.restart(),
        End::PowerFailure(_) => files.power_failure(&mut chooser(seed)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_was_acknowledged_is_there_whole_after_any_crash(
        count in 1u64..20, sync_at in 0u64..20, fsync: bool, end in ends(), seed: u64, second_end in ends(),
    ) {
        let files = Arc::new(SimulatedFiles::new());
        let (wal, dropped) = open(&files, fsync);
        prop_assert!(dropped.is_empty());
        let acknowledged = write_until(&wal, &files, count, sync_at, end);
        drop(wal);
        crash(&files, end, seed);

        let (wal, _) = open(&files, fsync);
        let kept = match end {
            _ if fsync => acknowledged,
            End::Kill | End::KillWriting(_) => acknowledged,
            End::PowerFailure(_) if sync_at < count => sync_at.min(acknowledged),
            End::PowerFailure(_) => 0,
        };
        for seq in 0..kept {
            prop_assert_eq!(get(&wal, seq), Some(object(seq)), "object {} of {} kept", seq, kept);
        }
        let listed: Vec<u64> = block_on(wal.list(LOG, Seq(0))).unwrap().iter().map(|found| found.seq.0).collect();
        for seq in &listed {
            prop_assert_eq!(get(&wal, *seq), Some(object(*seq)), "what is there is what was written");
        }

        // The log is sealed at its first gap, which holds through another crash.
        let fence = (0..).find(|seq| !listed.contains(seq)).unwrap();
        prop_assert_eq!(put_fence(&wal, fence), PutOutcome::Stored);
        drop(wal);
        crash(&files, second_end, seed + 1);
        let (wal, dropped) = open(&files, fsync);
        prop_assert!(dropped.is_empty(), "{:?}", dropped);
        for seq in &listed {
            prop_assert_eq!(get(&wal, *seq), Some(object(*seq)));
        }
        prop_assert_eq!(get(&wal, fence), Some(Bytes::from(vec![0xfe; HEADER_BYTES])));
        prop_assert_eq!(put_fence(&wal, fence), PutOutcome::AlreadyExists);
    }

    #[test]
    fn what_a_start_finds_survives_a_power_failure_after_it(written in 0u64..200, fsync: bool, seed: u64) {
        let files = Arc::new(SimulatedFiles::new());
        let (wal, _) = open(&files, fsync);
        put(&wal, 0).unwrap();
        // The process goes somewhere in the write of the fence, or between that and its sync.
        files.die_after(written);
        let _ = block_on(wal.put_if_absent(LOG, Seq(1), vec![Bytes::from(vec![0xfe; HEADER_BYTES])]));
        drop(wal);
        files.restart();
        let (wal, _) = open(&files, fsync);
        let found = block_on(wal.list(LOG, Seq(0))).unwrap();
        drop(wal);
        files.power_failure(&mut chooser(seed));
        let (wal, _) = open(&files, fsync);
        prop_assert_eq!(block_on(wal.list(LOG, Seq(0))).unwrap(), found);
    }

    #[test]
    fn collecting_a_sealed_log_keeps_the_fence_wherever_it_is_interrupted(written in 0u64..400, power: bool, seed: u64) {
        let files = Arc::new(SimulatedFiles::new());
        let (wal, _) = open(&files, true);
        put(&wal, 0).unwrap();
        drop(wal);
        let (wal, _) = open(&files, true);
        put_fence(&wal, 1);
        files.die_after(written);
        let _ = block_on(wal.retain_only_fence(LOG, Seq(1)));
        drop(wal);
        crash(&files, if power { End::PowerFailure(None) } else { End::Kill }, seed);
        let (wal, _) = open(&files, true);
        block_on(wal.retain_only_fence(LOG, Seq(1))).unwrap();
        prop_assert_eq!(block_on(wal.list(LOG, Seq(0))).unwrap(), vec![Listed { seq: Seq(1), size: 64 }]);
    }

    #[test]
    fn damage_to_what_was_on_disk_is_reported_and_never_taken_for_the_end(position in 0usize..2_000, fsync: bool) {
        let files = Arc::new(SimulatedFiles::new());
        let (wal, _) = open(&files, fsync);
        for seq in 0..3 {
            put(&wal, seq).unwrap();
            block_on(wal.sync_below(LOG, Seq(seq + 1))).unwrap();
        }
        drop(wal);
        files.damage(ExtentName { wid: LOG, index: 0 }, position % (64 + 32));
        let error = ExtentWal::inline(files, fsync).err().expect("damage is seen");
        prop_assert_eq!(error.kind, FailureKind::Corrupt);
    }
}

#[test]
fn a_simulated_disk_conforms_with_and_without_fsync() {
    for fsync in [true, false] {
        let (wal, _) = open(&Arc::new(SimulatedFiles::new()), fsync);
        block_on(conformance::check(&wal, 1));
    }
}

#[test]
fn a_directory_conforms_and_reopens() {
    for fsync in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let side = SideRuntime::start().unwrap();
        let root = directory.path().join("wal");
        let (wal, _) = ExtentWal::open(&root, fsync, &side).unwrap();
        block_on(conformance::check(&wal, 1));
        let wids = block_on(wal.list_wids()).unwrap();
        let before: Vec<Vec<Listed>> = wids.iter().map(|wid| block_on(wal.list(*wid, Seq(0))).unwrap()).collect();
        drop(wal);
        let (wal, dropped) = ExtentWal::open(&root, fsync, &side).unwrap();
        assert_eq!(dropped, vec![]);
        assert_eq!(block_on(wal.list_wids()).unwrap(), wids);
        for (wid, before) in wids.iter().zip(before) {
            assert_eq!(block_on(wal.list(*wid, Seq(0))).unwrap(), before);
        }
        block_on(conformance::check(&wal, 2));
    }
}

#[test]
fn full_extents_are_found_again_by_their_index_and_deleted_whole() {
    let files = Arc::new(SimulatedFiles::new());
    let (wal, _) = open(&files, true);
    let large = Bytes::from(vec![7; (writer::EXTENT_BYTES / 3) as usize]);
    for seq in 0..10 {
        block_on(wal.put_if_absent(LOG, Seq(seq), vec![large.clone()])).unwrap();
    }
    assert!(files.list().unwrap().len() > 2);
    drop(wal);
    let (wal, dropped) = open(&files, true);
    assert_eq!(dropped, vec![]);
    assert_eq!(block_on(wal.list(LOG, Seq(0))).unwrap().len(), 10);
    let before = files.list().unwrap().len();
    block_on(wal.delete_below(LOG, Seq(4))).unwrap();
    assert_eq!(files.list().unwrap().len(), before - 1, "one extent holds three of them, the next one number 4 too");
    assert_eq!(get(&wal, 0), None);
    assert_eq!(get(&wal, 4).as_ref(), Some(&large));
}

#[test]
fn a_full_disk_refuses_puts_cleanly_and_takes_them_again_when_there_is_room() {
    for fsync in [true, false] {
        let files = Arc::new(SimulatedFiles::new());
        let (wal, _) = open(&files, fsync);
        put(&wal, 0).unwrap();
        files.limit_room(Some(50));
        let error = put(&wal, 1).unwrap_err();
        assert_eq!((error.certainty, error.kind), (Certainty::NotDone, FailureKind::Full));
        assert_eq!(get(&wal, 1), None);
        assert_eq!(get(&wal, 0), Some(object(0)), "reads go on");
        files.limit_room(None);
        assert_eq!(put(&wal, 1).unwrap(), PutOutcome::Stored);
        drop(wal);
        let (wal, dropped) = open(&files, fsync);
        assert_eq!(dropped, vec![]);
        assert_eq!(get(&wal, 1), Some(object(1)));
    }
}

#[test]
fn a_log_without_its_fence_is_never_collected() {
    let (wal, _) = open(&Arc::new(SimulatedFiles::new()), true);
    put(&wal, 0).unwrap();
    assert!(block_on(wal.retain_only_fence(LOG, Seq(1))).is_err());
    assert!(block_on(wal.retain_only_fence(LOG, Seq(0))).is_err(), "what stands there is no fence");
    assert_eq!(get(&wal, 0), Some(object(0)));
}

#[test]
fn a_put_refused_by_a_full_disk_leaves_nothing_behind_whatever_comes_next() {
    // Room for the first of two objects of a group, and for a part of the second.
    let object = |fill| vec![Bytes::from(vec![fill; 1_000])];
    for power in [false, true] {
        let files = Arc::new(SimulatedFiles::new());
        let index = Arc::new(Mutex::new(Index::default()));
        let (mut writer, _) = Writer::open(files.clone(), true, index).unwrap();
        let put = |seq| Put { wid: LOG, seq: Seq(seq), slices: object(seq as u8) };
        writer.put_group(&[put(0)])[0].as_ref().unwrap();
        files.limit_room(Some(1_500));
        for answer in writer.put_group(&[put(1), put(2)]) {
            assert_eq!(answer.unwrap_err().certainty, Certainty::NotDone);
        }
        if power {
            files.power_failure(&mut |bound| bound - 1);
        }
        let (wal, dropped) = open(&files, true);
        assert_eq!(dropped, vec![]);
        assert_eq!(block_on(wal.list(LOG, Seq(0))).unwrap(), vec![Listed { seq: Seq(0), size: 1_000 }]);
    }
}

#[test]
fn of_one_sequence_twice_in_a_group_the_first_wins() {
    let index = Arc::new(Mutex::new(Index::default()));
    let (mut writer, _) = Writer::open(Arc::new(SimulatedFiles::new()), true, index).unwrap();
    let put = |fill| Put { wid: LOG, seq: Seq(0), slices: vec![Bytes::from(vec![fill; 100])] };
    let answers = writer.put_group(&[put(1), put(2)]);
    assert_eq!(answers, [Ok(PutOutcome::Stored), Ok(PutOutcome::AlreadyExists)]);
}

#[test]
fn what_a_failed_sync_lost_is_not_taken_for_stored_by_the_next_start() {
    for evicted in [false, true] {
        let files = Arc::new(SimulatedFiles::new());
        let (wal, _) = open(&files, true);
        put(&wal, 0).unwrap();
        files.fail_next_sync();
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| put(&wal, 1)));
        assert!(ended.is_err(), "a failed sync ends the process");
        if evicted {
            files.evict();
        }
        let (wal, _) = open(&files, true);
        let found = block_on(wal.list(LOG, Seq(0))).unwrap();
        assert_eq!(found.len(), if evicted { 1 } else { 2 }, "what can be read is stored again, the rest is cut off");
        let fence = found.len() as u64;
        assert_eq!(put_fence(&wal, fence), PutOutcome::Stored);
        files.power_failure(&mut |_| 0);
        let (wal, dropped) = open(&files, true);
        assert_eq!(dropped, vec![]);
        (0..fence).for_each(|seq| assert_eq!(get(&wal, seq), Some(object(seq))));
        assert_eq!(put_fence(&wal, fence), PutOutcome::AlreadyExists);
    }
}

#[test]
fn a_later_extent_than_the_next_vouches_for_what_was_synced_behind_it() {
    let files = Arc::new(SimulatedFiles::new());
    let (wal, _) = open(&files, false);
    let half = Bytes::from(vec![7; (writer::EXTENT_BYTES / 2) as usize]);
    for seq in 0..3 {
        block_on(wal.put_if_absent(LOG, Seq(seq), vec![half.clone()])).unwrap();
    }
    drop(wal);
    // The second extent was made while the first was not synced; the third, for the fence, after both were.
    let (wal, _) = open(&files, false);
    put_fence(&wal, 3);
    assert_eq!(files.list().unwrap().len(), 3);
    drop(wal);
    // The last frame of the first extent, its header; and the index, which would do without it.
    let (first, length) = files.list().unwrap()[0];
    files.damage(first, 64 + 32 + half.len() + 8);
    files.damage(first, length as usize - 1);
    files.power_failure(&mut |_| 1);
    let error = ExtentWal::inline(files, false).err().expect("damage is seen");
    assert_eq!(error.kind, FailureKind::Corrupt);
}

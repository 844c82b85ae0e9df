//! The fuzzer's corpus, mutated by seed, for machines without cargo-fuzz: reading never panics, what is read can be
//! written, and the produce view agrees with the declared request (asserted in `fuzz_request`).

use millrace_protocol::fuzz::fuzz_request;
use std::path::Path;

/// Mutated frames in all.
const FRAMES: usize = 1_000_000;

/// The most that one frame is changed.
const MAX_MUTATIONS: usize = 6;

/// Bytes that lengths, counts and tags turn at.
const TURNING_POINTS: [u8; 8] = [0, 1, 2, 0x0f, 0x7f, 0x80, 0xfe, 0xff];

/// Random numbers by seed (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/request");
    let mut paths: Vec<_> = folder.read_dir().expect("the corpus is kept").map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn mutate(frame: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(frame.len());
    match random.below(6) {
        0 => frame[at] = TURNING_POINTS[random.below(TURNING_POINTS.len())],
        1 => frame[at] = random.below(256) as u8,
        2 => frame[at] ^= 1 << random.below(8),
        3 => frame.truncate(at.max(1)),
        4 => frame.insert(at, random.below(256) as u8),
        _ => {
            let end = (at + 4).min(frame.len());
            let same = [TURNING_POINTS[random.below(TURNING_POINTS.len())]; 4];
            frame[at..end].copy_from_slice(&same[..end - at]);
        }
    }
}

#[test]
fn every_frame_of_the_corpus_keeps_the_invariants() {
    let corpus = corpus();
    assert!(corpus.len() >= 21, "every API has its frames");
    for frame in corpus {
        fuzz_request(&frame);
    }
}

#[test]
fn a_million_mutated_frames_keep_the_invariants() {
    let corpus = corpus();
    let mut random = Random(1);
    for index in 0..FRAMES {
        let mut frame = corpus[index % corpus.len()].clone();
        for _ in 0..=random.below(MAX_MUTATIONS) {
            mutate(&mut frame, &mut random);
        }
        fuzz_request(&frame);
    }
}

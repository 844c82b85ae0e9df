//! What a broker keeps on a disk, and whether something that was measured again and again grows.

use crate::trouble::Trouble;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::SystemTime;

/// What lies below some directories.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Kept {
    /// Of all files.
    pub(crate) bytes: u64,
    /// Files.
    pub(crate) files: u64,
    /// Of them, segments.
    pub(crate) segments: u64,
    /// Bytes of the newest checkpoint, without its chunks of references.
    pub(crate) checkpoint: u64,
}

/// Looks at everything below `directories`. What is deleted meanwhile does not count.
pub(crate) fn kept(directories: &[&Path]) -> Result<Kept, Trouble> {
    let mut kept = Kept::default();
    let mut newest = SystemTime::UNIX_EPOCH;
    let mut open: Vec<_> = directories.iter().map(|path| path.to_path_buf()).collect();
    while let Some(directory) = open.pop() {
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let found = match entry.metadata() {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                found => found?,
            };
            let path = entry.path();
            if found.is_dir() {
                open.push(path);
                continue;
            }
            kept.bytes += found.len();
            kept.files += 1;
            kept.segments += u64::from(path.extension().is_some_and(|extension| extension == "kfs"));
            let in_checkpoints = path.components().any(|part| part.as_os_str() == "ckpt");
            if in_checkpoints && path.extension().is_none() && found.modified()? >= newest {
                (newest, kept.checkpoint) = (found.modified()?, found.len());
            }
        }
    }
    Ok(kept)
}

/// When a row of measurements is flat: from the first to the second half of it neither the mean nor the largest rises by more
/// than a part and a fixed amount.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flat {
    /// In hundredths of what it was in the first half.
    pub(crate) percent: u64,
    /// In the unit of the measurements.
    pub(crate) besides: u64,
}

impl Flat {
    /// What is compared: mean and largest of the first half, then of the second. `None` for fewer than four measurements.
    pub(crate) fn halves(measured: &[u64]) -> Option<[(u64, u64); 2]> {
        let (first, second) = measured.split_at(measured.len() / 2);
        let of = |half: &[u64]| Some((half.iter().sum::<u64>() / half.len() as u64, *half.iter().max()?));
        if measured.len() < 4 { None } else { Some([of(first)?, of(second)?]) }
    }

    /// Whether they are. Too few say nothing, which is no proof.
    pub(crate) fn holds(&self, measured: &[u64]) -> bool {
        let within = |before: u64, after: u64| after <= before + before * self.percent / 100 + self.besides;
        Flat::halves(measured).is_some_and(|[(mean, most), (later_mean, later_most)]| {
            within(mean, later_mean) && within(most, later_most)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_segments_and_the_newest_checkpoint_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: usize| {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![0; bytes]).unwrap();
        };
        write("log/seg/t/0/w-1/segment-0.kfs", 100);
        write("log/seg/t/0/w-1/segment-0.index", 10);
        write("log/ckpt/w/1.refs", 50);
        write("log/ckpt/w/1", 7);
        let found = kept(&[directory.path(), Path::new("/there/is/no/such")]).unwrap();
        assert_eq!(found, Kept { bytes: 167, files: 4, segments: 1, checkpoint: 7 });
    }

    #[test]
    fn a_row_that_grows_is_not_flat_and_one_that_swings_is() {
        let rule = Flat { percent: 10, besides: 5 };
        assert!(rule.holds(&[100, 200, 150, 110, 205, 160]));
        assert!(!rule.holds(&[100, 110, 120, 130, 140, 150]), "its mean grows");
        assert!(!rule.holds(&[100, 100, 100, 60, 60, 160]), "so does its largest");
        assert!(rule.holds(&[0, 0, 5, 5]) && !rule.holds(&[1, 1]));
    }
}

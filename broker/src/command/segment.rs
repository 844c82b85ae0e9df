//! `millrace segment`: looks into a segment's file.

use super::{CommandError, say, segment_copy};
use clap::ArgMatches;
use millrace_storage::segment::{SegmentIndex, WholeSegment};
use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

pub(super) fn run(matches: &ArgMatches) -> Result<(), CommandError> {
    let (name, matches) = matches.subcommand().expect("clap requires one");
    match name {
        "export" => return segment_copy::run_export(matches),
        "import" => return segment_copy::run_import(matches),
        _ => {}
    }
    let path = matches.get_one::<PathBuf>("file").expect("clap requires it");
    let bytes = fs::read(path).map_err(|error| format!("{} can't be read: {error}", path.display()))?;
    let whole = WholeSegment::read(&bytes).map_err(|error| format!("{}: {error}", path.display()))?;
    let index = read_index(&path.with_extension("index"))?;
    if let Some(index) = &index {
        whole.compare(index).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(say(&if name == "dump" { dump(&whole) } else { summary(&whole, index.as_ref()) })?)
}

/// The index beside the file, if one is there.
fn read_index(path: &Path) -> Result<Option<SegmentIndex>, CommandError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(SegmentIndex::decode(&bytes).map_err(|error| format!("{}: {error}", path.display()))?)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{} can't be read: {error}", path.display()).into()),
    }
}

fn summary(whole: &WholeSegment<'_>, index: Option<&SegmentIndex>) -> String {
    let WholeSegment { base, last, created, records, batches } = whole;
    let index = index.map_or("none beside it".to_owned(), |index| format!("{} entries", index.entries().len()));
    format!(
        "offsets  {base} to {last}\nrecords  {records} in {} batches\ncreated  {} ms\nindex    {index}\n",
        batches.len(),
        created.0
    )
}

/// A line for each batch.
fn dump(whole: &WholeSegment<'_>) -> String {
    let mut text = summary(whole, None).lines().take(3).fold(String::new(), |text, line| text + line + "\n");
    for placed in &whole.batches {
        let batch = &placed.batch;
        let codec =
            batch.attributes().compression().map_or("unknown".to_owned(), |codec| format!("{codec:?}").to_lowercase());
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "position {} offset {} to {} records {} bytes {} epoch {} max-timestamp {} codec {codec} producer {} epoch {} \
             sequence {}",
            placed.position,
            batch.base_offset(),
            batch.last_offset(),
            batch.count(),
            batch.bytes().len(),
            batch.leader_epoch(),
            batch.max_timestamp(),
            batch.producer_id(),
            batch.producer_epoch(),
            batch.base_sequence(),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_protocol::records::BatchBuilder;
    use millrace_storage::env::WallMs;
    use millrace_storage::ids::Offset;
    use millrace_storage::segment::SegmentWriter;

    #[test]
    fn a_dump_names_each_batch() {
        let mut builder = BatchBuilder::new(1_234);
        builder.push(None, Some(b"value"));
        let mut writer = SegmentWriter::new(Offset(0));
        writer.push(builder.finish().into()).unwrap();
        let file = writer.finish(WallMs(5)).unwrap().file.concat();
        let text = dump(&WholeSegment::read(&file).unwrap());
        let batch = file.len() - 48;
        assert_eq!(
            text,
            format!(
                "offsets  0 to 0\nrecords  1 in 1 batches\ncreated  5 ms\nposition 32 offset 0 to 0 records 1 bytes {batch} \
                 epoch -1 max-timestamp 1234 codec none producer -1 epoch -1 sequence -1\n"
            )
        );
    }
}

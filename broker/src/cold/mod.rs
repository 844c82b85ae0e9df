//! Cold reads: what lies in segments (DESIGN.md section 4), by way of manifest, index and blocks of the segment's file.
//!
//! [`reader`] goes this way; [`cache`] bounds what is kept, [`shelf`] loads each thing once, [`window`] and [`select`] find
//! whole batches in blocks without joining them. [`disk`] keeps blocks on the local disk where configured, in the file of
//! [`disk_file`].

pub mod cache;
pub mod disk;
pub mod disk_file;
pub mod reader;
pub mod select;
pub mod shelf;
#[cfg(test)]
mod testing;
pub mod window;

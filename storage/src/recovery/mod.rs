//! Finding the end of a dead write-ahead log (SEAL) and rebuilding what it held (ACQUIRE).

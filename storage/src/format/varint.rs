//! Unsigned and zigzag LEB128 integers with bounds.

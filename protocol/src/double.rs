//! [`Double`]: FLOAT64, equal by its bits, so that a message that holds one can be compared even if it is not a number.

/// A number of 64 bits with a fraction (IEEE 754).
#[derive(Clone, Copy, Default)]
pub struct Double(pub f64);

impl PartialEq for Double {
    fn eq(&self, other: &Double) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Double {}

impl std::fmt::Debug for Double {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_number_equals_itself() {
        assert_eq!(Double(f64::NAN), Double(f64::NAN));
        assert_ne!(Double(1.0), Double(2.0));
        assert_eq!(format!("{:?}", Double(1.5)), "1.5");
    }
}

//! Keyed draws: chance without a stream. Whether one operation is hit depends on the seed and on what the operation is,
//! never on what other threads did before it, so the same seed gives the same file the same fate.

/// The version of the function below. A change of it changes what every seed means.
pub(crate) const PRF: u32 = 1;

/// Collects the key of one draw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key(u64);

impl Key {
    pub(crate) fn new(seed: u64) -> Self {
        Key(0xcbf2_9ce4_8422_2325 ^ u64::from(PRF)).number(seed)
    }

    /// FNV-1a over the bytes, then a byte that no UTF-8 text contains, so that `ab`+`c` is not `a`+`bc`.
    #[must_use]
    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        for b in bytes.iter().chain(&[0xff]) {
            self.0 = (self.0 ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
        }
        self
    }

    #[must_use]
    pub(crate) fn number(self, n: u64) -> Self {
        self.bytes(&n.to_le_bytes())
    }

    /// The key itself, to count how often it was drawn.
    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    /// A number that is uniform in [0, 1).
    pub(crate) fn unit(self) -> f64 {
        let mut z = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with probability `p`: never for 0, always for 1.
    pub(crate) fn hits(self, p: f64) -> bool {
        self.unit() < p
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PINNED: u64 = 4_606_226_608_345_490_665;

    #[test]
    fn zero_never_hits_and_one_always_does() {
        for n in 0..10_000 {
            assert!(!Key::new(1).number(n).hits(0.0));
            assert!(Key::new(1).number(n).hits(1.0));
        }
    }

    #[test]
    fn a_probability_is_met_within_four_sigma() {
        for p in [0.01, 0.05, 0.5, 0.9] {
            let hits = (0..10_000).filter(|n| Key::new(42).bytes(b"write").number(*n).hits(p)).count() as f64;
            let sigma = (10_000.0 * p * (1.0 - p)).sqrt();
            assert!((hits - 10_000.0 * p).abs() < 4.0 * sigma, "p={p}: {hits} hits");
        }
    }

    #[test]
    fn the_meaning_of_a_seed_is_pinned() {
        // A failing line here means that PRF must change with it.
        let bits = |key: Key| key.unit().to_bits();
        assert_eq!(bits(Key::new(7).bytes(b"a/b").number(3)), PINNED);
        assert_ne!(bits(Key::new(7).bytes(b"ab").bytes(b"c")), bits(Key::new(7).bytes(b"a").bytes(b"bc")));
        assert_ne!(bits(Key::new(7)), bits(Key::new(8)));
    }
}

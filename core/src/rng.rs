//! A small deterministic random generator.
//!
//! *Purpose*: diversity in policies, the same each time for one seed. Not for secrets.
//! *Source*: SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014).

/// A generator; each draw advances it.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// Starts from `seed`; equal seeds draw equal numbers.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number from all of `u64`.
    pub const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// A number in `0..bound`; 0 if `bound` is 0. Biased by less than `bound / 2^64`.
    pub const fn below(&mut self, bound: u32) -> u32 {
        ((self.draw() as u128 * bound as u128) >> 64) as u32
    }
}

/// SplitMix64's finalizer: a good 64-bit hash of a 64-bit number.
pub const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

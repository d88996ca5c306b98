//! *Integrity*: no guest gets a byte that is not the image's, and none such is kept as verified.
//!
//! Liars, corrupted bodies and caches torn by power cuts try to bring that about.

use super::Judgement;
use crate::world::Observation;

/// See the module's docs.
#[derive(Debug, Default)]
pub struct Integrity {
    /// Chunks that guests have got.
    pub got_count: u64,
    /// Pieces that were kept.
    pub kept_count: u64,
}

impl Integrity {
    /// Something has happened at a node.
    ///
    /// # Errors
    /// A wrong byte.
    pub fn observe(&mut self, what: Observation) -> Judgement {
        match what {
            Observation::Got { chunk, is_genuine } => {
                self.got_count += 1;
                if is_genuine { Ok(()) } else { Err(format!("its guest has got a chunk {chunk} that is not genuine")) }
            }
            Observation::Kept { piece, is_genuine } => {
                self.kept_count += 1;
                if is_genuine { Ok(()) } else { Err(format!("it keeps a piece {piece} that is not genuine")) }
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_byte_is_noticed() {
        let mut integrity = Integrity::default();
        let got = |is_genuine| Observation::Got { chunk: 1, is_genuine };
        let kept = |is_genuine| Observation::Kept { piece: 1, is_genuine };
        assert_eq!((integrity.observe(got(true)), integrity.observe(kept(true))), (Ok(()), Ok(())));
        assert!(integrity.observe(got(false)).is_err() && integrity.observe(kept(false)).is_err());
        assert_eq!((integrity.got_count, integrity.kept_count), (2, 2));
    }
}

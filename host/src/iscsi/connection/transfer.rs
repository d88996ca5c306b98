//! The data of one write as they come: with the command, unasked, asked for.
//!
//! *Invariants*: data are taken in their order alone, and never more than were agreed on; what exceeds the command's need is
//! dropped. *Bounds*: the first burst, then what the owner asks for.

use crate::iscsi::pdu::{Header, NO_TAG};
use crate::iscsi::scsi::sense::Sense;
use bytes::{Bytes, BytesMut};

/// Data on their way.
#[derive(Debug)]
pub(super) struct Transfer {
    /// What the command needs.
    wanted: u32,
    /// What came, needed or not.
    received: u32,
    /// What is needed of it: the first unit as it came, until there is a second. Small ones would each hold on to the buffer
    /// that they were read into.
    first: Bytes,
    gathered: BytesMut,
    /// Most that may come unasked.
    unasked_max: u32,
    /// Whether more comes unasked.
    is_open: bool,
    asked: Option<Asked>,
    asked_count: u32,
    /// Number of the next unit of a sequence.
    next_number: u32,
}

#[derive(Debug, Copy, Clone)]
struct Asked {
    tag: u32,
    end: u32,
}

/// What is to be asked for.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    pub number: u32,
    pub offset: u32,
    pub bytes: u32,
}

impl Transfer {
    pub(super) fn new(wanted: u32, unasked_max: u32, is_open: bool) -> Self {
        Self {
            wanted,
            received: 0,
            first: Bytes::new(),
            gathered: BytesMut::new(),
            unasked_max,
            is_open,
            asked: None,
            asked_count: 0,
            next_number: 0,
        }
    }

    /// Whether all is there, and nothing more comes unasked.
    pub(super) fn is_complete(&self) -> bool {
        !self.is_open && self.received >= self.wanted
    }

    /// Whether the initiator has to be asked for more.
    pub(super) fn waits_to_be_asked(&self) -> bool {
        !self.is_open && self.asked.is_none() && self.received < self.wanted
    }

    /// Takes what came with the command.
    ///
    /// # Errors
    /// It is more than may come so.
    pub(super) fn immediate(&mut self, data: Bytes) -> Result<(), Sense> {
        if data.len() > self.unasked_max as usize {
            return Err(Sense::OUT_OF_ORDER);
        }
        self.take(data);
        Ok(())
    }

    /// Takes a unit of data.
    ///
    /// # Errors
    /// It is not the one that comes next: then the whole write is no good.
    pub(super) fn data_out(&mut self, header: &Header, data: Bytes) -> Result<(), Sense> {
        let (tag, number, offset) = (header.transfer_tag(), header.u32_at(36), header.u32_at(40));
        if number != self.next_number || offset != self.received {
            return Err(Sense::OUT_OF_ORDER);
        }
        let end = match self.asked {
            Some(asked) if asked.tag == tag => asked.end,
            None if self.is_open && tag == NO_TAG => self.unasked_max,
            _ => return Err(Sense::OUT_OF_ORDER),
        };
        if data.len() > end.saturating_sub(self.received) as usize {
            return Err(Sense::OUT_OF_ORDER);
        }
        self.take(data);
        self.next_number = self.next_number.wrapping_add(1);
        if self.asked.is_some() && header.is_final() != (self.received == end) {
            return Err(Sense::TOO_LITTLE_DATA);
        }
        if header.is_final() {
            self.is_open = false;
            self.asked = None;
            self.next_number = 0;
        }
        Ok(())
    }

    fn take(&mut self, mut data: Bytes) {
        let needed = self.wanted.saturating_sub(self.received) as usize;
        self.received += data.len() as u32;
        data.truncate(needed);
        if self.first.is_empty() && self.gathered.is_empty() {
            self.first = data;
        } else if !data.is_empty() {
            // Who asks has room for all of it; before, no more comes than may come unasked.
            let most = if self.asked_count > 0 { self.wanted } else { self.wanted.min(self.unasked_max) };
            self.gathered.reserve((most as usize).saturating_sub(self.gathered.len()));
            self.gathered.extend_from_slice(&std::mem::take(&mut self.first));
            self.gathered.extend_from_slice(&data);
        }
    }

    /// Asks for the next data, at most so many, by this tag.
    pub(super) fn ask(&mut self, tag: u32, bytes_max: u32) -> Wish {
        let bytes = self.wanted.saturating_sub(self.received).min(bytes_max);
        let wish = Wish { number: self.asked_count, offset: self.received, bytes };
        self.asked = Some(Asked { tag, end: self.received + bytes });
        self.asked_count += 1;
        self.next_number = 0;
        wish
    }

    /// All of it, in one piece.
    pub(super) fn into_data(self) -> Bytes {
        if self.gathered.is_empty() { self.first } else { self.gathered.freeze() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iscsi::pdu::op;
    use proptest::prelude::*;

    fn unit(tag: u32, number: u32, offset: u32, is_final: bool) -> Header {
        let header = Header::reply(op::DATA_OUT, 1).with_u32(20, tag).with_u32(36, number).with_u32(40, offset);
        header.with_byte(1, if is_final { 0x80 } else { 0 })
    }

    fn bytes(count: usize) -> Bytes {
        Bytes::from(vec![7; count])
    }

    #[test]
    fn data_come_with_the_command_then_unasked_then_asked_for() {
        let mut transfer = Transfer::new(100, 30, true);
        transfer.immediate(bytes(10)).unwrap();
        assert!(!transfer.waits_to_be_asked());
        transfer.data_out(&unit(NO_TAG, 0, 10, false), bytes(10)).unwrap();
        transfer.data_out(&unit(NO_TAG, 1, 20, true), bytes(10)).unwrap();
        assert!(transfer.waits_to_be_asked());
        assert_eq!(transfer.ask(5, 64), Wish { number: 0, offset: 30, bytes: 64 });
        transfer.data_out(&unit(5, 0, 30, true), bytes(64)).unwrap();
        assert_eq!(transfer.ask(6, 64), Wish { number: 1, offset: 94, bytes: 6 });
        transfer.data_out(&unit(6, 0, 94, true), bytes(6)).unwrap();
        assert!(transfer.is_complete());
        assert_eq!(transfer.into_data().len(), 100);
    }

    #[test]
    fn what_is_not_next_ends_the_write() {
        for (tag, number, offset, is_final, count) in [
            (5, 1, 0, true, 10),      // a unit is missing
            (5, 0, 4, true, 10),      // data are
            (4, 0, 0, true, 10),      // another transfer's
            (NO_TAG, 0, 0, true, 10), // not asked for
            (5, 0, 0, false, 11),     // too much
            (5, 0, 0, true, 9),       // too little
            (5, 0, 0, false, 10),     // no end
        ] {
            let mut transfer = Transfer::new(100, 30, false);
            transfer.ask(5, 10);
            let taken = transfer.data_out(&unit(tag, number, offset, is_final), bytes(count));
            assert!(taken.is_err(), "{tag} {number} {offset} {is_final} {count}");
        }
        assert!(Transfer::new(100, 30, false).immediate(bytes(31)).is_err());
    }

    #[test]
    fn small_units_do_not_hold_on_to_what_they_were_read_into() {
        let mut transfer = Transfer::new(8, 0, false);
        transfer.ask(5, 8);
        let read_into = Bytes::from(vec![7; 1 << 20]);
        for at in 0..8 {
            transfer.data_out(&unit(5, at, at, at == 7), read_into.slice(at as usize..at as usize + 1)).unwrap();
        }
        assert!(transfer.is_complete());
        let data = transfer.into_data();
        assert_eq!(data[..], [7; 8]);
        assert!(read_into.is_unique(), "nobody else has it");
    }

    proptest! {
        #[test]
        fn never_more_than_wanted_is_kept(
            wanted in 0_u32..50, unasked in 0_u32..50,
            units in proptest::collection::vec((0_u32..3, 0_u32..3, 0_u32..60, any::<bool>(), 0_usize..60), 0..20),
        ) {
            let mut transfer = Transfer::new(wanted, unasked, true);
            for (tag, number, offset, is_final, count) in units {
                let tag = if tag == 0 { NO_TAG } else { tag };
                let _ = transfer.data_out(&unit(tag, number, offset, is_final), bytes(count));
                if transfer.waits_to_be_asked() {
                    transfer.ask(1, 16);
                }
            }
            prop_assert!(transfer.into_data().len() <= wanted as usize);
        }
    }
}

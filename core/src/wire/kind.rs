//! The number of each kind of frame, fixed for ever.
//!
//! *Invariants*: a number is never used again for something else. 0x00 and 0xF0 to 0xFF are never assigned.

use super::frame::Frame;

macro_rules! kinds {
    ($($name:ident = $number:literal),+ $(,)?) => {
        /// The kinds of frames that this version knows, each with its number on the wire.
        #[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Kind {
            $(#[doc = concat!("[`Frame::", stringify!($name), "`].")] $name = $number,)+
        }

        impl Kind {
            /// Every kind, in the order of the numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The kind with this number, if it is known.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)+
                    _ => None,
                }
            }
        }

        impl Frame<'_> {
            /// The frame's kind; `None` for [`Frame::Unknown`].
            pub const fn kind(&self) -> Option<Kind> {
                match self {
                    $(Self::$name(_) => Some(Kind::$name),)+
                    Self::Unknown(_) => None,
                }
            }
        }
    };
}

kinds! {
    Hello = 0x01,
    Bye = 0x02,
    Ping = 0x03,
    Pong = 0x04,
    Map = 0x10,
    Have = 0x11,
    Lost = 0x12,
    Request = 0x20,
    Cancel = 0x21,
    Data = 0x22,
    Busy = 0x23,
    Refuse = 0x24,
    Redirect = 0x25,
    Peers = 0x30,
    Offer = 0x40,
    BlobRequest = 0x41,
    Blob = 0x42,
    BlobRefuse = 0x43,
    BlobRedirect = 0x44,
    Touched = 0x50,
}

impl Kind {
    /// Its number on the wire.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Whether frames of this kind have a body (they always do, or never; it may be empty).
    pub const fn has_body(self) -> bool {
        matches!(self, Self::Data | Self::Blob)
    }

    /// Whether a receiver that does not know this kind may skip it.
    pub const fn is_optional(self) -> bool {
        matches!(self, Self::Touched)
    }
}

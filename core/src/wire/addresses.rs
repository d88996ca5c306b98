//! Lists of addresses, and of the places of who listens there: what `Peers` carries.
//!
//! *Purpose*: 16 bytes of IPv6 address (IPv4 as `::ffff:a.b.c.d`) and 2 of port, both in network order, as they stand in a
//! socket address; 4 bytes for each level of a place, little-endian. *Invariants*: order is kept. *Bounds*: [`ADDRESSES_MAX`]
//! a frame, [`LOCATED_MAX`] with their places.

use super::{LIST_BYTES_MAX, WireError};
use crate::ids::Address;
use crate::locality::Locality;

/// Length of an address in bytes.
pub const ADDRESS_BYTES: usize = 18;
/// Most addresses in a frame.
pub const ADDRESSES_MAX: usize = LIST_BYTES_MAX / ADDRESS_BYTES;
/// Length of a place in bytes.
pub const LOCALITY_BYTES: usize = 12;
/// Most addresses in a frame that says where they stand.
pub const LOCATED_MAX: usize = LIST_BYTES_MAX / (ADDRESS_BYTES + LOCALITY_BYTES);

/// Writes addresses to the front of `out`, as many as fit and at most [`ADDRESSES_MAX`]; returns the length in bytes.
/// Further ones are not drawn from the iterator.
pub fn pack_addresses(addresses: impl IntoIterator<Item = Address>, out: &mut [u8]) -> usize {
    let rooms = out.chunks_exact_mut(ADDRESS_BYTES).take(ADDRESSES_MAX);
    let mut used = 0;
    for (room, address) in rooms.zip(addresses) {
        room[..16].copy_from_slice(&address.ip);
        room[16..].copy_from_slice(&address.port.to_be_bytes());
        used += ADDRESS_BYTES;
    }
    used
}

/// Reads the addresses of a list. One that cannot be dialled (port 0) is for the caller to pass over.
///
/// # Errors
/// [`WireError::Malformed`] if the length is no multiple of [`ADDRESS_BYTES`]; nothing was consumed, the link cannot go on.
pub fn unpack_addresses(bytes: &[u8]) -> Result<impl ExactSizeIterator<Item = Address> + '_, WireError> {
    let (addresses, []) = bytes.as_chunks::<ADDRESS_BYTES>() else {
        return Err(WireError::Malformed);
    };
    Ok(addresses.iter().map(|address| {
        let mut ip = [0; 16];
        ip.copy_from_slice(&address[..16]);
        Address { ip, port: u16::from_be_bytes([address[16], address[17]]) }
    }))
}

/// Writes places to the front of `out`, as many as fit; returns the length in bytes.
pub fn pack_localities(localities: impl IntoIterator<Item = Locality>, out: &mut [u8]) -> usize {
    let rooms = out.chunks_exact_mut(LOCALITY_BYTES);
    let mut used = 0;
    for (room, Locality { zone, rack, host }) in rooms.zip(localities) {
        for (part, label) in room.chunks_exact_mut(4).zip([zone, rack, host]) {
            part.copy_from_slice(&label.to_le_bytes());
        }
        used += LOCALITY_BYTES;
    }
    used
}

/// Reads the places of a list.
///
/// # Errors
/// [`WireError::Malformed`] if the length is no multiple of [`LOCALITY_BYTES`]; nothing was consumed, the link cannot go on.
pub fn unpack_localities(bytes: &[u8]) -> Result<impl ExactSizeIterator<Item = Locality> + '_, WireError> {
    let (localities, []) = bytes.as_chunks::<LOCALITY_BYTES>() else {
        return Err(WireError::Malformed);
    };
    Ok(localities.iter().map(|bytes| {
        let label = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Locality { zone: label(0), rack: label(4), host: label(8) }
    }))
}

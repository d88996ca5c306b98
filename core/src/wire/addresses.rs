//! A list of addresses: what `Peers` carries.
//!
//! *Purpose*: 16 bytes of IPv6 address (IPv4 as `::ffff:a.b.c.d`) and 2 of port, both in network order, as they stand in a
//! socket address. *Invariants*: order is kept. *Bounds*: [`ADDRESSES_MAX`] a frame.

use super::{LIST_BYTES_MAX, WireError};
use crate::ids::Address;

/// Length of an address in bytes.
pub const ADDRESS_BYTES: usize = 18;
/// Most addresses in a frame.
pub const ADDRESSES_MAX: usize = LIST_BYTES_MAX / ADDRESS_BYTES;

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

//! Frames between nodes.

mod frame;

pub use frame::*;

/// Version of the protocol that this code speaks.
pub const VERSION: u16 = 1;
/// Longest payload of a frame, in bytes; the body is not part of it.
pub const PAYLOAD_BYTES_MAX: usize = 1200;
/// Longest frame without its body: header, payload and checksum.
pub const HEAD_BYTES_MAX: usize = 8 + PAYLOAD_BYTES_MAX + 4;
/// STUB
pub const BODY_BYTES_MAX: u32 = 1 << 20;
/// STUB
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Full;
/// STUB
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum WireError { Malformed, Checksum, TooBig, UnknownKind(u8) }
impl core::fmt::Display for WireError { fn fmt(&self, _: &mut core::fmt::Formatter<'_>) -> core::fmt::Result { Ok(()) } }
/// STUB
#[derive(Debug, PartialEq)]
pub enum Decoded<'a> { NeedMore { bytes: usize }, Frame { frame: Frame<'a>, consumed: usize, body_bytes: u32 } }
/// STUB
pub fn encode(f: &Frame<'_>, o: &mut [u8]) -> Result<usize, Full> {
    let (kind, body) = match f { Frame::Hello(_) => (0u8, None), Frame::Map(_) => (1, None), Frame::Have(_) => (2, None), Frame::Lost(_) => (3, None), Frame::Request(_) => (4, None),
      Frame::Cancel(_) => (5, None), Frame::Data(d) => (6, Some(d.bytes)), Frame::Busy(_) => (7, None), Frame::Refuse(_) => (8, None), Frame::Redirect(_) => (9, None), Frame::Peers(_) => (10, None),
      Frame::Ping(_) => (15, None), Frame::Pong(_) => (16, None), Frame::Bye(_) => (18, None), _ => return Err(Full) };
    let start = if body.is_some() { 8 } else { 4 };
    let rest = &mut o[start..];
    let n = match f { Frame::Hello(x) => postcard::to_slice(x, rest), Frame::Map(x) => postcard::to_slice(x, rest), Frame::Have(x) | Frame::Lost(x) => postcard::to_slice(x, rest), Frame::Request(x) => postcard::to_slice(x, rest),
      Frame::Cancel(x) | Frame::Refuse(x) => postcard::to_slice(x, rest), Frame::Data(x) => postcard::to_slice(x, rest), Frame::Busy(x) => postcard::to_slice(x, rest), Frame::Redirect(x) => postcard::to_slice(x, rest), Frame::Peers(x) => postcard::to_slice(x, rest),
      Frame::Ping(x) | Frame::Pong(x) => postcard::to_slice(x, rest), Frame::Bye(x) => postcard::to_slice(x, rest), _ => return Err(Full) }.map_err(|_| Full)?.len();
    o[..2].copy_from_slice(&(n as u16).to_le_bytes()); o[2] = kind; o[3] = if body.is_some() { 2 } else { 0 };
    if let Some(b) = body { o[4..8].copy_from_slice(&b.to_le_bytes()); }
    Ok(start + n + 4)
}
/// STUB
pub fn decode(b: &[u8]) -> Result<Decoded<'_>, WireError> {
    let n = u16::from_le_bytes([b[0], b[1]]) as usize; let start = if b[3] & 2 != 0 { 8 } else { 4 };
    let body_bytes = if start == 8 { u32::from_le_bytes([b[4], b[5], b[6], b[7]]) } else { 0 };
    let p = &b[start..start + n]; let e = |_| WireError::Malformed;
    let frame = match b[2] { 0 => Frame::Hello(postcard::from_bytes(p).map_err(e)?), 1 => Frame::Map(postcard::from_bytes(p).map_err(e)?), 2 => Frame::Have(postcard::from_bytes(p).map_err(e)?), 3 => Frame::Lost(postcard::from_bytes(p).map_err(e)?),
     4 => Frame::Request(postcard::from_bytes(p).map_err(e)?), 5 => Frame::Cancel(postcard::from_bytes(p).map_err(e)?), 6 => { let mut d: Data = postcard::from_bytes(p).map_err(e)?; d.bytes = body_bytes; Frame::Data(d) }, 7 => Frame::Busy(postcard::from_bytes(p).map_err(e)?),
     8 => Frame::Refuse(postcard::from_bytes(p).map_err(e)?), 9 => Frame::Redirect(postcard::from_bytes(p).map_err(e)?), 10 => Frame::Peers(postcard::from_bytes(p).map_err(e)?), 15 => Frame::Ping(postcard::from_bytes(p).map_err(e)?), 16 => Frame::Pong(postcard::from_bytes(p).map_err(e)?), 18 => Frame::Bye(postcard::from_bytes(p).map_err(e)?), k => return Err(WireError::UnknownKind(k)) };
    Ok(Decoded::Frame { frame, consumed: start + n + 4, body_bytes })
}
/// STUB
pub struct RunsEncoder<'b>(&'b mut [u8], usize, u32, Option<(u32, u32)>);
fn varint(o: &mut [u8], mut v: u32) -> usize { let mut i = 0; loop { let b = (v & 127) as u8; v >>= 7; if v == 0 { o[i] = b; return i + 1; } o[i] = b | 128; i += 1; } }
impl<'b> RunsEncoder<'b> { pub fn new(b: &'b mut [u8]) -> Self { Self(b, 0, 0, None) }
  fn flush(&mut self) { if let Some((f, c)) = self.3.take() { let mut t = [0u8; 10]; let n = varint(&mut t, f - self.2); let m = n + varint(&mut t[n..], c); self.0[self.1..self.1 + m].copy_from_slice(&t[..m]); self.1 += m; self.2 = f + c; } }
  pub fn push(&mut self, f: u32, c: u32) -> Result<(), Full> { if let Some((a, b)) = self.3 && a + b == f { self.3 = Some((a, b + c)); return Ok(()); } if self.1 + 20 > self.0.len() { return Err(Full); } self.flush(); self.3 = Some((f, c)); Ok(()) }
  pub fn finish(mut self) -> usize { self.flush(); self.1 } }
/// STUB
pub fn decode_runs(b: &[u8], base: u32, limit: u32) -> impl Iterator<Item = Result<(u32, u32), WireError>> + '_ {
  let mut i = 0; let mut at = base;
  core::iter::from_fn(move || { if i >= b.len() { return None; } let mut get = || { let mut v = 0u32; let mut s = 0; loop { let x = b[i]; i += 1; v |= ((x & 127) as u32) << s; s += 7; if x < 128 { return v; } } }; let f = at + get(); let c = get(); at = f + c; assert!(at <= limit); Some(Ok((f, c))) })
}

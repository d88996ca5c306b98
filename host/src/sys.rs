//! What operating systems offer and no crate wraps: all of this crate's `unsafe` is here.

#[cfg(windows)]
pub(crate) mod windows;

/// From now on memory is taken from two heaps at most (mallopt(3), glibc's `M_ARENA_MAX`; by default there are eight for each
/// processor): chunks come and go on all threads, and what each heap keeps free for them nearly doubles what a node takes.
pub(crate) fn few_heaps() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const HEAPS: libc::c_int = 2;
        // SAFETY: it changes a setting of the allocator, under its own lock. If it does not, all works as before.
        let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, HEAPS) };
    }
}

/// What the kernel says of a TCP connection (Linux's `struct tcp_info`, `include/uapi/linux/tcp.h`).
#[cfg(target_os = "linux")]
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) struct TcpInfo {
    /// Largest segment that is sent, in bytes.
    pub segment_bytes: u32,
    /// Segments sent and not acknowledged.
    pub unacked_segments: u32,
    /// Bytes taken from the program and not sent.
    pub unsent_bytes: u32,
    /// The shortest round trip of the last minutes, in microseconds.
    pub min_rtt_micros: u32,
    /// The fastest that it has delivered lately, in bytes a second; 0: not known.
    pub bytes_per_sec: u64,
}

/// Appends so many bytes of a file from `offset` on, for which there must be room, if all of them are in the page cache
/// (preadv2(2), `RWF_NOWAIT`).
#[cfg(target_os = "linux")]
pub(crate) fn read_cached(
    file: std::os::fd::BorrowedFd<'_>,
    out: &mut Vec<u8>,
    bytes: usize,
    offset: u64,
) -> Option<()> {
    use std::os::fd::AsRawFd;
    let offset = libc::off_t::try_from(offset).ok()?;
    let room = out.spare_capacity_mut().get_mut(..bytes)?;
    let part = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: bytes };
    // SAFETY: the file is open as long as it is borrowed; `part` is the one part that is told of, and its memory, the spare
    // room of `out`, is as long as it says.
    let read = unsafe { libc::preadv2(file.as_raw_fd(), &raw const part, 1, offset, libc::RWF_NOWAIT) };
    (usize::try_from(read) == Ok(bytes)).then_some(())?;
    // SAFETY: the kernel has written exactly so many bytes behind those that were there, and there was room for them.
    unsafe { out.set_len(out.len() + bytes) };
    Some(())
}

/// Asks the kernel; none if it does not say all of it (before Linux 4.9).
#[cfg(target_os = "linux")]
pub(crate) fn tcp_info(socket: std::os::fd::BorrowedFd<'_>) -> Option<TcpInfo> {
    use std::os::fd::AsRawFd;
    /// Up to and with `tcpi_delivery_rate`.
    const BYTES: usize = 168;
    let mut info = [0u8; BYTES];
    let mut length = BYTES as libc::socklen_t;
    // SAFETY: the socket is open as long as it is borrowed; the kernel writes at most `length` bytes to `info`, which has as
    // many, and then what it wrote to `length`.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    } != 0;
    let word = |at: usize| info[at..].first_chunk().copied().map(u32::from_ne_bytes);
    let long = |at: usize| info[at..].first_chunk().copied().map(u64::from_ne_bytes);
    (!failed && length as usize == BYTES).then_some(())?;
    Some(TcpInfo {
        segment_bytes: word(16)?,
        unacked_segments: word(24)?,
        unsent_bytes: word(144)?,
        min_rtt_micros: word(148)?,
        bytes_per_sec: long(160)?,
    })
}

//! One connection, which is one session: from its first byte to its last.
//!
//! | module | holds |
//! |---|---|
//! | `session` | the loop, and units as they come |
//! | `tasks` | SCSI commands from their unit to their answer |
//! | `transfer` | the data of one write as they come |
//! | `execute` | what a command does to the disk |
//! | `requests` | all that is no SCSI command |
//! | `outbox` | what is to be sent |

mod execute;
mod outbox;
mod requests;
mod session;
mod tasks;
mod transfer;

#[cfg(test)]
mod tests;

use super::login::{LoggedIn, Login, Refusal, Response, Step};
use super::pdu::{Framing, Header, Unit, missing, next_unit};
use super::target::{Member, Target};
use super::text::TEXT_BYTES_MAX;
use crate::disk::Disk;
use bytes::BytesMut;
use session::Session;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Duration, timeout};

/// How long an initiator may take to log in.
pub(super) const LOGIN_TIME: Duration = Duration::from_secs(30);
/// Least room to read into.
const READ_BYTES: usize = 16 * 1024;
/// Most commands at a time that are numbered.
const WINDOW: u32 = 128;

/// Serves a connection; `portal` is where others find the target. What ends it is the initiator's own affair.
pub(super) async fn serve<R, W, D>(
    mut read: R,
    mut write: W,
    target: Arc<Target<D>>,
    portal: String,
    mut down: watch::Receiver<bool>,
) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    D: Disk,
{
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    let begun = tokio::select! {
        begun = timeout(LOGIN_TIME, log_in(&mut read, &mut write, &mut buffer, &target)) => begun,
        _ = down.wait_for(|down| *down) => return Ok(()),
    };
    let Some(begun) = begun.map_err(|_| io::ErrorKind::TimedOut)?? else { return Ok(()) };
    Session::new(read, write, buffer, target, portal, begun).run(down).await
}

/// A login that came to something.
struct Begun<D: Disk> {
    login: LoggedIn,
    /// Of a session that is not for discovery.
    member: Option<Member<D>>,
    /// Number of the next answer.
    status_number: u32,
}

/// None if the login was refused.
async fn log_in<R, W, D>(
    read: &mut R,
    write: &mut W,
    buffer: &mut BytesMut,
    target: &Arc<Target<D>>,
) -> io::Result<Option<Begun<D>>>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    D: Disk,
{
    let framing = Framing { header_digest: false, data_digest: false, data_bytes_max: TEXT_BYTES_MAX };
    let mut login = Login::new(&target.facts.iqn, target.chap.as_ref());
    let mut status_number = 1_u32;
    loop {
        let unit = read_unit(read, buffer, framing).await?;
        let (response, step) = login.handle(&unit.header, &unit.data);
        let (response, begun) = match step {
            Step::Done(done) => match join(target, &unit.header, *done, status_number.wrapping_add(1)).await {
                Ok((begun, number)) => (with_number(response, number), Some(begun)),
                Err(refusal) => (refuse(response, refusal), None),
            },
            _ => (response, None),
        };
        let is_refused = response.header.0[36] != 0;
        let command_number = unit.header.command_number();
        let header = response.header.with_u32(24, status_number).with_u32(28, command_number);
        let header = header.with_u32(32, command_number.wrapping_add(WINDOW - 1));
        let mut bytes = [&header.0[..], &response.text].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        write.write_all(&bytes).await?;
        status_number = status_number.wrapping_add(1);
        if is_refused || begun.is_some() {
            return Ok(begun);
        }
    }
}

async fn read_unit<R: AsyncRead + Unpin>(read: &mut R, buffer: &mut BytesMut, framing: Framing) -> io::Result<Unit> {
    loop {
        if let Some(unit) = next_unit(buffer, framing).map_err(violation)? {
            return Ok(unit);
        }
        buffer.reserve(missing(buffer, framing).max(READ_BYTES));
        if read.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Makes a session of a login, and says its number: 0 for one that discovers.
async fn join<D: Disk>(
    target: &Arc<Target<D>>,
    header: &Header,
    login: LoggedIn,
    status_number: u32,
) -> Result<(Begun<D>, u16), Refusal> {
    let wished = u16::from_be_bytes(header.array(14));
    if wished != 0 {
        return Err(if target.has_session(wished) { Refusal::CONNECTIONS } else { Refusal::NO_SESSION });
    }
    let member = match login.is_discovery {
        true => None,
        false => {
            target.end_sessions_of(&login.nexus).await;
            Some(target.join(login.nexus.clone()).ok_or(Refusal::OUT_OF_RESOURCES)?)
        }
    };
    let number = member.as_ref().map_or(1, |member| member.number);
    Ok((Begun { login, member, status_number }, number))
}

fn with_number(response: Response, number: u16) -> Response {
    let [high, low] = number.to_be_bytes();
    Response { header: response.header.with_byte(14, high).with_byte(15, low), ..response }
}

fn refuse(response: Response, Refusal(status): Refusal) -> Response {
    let [class, detail] = status.to_be_bytes();
    let header = response.header.with_byte(1, 0).with_byte(36, class).with_byte(37, detail).with_data_bytes(0);
    Response { header, text: Vec::new() }
}

fn violation(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

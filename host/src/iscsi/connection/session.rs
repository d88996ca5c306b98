//! The loop of a session: units in, answers out.
//!
//! *Purpose*: one owner of all that a session is, so that nothing has to be locked and every answer has its number in the
//! order in which it is sent; the price is that one processor does a session's copying. *Invariants*: commands are taken in
//! the order of their numbers, those outside the window not at all; a break of the protocol ends the session, as error
//! recovery level 0 has it. *Bounds*: as tasks and outbox say; nothing is read while too much waits to be sent.

use super::execute::Outcome;
use super::outbox::Outbox;
use super::tasks::{Task, WEIGHT_MAX};
use super::{Begun, READ_BYTES, WINDOW, violation};
use crate::disk::Disk;
use crate::iscsi::parameters::{DATA_BYTES_MAX, Parameters};
use crate::iscsi::pdu::{Framing, Header, Unit, missing, next_unit, op, reject};
use crate::iscsi::target::{Member, Orders, Target};
use bytes::BytesMut;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Duration, timeout};

/// How long what is queued gets to be sent when the session ends in order.
const GRACE: Duration = Duration::from_secs(5);
/// So many bytes of answers are gathered before they are sent.
const UNSENT_BYTES: usize = 128 * 1024;
/// With so many bytes or units waiting to be sent nothing more is read.
const OUTBOX_BYTES_MAX: usize = 4 << 20;
const OUTBOX_UNITS_MAX: usize = 1024;

/// Whether a command has a number, which makes room in the window when it is answered.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(super) enum Numbered {
    Yes,
    /// It went before all others.
    No,
}

/// A session, and the connection that is all of it.
pub(super) struct Session<R, W, D: Disk> {
    read: R,
    pub(super) buffer: BytesMut,
    framing: Framing,
    pub(super) outbox: Outbox<W>,
    pub(super) target: Arc<Target<D>>,
    /// None: it can only discover.
    pub(super) member: Option<Member<D>>,
    pub(super) portal: String,
    pub(super) parameters: Parameters,
    status_number: u32,
    expected_command: u32,
    last_command: u32,
    pub(super) tasks: HashMap<u32, Task>,
    pub(super) serial: u64,
    pub(super) transfer_tag: u32,
    pub(super) work: JoinSet<(u32, u64, Outcome)>,
    /// Tasks that wait for room.
    pub(super) waiting: VecDeque<u32>,
    pub(super) room: usize,
    /// Tasks that were aborted while they ran, and may still do.
    pub(super) aborted: usize,
    /// Answers that wait for their end.
    pub(super) managed: Vec<Header>,
    pub(super) is_ending: bool,
    orders: Option<watch::Receiver<Orders>>,
    obeyed: Orders,
    pub(super) text: Vec<u8>,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin, D: Disk> Session<R, W, D> {
    pub(super) fn new(
        read: R,
        write: W,
        buffer: BytesMut,
        target: Arc<Target<D>>,
        portal: String,
        begun: Begun<D>,
    ) -> Self {
        let Begun { login, member, status_number } = begun;
        let parameters = login.parameters;
        let orders = member.as_ref().map(|member| member.orders.clone());
        let (header_digest, data_digest) = (parameters.header_digest, parameters.data_digest);
        Self {
            read,
            buffer,
            framing: Framing { header_digest, data_digest, data_bytes_max: DATA_BYTES_MAX as usize },
            outbox: Outbox::new(write, header_digest, data_digest),
            target,
            member,
            portal,
            parameters,
            status_number,
            expected_command: login.command_number,
            last_command: login.command_number.wrapping_add(WINDOW - 1),
            tasks: HashMap::new(),
            serial: 0,
            transfer_tag: 0,
            work: JoinSet::new(),
            waiting: VecDeque::new(),
            room: WEIGHT_MAX,
            aborted: 0,
            managed: Vec::new(),
            is_ending: false,
            orders,
            obeyed: Orders::default(),
            text: Vec::new(),
        }
    }

    /// Until the initiator logs out, goes away or breaks the protocol, or others have it end.
    pub(super) async fn run(mut self, down: watch::Receiver<bool>) -> io::Result<()> {
        let ended = self.serve(down).await;
        // Whoever takes its place may begin when it is gone: nothing of it is to be written then.
        self.abort_all();
        self.work.shutdown().await;
        if ended.is_err() || self.obeyed.end {
            return ended;
        }
        let rest = async {
            while self.outbox.bytes() > 0 {
                self.outbox.send_some().await?;
            }
            self.outbox.shutdown().await
        };
        timeout(GRACE, rest).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn serve(&mut self, mut down: watch::Receiver<bool>) -> io::Result<()> {
        while !self.is_ending {
            // Not only below, where one who never stops sending would come first.
            self.heed();
            self.is_ending |= down.has_changed().unwrap_or(true);
            self.handle_all()?;
            self.reap().await?;
            if self.is_ending {
                break;
            }
            let may_read = self.may_read();
            if may_read {
                self.buffer.reserve(missing(&self.buffer, self.framing).max(READ_BYTES));
            }
            tokio::select! {
                biased;
                sent = self.outbox.send_some(), if self.outbox.bytes() > 0 => self.sent(sent?),
                read = self.read.read_buf(&mut self.buffer), if may_read => {
                    if read? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Some(done) = self.work.join_next() => self.done(done)?,
                wanted = next_orders(&mut self.orders) => self.obey(wanted),
                _ = down.wait_for(|down| *down) => self.is_ending = true,
            }
        }
        Ok(())
    }

    /// Waits until nothing runs of what was aborted; only then that is answered, and other commands begin.
    async fn reap(&mut self) -> io::Result<()> {
        while self.aborted > 0 {
            match self.work.join_next().await {
                Some(done) => self.done(done)?,
                None => self.aborted = 0,
            }
        }
        for header in std::mem::take(&mut self.managed) {
            let header = self.stamped(header, true);
            self.outbox.push(header, Vec::new(), 0);
        }
        Ok(())
    }

    fn done(&mut self, done: Result<(u32, u64, Outcome), JoinError>) -> io::Result<()> {
        match done {
            Ok((tag, serial, outcome)) => self.finish(tag, serial, outcome),
            Err(error) if error.is_cancelled() => self.aborted = self.aborted.saturating_sub(1),
            // An answer that never comes would hang the initiator: better no session.
            Err(error) => return Err(io::Error::other(error)),
        }
        Ok(())
    }

    fn may_read(&self) -> bool {
        self.outbox.bytes() < OUTBOX_BYTES_MAX && self.outbox.len() < OUTBOX_UNITS_MAX
    }

    /// Handles the units that are there.
    fn handle_all(&mut self) -> io::Result<()> {
        let mut queued = self.outbox.bytes();
        while self.may_read() && !self.is_ending && self.aborted == 0 && self.managed.is_empty() {
            let Some(unit) = next_unit(&mut self.buffer, self.framing).map_err(violation)? else { break };
            self.handle(unit)?;
            // The initiator gets something to do.
            if self.outbox.bytes() >= queued + UNSENT_BYTES {
                self.send_now()?;
                queued = self.outbox.bytes();
            }
        }
        Ok(())
    }

    /// Sends what the socket takes at once.
    fn send_now(&mut self) -> io::Result<()> {
        let sent = pin!(self.outbox.send_some()).poll(&mut Context::from_waker(Waker::noop()));
        if let Poll::Ready(weight) = sent {
            self.sent(weight?);
        }
        Ok(())
    }

    fn sent(&mut self, weight: usize) {
        if weight > 0 {
            self.room += weight;
            self.give_room();
        }
    }

    fn obey(&mut self, wanted: Orders) {
        if wanted.aborts != self.obeyed.aborts {
            self.abort_all();
        }
        self.is_ending |= wanted.end;
        self.obeyed = wanted;
    }

    /// Does what others want before a command begins that came after it.
    pub(super) fn heed(&mut self) {
        let Some(orders) = &mut self.orders else { return };
        if orders.has_changed().is_ok_and(|changed| changed) {
            let wanted = *orders.borrow_and_update();
            self.obey(wanted);
        }
    }

    fn handle(&mut self, unit: Unit) -> io::Result<()> {
        let header = unit.header;
        let opcode = header.opcode();
        if !matches!(opcode, op::NOP_OUT | op::SCSI_COMMAND | op::TASK_REQUEST | op::TEXT | op::LOGOUT) {
            return self.handle_other(unit);
        }
        let Some(numbered) = self.number(&header)? else { return Ok(()) };
        if self.member.is_none() && matches!(opcode, op::SCSI_COMMAND | op::TASK_REQUEST) {
            self.retire(numbered);
            return self.reject(&header, reject::PROTOCOL);
        }
        if opcode == op::SCSI_COMMAND {
            return self.scsi_command(unit, numbered);
        }
        self.retire(numbered);
        match opcode {
            op::NOP_OUT => self.nop(unit),
            op::TEXT => self.text(unit)?,
            op::LOGOUT => self.log_out(&header),
            _ => self.manage(&header),
        }
        Ok(())
    }

    fn handle_other(&mut self, unit: Unit) -> io::Result<()> {
        match unit.header.opcode() {
            op::DATA_OUT => {
                self.data_out(unit);
                Ok(())
            }
            op::SNACK => self.reject(&unit.header, reject::SNACK),
            op::LOGIN => Err(violation("a login after the login")),
            _ => self.reject(&unit.header, reject::NOT_SUPPORTED),
        }
    }

    /// Whether a unit's turn has come; none if it is to be ignored.
    fn number(&mut self, header: &Header) -> io::Result<Option<Numbered>> {
        if header.is_immediate() {
            return Ok(Some(Numbered::No));
        }
        let number = header.command_number();
        let ahead = number.wrapping_sub(self.expected_command);
        if ahead > self.last_command.wrapping_sub(self.expected_command) || self.is_closed() {
            return Ok(None);
        }
        if ahead > 0 {
            return Err(violation("a command is missing"));
        }
        self.expected_command = number.wrapping_add(1);
        Ok(Some(Numbered::Yes))
    }

    /// Whether there is no room for another command.
    fn is_closed(&self) -> bool {
        self.last_command.wrapping_add(1) == self.expected_command
    }

    /// A command is answered: another may come.
    pub(super) fn retire(&mut self, numbered: Numbered) {
        if numbered == Numbered::Yes {
            self.last_command = self.last_command.wrapping_add(1);
        }
    }

    /// A header with the numbers that all have; an answer takes one.
    pub(super) fn stamped(&mut self, header: Header, is_answer: bool) -> Header {
        let header = header.with_u32(24, self.status_number).with_u32(28, self.expected_command);
        if is_answer {
            self.status_number = self.status_number.wrapping_add(1);
        }
        header.with_u32(32, self.last_command)
    }
}

/// What others want, when that changes.
async fn next_orders(orders: &mut Option<watch::Receiver<Orders>>) -> Orders {
    let Some(receiver) = orders else { return std::future::pending().await };
    match receiver.changed().await {
        Ok(()) => *receiver.borrow_and_update(),
        // Another session has taken its place.
        Err(_) => Orders { end: true, ..*receiver.borrow() },
    }
}

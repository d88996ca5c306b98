//! SCSI commands from their unit to their answer.
//!
//! *Invariants*: a task is in the table until it is answered or ended, and then never again; what costs a copy alone is
//! answered before the next unit is looked at, without a place in the table. *Bounds*: [`TASKS_MAX`] tasks; data that tasks
//! have asked for or are reading weigh at most [`WEIGHT_MAX`], others wait their turn.

use super::execute::{self, Outcome};
use super::session::{Numbered, Session};
use super::transfer::{Transfer, Wish};
use super::{WINDOW, violation};
use crate::disk::Disk;
use crate::iscsi::pdu::{Header, NO_TAG, Unit, op, reject};
use crate::iscsi::scsi::command::Command;
use crate::iscsi::scsi::reserve::{Action, Refused, Use};
use crate::iscsi::scsi::sense::{Sense, status};
use crate::iscsi::scsi::{inquiry, mode};
use bytes::Bytes;
use std::io;
use std::sync::Arc;
use std::task::{Context, Waker};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;

/// Most tasks, those that go before all others included.
pub(super) const TASKS_MAX: usize = WINDOW as usize + 16;
/// What a session's data may weigh together, in bytes: two of the largest transfers.
pub(super) const WEIGHT_MAX: usize = 2 << 25;
/// Longest read that is answered by the task that reads units, in bytes; longer ones are spread over the processors.
const READY_BYTES_MAX: u64 = 1 << 20;
const FLAG_WRITE: u8 = 0x20;
const FLAG_READ: u8 = 0x40;

/// What an answer has to know of its command.
#[derive(Debug, Copy, Clone)]
pub(super) struct Origin {
    pub tag: u32,
    lun: u64,
    /// Bytes that the initiator expects to get.
    expected_in: u32,
    /// Bytes that it expects to send.
    expected_out: u32,
    /// Bytes that the command takes.
    bytes_out: u32,
    numbered: Numbered,
    /// How much of the session's room it holds.
    weight: usize,
}

/// A task that is not answered at once.
pub(super) struct Task {
    origin: Origin,
    command: Command,
    state: State,
    /// Tags are used again; by this a task is told from one before.
    pub serial: u64,
}

enum State {
    /// Its data come.
    Collecting(Transfer),
    /// It waits for room.
    Waiting(Bytes),
    Running(AbortHandle),
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin, D: Disk> Session<R, W, D> {
    pub(super) fn scsi_command(&mut self, unit: Unit, numbered: Numbered) -> io::Result<()> {
        let header = unit.header;
        self.heed();
        if self.tasks.contains_key(&header.tag()) {
            return self.reject(&header, reject::IN_PROGRESS);
        }
        let expected = header.u32_at(20);
        let has = |flag: u8| if header.flags() & flag != 0 { expected } else { 0 };
        let mut origin = Origin {
            tag: header.tag(),
            lun: header.lun(),
            expected_in: has(FLAG_READ),
            expected_out: has(FLAG_WRITE),
            bytes_out: 0,
            numbered,
            weight: 0,
        };
        if self.tasks.len() >= TASKS_MAX {
            self.answer(origin, Outcome::of_status(status::TASK_SET_FULL));
            return Ok(());
        }
        let is_open = header.flags() & FLAG_WRITE != 0 && !header.is_final();
        self.check_unasked(&unit, is_open, origin.expected_out)?;
        let command = match self.admitted(&header) {
            Ok(command) => command,
            Err(outcome) => {
                self.answer(origin, outcome);
                return Ok(());
            }
        };
        let wanted = command.bytes_out();
        origin.bytes_out = wanted as u32;
        if let Some(sense) = misfit(&command, origin.bytes_out, origin.expected_out) {
            self.answer(origin, Outcome::of_sense(sense));
            return Ok(());
        }
        let wanted = origin.bytes_out.min(origin.expected_out);
        if wanted == 0 {
            self.admit(origin, command, Bytes::new());
            return Ok(());
        }
        let unasked_max = self.parameters.first_burst_bytes.min(origin.expected_out);
        let mut transfer = Transfer::new(wanted, unasked_max, is_open);
        match transfer.immediate(unit.data) {
            Ok(()) => self.collect(origin, command, transfer),
            Err(sense) => self.answer(origin, Outcome::of_sense(sense)),
        }
        Ok(())
    }

    /// Data may come unasked only as far as that was agreed on.
    fn check_unasked(&self, unit: &Unit, is_open: bool, expected: u32) -> io::Result<()> {
        if !unit.data.is_empty() && !self.parameters.immediate_data {
            return Err(violation("data with a command, which was not agreed on"));
        }
        if is_open && self.parameters.initial_r2t {
            return Err(violation("data to come unasked, which was not agreed on"));
        }
        if unit.data.len() > expected as usize {
            return Err(violation("more data with a command than it says"));
        }
        Ok(())
    }

    /// The command, unless something is against it.
    fn admitted(&mut self, header: &Header) -> Result<Command, Outcome> {
        let cdb = header.array(32);
        let command = Command::parse(&cdb, &self.target.facts).map_err(Outcome::of_sense);
        if !is_first_unit(header.lun()) {
            return Err(answer_of_no_unit(&command?));
        }
        let is_exempt =
            matches!(command, Ok(Command::Inquiry { .. } | Command::ReportLuns { .. } | Command::RequestSense { .. }));
        let Some(member) = self.member.as_ref() else { return Err(Outcome::of_sense(Sense::NO_LUN)) };
        if !is_exempt && let Some(sense) = member.attention() {
            return Err(Outcome::of_sense(sense));
        }
        let command = command?;
        if self.target.reservations().conflicts(&member.nexus, use_of(&command)) {
            return Err(Outcome::of_status(status::RESERVATION_CONFLICT));
        }
        if command.writes() && self.target.is_protected() {
            return Err(Outcome::of_sense(Sense::SOFTWARE_PROTECTED));
        }
        Ok(command)
    }

    pub(super) fn data_out(&mut self, unit: Unit) {
        let tag = unit.header.tag();
        // Of a task that is over: the initiator cannot know yet.
        let Some(mut task) = self.tasks.remove(&tag) else { return };
        let State::Collecting(mut transfer) = task.state else {
            self.tasks.insert(tag, task);
            return;
        };
        match transfer.data_out(&unit.header, unit.data) {
            Err(sense) => self.answer(task.origin, Outcome::of_sense(sense)),
            Ok(()) if transfer.is_complete() => self.admit(task.origin, task.command, transfer.into_data()),
            Ok(()) => {
                let wish = if task.origin.weight > 0 { self.next_wish(&mut transfer) } else { None };
                let (origin, is_to_wait) = (task.origin, transfer.waits_to_be_asked());
                task.state = State::Collecting(transfer);
                self.tasks.insert(tag, task);
                match wish {
                    Some((transfer_tag, wish)) => self.ask(origin, transfer_tag, wish),
                    None if is_to_wait => self.wait_for_room(tag),
                    None => {}
                }
            }
        }
    }

    /// A write whose data are not all there yet.
    fn collect(&mut self, origin: Origin, command: Command, transfer: Transfer) {
        if transfer.is_complete() {
            return self.admit(origin, command, transfer.into_data());
        }
        let is_to_wait = transfer.waits_to_be_asked();
        self.keep(origin, command, State::Collecting(transfer));
        if is_to_wait {
            self.wait_for_room(origin.tag);
        }
    }

    fn keep(&mut self, origin: Origin, command: Command, state: State) -> u64 {
        self.serial += 1;
        self.tasks.insert(origin.tag, Task { origin, command, state, serial: self.serial });
        self.serial
    }

    fn wait_for_room(&mut self, tag: u32) {
        self.waiting.push_back(tag);
        self.give_room();
    }

    /// Lets tasks on, in their order, for which there is room.
    pub(super) fn give_room(&mut self) {
        while let Some(tag) = self.waiting.front().copied() {
            let Some(mut task) = self.tasks.remove(&tag) else {
                self.waiting.pop_front();
                continue;
            };
            if task.origin.weight > 0 {
                // It has its room: the tag was one's that is over.
                self.tasks.insert(tag, task);
                self.waiting.pop_front();
                continue;
            }
            let weight = weight_of(&task.command);
            if weight > self.room {
                self.tasks.insert(tag, task);
                return;
            }
            self.waiting.pop_front();
            self.room -= weight;
            task.origin.weight = weight;
            match task.state {
                State::Waiting(data) => self.start(task.origin, task.command, data),
                State::Collecting(mut transfer) => {
                    let (origin, wish) = (task.origin, self.next_wish(&mut transfer));
                    task.state = State::Collecting(transfer);
                    self.tasks.insert(tag, task);
                    if let Some((transfer_tag, wish)) = wish {
                        self.ask(origin, transfer_tag, wish);
                    }
                }
                // It has begun, and has all it needs.
                State::Running(_) => {
                    self.room += weight;
                    self.tasks.insert(tag, task);
                }
            }
        }
    }

    /// What a transfer that has room is to ask for next.
    fn next_wish(&mut self, transfer: &mut Transfer) -> Option<(u32, Wish)> {
        if !transfer.waits_to_be_asked() {
            return None;
        }
        self.transfer_tag = self.transfer_tag.wrapping_add(1) % NO_TAG;
        Some((self.transfer_tag, transfer.ask(self.transfer_tag, self.parameters.burst_bytes)))
    }

    fn ask(&mut self, origin: Origin, transfer_tag: u32, wish: Wish) {
        let header = Header::reply(op::R2T, origin.tag).with_lun(origin.lun).with_u32(20, transfer_tag);
        let header = header.with_u32(36, wish.number).with_u32(40, wish.offset).with_u32(44, wish.bytes);
        let header = self.stamped(header, false);
        self.outbox.push(header, Vec::new(), 0);
    }

    /// A command with all its data: it starts when there is room.
    fn admit(&mut self, mut origin: Origin, command: Command, data: Bytes) {
        let weight = weight_of(&command);
        if origin.weight == 0 && weight > 0 {
            if !self.waiting.is_empty() || weight > self.room {
                self.keep(origin, command, State::Waiting(data));
                return self.wait_for_room(origin.tag);
            }
            self.room -= weight;
            origin.weight = weight;
        }
        self.start(origin, command, data);
    }

    fn start(&mut self, origin: Origin, command: Command, data: Bytes) {
        if let Some(outcome) = self.at_once(&command, &data) {
            return self.answer(origin, outcome);
        }
        let Some(guest) = self.member.as_ref().map(|member| member.guest) else { return };
        let run = execute::run(Arc::clone(&self.target), guest, command, data);
        let mut run = Box::pin(run);
        // An initiator that waits for one answer gets it at once if there is nothing to wait for: a task would have to be
        // woken. Several at a time are spread over the processors.
        let is_only = self.work.is_empty() && self.buffer.is_empty();
        if is_only && let std::task::Poll::Ready(outcome) = run.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return self.answer(origin, outcome);
        }
        let (tag, serial) = (origin.tag, self.serial + 1);
        let handle = self.work.spawn(async move { (tag, serial, run.await) });
        self.keep(origin, command, State::Running(handle));
    }

    /// The outcome of what there is nothing to wait for.
    fn at_once(&mut self, command: &Command, data: &Bytes) -> Option<Outcome> {
        let member = self.member.as_ref()?;
        match *command {
            Command::Read { extent } if extent.bytes() <= READY_BYTES_MAX => {
                execute::read_ready(&self.target, member.guest, extent)
            }
            Command::SynchronizeCache if !self.target.facts.is_writable => Some(Outcome::good()),
            Command::RequestSense { in_descriptors, allocated } => {
                let sense = member.attention().unwrap_or(Sense::NONE);
                Some(Outcome::of_data(sense_data(sense, in_descriptors), allocated))
            }
            Command::PersistentIn { action, allocated } => {
                Some(Outcome::of_data(self.target.reservations().read(action), allocated))
            }
            Command::PersistentOut { action, scope, kind, .. } => {
                let action = Action { action, scope, kind };
                let done = self.target.reservations().change(&member.nexus, action, data);
                Some(match done {
                    Ok(effects) => {
                        self.target.tell(effects);
                        Outcome::good()
                    }
                    Err(Refused::Conflict) => Outcome::of_status(status::RESERVATION_CONFLICT),
                    Err(Refused::Sense(sense)) => Outcome::of_sense(sense),
                })
            }
            Command::ModeSelect { is_long, .. } => {
                let wanted = mode::select(&self.target.facts, self.target.is_protected(), is_long, data);
                Some(wanted.map(|is_protected| self.target.protect(is_protected, member.number)).into())
            }
            _ => execute::answer(command, &self.target),
        }
    }

    /// A task that ran has come to something.
    pub(super) fn finish(&mut self, tag: u32, serial: u64, outcome: Outcome) {
        if self.tasks.get(&tag).is_some_and(|task| task.serial == serial)
            && let Some(task) = self.tasks.remove(&tag)
        {
            self.answer(task.origin, outcome);
        } else {
            // It was aborted, and done all the same.
            self.aborted = self.aborted.saturating_sub(1);
        }
    }

    /// Ends a task without an answer; whether there was one.
    pub(super) fn abort(&mut self, tag: u32) -> bool {
        let Some(task) = self.tasks.remove(&tag) else { return false };
        if let State::Running(handle) = task.state {
            handle.abort();
            self.aborted += 1;
        }
        self.room += task.origin.weight;
        self.waiting.retain(|waiting| *waiting != tag);
        self.retire(task.origin.numbered);
        true
    }

    pub(super) fn abort_all(&mut self) {
        let tags: Vec<u32> = self.tasks.keys().copied().collect();
        for tag in tags {
            self.abort(tag);
        }
    }

    /// Sends what a command came to: its data, the last of which say so where all is well, or else an answer of its own.
    fn answer(&mut self, origin: Origin, outcome: Outcome) {
        self.retire(origin.numbered);
        let is_good = outcome.status == status::GOOD;
        let told: u64 = outcome.data.iter().map(|part| part.len() as u64).sum();
        let (done, expected) = match (origin.expected_out, told) {
            (0, _) | (_, 1..) => (told, origin.expected_in),
            // What was refused for its length says by how much.
            _ if is_good || outcome.sense == Some(Sense::INVALID_UNIT) => {
                (origin.bytes_out.into(), origin.expected_out)
            }
            _ => (0, origin.expected_out),
        };
        let done = if origin.bytes_out > 0 && expected == 0 { origin.bytes_out.into() } else { done };
        let residual = Residual::of(done, expected);
        let data_bytes = told.min(origin.expected_in.into()) as usize;
        if data_bytes > 0 && is_good {
            return self.send_data(origin, outcome.data, data_bytes, residual);
        }
        let header = Header::reply(op::SCSI_RESPONSE, origin.tag);
        let header =
            header.with_byte(1, 0x80 | residual.flags).with_byte(3, outcome.status).with_u32(44, residual.bytes);
        let header = self.stamped(header, true);
        let sense = outcome.sense.map(|sense| {
            let sense = sense.fixed();
            Bytes::from([&(sense.len() as u16).to_be_bytes()[..], &sense].concat())
        });
        self.outbox.push(header, sense.into_iter().collect(), origin.weight);
    }

    fn send_data(&mut self, origin: Origin, segments: Vec<Bytes>, bytes: usize, residual: Residual) {
        let (unit_max, burst) = (self.parameters.peer_data_bytes as usize, self.parameters.burst_bytes as usize);
        let mut segments = Segments { segments, next: 0 };
        let (mut offset, mut number) = (0, 0);
        while offset < bytes {
            // A sequence ends where a burst does.
            let to_burst = burst - offset % burst;
            let count = unit_max.min(to_burst).min(bytes - offset);
            let is_last = offset + count == bytes;
            let header = Header::reply(op::DATA_IN, origin.tag).with_lun(origin.lun).with_u32(20, NO_TAG);
            let header = header.with_u32(36, number).with_u32(40, offset as u32);
            let header = if is_last {
                let header = header.with_byte(1, 0x81 | residual.flags).with_u32(44, residual.bytes);
                self.stamped(header, true)
            } else {
                let flags = if count == to_burst { 0x80 } else { 0 };
                let header = self.stamped(header.with_byte(1, flags), false);
                // Only an answer has a number.
                header.with_u32(24, 0)
            };
            let weight = if is_last { origin.weight } else { 0 };
            self.outbox.push(header, segments.take(count), weight);
            offset += count;
            number += 1;
        }
    }
}

/// Data that are cut anew.
struct Segments {
    segments: Vec<Bytes>,
    next: usize,
}

impl Segments {
    /// The next so many bytes, which must be there.
    fn take(&mut self, mut bytes: usize) -> Vec<Bytes> {
        let mut taken = Vec::new();
        while bytes > 0 {
            let Some(segment) = self.segments.get_mut(self.next) else { break };
            if segment.len() > bytes {
                taken.push(segment.split_to(bytes));
                break;
            }
            bytes -= segment.len();
            taken.push(std::mem::take(segment));
            self.next += 1;
        }
        taken
    }
}

/// By how much a command and its unit differ.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
struct Residual {
    flags: u8,
    bytes: u32,
}

impl Residual {
    fn of(done: u64, expected: u32) -> Self {
        let expected = u64::from(expected);
        let flags = match done.cmp(&expected) {
            std::cmp::Ordering::Less => 0x02,
            std::cmp::Ordering::Equal => 0,
            std::cmp::Ordering::Greater => 0x04,
        };
        Self { flags, bytes: done.abs_diff(expected).min(u32::MAX.into()) as u32 }
    }
}

/// Why a command cannot be done with as many data as its unit says. A write can, as far as they go; a list or a block that is
/// cut off is none, and of what is to be compared and written it must be clear which is which.
fn misfit(command: &Command, wanted: u32, expected: u32) -> Option<Sense> {
    let (is_fit, sense) = match command {
        Command::Write { .. } => (true, Sense::INVALID_UNIT),
        Command::WriteSame { .. } => (wanted == expected, Sense::INVALID_UNIT),
        Command::CompareAndWrite { .. } => (wanted == expected, Sense::INVALID_FIELD),
        _ => (wanted <= expected, Sense::INVALID_UNIT),
    };
    (!is_fit).then_some(sense)
}

/// What a task's data weigh, beside what it costs anyway.
fn weight_of(command: &Command) -> usize {
    match command {
        Command::Read { extent } => extent.bytes() as usize,
        _ => command.bytes_out() as usize,
    }
}

fn sense_data(sense: Sense, in_descriptors: bool) -> Vec<u8> {
    if in_descriptors { sense.descriptor().to_vec() } else { sense.fixed().to_vec() }
}

/// Unit 0, in either of the ways to write it (SAM-5, section 4.7).
pub(super) fn is_first_unit(lun: u64) -> bool {
    lun == 0 || lun == 0x4000 << 48
}

/// Of a unit that is not there, some things can be asked all the same.
fn answer_of_no_unit(command: &Command) -> Outcome {
    match *command {
        Command::Inquiry { page: None, allocated } => {
            let mut data = inquiry::standard();
            data[0] = inquiry::NO_DEVICE;
            Outcome::of_data(data, allocated)
        }
        Command::ReportLuns { select, allocated } => {
            inquiry::luns(select).map_or_else(Outcome::of_sense, |data| Outcome::of_data(data, allocated))
        }
        Command::RequestSense { in_descriptors, allocated } => {
            Outcome::of_data(sense_data(Sense::NO_LUN, in_descriptors), allocated)
        }
        _ => Outcome::of_sense(Sense::NO_LUN),
    }
}

/// What reservations have to know of a command (SPC-4, table 60; SBC-3, table 13).
fn use_of(command: &Command) -> Use {
    match command {
        Command::Read { .. } | Command::Verify { .. } | Command::Prefetch { .. } => Use::Read,
        command if command.writes() => Use::Write,
        Command::SynchronizeCache | Command::StartStop | Command::ModeSelect { .. } => Use::Write,
        _ => Use::None,
    }
}

//! All requests that are no SCSI command: pings, text, task management, the end.

use super::session::Session;
use super::tasks::is_first_unit;
use crate::disk::Disk;
use crate::iscsi::pdu::{Header, NO_TAG, Unit, op, reject};
use crate::iscsi::text::{TEXT_BYTES_MAX, pairs, push};
use bytes::Bytes;
use std::io;
use tokio::io::{AsyncRead, AsyncWrite};

const CONTINUE: u8 = 0x40;

/// What task management is asked for (RFC 7143, section 11.5.1).
const ABORT_TASK: u8 = 1;
const ABORT_TASK_SET: u8 = 2;
const CLEAR_TASK_SET: u8 = 4;
const UNIT_RESET: u8 = 5;
const WARM_RESET: u8 = 6;
const COLD_RESET: u8 = 7;
const REASSIGN: u8 = 8;

/// What it answers (section 11.6.1).
const DONE: u8 = 0;
const NO_TASK: u8 = 1;
const NO_UNIT: u8 = 2;
const NO_REASSIGNMENT: u8 = 4;
const NOT_SUPPORTED: u8 = 5;

/// Logout to move a session's tasks elsewhere, which error recovery level 0 knows not.
const RECOVERY: u8 = 2;
const NO_RECOVERY: u8 = 2;

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin, D: Disk> Session<R, W, D> {
    /// A ping is sent back.
    pub(super) fn nop(&mut self, unit: Unit) {
        if unit.header.tag() == NO_TAG {
            return;
        }
        let header = Header::reply(op::NOP_IN, unit.header.tag()).with_lun(unit.header.lun()).with_u32(20, NO_TAG);
        let header = self.stamped(header, true);
        let mut data = unit.data;
        data.truncate(self.parameters.peer_data_bytes as usize);
        self.outbox.push(header, vec![data], 0);
    }

    pub(super) fn text(&mut self, unit: Unit) -> io::Result<()> {
        let header = unit.header;
        if self.text.len() + unit.data.len() > TEXT_BYTES_MAX {
            self.text.clear();
            return self.reject(&header, reject::PROTOCOL);
        }
        self.text.extend_from_slice(&unit.data);
        let is_whole = header.flags() & CONTINUE == 0;
        let answer = if is_whole {
            let text = std::mem::take(&mut self.text);
            let Some(pairs) = pairs(&text) else { return self.reject(&header, reject::PROTOCOL) };
            self.answer_text(&pairs)
        } else {
            Vec::new()
        };
        // Where more is to come, the tag says that it belongs here.
        let (flags, tag) = if is_whole && header.is_final() { (0x80, NO_TAG) } else { (0, 1) };
        let reply = Header::reply(op::TEXT_RESPONSE, header.tag()).with_byte(1, flags).with_u32(20, tag);
        let reply = self.stamped(reply, true);
        self.outbox.push(reply, vec![answer.into()], 0);
        Ok(())
    }

    fn answer_text(&mut self, pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut answer = Vec::new();
        for (key, value) in pairs {
            let iqn = &self.target.facts.iqn;
            match *key {
                "SendTargets" => {
                    // All may be asked for only in discovery, its own name and none anywhere.
                    let is_asked = match *value {
                        "All" => self.member.is_none(),
                        name => name.is_empty() || name.eq_ignore_ascii_case(iqn),
                    };
                    if is_asked {
                        push(&mut answer, "TargetName", iqn);
                        push(&mut answer, "TargetAddress", &format!("{},1", self.portal));
                    }
                }
                "MaxRecvDataSegmentLength" => {
                    self.parameters.negotiate(key, value, &mut answer);
                }
                "InitiatorName" | "InitiatorAlias" => {}
                _ => push(&mut answer, key, "NotUnderstood"),
            }
        }
        answer.truncate(self.parameters.peer_data_bytes as usize);
        answer
    }

    pub(super) fn manage(&mut self, header: &Header) {
        let function = header.flags() & 0x7f;
        let own = self.member.as_ref().map_or(0, |member| member.number);
        let response = match function {
            WARM_RESET | COLD_RESET => {
                self.abort_all();
                self.target.reset(own, function == COLD_RESET);
                self.is_ending |= function == COLD_RESET;
                DONE
            }
            REASSIGN => NO_REASSIGNMENT,
            _ if !is_first_unit(header.lun()) => NO_UNIT,
            ABORT_TASK if self.abort(header.transfer_tag()) => DONE,
            ABORT_TASK => NO_TASK,
            ABORT_TASK_SET => {
                self.abort_all();
                DONE
            }
            CLEAR_TASK_SET => {
                self.abort_all();
                self.target.clear_tasks(own);
                DONE
            }
            UNIT_RESET => {
                self.abort_all();
                self.target.reset(own, false);
                DONE
            }
            _ => NOT_SUPPORTED,
        };
        self.give_room();
        self.managed.push(Header::reply(op::TASK_RESPONSE, header.tag()).with_byte(2, response));
    }

    pub(super) fn log_out(&mut self, header: &Header) {
        let is_recovery = header.flags() & 0x7f == RECOVERY;
        let response = if is_recovery { NO_RECOVERY } else { DONE };
        if !is_recovery {
            self.abort_all();
        }
        let reply = Header::reply(op::LOGOUT_RESPONSE, header.tag()).with_byte(2, response);
        let reply = self.stamped(reply, true);
        self.outbox.push(reply, Vec::new(), 0);
        self.is_ending |= !is_recovery;
    }

    /// Sends a unit back as one that cannot be taken.
    pub(super) fn reject(&mut self, header: &Header, reason: u8) -> io::Result<()> {
        let reply = Header::reply(op::REJECT, NO_TAG).with_byte(2, reason);
        let reply = self.stamped(reply, true);
        self.outbox.push(reply, vec![Bytes::copy_from_slice(&header.0)], 0);
        Ok(())
    }
}

//! The login phase (RFC 7143, section 6.3): who it is, whether it may, and what is agreed on.
//!
//! *Purpose*: requests in, responses out, apart from sockets. *Invariants*: with [`Chap`] nobody comes through who did not
//! answer its challenge, whatever stages an initiator claims; after a refusal the login is over. *Bounds*: so many bytes of
//! text as [`TEXT_BYTES_MAX`], [`REQUESTS_MAX`] requests, names of [`NAME_BYTES_MAX`].

use super::chap::{Challenge, Chap};
use super::parameters::Parameters;
use super::pdu::{Header, op};
use super::text::{self, TEXT_BYTES_MAX, binary, pairs, push, to_binary, value};

/// Most requests of one login.
const REQUESTS_MAX: u32 = 32;
/// Longest iSCSI name (RFC 7143, section 4.2.7.2).
const NAME_BYTES_MAX: usize = 223;

/// Stages.
const SECURITY: u8 = 0;
const OPERATIONAL: u8 = 1;
const FULL_FEATURE: u8 = 3;

const TRANSIT: u8 = 0x80;
const CONTINUE: u8 = 0x40;

/// Why a login is refused: class and detail of the status.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(super) struct Refusal(pub u16);

impl Refusal {
    pub const INITIATOR: Self = Self(0x0200);
    pub const AUTHENTICATION: Self = Self(0x0201);
    pub const NOT_FOUND: Self = Self(0x0203);
    pub const VERSION: Self = Self(0x0205);
    pub const CONNECTIONS: Self = Self(0x0206);
    pub const MISSING_PARAMETER: Self = Self(0x0207);
    pub const SESSION_TYPE: Self = Self(0x0209);
    pub const NO_SESSION: Self = Self(0x020a);
    pub const OUT_OF_RESOURCES: Self = Self(0x0302);
}

/// An initiator's end of a session.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Nexus {
    pub initiator: String,
    pub isid: [u8; 6],
}

/// What a login came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LoggedIn {
    pub nexus: Nexus,
    pub is_discovery: bool,
    pub parameters: Parameters,
    /// Number of the next command.
    pub command_number: u32,
}

/// What happens after a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Another request is to come.
    Next,
    /// The response is the last of the login, and needs a session's number.
    Done(Box<LoggedIn>),
    /// The response says that it is refused; then the connection ends.
    Refused,
}

/// A response: its header, in which numbers are still to be set, and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Response {
    pub header: Header,
    pub text: Vec<u8>,
}

/// A login under way.
pub(super) struct Login<'a> {
    target: &'a str,
    chap: Option<&'a Chap>,
    stage: Option<u8>,
    requests: u32,
    /// Of requests that go on in the next unit.
    text: Vec<u8>,
    who: Option<Who>,
    proof: Proof,
    parameters: Parameters,
    has_declared: bool,
}

struct Who {
    nexus: Nexus,
    is_discovery: bool,
}

/// How far the initiator has shown who it is.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
enum Proof {
    None,
    /// CHAP was agreed on.
    Agreed,
    Challenged(Challenge),
    Given,
}

impl<'a> Login<'a> {
    /// To the target of this name.
    pub(super) fn new(target: &'a str, chap: Option<&'a Chap>) -> Self {
        Self {
            target,
            chap,
            stage: None,
            requests: 0,
            text: Vec::new(),
            who: None,
            proof: Proof::None,
            parameters: Parameters::default(),
            has_declared: false,
        }
    }

    /// Answers a request.
    pub(super) fn handle(&mut self, header: &Header, data: &[u8]) -> (Response, Step) {
        let mut response = Header::reply(op::LOGIN_RESPONSE, header.tag());
        response.0[8..16].copy_from_slice(&header.array::<8>(8));
        match self.answer(header, data) {
            Ok((flags, text, step)) => {
                let header = response.with_byte(1, flags).with_data_bytes(text.len());
                (Response { header, text }, step)
            }
            Err(Refusal(status)) => {
                let [class, detail] = status.to_be_bytes();
                let header = response.with_byte(1, 0).with_byte(36, class).with_byte(37, detail);
                (Response { header, text: Vec::new() }, Step::Refused)
            }
        }
    }

    fn answer(&mut self, header: &Header, data: &[u8]) -> Result<(u8, Vec<u8>, Step), Refusal> {
        self.requests += 1;
        if header.opcode() != op::LOGIN || self.requests > REQUESTS_MAX {
            return Err(Refusal::INITIATOR);
        }
        // The least version that the initiator speaks: there is only one.
        if header.0[3] > 0 {
            return Err(Refusal::VERSION);
        }
        let (transit, current, next) = (header.flags() & TRANSIT != 0, header.flags() >> 2 & 3, header.flags() & 3);
        if self.text.len() + data.len() > TEXT_BYTES_MAX {
            return Err(Refusal::INITIATOR);
        }
        self.text.extend_from_slice(data);
        if header.flags() & CONTINUE != 0 {
            return if transit { Err(Refusal::INITIATOR) } else { Ok((current << 2, Vec::new(), Step::Next)) };
        }
        let text = std::mem::take(&mut self.text);
        let pairs = pairs(&text).ok_or(Refusal::INITIATOR)?;
        self.enter(current)?;
        let mut answer = Vec::new();
        if self.who.is_none() {
            let who = self.meet(header, &pairs)?;
            if !who.is_discovery {
                push(&mut answer, "TargetPortalGroupTag", "1");
            }
            self.who = Some(who);
        }
        let may_move = match current {
            SECURITY => self.security(&pairs, &mut answer)?,
            _ => {
                self.operational(&pairs, &mut answer);
                true
            }
        };
        if !(transit && may_move) {
            return Ok((current << 2, answer, Step::Next));
        }
        if next <= current || next == 2 || (current == SECURITY && !self.is_admitted()) {
            return Err(if self.is_admitted() { Refusal::INITIATOR } else { Refusal::AUTHENTICATION });
        }
        self.stage = Some(next);
        let step = if next == FULL_FEATURE { Step::Done(Box::new(self.finish(header)?)) } else { Step::Next };
        Ok((TRANSIT | current << 2 | next, answer, step))
    }

    /// A request says which stage it is of: that must be the one that was moved to.
    fn enter(&mut self, current: u8) -> Result<(), Refusal> {
        match self.stage {
            None if current > OPERATIONAL => return Err(Refusal::INITIATOR),
            None if current == OPERATIONAL && self.chap.is_some() => return Err(Refusal::AUTHENTICATION),
            Some(stage) if stage != current => return Err(Refusal::INITIATOR),
            _ => self.stage = Some(current),
        }
        Ok(())
    }

    /// The first request says who it is, and what it wants.
    fn meet(&self, header: &Header, pairs: &[(&str, &str)]) -> Result<Who, Refusal> {
        let initiator = value(pairs, "InitiatorName").ok_or(Refusal::MISSING_PARAMETER)?;
        if initiator.is_empty() || initiator.len() > NAME_BYTES_MAX {
            return Err(Refusal::INITIATOR);
        }
        let is_discovery = match value(pairs, "SessionType") {
            None | Some("Normal") => false,
            Some("Discovery") => true,
            Some(_) => return Err(Refusal::SESSION_TYPE),
        };
        if !is_discovery {
            let name = value(pairs, "TargetName").ok_or(Refusal::MISSING_PARAMETER)?;
            if !name.eq_ignore_ascii_case(self.target) {
                return Err(Refusal::NOT_FOUND);
            }
        }
        Ok(Who { nexus: Nexus { initiator: initiator.to_owned(), isid: header.array(8) }, is_discovery })
    }

    fn is_admitted(&self) -> bool {
        self.chap.is_none() || self.proof == Proof::Given
    }

    /// Whether the stage may end with this answer.
    fn security(&mut self, pairs: &[(&str, &str)], answer: &mut Vec<u8>) -> Result<bool, Refusal> {
        if let Some(methods) = value(pairs, "AuthMethod") {
            let wanted = if self.chap.is_some() { "CHAP" } else { "None" };
            if !methods.split(',').any(|method| method == wanted) {
                return Err(Refusal::AUTHENTICATION);
            }
            push(answer, "AuthMethod", wanted);
            self.proof = Proof::Agreed;
            self.leave_unknown(pairs, answer);
            return Ok(self.chap.is_none());
        }
        let Some(chap) = self.chap else {
            self.leave_unknown(pairs, answer);
            return Ok(true);
        };
        match self.proof {
            Proof::Agreed => {
                let algorithms = value(pairs, "CHAP_A").ok_or(Refusal::AUTHENTICATION)?;
                // 5 is MD5.
                if !algorithms.split(',').any(|algorithm| algorithm == "5") {
                    return Err(Refusal::AUTHENTICATION);
                }
                let challenge = Chap::challenge().map_err(|_| Refusal::OUT_OF_RESOURCES)?;
                push(answer, "CHAP_A", "5");
                push(answer, "CHAP_I", &challenge.id.to_string());
                push(answer, "CHAP_C", &to_binary(&challenge.challenge));
                self.proof = Proof::Challenged(challenge);
                Ok(false)
            }
            Proof::Challenged(challenge) => {
                // Whatever comes of it: the challenge is used.
                self.proof = Proof::None;
                check(chap, &challenge, pairs, answer)?;
                self.proof = Proof::Given;
                Ok(true)
            }
            Proof::Given => Ok(true),
            Proof::None => Ok(false),
        }
    }

    fn leave_unknown(&self, pairs: &[(&str, &str)], answer: &mut Vec<u8>) {
        pairs.iter().filter(|pair| !is_known(pair.0)).for_each(|pair| push(answer, pair.0, "NotUnderstood"));
    }

    fn operational(&mut self, pairs: &[(&str, &str)], answer: &mut Vec<u8>) {
        for (key, value) in pairs {
            if !self.parameters.negotiate(key, value, answer) && !is_known(key) {
                push(answer, key, "NotUnderstood");
            }
        }
        if !std::mem::replace(&mut self.has_declared, true) {
            Parameters::declare(answer);
        }
    }

    fn finish(&mut self, header: &Header) -> Result<LoggedIn, Refusal> {
        let Some(Who { nexus, is_discovery }) = self.who.take() else { return Err(Refusal::INITIATOR) };
        self.parameters.settle();
        let command_number = header.command_number();
        Ok(LoggedIn { nexus, is_discovery, parameters: self.parameters.clone(), command_number })
    }
}

/// Keys that say something and ask for nothing.
fn is_known(key: &str) -> bool {
    matches!(key, "InitiatorName" | "InitiatorAlias" | "SessionType" | "TargetName" | "AuthMethod")
}

/// Checks an answer to our challenge, and answers the initiator's own.
fn check(chap: &Chap, ours: &Challenge, pairs: &[(&str, &str)], answer: &mut Vec<u8>) -> Result<(), Refusal> {
    let name = value(pairs, "CHAP_N").ok_or(Refusal::AUTHENTICATION)?;
    let response = value(pairs, "CHAP_R").and_then(binary).ok_or(Refusal::AUTHENTICATION)?;
    if !chap.admits(ours, name, &response) {
        return Err(Refusal::AUTHENTICATION);
    }
    let theirs = (value(pairs, "CHAP_I"), value(pairs, "CHAP_C"));
    let (Some(id), Some(challenge)) = theirs else { return Ok(()) };
    let id = text::number(id).and_then(|id| u8::try_from(id).ok()).ok_or(Refusal::AUTHENTICATION)?;
    let challenge = binary(challenge).ok_or(Refusal::AUTHENTICATION)?;
    let (name, proof) = chap.prove(ours, id, &challenge).ok_or(Refusal::AUTHENTICATION)?;
    push(answer, "CHAP_N", name);
    push(answer, "CHAP_R", &to_binary(&proof));
    Ok(())
}

#[cfg(test)]
mod tests;

//! Persistent reservations (SPC-4, sections 5.12, 6.15 and 6.16): who may use the disk, as clusters ask for it.
//!
//! *Invariants*: who holds the reservation is registered; an action that is refused changes nothing. Nothing outlives the
//! process (PTPL). *Bounds*: [`REGISTERED_MAX`] registrations.

use super::sense::Sense;
use crate::iscsi::login::Nexus;

/// Most registrations.
const REGISTERED_MAX: usize = 256;
/// Length of what PERSISTENT RESERVE OUT brings.
pub(in crate::iscsi) const PARAMETER_BYTES: usize = 24;

/// Actions of PERSISTENT RESERVE OUT.
const REGISTER: u8 = 0;
const RESERVE: u8 = 1;
const RELEASE: u8 = 2;
const CLEAR: u8 = 3;
const PREEMPT: u8 = 4;
const PREEMPT_AND_ABORT: u8 = 5;
const REGISTER_AND_IGNORE: u8 = 6;

/// Kinds of reservations.
const WRITE_EXCLUSIVE: u8 = 1;
const EXCLUSIVE: u8 = 3;
const WRITE_EXCLUSIVE_REGISTERED: u8 = 5;
const EXCLUSIVE_REGISTERED: u8 = 6;
const WRITE_EXCLUSIVE_ALL: u8 = 7;
const EXCLUSIVE_ALL: u8 = 8;

/// What a command does, as far as reservations ask.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(in crate::iscsi) enum Use {
    /// It is always allowed.
    None,
    Read,
    Write,
}

/// Why an action came to nothing.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(in crate::iscsi) enum Refused {
    Conflict,
    Sense(Sense),
}

/// What others are to hear of an action.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(in crate::iscsi) struct Effects {
    pub attentions: Vec<(Nexus, Sense)>,
    /// Those whose tasks are to be ended.
    pub aborted: Vec<Nexus>,
}

/// An action, as its command says it.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(in crate::iscsi) struct Action {
    pub action: u8,
    pub scope: u8,
    pub kind: u8,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Registered {
    nexus: Nexus,
    key: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    kind: u8,
    /// Of kinds that all registered hold: who made it.
    by: Nexus,
}

/// Registrations and the reservation of a disk.
#[derive(Debug, Default)]
pub(in crate::iscsi) struct Reservations {
    generation: u32,
    registered: Vec<Registered>,
    held: Option<Held>,
}

impl Reservations {
    /// Whether somebody's command is kept off.
    pub(in crate::iscsi) fn conflicts(&self, nexus: &Nexus, how: Use) -> bool {
        let Some(held) = &self.held else { return false };
        if how == Use::None || self.is_holder(nexus) {
            return false;
        }
        match held.kind {
            WRITE_EXCLUSIVE => how == Use::Write,
            WRITE_EXCLUSIVE_REGISTERED | WRITE_EXCLUSIVE_ALL => how == Use::Write && self.key(nexus).is_none(),
            EXCLUSIVE => true,
            _ => self.key(nexus).is_none(),
        }
    }

    /// Answers PERSISTENT RESERVE IN.
    pub(in crate::iscsi) fn read(&self, action: u8) -> Vec<u8> {
        let body = match action {
            0 => self.registered.iter().flat_map(|one| one.key.to_be_bytes()).collect(),
            1 => self.held.as_ref().map_or_else(Vec::new, |held| self.reservation(held)),
            2 => {
                let kinds = [0xea, 0x01];
                return vec![0, 8, 0, 0x80, kinds[0], kinds[1], 0, 0];
            }
            _ => self.registered.iter().flat_map(|one| self.full_status(one)).collect(),
        };
        let mut data = self.generation.to_be_bytes().to_vec();
        data.extend((body.len() as u32).to_be_bytes());
        data.extend(body);
        data
    }

    fn reservation(&self, held: &Held) -> Vec<u8> {
        let key = if is_of_all(held.kind) { 0 } else { self.key(&held.by).unwrap_or(0) };
        let mut body = key.to_be_bytes().to_vec();
        body.extend([0, 0, 0, 0, 0, held.kind, 0, 0]);
        body
    }

    fn full_status(&self, one: &Registered) -> Vec<u8> {
        let kind = self.held.as_ref().filter(|_| self.is_holder(&one.nexus)).map(|held| held.kind);
        let isid = one.nexus.isid.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        let mut name = format!("{},i,0x{isid}", one.nexus.initiator).into_bytes();
        name.resize((name.len() + 1).next_multiple_of(4).max(20), 0);
        let mut status = one.key.to_be_bytes().to_vec();
        status.extend([0, 0, 0, 0, u8::from(kind.is_some()), kind.unwrap_or(0), 0, 0, 0, 0, 0, 1]);
        status.extend((name.len() as u32 + 4).to_be_bytes());
        status.extend([0x45, 0]);
        status.extend((name.len() as u16).to_be_bytes());
        status.extend(name);
        status
    }

    /// Does what PERSISTENT RESERVE OUT asks for.
    ///
    /// # Errors
    /// [`Refused`]; nothing has changed.
    pub(in crate::iscsi) fn change(&mut self, nexus: &Nexus, action: Action, list: &[u8]) -> Result<Effects, Refused> {
        let list: &[u8; PARAMETER_BYTES] = list.try_into().map_err(|_| Refused::Sense(Sense::PARAMETER_LENGTH))?;
        let number = |at: usize| u64::from_be_bytes(std::array::from_fn(|index| list[at + index]));
        let (key, other) = (number(0), number(8));
        // No initiator ports by name, no other target ports, nothing that outlives a loss of power.
        if list[20] & 0x09 != 0 {
            return Err(Refused::Sense(Sense::INVALID_PARAMETER));
        }
        if matches!(action.action, REGISTER | REGISTER_AND_IGNORE) {
            return self.register(nexus, key, other, action.action == REGISTER_AND_IGNORE);
        }
        if self.key(nexus) != Some(key) {
            return Err(Refused::Conflict);
        }
        let needs_kind = matches!(action.action, RESERVE | RELEASE | PREEMPT | PREEMPT_AND_ABORT);
        if needs_kind && (action.scope != 0 || !is_kind(action.kind)) {
            return Err(Refused::Sense(Sense::INVALID_FIELD));
        }
        match action.action {
            RESERVE => self.reserve(nexus, action.kind),
            RELEASE => self.release(nexus, action.kind),
            CLEAR => Ok(self.clear(nexus)),
            PREEMPT => self.preempt(nexus, other, action.kind),
            PREEMPT_AND_ABORT => {
                let mut effects = self.preempt(nexus, other, action.kind)?;
                effects.aborted = effects.attentions.iter().map(|(nexus, _)| nexus.clone()).collect();
                Ok(effects)
            }
            _ => Err(Refused::Sense(Sense::INVALID_FIELD)),
        }
    }

    fn register(&mut self, nexus: &Nexus, key: u64, new: u64, ignore: bool) -> Result<Effects, Refused> {
        let old = self.key(nexus);
        if !ignore && key != old.unwrap_or(0) {
            return Err(Refused::Conflict);
        }
        let mut effects = Effects::default();
        match (old, new) {
            (None, 0) => return Ok(effects),
            (None, _) if self.registered.len() >= REGISTERED_MAX => {
                return Err(Refused::Sense(Sense::TOO_MANY_REGISTERED));
            }
            (None, _) => self.registered.push(Registered { nexus: nexus.clone(), key: new }),
            (Some(_), 0) => effects = self.unregister(nexus),
            (Some(_), _) => {
                self.registered.iter_mut().filter(|one| one.nexus == *nexus).for_each(|one| one.key = new);
            }
        }
        self.generation = self.generation.wrapping_add(1);
        Ok(effects)
    }

    fn unregister(&mut self, nexus: &Nexus) -> Effects {
        let was_holder = self.is_holder(nexus);
        self.registered.retain(|one| one.nexus != *nexus);
        let Some(held) = self.held.clone().filter(|_| was_holder) else { return Effects::default() };
        if is_of_all(held.kind) && !self.registered.is_empty() {
            return Effects::default();
        }
        self.held = None;
        self.tell_of_release(nexus, held.kind)
    }

    fn reserve(&mut self, nexus: &Nexus, kind: u8) -> Result<Effects, Refused> {
        match &self.held {
            Some(held) if held.kind != kind || !self.is_holder(nexus) => Err(Refused::Conflict),
            Some(_) => Ok(Effects::default()),
            None => {
                self.held = Some(Held { kind, by: nexus.clone() });
                Ok(Effects::default())
            }
        }
    }

    fn release(&mut self, nexus: &Nexus, kind: u8) -> Result<Effects, Refused> {
        match &self.held {
            Some(held) if self.is_holder(nexus) && held.kind != kind => Err(Refused::Sense(Sense::INVALID_RELEASE)),
            Some(_) if self.is_holder(nexus) => {
                self.held = None;
                Ok(self.tell_of_release(nexus, kind))
            }
            _ => Ok(Effects::default()),
        }
    }

    /// Those that were allowed more than others by a reservation hear of its end.
    fn tell_of_release(&self, nexus: &Nexus, kind: u8) -> Effects {
        let is_told = !matches!(kind, WRITE_EXCLUSIVE | EXCLUSIVE);
        let others = self.registered.iter().filter(|one| is_told && one.nexus != *nexus);
        Effects { attentions: others.map(|one| (one.nexus.clone(), Sense::RELEASED)).collect(), aborted: Vec::new() }
    }

    fn clear(&mut self, nexus: &Nexus) -> Effects {
        self.held = None;
        self.generation = self.generation.wrapping_add(1);
        let others = std::mem::take(&mut self.registered).into_iter().filter(|one| one.nexus != *nexus);
        Effects { attentions: others.map(|one| (one.nexus, Sense::CLEARED)).collect(), aborted: Vec::new() }
    }

    fn preempt(&mut self, nexus: &Nexus, key: u64, kind: u8) -> Result<Effects, Refused> {
        let takes_over = match &self.held {
            Some(held) if is_of_all(held.kind) => key == 0,
            Some(held) => self.key(&held.by) == Some(key),
            None => false,
        };
        if !takes_over && key == 0 {
            return Err(Refused::Sense(Sense::INVALID_PARAMETER));
        }
        let is_hit = |one: &Registered| one.nexus != *nexus && (key == 0 || one.key == key);
        if !takes_over && !self.registered.iter().any(|one| one.key == key) {
            return Err(Refused::Conflict);
        }
        let (gone, kept) = std::mem::take(&mut self.registered).into_iter().partition(is_hit);
        self.registered = kept;
        let gone: Vec<Registered> = gone;
        if takes_over {
            self.held = Some(Held { kind, by: nexus.clone() });
        }
        self.generation = self.generation.wrapping_add(1);
        let attentions = gone.into_iter().map(|one| (one.nexus, Sense::PREEMPTED)).collect();
        Ok(Effects { attentions, aborted: Vec::new() })
    }

    fn key(&self, nexus: &Nexus) -> Option<u64> {
        self.registered.iter().find(|one| one.nexus == *nexus).map(|one| one.key)
    }

    fn is_holder(&self, nexus: &Nexus) -> bool {
        match &self.held {
            Some(held) if is_of_all(held.kind) => self.key(nexus).is_some(),
            Some(held) => held.by == *nexus,
            None => false,
        }
    }
}

fn is_of_all(kind: u8) -> bool {
    matches!(kind, WRITE_EXCLUSIVE_ALL | EXCLUSIVE_ALL)
}

fn is_kind(kind: u8) -> bool {
    is_of_all(kind) || matches!(kind, WRITE_EXCLUSIVE | EXCLUSIVE | WRITE_EXCLUSIVE_REGISTERED | EXCLUSIVE_REGISTERED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nexus(number: u8) -> Nexus {
        Nexus { initiator: format!("iqn.2026-01.test:{number}"), isid: [number; 6] }
    }

    fn list(key: u64, other: u64) -> [u8; PARAMETER_BYTES] {
        let mut list = [0; PARAMETER_BYTES];
        list[..8].copy_from_slice(&key.to_be_bytes());
        list[8..16].copy_from_slice(&other.to_be_bytes());
        list
    }

    fn act(all: &mut Reservations, who: u8, action: u8, kind: u8, key: u64, other: u64) -> Result<Effects, Refused> {
        all.change(&nexus(who), Action { action, scope: 0, kind }, &list(key, other))
    }

    fn two() -> Reservations {
        let mut all = Reservations::default();
        act(&mut all, 1, REGISTER, 0, 0, 11).unwrap();
        act(&mut all, 2, REGISTER, 0, 0, 22).unwrap();
        all
    }

    #[test]
    fn each_kind_keeps_others_off_as_the_table_says() {
        // Kind; of one who is registered, and of one who is not: whether reads and writes are kept off.
        for (kind, registered, stranger) in [
            (WRITE_EXCLUSIVE, (false, true), (false, true)),
            (EXCLUSIVE, (true, true), (true, true)),
            (WRITE_EXCLUSIVE_REGISTERED, (false, false), (false, true)),
            (EXCLUSIVE_REGISTERED, (false, false), (true, true)),
            (WRITE_EXCLUSIVE_ALL, (false, false), (false, true)),
            (EXCLUSIVE_ALL, (false, false), (true, true)),
        ] {
            let mut all = two();
            act(&mut all, 1, RESERVE, kind, 11, 0).unwrap();
            let kept_off = |who| {
                let nexus = nexus(who);
                assert!(!all.conflicts(&nexus, Use::None));
                (all.conflicts(&nexus, Use::Read), all.conflicts(&nexus, Use::Write))
            };
            assert_eq!((kept_off(1), kept_off(2), kept_off(3)), ((false, false), registered, stranger), "kind {kind}");
        }
    }

    #[test]
    fn keys_are_asked_for() {
        let mut all = two();
        assert_eq!(act(&mut all, 1, RESERVE, EXCLUSIVE, 12, 0), Err(Refused::Conflict));
        assert_eq!(act(&mut all, 1, REGISTER, 0, 12, 13), Err(Refused::Conflict));
        assert_eq!(act(&mut all, 3, REGISTER, 0, 1, 13), Err(Refused::Conflict));
        act(&mut all, 1, REGISTER_AND_IGNORE, 0, 0, 14).unwrap();
        act(&mut all, 1, RESERVE, EXCLUSIVE, 14, 0).unwrap();
        assert_eq!(act(&mut all, 2, RESERVE, EXCLUSIVE, 22, 0), Err(Refused::Conflict));
        assert_eq!(act(&mut all, 2, RELEASE, EXCLUSIVE, 22, 0), Ok(Effects::default()));
        let wrong_kind = act(&mut all, 1, RELEASE, WRITE_EXCLUSIVE, 14, 0);
        assert_eq!(wrong_kind, Err(Refused::Sense(Sense::INVALID_RELEASE)));
        assert!(all.conflicts(&nexus(2), Use::Read));
        act(&mut all, 1, REGISTER, 0, 14, 0).unwrap();
        assert!(!all.conflicts(&nexus(2), Use::Read), "who goes takes the reservation along");
    }

    #[test]
    fn preempting_takes_over_and_tells() {
        let mut all = two();
        act(&mut all, 1, RESERVE, EXCLUSIVE, 11, 0).unwrap();
        let effects = act(&mut all, 2, PREEMPT_AND_ABORT, WRITE_EXCLUSIVE, 22, 11).unwrap();
        assert_eq!(effects.attentions, [(nexus(1), Sense::PREEMPTED)]);
        assert_eq!(effects.aborted, [nexus(1)]);
        assert_eq!(all.read(0)[8..], 22_u64.to_be_bytes());
        assert!(all.conflicts(&nexus(1), Use::Write) && !all.conflicts(&nexus(2), Use::Write));
        assert_eq!(act(&mut all, 2, PREEMPT, EXCLUSIVE, 22, 99), Err(Refused::Conflict));
        act(&mut all, 2, CLEAR, 0, 22, 0).unwrap();
        assert_eq!(all.read(0)[4..], [0; 4]);
    }

    #[test]
    fn registrations_are_bounded() {
        let mut all = Reservations::default();
        for number in 0..=REGISTERED_MAX {
            let nexus = Nexus { initiator: number.to_string(), isid: [0; 6] };
            let done = all.change(&nexus, Action { action: REGISTER, scope: 0, kind: 0 }, &list(0, 1));
            assert_eq!(done.is_ok(), number < REGISTERED_MAX, "{number}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_asked_the_holder_is_registered(
            actions in proptest::collection::vec((0_u8..4, 0_u8..8, 0_u8..9, 0_u64..3, 0_u64..3), 0..40),
            list in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut all = Reservations::default();
            for (who, action, kind, key, other) in actions {
                let _ = act(&mut all, who, action, kind, key, other);
                if let Some(held) = &all.held {
                    prop_assert!(is_of_all(held.kind) && !all.registered.is_empty() || all.key(&held.by).is_some());
                }
                (0..4).for_each(|action| drop(all.read(action)));
            }
            let _ = all.change(&nexus(0), Action { action: REGISTER, scope: 0, kind: 0 }, &list);
        }
    }
}

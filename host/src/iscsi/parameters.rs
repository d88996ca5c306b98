//! Operational parameters and their negotiation (RFC 7143, section 13).
//!
//! *Invariants*: what is agreed on is never more than either end offers, so that all buffers stay within our bounds.
//! *Units*: bytes.

use super::text::{number, push};

/// Longest data of a unit that we take.
pub(super) const DATA_BYTES_MAX: u32 = 256 * 1024;
/// Most data that come without being asked for, with a command.
const FIRST_BURST_BYTES: u32 = 64 * 1024;
/// Most data that are asked for, or sent, at a time.
const BURST_BYTES: u32 = 1024 * 1024;
/// Least and most that the RFC allows as the length of data.
const LENGTHS: std::ops::RangeInclusive<u32> = 512..=(1 << 24) - 1;

/// What both ends have agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parameters {
    pub header_digest: bool,
    pub data_digest: bool,
    /// Whether each write waits until it is asked for data.
    pub initial_r2t: bool,
    /// Whether a command may bring data with it.
    pub immediate_data: bool,
    /// Longest data of a unit that the initiator takes.
    pub peer_data_bytes: u32,
    pub first_burst_bytes: u32,
    pub burst_bytes: u32,
}

impl Default for Parameters {
    /// What holds where nothing is said.
    fn default() -> Self {
        Self {
            header_digest: false,
            data_digest: false,
            initial_r2t: true,
            immediate_data: true,
            peer_data_bytes: 8192,
            first_burst_bytes: FIRST_BURST_BYTES,
            burst_bytes: 256 * 1024,
        }
    }
}

impl Parameters {
    /// Takes what the initiator says of a key, and answers it; whether the key was one of these.
    pub(super) fn negotiate(&mut self, key: &str, value: &str, answer: &mut Vec<u8>) -> bool {
        let reply = match key {
            "HeaderDigest" => digest(value, &mut self.header_digest),
            "DataDigest" => digest(value, &mut self.data_digest),
            "InitialR2T" => flag(value, |theirs| {
                self.initial_r2t = theirs;
                theirs
            }),
            "ImmediateData" => flag(value, |theirs| {
                self.immediate_data = theirs;
                theirs
            }),
            "MaxRecvDataSegmentLength" => {
                return match length(value) {
                    // Declared, not negotiated: there is nothing to answer.
                    Some(bytes) => {
                        self.peer_data_bytes = bytes;
                        true
                    }
                    None => {
                        push(answer, key, "Reject");
                        true
                    }
                };
            }
            "MaxBurstLength" => least(value, BURST_BYTES, &mut self.burst_bytes),
            "FirstBurstLength" => least(value, FIRST_BURST_BYTES, &mut self.first_burst_bytes),
            "DataPDUInOrder" | "DataSequenceInOrder" => flag(value, |_| true),
            "MaxConnections" | "MaxOutstandingR2T" => known(number(value).is_some(), "1"),
            "ErrorRecoveryLevel" | "DefaultTime2Retain" => known(number(value).is_some(), "0"),
            "DefaultTime2Wait" => {
                number(value).filter(|&wait| wait <= 3600).map_or("Reject".to_owned(), |wait| wait.to_string())
            }
            "OFMarker" | "IFMarker" => known(true, "No"),
            "OFMarkInt" | "IFMarkInt" => known(true, "Irrelevant"),
            "TaskReporting" => known(value.split(',').any(|one| one == "RFC3720"), "RFC3720"),
            "iSCSIProtocolLevel" => known(number(value).is_some(), "1"),
            _ => return false,
        };
        push(answer, key, &reply);
        true
    }

    /// What we say of ourselves, unasked.
    pub(super) fn declare(answer: &mut Vec<u8>) {
        push(answer, "MaxRecvDataSegmentLength", &DATA_BYTES_MAX.to_string());
    }

    /// Makes what was agreed on consistent.
    pub(super) fn settle(&mut self) {
        self.first_burst_bytes = self.first_burst_bytes.min(self.burst_bytes);
    }
}

fn known(is_fine: bool, reply: &str) -> String {
    if is_fine { reply.to_owned() } else { "Reject".to_owned() }
}

/// The initiator's first choice among those that we know.
fn digest(value: &str, wanted: &mut bool) -> String {
    match value.split(',').find(|name| matches!(*name, "CRC32C" | "None")) {
        Some(name) => {
            *wanted = name == "CRC32C";
            name.to_owned()
        }
        None => "Reject".to_owned(),
    }
}

fn flag(value: &str, take: impl FnOnce(bool) -> bool) -> String {
    match value {
        "Yes" | "No" => if take(value == "Yes") { "Yes" } else { "No" }.to_owned(),
        _ => "Reject".to_owned(),
    }
}

fn length(value: &str) -> Option<u32> {
    number(value).filter(|bytes| LENGTHS.contains(bytes))
}

fn least(value: &str, ours: u32, agreed: &mut u32) -> String {
    match length(value) {
        Some(theirs) => {
            *agreed = theirs.min(ours);
            agreed.to_string()
        }
        None => "Reject".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iscsi::text::pairs;

    fn ask(parameters: &mut Parameters, key: &str, value: &str) -> Option<String> {
        let mut answer = Vec::new();
        assert!(parameters.negotiate(key, value, &mut answer), "{key}");
        pairs(&answer).unwrap().first().map(|pair| pair.1.to_owned())
    }

    #[test]
    fn each_key_has_its_rule() {
        let mut agreed = Parameters::default();
        for (key, value, expected) in [
            ("HeaderDigest", "CRC32C,None", "CRC32C"),
            ("DataDigest", "None,CRC32C", "None"),
            ("DataDigest", "SHA", "Reject"),
            ("InitialR2T", "No", "No"),
            ("ImmediateData", "Yes", "Yes"),
            ("MaxBurstLength", "16776192", "1048576"),
            ("MaxBurstLength", "1", "Reject"),
            ("FirstBurstLength", "4096", "4096"),
            ("MaxConnections", "8", "1"),
            ("MaxOutstandingR2T", "16", "1"),
            ("ErrorRecoveryLevel", "2", "0"),
            ("DefaultTime2Wait", "2", "2"),
            ("DataPDUInOrder", "No", "Yes"),
            ("IFMarker", "Yes", "No"),
            ("TaskReporting", "RFC3720,FastAbort", "RFC3720"),
        ] {
            assert_eq!(ask(&mut agreed, key, value).as_deref(), Some(expected), "{key}={value}");
        }
        assert_eq!(ask(&mut agreed, "MaxRecvDataSegmentLength", "65536"), None);
        assert_eq!(ask(&mut agreed, "MaxRecvDataSegmentLength", "0").as_deref(), Some("Reject"));
        agreed.settle();
        let mut small = Parameters::default();
        ask(&mut small, "MaxBurstLength", "4096");
        small.settle();
        assert_eq!((small.burst_bytes, small.first_burst_bytes), (4096, 4096));
        let expected = Parameters {
            header_digest: true,
            initial_r2t: false,
            peer_data_bytes: 65536,
            first_burst_bytes: 4096,
            burst_bytes: 1 << 20,
            ..Parameters::default()
        };
        assert_eq!(agreed, expected);
        assert!(!agreed.negotiate("X-other", "1", &mut Vec::new()));
    }
}

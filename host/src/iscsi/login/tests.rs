//! Logins as initiators make them, and as they should not.

use super::*;
use md5::{Digest, Md5};
use proptest::prelude::*;
use std::io::Write;

const IQN: &str = "iqn.2026-01.swarmdisk:image";
const WHO: &[(&str, &str)] = &[("InitiatorName", "iqn.2026-01.test:me"), ("TargetName", IQN)];

fn request(flags: u8, pairs: &[(&str, &str)]) -> (Header, Vec<u8>) {
    let mut text = Vec::new();
    pairs.iter().for_each(|(key, value)| push(&mut text, key, value));
    let header = Header::reply(op::LOGIN, 9).with_byte(0, 0x40 | op::LOGIN).with_byte(1, flags);
    (header.with_u32(24, 77).with_data_bytes(text.len()), text)
}

fn ask(login: &mut Login<'_>, flags: u8, pairs: &[(&str, &str)]) -> (Response, Step) {
    let (header, text) = request(flags, pairs);
    login.handle(&header, &text)
}

fn status(response: &Response) -> u16 {
    u16::from_be_bytes(response.header.array(36))
}

fn with_who<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    WHO.iter().chain(more).copied().collect()
}

fn chap(lines: &str) -> Chap {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(lines.as_bytes()).unwrap();
    Chap::read(file.path()).unwrap()
}

#[test]
fn a_login_without_secrets_takes_two_steps() {
    let mut login = Login::new(IQN, None);
    let (response, step) = ask(&mut login, 0x81, &with_who(&[("AuthMethod", "CHAP,None")]));
    assert_eq!((step, status(&response), response.header.flags()), (Step::Next, 0, 0x81));
    let told = pairs(&response.text).unwrap();
    assert_eq!((value(&told, "AuthMethod"), value(&told, "TargetPortalGroupTag")), (Some("None"), Some("1")));
    let (response, step) = ask(&mut login, 0x87, &[("HeaderDigest", "CRC32C"), ("X-new", "1")]);
    let Step::Done(done) = step else { panic!("{step:?}") };
    assert_eq!(
        (done.nexus.initiator.as_str(), done.is_discovery, done.command_number),
        ("iqn.2026-01.test:me", false, 77)
    );
    assert!(done.parameters.header_digest && !done.parameters.data_digest);
    let told = pairs(&response.text).unwrap();
    assert_eq!(value(&told, "X-new"), Some("NotUnderstood"));
    assert_eq!(value(&told, "MaxRecvDataSegmentLength"), Some("262144"));
}

#[test]
fn one_step_will_do_where_nothing_is_asked_for() {
    let mut login = Login::new(IQN, None);
    let (response, step) = ask(&mut login, 0x87, WHO);
    assert!(matches!(step, Step::Done(_)) && status(&response) == 0);
    let mut login = Login::new(IQN, None);
    let discovery = [("InitiatorName", "iqn.2026-01.test:me"), ("SessionType", "Discovery")];
    let (_, step) = ask(&mut login, 0x87, &discovery);
    assert!(matches!(step, Step::Done(done) if done.is_discovery));
}

#[test]
fn text_may_come_in_several_units() {
    let mut login = Login::new(IQN, None);
    let (header, text) = request(0x87, WHO);
    let (first, second) = text.split_at(20);
    let (response, step) = login.handle(&header.with_byte(1, 0x44).with_data_bytes(20), first);
    assert_eq!((step, response.text.len(), status(&response)), (Step::Next, 0, 0));
    let (response, step) = login.handle(&header, second);
    assert!(matches!(step, Step::Done(_)));
    assert_eq!(value(&pairs(&response.text).unwrap(), "TargetPortalGroupTag"), Some("1"));
    // But not without end.
    let mut login = Login::new(IQN, None);
    let junk = vec![b'a'; TEXT_BYTES_MAX];
    assert_eq!(login.handle(&header.with_byte(1, 0x44), &junk).1, Step::Next);
    assert_eq!(login.handle(&header.with_byte(1, 0x44), &junk).1, Step::Refused);
}

#[test]
fn a_login_takes_so_many_requests_and_no_more() {
    let mut login = Login::new(IQN, None);
    for request in 0..=REQUESTS_MAX {
        let (_, step) = ask(&mut login, 0x04, WHO);
        assert_eq!(step, if request < REQUESTS_MAX { Step::Next } else { Step::Refused }, "{request}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    let refused = |flags: u8, pairs: &[(&str, &str)], chap: Option<&Chap>| {
        let (response, step) = ask(&mut Login::new(IQN, chap), flags, pairs);
        assert_eq!(step, Step::Refused, "{pairs:?}");
        Refusal(status(&response))
    };
    assert_eq!(refused(0x87, &WHO[1..], None), Refusal::MISSING_PARAMETER);
    assert_eq!(refused(0x87, &WHO[..1], None), Refusal::MISSING_PARAMETER);
    assert_eq!(refused(0x87, &[WHO[0], ("TargetName", "iqn.2026-01.swarmdisk:other")], None), Refusal::NOT_FOUND);
    assert_eq!(refused(0x87, &with_who(&[("SessionType", "Odd")]), None), Refusal::SESSION_TYPE);
    assert_eq!(refused(0x81, &with_who(&[("AuthMethod", "KRB5")]), None), Refusal::AUTHENTICATION);
    // A stage that is none, one that is not next, one that goes back.
    assert_eq!(refused(0x8f, WHO, None), Refusal::INITIATOR);
    assert_eq!(refused(0x84, WHO, None), Refusal::INITIATOR);
    assert_eq!(refused(0x86, WHO, None), Refusal::INITIATOR);
    let secret = chap("guest 0123456789ab");
    // Past the stage in which it is asked who it is.
    assert_eq!(refused(0x87, WHO, Some(&secret)), Refusal::AUTHENTICATION);
    assert_eq!(refused(0x81, &with_who(&[("AuthMethod", "None")]), Some(&secret)), Refusal::AUTHENTICATION);
    assert_eq!(refused(0x44 | 0x80, WHO, None), Refusal::INITIATOR);
}

/// A login with CHAP that answers with this secret; what it comes to.
fn prove(chap: &Chap, name: &str, secret: &str, more: &[(&str, &str)]) -> (Response, Step) {
    let mut login = Login::new(IQN, Some(chap));
    let (response, _) = ask(&mut login, 0x81, &with_who(&[("AuthMethod", "CHAP,None")]));
    assert_eq!(response.header.flags(), 0, "not yet");
    let (response, _) = ask(&mut login, 0, &[("CHAP_A", "7,5")]);
    let told = pairs(&response.text).unwrap();
    let id = value(&told, "CHAP_I").unwrap().parse::<u8>().unwrap();
    let challenge = binary(value(&told, "CHAP_C").unwrap()).unwrap();
    let proof = Md5::new().chain_update([id]).chain_update(secret).chain_update(challenge).finalize();
    let proof = to_binary(&proof);
    let own = [&[("CHAP_N", name), ("CHAP_R", &proof)], more].concat();
    ask(&mut login, 0x81, &own)
}

#[test]
fn only_who_knows_the_secret_comes_in() {
    let file = chap("guest 0123456789ab\ntarget abcdefghijkl");
    let (response, step) = prove(&file, "guest", "0123456789ab", &[]);
    assert_eq!((step, status(&response), response.header.flags()), (Step::Next, 0, 0x81));
    for (name, secret) in [("guest", "0123456789ac"), ("other", "0123456789ab")] {
        let (response, step) = prove(&file, name, secret, &[]);
        assert_eq!((step, Refusal(status(&response))), (Step::Refused, Refusal::AUTHENTICATION));
    }
    // In turn.
    let (response, _) = prove(&file, "guest", "0123456789ab", &[("CHAP_I", "3"), ("CHAP_C", "0x0102")]);
    let told = pairs(&response.text).unwrap();
    let expected = Md5::new().chain_update([3]).chain_update("abcdefghijkl").chain_update([1, 2]).finalize();
    assert_eq!((value(&told, "CHAP_N"), value(&told, "CHAP_R")), (Some("target"), Some(&*to_binary(&expected))));
    // It has nothing to show.
    let file = chap("guest 0123456789ab");
    let (_, step) = prove(&file, "guest", "0123456789ab", &[("CHAP_I", "3"), ("CHAP_C", "0x0102")]);
    assert_eq!(step, Step::Refused);
}

proptest! {
    #[test]
    fn without_the_secret_nobody_comes_in_whatever_is_sent(
        units in proptest::collection::vec(
            (any::<u8>(), proptest::sample::subsequence(vec![
                ("InitiatorName", "iqn.2026-01.test:me"), ("TargetName", IQN), ("AuthMethod", "CHAP,None"),
                ("AuthMethod", "None"), ("CHAP_A", "5"), ("CHAP_N", "guest"), ("CHAP_R", "0x00"),
                ("CHAP_I", "1"), ("CHAP_C", "0x01"), ("SessionType", "Discovery"), ("HeaderDigest", "CRC32C"),
            ], 0..11)), 0..12),
        header: [u8; 16], junk in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let secret = chap("guest 0123456789ab");
        let mut login = Login::new(IQN, Some(&secret));
        for (flags, pairs) in units {
            let (_, step) = ask(&mut login, flags, &pairs);
            prop_assert!(!matches!(step, Step::Done(_)));
            if step == Step::Refused {
                break;
            }
        }
        let mut odd = request(header[0], &[]).0;
        odd.0[..16].copy_from_slice(&header);
        prop_assert!(!matches!(login.handle(&odd, &junk).1, Step::Done(_)));
    }
}

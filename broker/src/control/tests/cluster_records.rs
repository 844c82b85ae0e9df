//! Client quotas and settings of nodes.

use super::*;
use crate::quotas::Quota;
use millrace_storage::meta::records::{QuotaEntity, QuotaPart};

fn client(name: &str) -> QuotaEntity {
    QuotaEntity { user: QuotaPart::Absent, client_id: QuotaPart::Named(name.to_owned()) }
}

fn rate(name: &str, rate: Option<u64>) -> QuotaAlteration {
    QuotaAlteration { entity: client(name), changes: vec![(Quota::Produce.name().to_owned(), rate)] }
}

impl Desk {
    fn limit(&mut self, token: u64, alterations: Vec<QuotaAlteration>, validate_only: bool) {
        self.ask(0, ToControl::AlterQuotas { token: Token(token), alterations, validate_only });
    }

    fn set_nodes(&mut self, token: u64, node: Option<i32>, name: &str, value: &str) {
        let change = SettingsChange::Each([(name.to_owned(), SettingChange::Set(value.to_owned()))].into());
        let alterations = vec![NodeAlteration { node, change }];
        self.ask(1, ToControl::AlterNodes { token: Token(token), alterations, validate_only: false });
    }

    fn altered(&self, token: u64) -> Option<Vec<ErrorCode>> {
        self.messages.iter().find_map(|(_, message)| match message {
            FromControl::Altered { token: found, results } if found.0 == token => {
                let code = |result: &Result<(), crate::control::topic_rules::Refusal>| {
                    result.as_ref().err().map_or(ErrorCode::None, |refusal| refusal.error)
                };
                Some(results.iter().map(code).collect())
            }
            _ => None,
        })
    }

    fn rate_of(&self, name: &str) -> Option<u64> {
        self.image().quotas.find(Quota::Produce, "u", name).map(|(rate, _)| rate)
    }
}

#[test]
fn quotas_and_settings_are_durable_and_in_the_image_before_their_answer() {
    let mut desk = Desk::new();
    desk.limit(1, vec![rate("a", Some(5)), rate("b", Some(6)), rate("gone", None)], false);
    desk.set_nodes(2, Some(2), "log.retention.ms", "1000");
    desk.set_nodes(3, None, "message.max.bytes", "2000");
    assert_eq!(desk.altered(1), Some(vec![ErrorCode::None; 3]));
    let answered = desk.messages.iter().position(|(_, m)| matches!(m, FromControl::Altered { .. })).unwrap();
    let shown = desk.messages.iter().position(|(_, message)| match message {
        FromControl::Image(image) => !image.quotas.is_empty(),
        _ => false,
    });
    assert!(shown.expect("it is shown") < answered);
    desk.limit(4, vec![rate("b", None)], false);

    let mut next = Desk::on(desk.meta.clone(), desk.objects.clone());
    next.settle();
    assert_eq!((next.rate_of("a"), next.rate_of("b")), (Some(5), None));
    let settings = next.image().node_settings.clone();
    assert_eq!(settings.set_values(2, "log.retention.ms").0.map(String::as_str), Some("1000"));
    assert_eq!(settings.set_values(1, "message.max.bytes").1.map(String::as_str), Some("2000"));
    assert_eq!(settings.set_values(1, "log.retention.ms"), (None, None));
}

#[test]
fn what_is_only_checked_or_refused_changes_nothing() {
    let mut desk = Desk::new();
    desk.limit(1, vec![rate("a", Some(5))], true);
    assert_eq!((desk.altered(1), desk.rate_of("a")), (Some(vec![ErrorCode::None]), None));
    desk.set_nodes(2, None, "num.partitions", "9");
    desk.set_nodes(3, None, "log.retention.ms", "soon");
    assert_eq!(desk.altered(2), Some(vec![ErrorCode::InvalidRequest]));
    assert_eq!(desk.altered(3), Some(vec![ErrorCode::InvalidRequest]));
    assert_eq!(*desk.image().node_settings, NodeSettings::default());
}

#[test]
fn a_long_question_is_answered_once_all_of_it_is_durable() {
    let mut desk = Desk::new();
    let many = (0..120).map(|at| rate(&at.to_string(), Some(at + 1))).collect();
    desk.limit(1, many, false);
    assert_eq!(desk.altered(1).map(|codes| codes.len()), Some(120));
    assert_eq!((desk.rate_of("0"), desk.rate_of("119")), (Some(1), Some(120)));
}

#[test]
fn a_change_whose_transaction_is_unsure_is_made_once_and_answered_when_it_is_sure() {
    for fate in [Fate::AnswerLost, Fate::RequestLost] {
        let mut desk = Desk::new();
        let mut failures = 2;
        desk.fate = Box::new(move |call| match call {
            StoreCall::Txn(_) if failures > 0 => {
                failures -= 1;
                fate
            }
            _ => Fate::Works,
        });
        desk.limit(1, vec![rate("a", Some(5)), rate("b", Some(6))], false);
        assert_eq!(desk.altered(1), None);
        while desk.altered(1).is_none() {
            desk.wait();
        }
        assert_eq!(desk.altered(1), Some(vec![ErrorCode::None; 2]), "{fate:?}");
        assert_eq!((desk.rate_of("a"), desk.rate_of("b")), (Some(5), Some(6)));
    }
}

#[test]
fn a_store_that_is_silent_has_those_who_wait_told_so_and_is_asked_again_later() {
    let mut desk = Desk::new();
    let silent = Rc::new(Cell::new(true));
    let is_silent = silent.clone();
    desk.fate = Box::new(move |_| if is_silent.get() { Fate::RequestLost } else { Fate::Works });
    desk.limit(1, vec![rate("a", Some(5))], false);
    desk.limit(2, vec![rate("b", Some(6))], false);
    while desk.altered(1).is_none() {
        desk.wait();
    }
    assert_eq!(desk.altered(1), Some(vec![ErrorCode::RequestTimedOut]));
    assert_eq!(desk.altered(2), Some(vec![ErrorCode::RequestTimedOut]));
    silent.set(false);
    desk.limit(3, vec![rate("c", Some(7))], false);
    while desk.altered(3).is_none() {
        desk.wait();
    }
    assert_eq!(desk.altered(3), Some(vec![ErrorCode::None]));
    assert_eq!((desk.rate_of("a"), desk.rate_of("c")), (None, Some(7)));
}

#[test]
fn entities_with_quotas_are_bounded() {
    let mut desk = Desk::new();
    let all = u64::try_from(crate::control::MOST_ENTITIES).unwrap();
    desk.limit(1, (0..all).map(|at| rate(&at.to_string(), Some(1))).collect(), false);
    desk.limit(2, vec![rate("one more", Some(1)), rate("7", Some(2)), rate("8", None)], false);
    assert_eq!(desk.altered(2), Some(vec![ErrorCode::PolicyViolation, ErrorCode::None, ErrorCode::None]));
    desk.limit(3, vec![rate("one more", Some(1))], false);
    assert_eq!(desk.altered(3), Some(vec![ErrorCode::None]));
}

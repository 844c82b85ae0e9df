//! AlterClientQuotas and DescribeClientQuotas. What is set is taken away again: quotas of one run would hold back the next.

use crate::pair::{Pair, Side, versions};
use millrace_protocol::messages::alter_client_quotas::{EntityData, EntryData, OpData};
use millrace_protocol::messages::describe_client_quotas::ComponentData;
use millrace_protocol::messages::{
    AlterClientQuotasRequest, AlterClientQuotasResponse, DescribeClientQuotasRequest, DescribeClientQuotasResponse,
};
use millrace_protocol::{Double, StrBytes};
use std::io;

const PRODUCE: &str = "producer_byte_rate";
const FETCH: &str = "consumer_byte_rate";
/// Far above what the comparison sends.
const RATE: f64 = 1e12;
/// How a component matches.
const EXACT: i8 = 0;
const DEFAULT: i8 = 1;
const ANY: i8 = 2;

/// Type and name of a part of an entity; `None`: the default.
type Part = (&'static str, Option<&'static str>);

pub(crate) fn run(pair: &mut Pair) -> io::Result<()> {
    entities(pair)?;
    values(pair)?;
    filters(pair)?;
    changes(pair)
}

/// Names of this run but for those that are to be wrong.
fn named(side: &Side, name: &'static str) -> StrBytes {
    if name.is_empty() { StrBytes::new() } else { side.name(name) }
}

fn entity(side: &Side, parts: &[Part]) -> Vec<EntityData> {
    let part = |(kind, name): &Part| EntityData {
        entity_type: (*kind).into(),
        entity_name: name.map(|name| if *kind == "ip" { name.into() } else { named(side, name) }),
    };
    parts.iter().map(part).collect()
}

fn set(key: &'static str, value: f64) -> OpData {
    OpData { key: key.into(), value: Double(value), remove: false }
}

fn remove(key: &'static str) -> OpData {
    OpData { key: key.into(), value: Double(0.0), remove: true }
}

fn alter(entries: Vec<EntryData>, validate_only: bool) -> AlterClientQuotasRequest {
    AlterClientQuotasRequest { entries, validate_only }
}

/// Entries have no key of their own: they come in the order of what they say.
fn in_order(response: &mut AlterClientQuotasResponse) {
    response.entries.iter_mut().for_each(|entry| entry.entity.sort_by_key(|part| part.entity_type.clone()));
    response.entries.sort_by_key(|entry| format!("{:?}", entry.entity));
}

fn described_in_order(response: &mut DescribeClientQuotasResponse) {
    let Some(entries) = &mut response.entries else { return };
    entries.iter_mut().for_each(|entry| entry.entity.sort_by_key(|part| part.entity_type.clone()));
    entries.sort_by_key(|entry| format!("{:?}", entry.entity));
}

fn every(pair: &mut Pair, case: &str, make: impl Fn(&Side) -> AlterClientQuotasRequest) -> io::Result<()> {
    for version in versions::<AlterClientQuotasRequest>() {
        pair.ask_and_clean(case, version, &make, in_order)?;
    }
    Ok(())
}

fn entities(pair: &mut Pair) -> io::Result<()> {
    let cases: &[(&str, &[Part])] = &[
        ("a user", &[("user", Some("u"))]),
        ("every user", &[("user", None)]),
        ("a client id", &[("client-id", Some("c"))]),
        ("every client id", &[("client-id", None)]),
        ("a user and a client id", &[("user", Some("u")), ("client-id", Some("c"))]),
        ("a client id and a user", &[("client-id", Some("c")), ("user", Some("u"))]),
        ("no part", &[]),
        ("an unknown type", &[("group", Some("g"))]),
        ("an empty type", &[("", Some("g"))]),
        ("an empty user", &[("user", Some(""))]),
        ("an empty client id", &[("client-id", Some(""))]),
        ("a user twice", &[("user", Some("u")), ("user", Some("u"))]),
        ("two users", &[("user", Some("u")), ("user", Some("v"))]),
        ("an ip", &[("ip", Some("127.0.0.1"))]),
        ("an ip and a user", &[("ip", Some("127.0.0.1")), ("user", Some("u"))]),
    ];
    for (case, parts) in cases {
        every(pair, &format!("{case}, only checked"), |side| {
            alter(vec![EntryData { entity: entity(side, parts), ops: vec![set(PRODUCE, RATE)] }], true)
        })?;
    }
    every(pair, "the rate of connections of an ip, only checked", |side| {
        let entity = entity(side, &[("ip", Some("127.0.0.1"))]);
        alter(vec![EntryData { entity, ops: vec![set("connection_creation_rate", 5.0)] }], true)
    })?;
    every(pair, "no entry", |_| alter(Vec::new(), false))?;
    every(pair, "an entity twice, only checked", |side| {
        let entry = EntryData { entity: entity(side, &[("user", Some("u"))]), ops: vec![set(PRODUCE, RATE)] };
        alter(vec![entry.clone(), entry], true)
    })
}

fn values(pair: &mut Pair) -> io::Result<()> {
    let cases: &[(&str, &[OpData])] = &[
        ("no quota", &[]),
        ("one", &[set(PRODUCE, 1.0)]),
        ("both", &[set(PRODUCE, RATE), set(FETCH, RATE)]),
        ("zero", &[set(PRODUCE, 0.0)]),
        ("negative", &[set(PRODUCE, -1.0)]),
        ("a fraction", &[set(PRODUCE, 1.5)]),
        ("nearly whole", &[set(PRODUCE, 10.000_000_1)]),
        ("a fraction below one", &[set(FETCH, 0.5)]),
        ("very large", &[set(PRODUCE, 1e300)]),
        ("no number", &[set(PRODUCE, f64::NAN)]),
        ("endless", &[set(PRODUCE, f64::INFINITY)]),
        ("an unknown quota", &[set("no_such_rate", 1.0)]),
        ("an unknown quota taken away", &[remove("no_such_rate")]),
        ("a quota without a name", &[set("", 1.0)]),
        ("a quota of ips", &[set("connection_creation_rate", 1.0)]),
        ("request_percentage", &[set("request_percentage", 50.0)]),
        ("controller_mutation_rate", &[set("controller_mutation_rate", 50.0)]),
        ("request_percentage taken away", &[remove("request_percentage")]),
        ("a quota twice", &[set(PRODUCE, RATE), set(PRODUCE, 2.0 * RATE)]),
        ("set and taken away", &[set(PRODUCE, RATE), remove(PRODUCE)]),
        ("good and bad", &[set(PRODUCE, RATE), set(FETCH, 0.0)]),
    ];
    for (case, ops) in cases {
        every(pair, &format!("{case}, only checked"), |side| {
            alter(vec![EntryData { entity: entity(side, &[("user", Some("u"))]), ops: ops.to_vec() }], true)
        })?;
    }
    Ok(())
}

fn component(kind: &'static str, match_type: i8, match_name: Option<StrBytes>) -> ComponentData {
    ComponentData { entity_type: kind.into(), match_type, match_name }
}

fn filters(pair: &mut Pair) -> io::Result<()> {
    let text = |text: &'static str| Some(StrBytes::from_static(text));
    let cases: &[(&str, Vec<ComponentData>)] = &[
        ("an empty type", vec![component("", ANY, None)]),
        ("an unknown type", vec![component("group", ANY, None)]),
        ("a type twice", vec![component("user", ANY, None), component("user", DEFAULT, None)]),
        ("a name that is null", vec![component("user", EXACT, None)]),
        ("a name that is empty", vec![component("user", EXACT, text(""))]),
        ("a name beside the default", vec![component("user", DEFAULT, text("u"))]),
        ("a name beside any", vec![component("user", ANY, text("u"))]),
        ("an unknown match", vec![component("user", 3, None)]),
        ("a negative match", vec![component("user", -1, None)]),
        ("an ip", vec![component("ip", EXACT, text("127.0.0.9"))]),
        ("any ip", vec![component("ip", ANY, None)]),
        ("an ip and a user", vec![component("ip", ANY, None), component("user", ANY, None)]),
        ("nobody", vec![component("user", EXACT, text("nobody"))]),
    ];
    for (case, components) in cases {
        for strict in [false, true] {
            pair.every(&format!("{case}, strict {strict}"), |_, _| DescribeClientQuotasRequest {
                components: components.clone(),
                strict,
            })?;
        }
    }
    Ok(())
}

/// Every way to ask for what is there now.
fn described(pair: &mut Pair, case: &str) -> io::Result<()> {
    let exact = |side: &Side, kind, name| component(kind, EXACT, Some(side.name(name)));
    for strict in [false, true] {
        for (of, filter) in [
            ("all", 0),
            ("the user", 1),
            ("the client id", 2),
            ("both", 3),
            ("every user", 4),
            ("any user", 5),
            ("any user and client id", 6),
        ] {
            let components = |side: &Side| match filter {
                0 => Vec::new(),
                1 => vec![exact(side, "user", "u")],
                2 => vec![exact(side, "client-id", "c")],
                3 => vec![exact(side, "user", "u"), exact(side, "client-id", "c")],
                4 => vec![component("user", DEFAULT, None)],
                5 => vec![component("user", ANY, None)],
                _ => vec![component("user", ANY, None), component("client-id", ANY, None)],
            };
            let request = |side: &Side| DescribeClientQuotasRequest { components: components(side), strict };
            pair.settle_and_clean(&format!("{case}: {of}, strict {strict}"), 1, request, described_in_order)?;
        }
    }
    Ok(())
}

fn changes(pair: &mut Pair) -> io::Result<()> {
    let user: &[Part] = &[("user", Some("u"))];
    let all: &[&[Part]] = &[
        user,
        &[("client-id", Some("c"))],
        &[("user", Some("u")), ("client-id", Some("c"))],
        &[("user", None)],
        &[("client-id", None)],
        &[("user", None), ("client-id", Some("c"))],
    ];
    let entry = |side: &Side, parts: &[Part], ops: Vec<OpData>| EntryData { entity: entity(side, parts), ops };
    let for_all =
        |side: &Side, ops: Vec<OpData>| alter(all.iter().map(|parts| entry(side, parts, ops.clone())).collect(), false);
    let step = |pair: &mut Pair, case: &str, make: &dyn Fn(&Side) -> AlterClientQuotasRequest| {
        pair.ask_and_clean(case, 1, make, in_order)?;
        described(pair, case)
    };
    step(pair, "set of all", &|side| for_all(side, vec![set(PRODUCE, RATE)]))?;
    step(pair, "one more of the user", &|side| alter(vec![entry(side, user, vec![set(FETCH, 2.0 * RATE)])], false))?;
    step(pair, "one of two taken away, the other changed", &|side| {
        alter(vec![entry(side, user, vec![remove(PRODUCE), set(FETCH, RATE)])], false)
    })?;
    step(pair, "good and bad entries", &|side| {
        let bad = entry(side, &[("client-id", Some("c"))], vec![set(PRODUCE, -1.0)]);
        alter(vec![bad, entry(side, user, vec![set(PRODUCE, 5.0 * RATE)])], false)
    })?;
    step(pair, "all taken away", &|side| for_all(side, vec![remove(PRODUCE), remove(FETCH)]))
}

//! The two brokers: asked the same, compared.

use crate::client::{Client, Outcome};
use crate::names::{Names, unknown_id};
use crate::report::Report;
use crate::tree::Tree;
use bytes::Bytes;
use millrace_protocol::StrBytes;
use millrace_protocol::api::ApiKey;
use millrace_protocol::codec::Request;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::create_topics::{CreatableTopic, CreatableTopicConfig};
use millrace_protocol::messages::describe_configs::DescribeConfigsResource;
use millrace_protocol::messages::incremental_alter_configs::{IncrementalConfig, IncrementalResource};
use millrace_protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use millrace_protocol::messages::metadata::MetadataRequestTopic;
use millrace_protocol::messages::{
    CreateTopicsRequest, DescribeConfigsRequest, DescribeGroupsRequest, FindCoordinatorRequest,
    IncrementalAlterConfigsRequest, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest,
};
use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long an answer may take: joining an empty group takes Millrace three seconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same where none may be missing.
const LONG_PATIENCE: Duration = Duration::from_secs(60);
/// How long an answer is awaited where none is due.
const SILENCE: Duration = Duration::from_millis(300);
/// The end of a log, as ListOffsets asks for it.
const LATEST: i64 = -1;
/// Pauses between looks at a broker that is not ready, and how many looks.
const PAUSE: Duration = Duration::from_millis(50);
const LOOKS: usize = 2_400;
/// Looks at an answer that may still change.
const SETTLING_LOOKS: usize = 20;
/// A setting of nodes, and the type of resource that has it.
const ASSIGNMENT_INTERVAL: &str = "group.consumer.assignment.interval.ms";
const OF_NODE: i8 = 4;
/// Group names that together lie on every partition of Kafka's offsets topic, nearly surely.
const PROBED_GROUPS: usize = 600;

/// One broker and what this run knows of it.
#[derive(Debug)]
pub(crate) struct Side {
    client: Client,
    names: Names,
    /// Id of the member that a group scenario plays.
    pub(crate) member: StrBytes,
    /// The producer id that a scenario was given.
    pub(crate) producer: i64,
    /// The fetch session that a scenario was given.
    pub(crate) session: i32,
    /// Leader epoch of every partition: nothing moves in a run.
    pub(crate) epoch: i32,
    /// Append times that a scenario was told, Unix ms.
    pub(crate) append_times: Vec<i64>,
    /// Unix ms at the start of the run.
    pub(crate) started_ms: i64,
}

impl Side {
    /// A topic or group of this run.
    pub(crate) fn name(&self, name: &str) -> StrBytes {
        StrBytes::from(format!("{}{name}", self.names.tag))
    }

    /// The id of a topic that [`Pair::make_topic`] made, or that no topic has.
    pub(crate) fn id(&self, name: &str) -> Uuid {
        self.names.ids.get(name).copied().unwrap_or(unknown_id())
    }

    /// The node's id as text.
    pub(crate) fn node(&self) -> i32 {
        self.names.node
    }

    /// What came of a request that has an answer, however busy the machine is.
    pub(crate) fn send<R: Request>(&mut self, request: &R, version: i16) -> io::Result<Outcome<R::Response>> {
        self.client.exchange(request, version, LONG_PATIENCE)
    }

    fn exchange<R: Request>(&mut self, request: &R, version: i16) -> io::Result<Option<R::Response>> {
        self.client.exchange(request, version, PATIENCE).map(Outcome::answer)
    }

    /// Learns of the node and waits until groups can be asked for.
    fn prepare(&mut self) -> io::Result<()> {
        let request = MetadataRequest::default();
        let metadata = self.exchange(&request, 9)?.ok_or(io::Error::other("no answer to Metadata"))?;
        let [node] = metadata.brokers.as_slice() else {
            return Err(io::Error::other("the comparison needs clusters of one node (millrace serve --shards 1)"));
        };
        (self.names.node, self.names.host, self.names.port) = (node.node_id, node.host.to_string(), node.port);
        let groups: Vec<StrBytes> = (0..PROBED_GROUPS).map(|at| self.name(&format!("probe-{at}"))).collect();
        for _ in 0..LOOKS {
            let find = FindCoordinatorRequest { coordinator_keys: groups.clone(), ..Default::default() };
            let found = self.exchange(&find, 4)?.is_some_and(|r| r.coordinators.iter().all(|c| c.error_code.is_none()));
            let describe = DescribeGroupsRequest { groups: groups.clone(), ..Default::default() };
            let settled = |error| matches!(error, ErrorCode::None | ErrorCode::GroupIdNotFound);
            let loaded = self.exchange(&describe, 6)?.is_some_and(|r| r.groups.iter().all(|g| settled(g.error_code)));
            let init = InitProducerIdRequest { transactional_id: None, ..Default::default() };
            let ids = self.exchange(&init, 4)?.is_some_and(|r| r.error_code.is_none());
            if found && loaded && ids {
                return Ok(());
            }
            pause();
        }
        Err(io::Error::other("the broker's coordinator does not come up"))
    }

    fn make_topic(&mut self, name: &str, partitions: i32, configs: &[CreatableTopicConfig]) -> io::Result<()> {
        let topic = CreatableTopic {
            name: self.name(name),
            num_partitions: partitions,
            replication_factor: 1,
            configs: configs.to_vec(),
            ..Default::default()
        };
        let create = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
        self.exchange(&create, 7)?;
        self.await_topic(name, partitions)
    }

    /// Learns of a topic and waits until the node leads all of it.
    fn await_topic(&mut self, name: &str, partitions: i32) -> io::Result<()> {
        let named = MetadataRequestTopic { name: Some(self.name(name)), ..Default::default() };
        let ask = MetadataRequest { topics: Some(vec![named]), allow_auto_topic_creation: false, ..Default::default() };
        for _ in 0..LOOKS {
            let found = self.exchange(&ask, 12)?.and_then(|mut answer| answer.topics.pop());
            if let Some(found) = found
                && found.error_code.is_none()
                && found.partitions.iter().all(|partition| partition.error_code.is_none())
            {
                self.names.ids.insert(name.to_owned(), found.topic_id);
                self.epoch = found.partitions[0].leader_epoch;
                // A leader that Metadata names may not know of it yet.
                if self.leads(name, partitions)? {
                    return Ok(());
                }
            }
            pause();
        }
        Err(io::Error::other(format!("topic {name} does not come up at port {}", self.names.port)))
    }

    /// Whether the node answers for every partition of a topic.
    fn leads(&mut self, topic: &str, partitions: i32) -> io::Result<bool> {
        let latest =
            |partition_index| ListOffsetsPartition { partition_index, timestamp: LATEST, ..Default::default() };
        let asked = ListOffsetsTopic { name: self.name(topic), partitions: (0..partitions).map(latest).collect() };
        let request = ListOffsetsRequest { replica_id: -1, topics: vec![asked], ..Default::default() };
        let answer = self.exchange(&request, 7)?;
        let told = answer.iter().flat_map(|answer| &answer.topics).flat_map(|topic| &topic.partitions);
        let leading = told.filter(|partition| partition.error_code.is_none()).count();
        Ok(i32::try_from(leading) == Ok(partitions))
    }
}

/// Both brokers and the report.
#[derive(Debug)]
pub(crate) struct Pair {
    /// The reference.
    pub(crate) left: Side,
    /// Millrace.
    pub(crate) right: Side,
    /// What was found so far.
    pub(crate) report: Report,
    only: Option<String>,
}

impl Pair {
    /// Connects to both. `tag` names the run, `only` leaves other cases out of the report.
    pub(crate) fn new(
        left: &str,
        right: &str,
        (tag, started_ms): (u32, i64),
        report: Report,
        only: Option<String>,
    ) -> io::Result<Pair> {
        let side = |address: &str| Side {
            client: Client::new(address),
            names: Names { tag: format!("d{tag}-"), node: -1, host: String::new(), port: 0, ids: BTreeMap::new() },
            member: StrBytes::new(),
            producer: -1,
            session: 0,
            epoch: -1,
            append_times: Vec::new(),
            started_ms,
        };
        let mut pair = Pair { left: side(left), right: side(right), report, only };
        pair.left.prepare()?;
        pair.right.prepare()?;
        Ok(pair)
    }

    /// Makes a topic on both and waits for its leaders.
    pub(crate) fn make_topic(&mut self, name: &str, partitions: i32) -> io::Result<()> {
        self.make_topic_with(name, partitions, &[])
    }

    /// As [`Pair::make_topic`], with settings.
    pub(crate) fn make_topic_with(
        &mut self,
        name: &str,
        partitions: i32,
        configs: &[CreatableTopicConfig],
    ) -> io::Result<()> {
        self.left.make_topic(name, partitions, configs)?;
        self.right.make_topic(name, partitions, configs)
    }

    /// Learns of a topic that an earlier run made, on both.
    pub(crate) fn find_topic(&mut self, name: &str, partitions: i32) -> io::Result<()> {
        self.left.await_topic(name, partitions)?;
        self.right.await_topic(name, partitions)
    }

    /// Whether the reference assigns partitions as soon as a group changes, as Millrace does. By default it waits a second
    /// between two assignments, so that epochs would tell how fast this program is.
    pub(crate) fn assign_at_once(&mut self, at_once: bool) -> io::Result<()> {
        let config_operation = i8::from(!at_once);
        let value = at_once.then(|| "0".into());
        let set = IncrementalConfig { name: ASSIGNMENT_INTERVAL.into(), config_operation, value };
        let nodes = IncrementalResource { resource_type: OF_NODE, resource_name: StrBytes::new(), configs: vec![set] };
        let alter = IncrementalAlterConfigsRequest { resources: vec![nodes], validate_only: false };
        let altered = self.left.exchange(&alter, 1)?;
        if !altered.is_some_and(|answer| answer.responses.iter().all(|response| response.error_code.is_none())) {
            return Err(io::Error::other(format!("the reference does not take {ASSIGNMENT_INTERVAL}")));
        }
        let node = DescribeConfigsResource {
            resource_type: OF_NODE,
            resource_name: self.left.node().to_string().into(),
            configuration_keys: Some(vec![ASSIGNMENT_INTERVAL.into()]),
        };
        let describe = DescribeConfigsRequest { resources: vec![node], ..Default::default() };
        for _ in 0..LOOKS {
            let answer = self.left.exchange(&describe, 4)?;
            let told = answer.iter().flat_map(|answer| &answer.results).flat_map(|result| &result.configs);
            if told.filter(|config| config.value.as_deref() == Some("0")).count() == usize::from(at_once) {
                return Ok(());
            }
            pause();
        }
        Err(io::Error::other(format!("{ASSIGNMENT_INTERVAL} does not reach the reference")))
    }

    /// Until both brokers give another timestamp than before.
    pub(crate) fn until_the_clock_moves(&self) {
        pause();
    }

    /// Asks both and compares.
    pub(crate) fn ask<R: Request>(
        &mut self,
        case: &str,
        version: i16,
        make: impl Fn(&Side) -> R,
    ) -> io::Result<Answers<R::Response>> {
        self.ask_and_clean(case, version, make, |_| {})
    }

    /// As [`Pair::ask`]; `clean` changes the responses before they are compared.
    pub(crate) fn ask_and_clean<R: Request>(
        &mut self,
        case: &str,
        version: i16,
        make: impl Fn(&Side) -> R,
        clean: impl Fn(&mut R::Response),
    ) -> io::Result<Answers<R::Response>> {
        self.ask_each(case, version, |side, _| make(side), clean)
    }

    /// As [`Pair::ask_and_clean`]; `make` is told whether a side is the left one.
    pub(crate) fn ask_each<R: Request>(
        &mut self,
        case: &str,
        version: i16,
        make: impl Fn(&Side, bool) -> R,
        clean: impl Fn(&mut R::Response),
    ) -> io::Result<Answers<R::Response>> {
        let ask = |side: &mut Side, is_left| {
            let request = make(side, is_left);
            let mut outcome = side.client.exchange(&request, version, PATIENCE)?;
            if let Outcome::Answered(response) = &mut outcome {
                clean(response);
            }
            Ok::<_, io::Error>((request, outcome))
        };
        let ((_, left), (request, right)) = (ask(&mut self.left, true)?, ask(&mut self.right, false)?);
        if !self.compare(R::KEY, version, case, &left, &right) {
            self.report.keep_request(R::KEY, case, &request);
        }
        Ok(Answers { left: left.answer(), right: right.answer() })
    }

    /// Asks both, and compares no more than whether an answer took longer than so many milliseconds.
    pub(crate) fn ask_in_time<R: Request>(
        &mut self,
        case: &str,
        version: i16,
        make: impl Fn(&Side) -> R,
        ms: u64,
    ) -> io::Result<()> {
        let waits = |side: &mut Side| {
            let request = make(side);
            let start = now();
            let answer = side.exchange(&request, version)?;
            let waited = start.elapsed() > Duration::from_millis(ms);
            let told = if answer.is_none() { "without an answer" } else { "answered" };
            Ok::<_, io::Error>(BTreeMap::from([
                ("outcome".to_owned(), told.to_owned()),
                ("waited".to_owned(), waited.to_string()),
            ]))
        };
        let (left, right) = (waits(&mut self.left)?, waits(&mut self.right)?);
        self.compare_leaves(R::KEY, version, case, &left, &right);
        Ok(())
    }

    /// As [`Pair::ask`], again and again until both say the same or have had time enough: a change may reach those who
    /// describe it after it was answered.
    pub(crate) fn settle<R: Request>(&mut self, case: &str, version: i16, make: impl Fn(&Side) -> R) -> io::Result<()> {
        self.settle_and_clean(case, version, make, |_| {})
    }

    /// As [`Pair::settle`]; `clean` changes the responses before they are compared.
    pub(crate) fn settle_and_clean<R: Request>(
        &mut self,
        case: &str,
        version: i16,
        make: impl Fn(&Side) -> R,
        clean: impl Fn(&mut R::Response),
    ) -> io::Result<()> {
        let cleaned = |mut outcome: Outcome<R::Response>| {
            if let Outcome::Answered(response) = &mut outcome {
                clean(response);
            }
            outcome
        };
        let mut looks = 0;
        loop {
            let (left, right) = (make(&self.left), make(&self.right));
            let left = cleaned(self.left.client.exchange(&left, version, PATIENCE)?);
            let right = cleaned(self.right.client.exchange(&right, version, PATIENCE)?);
            looks += 1;
            if looks == SETTLING_LOOKS || leaves(&left, &self.left.names) == leaves(&right, &self.right.names) {
                self.compare(R::KEY, version, case, &left, &right);
                return Ok(());
            }
            pause();
        }
    }

    /// Asks in every version that Millrace serves.
    pub(crate) fn every<R: Request>(&mut self, case: &str, make: impl Fn(&Side, i16) -> R) -> io::Result<()> {
        for version in versions::<R>() {
            self.ask(case, version, |side| make(side, version))?;
        }
        Ok(())
    }

    /// Sends bytes to both and compares what comes back, which is not looked into. With `answer_due` false, silence is
    /// expected and not awaited long.
    pub(crate) fn send_bytes(
        &mut self,
        (api, version): (ApiKey, i16),
        case: &str,
        answer_due: bool,
        make: impl Fn(&Side) -> Bytes,
    ) -> io::Result<()> {
        let patience = if answer_due { PATIENCE } else { SILENCE };
        let send = |side: &mut Side| {
            let bytes = make(side);
            side.client.exchange_bytes(&bytes, patience)
        };
        let (left, right) = (send(&mut self.left)?, send(&mut self.right)?);
        self.compare(api, version, case, &left, &right);
        Ok(())
    }

    /// Compares what was made of two answers. Whether it is the same but for what is accepted.
    pub(crate) fn compare_leaves(
        &mut self,
        api: ApiKey,
        version: i16,
        case: &str,
        left: &BTreeMap<String, String>,
        right: &BTreeMap<String, String>,
    ) -> bool {
        let asked = self.only.as_ref().is_none_or(|only| format!("{api:?} {case}").contains(only.as_str()));
        !asked || self.report.compare(api, version, case, left, right)
    }

    fn compare<T: std::fmt::Debug>(
        &mut self,
        api: ApiKey,
        version: i16,
        case: &str,
        left: &Outcome<T>,
        right: &Outcome<T>,
    ) -> bool {
        let (left, right) = (leaves(left, &self.left.names), leaves(right, &self.right.names));
        self.compare_leaves(api, version, case, &left, &right)
    }
}

/// The responses of both sides, where there were any.
#[derive(Debug)]
pub(crate) struct Answers<T> {
    /// Of the reference.
    pub(crate) left: Option<T>,
    /// Of Millrace.
    pub(crate) right: Option<T>,
}

impl<T> Answers<T> {
    /// Lets both sides remember something of their answer.
    pub(crate) fn keep(self, pair: &mut Pair, keep: impl Fn(&mut Side, T)) {
        if let Some(left) = self.left {
            keep(&mut pair.left, left);
        }
        if let Some(right) = self.right {
            keep(&mut pair.right, right);
        }
    }
}

/// The versions of a request that are served and that its declaration knows.
pub(crate) fn versions<R: Request>() -> impl Iterator<Item = i16> {
    let served = R::KEY.advertised().expect("only served APIs are compared");
    served.filter(|version| R::VERSIONS.contains(version))
}

fn leaves<T: std::fmt::Debug>(outcome: &Outcome<T>, names: &Names) -> BTreeMap<String, String> {
    match outcome {
        Outcome::Answered(response) => names.normalise("", Tree::of(response)).flatten(),
        Outcome::Closed => BTreeMap::from([("outcome".to_owned(), "closed".to_owned())]),
        Outcome::Silent => BTreeMap::from([("outcome".to_owned(), "silent".to_owned())]),
        Outcome::Garbled(why) => BTreeMap::from([("outcome".to_owned(), why.clone())]),
    }
}

#[expect(clippy::disallowed_methods, reason = "a program that watches two others from outside")]
fn now() -> Instant {
    Instant::now()
}

/// Between two looks at something that this process can't be told of.
#[expect(clippy::disallowed_methods, reason = "a program that watches two others from outside")]
pub(crate) fn pause() {
    std::thread::sleep(PAUSE);
}

//! Answers that are wrong, late or repeated, and what a producer makes of them.

use super::pretended::Pretended;
use super::producer::{IDEMPOTENT_IN_FLIGHT, Leaders, Producer, Settings};
use super::recorder::{Recorder, live_cell};
use super::template::{Content, PRODUCE_VERSION, Templates};
use crate::arguments::Load;
use crate::pace::SECOND;
use crate::validate::Identity;
use clap::Parser;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::frame::response_frame;
use millrace_protocol::messages::ProduceResponse;
use millrace_protocol::messages::produce::{PartitionProduceResponse, TopicProduceResponse};

#[derive(Parser)]
struct Only {
    #[command(flatten)]
    load: Load,
}

/// One producer of one-record batches to two partitions of one node, and what it needs.
struct Case {
    templates: Templates,
    leaders: Leaders,
    recorder: Recorder,
    producer: Producer<Pretended>,
    /// Sockets that it opened.
    opened: usize,
}

impl Case {
    fn new(limit: usize, idempotent: bool) -> Case {
        let arguments = ["bench", "--partitions", "2", "--batch-bytes", "1", "--record-size", "10"];
        let mut load = Only::parse_from(arguments).load;
        load.idempotent = idempotent;
        let templates = Templates::encode(&load, Content::Plain, 5).unwrap();
        let id = idempotent.then_some((7, 0));
        let settings = Settings { limit, id, alone: true, answered: true, identity: Identity::default() };
        let producer = Producer::new(settings, &[0, 1], &templates.order, 0);
        let leaders = Leaders { addresses: vec![([127, 0, 0, 1], 1).into(); 2], generation: 0 };
        Case { templates, leaders, recorder: Recorder::new(0..SECOND, live_cell()), producer, opened: 0 }
    }

    /// Has requests become due and sends what may be sent.
    fn ask(&mut self, count: u64) {
        (0..count).for_each(|due| self.producer.ask(due));
        let opened = &mut self.opened;
        let mut connect = |_, _| {
            *opened += 1;
            Ok(Pretended { room: usize::MAX, ..Pretended::default() })
        };
        self.producer.send(&self.templates, &self.leaders, 50, &mut self.recorder, &mut connect);
    }

    /// An answer comes.
    fn answer(&mut self, correlation: i32, index: i32, base_offset: i64, error_code: ErrorCode) {
        let result = PartitionProduceResponse { index, base_offset, error_code, ..PartitionProduceResponse::default() };
        let topic = TopicProduceResponse { partition_responses: vec![result], ..TopicProduceResponse::default() };
        let response = ProduceResponse { responses: vec![topic], ..ProduceResponse::default() };
        let bytes = response_frame(&response, PRODUCE_VERSION, correlation).unwrap().concat();
        let mut stream = self.producer.links[0].take_stream().unwrap();
        stream.incoming.extend(bytes);
        let input = self.producer.links[0].take_input();
        self.producer.links[0].put_back(stream, input);
        self.producer.receive(0, self.leaders.generation, 100, &mut self.recorder);
    }

    fn errors(&self) -> Vec<&str> {
        self.recorder.errors.keys().map(String::as_str).collect()
    }
}

#[test]
fn wrong_answers_are_told_apart() {
    let mut case = Case::new(9, false);
    case.ask(8);
    case.answer(1, 0, 7, ErrorCode::None);
    case.answer(2, 1, 0, ErrorCode::InvalidRecord);
    case.answer(3, 0, 7, ErrorCode::None);
    case.answer(4, 0, 8, ErrorCode::None);
    case.answer(5, 0, 9, ErrorCode::None);
    let expected = ["InvalidRecord", "an answer for another partition", "an offset given twice", "offsets left out"];
    assert_eq!(case.errors(), expected);
    assert_eq!(case.producer.unanswered(), 3);
    // An answer to nothing ends the connection; what it owed is sent again.
    case.answer(99, 0, 9, ErrorCode::None);
    assert!(case.recorder.retries.keys().any(|why| why.contains("an answer to no request (99)")));
    assert!(case.producer.halted());
}

#[test]
fn an_idempotent_producer_has_as_many_batches_under_way_as_a_broker_remembers() {
    let mut case = Case::new(100, true);
    case.ask(30);
    let mut written = 0;
    while case.producer.links[0].pop_written().is_some() {
        written += 1;
    }
    assert_eq!(written, 2 * IDEMPOTENT_IN_FLIGHT);
    assert_eq!(case.producer.unanswered(), 30);
}

#[test]
fn what_an_old_leader_refused_is_sent_again_once_newer_leaders_are_known_and_nothing_is_under_way() {
    let mut case = Case::new(9, true);
    case.ask(3);
    case.answer(1, 0, -1, ErrorCode::NotLeaderOrFollower);
    case.ask(0);
    assert!(case.producer.halted());
    case.leaders.generation = 1;
    case.ask(0);
    assert!(case.producer.halted(), "the third request is to the same partition and under way");
    case.answer(2, 1, 0, ErrorCode::None);
    // Refused because the one before it was.
    case.answer(3, 0, -1, ErrorCode::OutOfOrderSequenceNumber);
    case.leaders.generation = 2;
    case.ask(0);
    assert!(!case.producer.halted());
    case.answer(4, 0, 0, ErrorCode::None);
    case.answer(5, 0, 1, ErrorCode::None);
    assert_eq!((case.producer.unanswered(), case.errors()), (0, Vec::new()));
    assert_eq!(case.opened, 1);
}

//! What is offered, and what becomes of it.

/// Bytes of a request of the producer: Kafka's default `batch.size`.
pub(crate) const PRODUCER_REQUEST: usize = 16 << 10;
/// Its `max.in.flight.requests.per.connection`.
pub(crate) const PRODUCER_IN_FLIGHT: usize = 5;

/// One offered load.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// Ten requests of 100 bytes a second.
    Trickle,
    /// 500 requests of 1 KiB a second.
    Small,
    /// 20,000 requests of 1 KiB a second.
    Many,
    /// 1,600 requests of 64 KiB a second.
    Stream,
    /// A default idempotent Java producer that always has a full batch to send.
    Producer,
}

impl Load {
    /// Those that come on a schedule of their own, whatever the broker does.
    pub(crate) const OPEN: [Load; 4] = [Load::Trickle, Load::Small, Load::Many, Load::Stream];

    /// For headings.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Load::Trickle => "10 requests/s of 100 B",
            Load::Small => "500 requests/s of 1 KiB",
            Load::Many => "20,000 requests/s of 1 KiB",
            Load::Stream => "100 MiB/s in requests of 64 KiB",
            Load::Producer => "one producer, one partition, five requests of 16 KiB in flight",
        }
    }

    /// Bytes of a request.
    pub(crate) fn request_bytes(self) -> usize {
        match self {
            Load::Trickle => 100,
            Load::Small | Load::Many => 1 << 10,
            Load::Stream => 64 << 10,
            Load::Producer => PRODUCER_REQUEST,
        }
    }

    /// Requests that have come by `nanos` after the start; of the producer none comes by the clock.
    pub(crate) fn due(self, nanos: u64) -> u64 {
        let per_second: u64 = match self {
            Load::Trickle => 10,
            Load::Small => 500,
            Load::Many => 20_000,
            Load::Stream => 1_600,
            Load::Producer => 0,
        };
        nanos / 1_000 * per_second / 1_000_000
    }

    /// How long it is offered, seconds: long enough for the tail of its puts.
    pub(crate) fn seconds(self) -> u64 {
        match self {
            Load::Trickle => 300,
            Load::Small | Load::Producer => 120,
            Load::Many => 40,
            Load::Stream => 30,
        }
    }
}

//! What a producer waits and what it costs on the stores that `perf/models` describes: the real lane, its pump and its
//! flush governor in virtual time, with an offered load.
//!
//! ```text
//! cargo run --release -p millrace-perf --example models > perf/MODELS.md
//! ```
//!
//! The same command prints the same tables on any machine: nothing here reads a clock.

mod lane;
mod load;
mod sink;

use lane::{Governor, Outcome, measure};
use load::Load;
use millrace_storage::object::model::Parameters;
use std::fmt::Write;

const LINGERS_MS: [u64; 7] = [0, 5, 10, 25, 50, 100, 250];
const TOKENS: [u32; 4] = [4, 8, 16, 100];
const LANES: [u16; 2] = [1, 2];
/// `--hedge-percent` where hedging is on.
const HEDGE_PERCENT: u32 = 5;
/// What `millrace serve` does on an object store unless it is told otherwise.
const DEFAULT: Governor = Governor { linger_ms: 25, tokens: 8, lanes: 1, hedge_percent: HEDGE_PERCENT };

const STORES: [(&str, &str); 2] = [
    ("s3-standard", include_str!("../../models/s3-standard.toml")),
    ("s3-express", include_str!("../../models/s3-express.toml")),
];

const HEAD: &str = include_str!("head.md");

fn main() {
    print!("{HEAD}");
    for (name, text) in STORES {
        let parameters = Parameters::parse(text).expect("the files of this repository are valid");
        println!("\n## {name}\n");
        print!("{}", defaults(&parameters));
        print!("{}", producer(&parameters));
        for load in Load::OPEN {
            for lanes in LANES {
                print!("{}", table(&parameters, load, lanes));
            }
        }
    }
}

/// The loads side by side at the default settings.
fn defaults(parameters: &Parameters) -> String {
    let mut text = String::from(
        "### The defaults\n\n| load | hedging | ack p50 / p99 / p99.9 ms | puts/s | puts per GiB | dollars per GiB | hedges, won |\n|---|---|---|---|---|---|---|\n",
    );
    for load in Load::OPEN {
        for (word, hedge_percent) in [("off", 0), ("on", HEDGE_PERCENT)] {
            let outcome = measure(parameters, load, Governor { hedge_percent, ..DEFAULT });
            let row = format!("| {} | {word} | {} | {} |", load.name(), percentiles(&outcome), costs(&outcome));
            writeln!(text, "{row} {}, {} |", outcome.hedges, outcome.hedges_won).expect("a string takes all");
        }
    }
    text.push('\n');
    text
}

/// One producer with five requests in flight: what it gets of what they and the mean ack time allow.
fn producer(parameters: &Parameters) -> String {
    let mut text = format!(
        "### {}\n\n| tokens/s | linger ms | mean ack ms | MiB/s | of what five in flight allow | puts/s | puts per GiB | dollars per GiB |\n|---|---|---|---|---|---|---|---|\n",
        Load::Producer.name(),
    );
    for tokens in TOKENS {
        for linger_ms in [0, 25, 100] {
            let outcome = measure(parameters, Load::Producer, Governor { linger_ms, tokens, ..DEFAULT });
            let (mean, rate) = (outcome.mean_ms(), outcome.mib_per_second());
            let allowed =
                load::PRODUCER_IN_FLIGHT as f64 * load::PRODUCER_REQUEST as f64 / (1 << 20) as f64 / mean * 1e3;
            let costs = costs(&outcome);
            writeln!(text, "| {tokens} | {linger_ms} | {mean:.1} | {rate:.2} | {:.2} | {costs} |", rate / allowed)
                .expect("a string takes all");
        }
    }
    text.push('\n');
    text
}

/// All settings for one load.
fn table(parameters: &Parameters, load: Load, lanes: u16) -> String {
    let lane = if lanes == 1 { "one lane" } else { "two lanes" };
    let mut text = format!(
        "### {}, {lane}\n\n| linger ms | tokens/s | ack p50 / p99 / p99.9 ms | puts/s | puts per GiB | dollars per GiB | hedged: p50 / p99 / p99.9 | puts/s | puts per GiB | dollars per GiB |\n|---|---|---|---|---|---|---|---|---|---|\n",
        load.name(),
    );
    for linger_ms in LINGERS_MS {
        for tokens in TOKENS {
            let [off, on] = [0, HEDGE_PERCENT].map(|hedge_percent| {
                let outcome = measure(parameters, load, Governor { linger_ms, tokens, lanes, hedge_percent });
                format!("{} | {}", percentiles(&outcome), costs(&outcome))
            });
            writeln!(text, "| {linger_ms} | {tokens} | {off} | {on} |").expect("a string takes all");
        }
    }
    text.push('\n');
    text
}

fn percentiles(outcome: &Outcome) -> String {
    let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| outcome.quantile_ms(share));
    format!("{p50:.0} / {p99:.0} / {p999:.0}")
}

fn costs(outcome: &Outcome) -> String {
    format!("{:.1} | {:.0} | {:.4}", outcome.puts_per_second(), outcome.puts_per_gib(), outcome.dollars_per_gib())
}

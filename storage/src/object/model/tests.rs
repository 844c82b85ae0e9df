use super::*;
use crate::object::conformance;
use crate::object::memory::MemoryStore;
use crate::sim::{Ended, ProcessId, Sim};
use crate::wal;
use crate::wal::objects::ObjectWal;
use futures::future::join_all;
use std::cell::RefCell;

const STANDARD: &str = include_str!("../../../../perf/models/s3-standard.toml");
const EXPRESS: &str = include_str!("../../../../perf/models/s3-express.toml");

fn standard() -> Parameters {
    Parameters::parse(STANDARD).expect("the file of this repository is valid")
}

/// Runs `test` on a modelled memory store in virtual time.
fn on<T: 'static, F: Future<Output = T>>(
    parameters: Parameters,
    test: impl FnOnce(Env, Rc<Modelled>) -> F + 'static,
) -> T {
    let sim = Sim::new(7, false);
    let env = sim.env(ProcessId::WORLD);
    let result = Rc::new(RefCell::new(None));
    let into = result.clone();
    let ended = sim.run(10_000_000, async move {
        let memory = Rc::new(MemoryStore::new().handle(env.clone()));
        let store = Rc::new(Modelled::new(memory, SharedModel::new(parameters), env.clone()));
        let outcome = test(env, store).await;
        into.replace(Some(outcome));
    });
    assert_eq!(ended, Ended::Done);
    sim.shut_down();
    result.take().expect("the run is done")
}

async fn timed(env: &Env, future: impl Future) -> Duration {
    let start = env.now();
    future.await;
    env.now().since(start)
}

#[test]
fn puts_take_as_long_as_the_table_says() {
    let mut took = on(standard(), async |env: Env, store: Rc<Modelled>| {
        let mut took = Vec::new();
        for n in 0..20_000 {
            took.push(timed(&env, store.put_if_absent(&format!("a/{n}"), vec![])).await.as_secs_f64() * 1e3);
        }
        took
    });
    took.sort_by(f64::total_cmp);
    let expected = [(0.1, 14.4), (0.5, 30.0), (0.9, 75.0), (0.99, 200.0)];
    for (quantile, ms) in expected {
        let found = took[(took.len() as f64 * quantile) as usize];
        assert!((found / ms - 1.0).abs() < 0.1, "{quantile}: {found} ms, the table says {ms}");
    }
}

#[test]
fn the_same_seed_draws_the_same_times_and_another_draws_others() {
    let times = |seed| {
        on(Parameters { seed, ..standard() }, async |env: Env, store: Rc<Modelled>| {
            timed(&env, store.put_if_absent("a/b", vec![])).await.as_millis()
        })
    };
    assert_eq!(times(1), times(1));
    assert_ne!(times(1), times(2));
}

#[test]
fn beyond_the_rate_of_a_prefix_writes_are_refused_and_not_done() {
    let limits = Limits { writes_per_second: 10.try_into().expect("not zero"), ..standard().limits };
    on(Parameters { limits, ..standard() }, async |env: Env, store: Rc<Modelled>| {
        let puts = (0..25).map(|n| store.put_if_absent(&format!("a/{n}"), vec![]));
        let refused: Vec<StoreError> = join_all(puts).await.into_iter().filter_map(Result::err).collect();
        assert_eq!(refused.len(), 15);
        assert!(refused.iter().all(|error| error.kind == FailureKind::Throttled));
        assert_eq!(store.list("a/").await.expect("reads have a rate of their own").len(), 10);
        store.put_if_absent("b/0", vec![]).await.expect("another prefix");
        env.sleep(Duration::from_secs(1)).await;
        store.put_if_absent("a/24", vec![]).await.expect("after a second");
    });
}

#[test]
fn bytes_move_at_the_speed_of_a_connection_and_of_all_together() {
    let at = |mib: u32| mib.try_into().expect("not zero");
    let bandwidth = Bandwidth { connection_mib_per_second: at(10), total_mib_per_second: at(40) };
    on(Parameters { bandwidth, ..standard() }, async |env: Env, store: Rc<Modelled>| {
        let object = || vec![Bytes::from(vec![0; 5 << 20]); 4];
        let one = timed(&env, store.put_if_absent("a/0", object())).await;
        assert!((2.0..4.1).contains(&one.as_secs_f64()), "20 MiB at 10 a second and the latency, not {one:?}");
        let eight = timed(&env, join_all((1..9).map(|n| store.put_if_absent(&format!("a/{n}"), object())))).await;
        assert!((4.0..6.1).contains(&eight.as_secs_f64()), "160 MiB at 40 a second, not {eight:?}");
        let read = timed(&env, store.get_range("a/0", 0..10 << 20)).await;
        assert!((1.0..3.1).contains(&read.as_secs_f64()), "10 MiB at 10 a second, not {read:?}");
    });
}

#[test]
fn a_put_takes_effect_at_the_end_of_its_time() {
    on(standard(), async |env: Env, store: Rc<Modelled>| {
        let put = store.put_if_absent("a/b", vec![Bytes::from_static(b"x")]);
        env.sleep(Duration::from_secs(3)).await;
        assert_eq!(store.store.get("a/b").await.expect("memory"), None, "nobody polled it");
        put.await.expect("memory");
        assert!(store.store.get("a/b").await.expect("memory").is_some());
    });
}

#[test]
fn the_conformance_suites_pass_through_a_model() {
    for text in [STANDARD, EXPRESS] {
        let parameters = Parameters::parse(text).expect("the file of this repository is valid");
        on(parameters, async |_env: Env, store: Rc<Modelled>| {
            conformance::check(&*store, "suite").await;
            wal::conformance::check(&ObjectWal::new(store.clone()), 7).await;
        });
    }
}

#[test]
fn a_file_that_makes_no_sense_is_refused_with_the_reason() {
    let without = |from: &str, to: &str| Parameters::parse(&STANDARD.replacen(from, to, 1)).expect_err("broken");
    assert!(without("[0.5, 30.0]", "[0.5, 3.0]").contains("rise"));
    assert!(without("[0.0, 12.0]", "[0.1, 12.0]").contains("the first at 0.0"));
    assert!(without("[0.0, 12.0]", "[0.0, nan]").contains("rise"));
    assert!(without("seed", "sed").contains("sed"));
    assert!(without("writes_per_second = 3500", "writes_per_second = 0").contains("nonzero"));
}

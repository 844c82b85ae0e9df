//! The conformance suites of the object and write-ahead stores, run by every implementation that needs a disk or a
//! server.

#[path = "s3/server.rs"]
mod s3_server;

use bytes::Bytes;
use millrace_storage::env::Env;
use millrace_storage::object::dialect::Cloud;
use millrace_storage::object::local::LocalStore;
use millrace_storage::object::memory::MemoryStore;
use millrace_storage::object::remote::RemoteStore;
use millrace_storage::object::url::StoreUrl;
use millrace_storage::object::{ObjectStore, SharedObjects, conformance, race};
use millrace_storage::side::{SideRuntime, block_on_local};
use millrace_storage::wal;
use millrace_storage::wal::PutOutcome;
use millrace_storage::wal::memory::MemoryWal;
use millrace_storage::wal::objects::ObjectWal;
use s3_server::{S3Server, assignment};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

/// A store under a prefix of its own.
fn store_of(server: &S3Server, side: &SideRuntime, prefix: &str) -> RemoteStore {
    RemoteStore::from_variables(Cloud::S3, server.bucket(), prefix, server.variables.clone(), side).unwrap()
}

/// Both suites and the start-up check on what `open` opens.
fn conforms(open: impl FnOnce(&SideRuntime, &Env) -> Rc<dyn ObjectStore>) {
    let side = SideRuntime::start().unwrap();
    block_on_local(|env| async move {
        let store = open(&side, &env);
        race::check(&*store, &env, "the store under test").await.unwrap();
        assert_eq!(store.list("meta/").await.unwrap(), vec![]);
        conformance::check(&*store, "suite").await;
        wal::conformance::check(&ObjectWal::new(store), env.random_u128()).await;
    })
    .unwrap();
}

#[test]
fn a_memory_store_conforms() {
    conforms(|_, env| SharedObjects::Memory(MemoryStore::new()).handle(env, &Arc::default()));
}

#[test]
fn a_local_directory_conforms() {
    let directory = tempfile::tempdir().unwrap();
    conforms(|side, env| {
        let url = StoreUrl::File(directory.path().join("made/here"));
        SharedObjects::open(&url, side).unwrap().handle(env, &Arc::default())
    });
    assert!(LocalStore::open(&directory.path().join("made/here"), &SideRuntime::start().unwrap()).is_ok());
}

#[test]
fn an_s3_server_conforms() {
    let server = S3Server::get();
    conforms(|side, env| SharedObjects::Remote(store_of(&server, side, "some/prefix")).handle(env, &Arc::default()));
    // Also without a prefix.
    conforms(|side, env| SharedObjects::Remote(store_of(&server, side, "")).handle(env, &Arc::default()));
}

/// Passes one request on to `server` but for the last of its bytes, as a client that dies does. What comes out is the
/// server's answer.
fn cut_off(server: SocketAddr) -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let passed = Builder::new().spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            client.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let mut body = vec![0; BODY];
        client.read_exact(&mut body).unwrap();
        let mut upstream = TcpStream::connect(server).unwrap();
        upstream.write_all(&head).unwrap();
        upstream.write_all(&body[..BODY - 1]).unwrap();
        upstream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        upstream.read_to_string(&mut answer).unwrap();
        answer
    });
    (address, passed.unwrap())
}

/// Bytes of the body that [`cut_off`] cuts.
const BODY: usize = 40_000;

#[test]
fn a_put_that_is_cut_off_leaves_nothing() {
    let server = S3Server::get();
    let endpoint = "AWS_ENDPOINT_URL";
    let (address, passed) = cut_off(server.variables[endpoint].trim_start_matches("http://").parse().unwrap());
    let mut variables = server.variables.clone();
    variables.insert(endpoint.to_owned(), format!("http://{address}"));
    let side = SideRuntime::start().unwrap();
    let (cut, whole) = (
        RemoteStore::from_variables(Cloud::S3, server.bucket(), "cut", variables, &side).unwrap(),
        store_of(&server, &side, "cut"),
    );
    block_on_local(|_| async move {
        let key = "wal/cut";
        let body = || vec![Bytes::from(vec![7; BODY])];
        assert!(cut.put_if_absent(key, body()).await.is_err());
        let answer = passed.join().unwrap();
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(whole.get(key).await, Ok(None), "after {answer}");
        assert_eq!(whole.put_if_absent(key, body()).await, Ok(PutOutcome::Stored));
    })
    .unwrap();
}

/// An emulator of Azure, which `ci/azure-server.sh` starts, and ends with this.
struct AzureServer {
    variables: BTreeMap<String, String>,
}

const AZURE_SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../ci/azure-server.sh");

impl AzureServer {
    fn start() -> AzureServer {
        let output = Command::new(AZURE_SCRIPT).arg("start").output().expect("bash runs");
        assert!(output.status.success(), "no Azurite: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        AzureServer { variables: text.lines().filter_map(assignment).collect() }
    }

    fn store(&self, container: &str, side: &SideRuntime, prefix: &str) -> RemoteStore {
        RemoteStore::from_variables(Cloud::Azure, container, prefix, self.variables.clone(), side).unwrap()
    }
}

impl Drop for AzureServer {
    fn drop(&mut self) {
        let stopped = Command::new(AZURE_SCRIPT).arg("stop").envs(&self.variables).status();
        assert!(stopped.is_ok_and(|status| status.success()));
    }
}

#[test]
#[ignore = "takes Azurite from npm: ci/prove azure"]
fn an_emulator_of_azure_conforms() {
    let server = AzureServer::start();
    for prefix in ["some/prefix", ""] {
        conforms(|side, env| {
            let store = server.store(&server.variables["MILLRACE_TEST_CONTAINER"], side, prefix);
            SharedObjects::Remote(store).handle(env, &Arc::default())
        });
    }
    let side = SideRuntime::start().unwrap();
    let error = block_on_local(|env| async move {
        let store = server.store("no-such-container", &side, "");
        assert!(store.get("k").await.is_err(), "no container is not no object");
        race::check(&store, &env, "the store under test").await.unwrap_err()
    })
    .unwrap();
    assert!(error.to_string().contains("bucket exists"), "{error}");
}

#[test]
fn a_missing_bucket_is_named_by_the_start_up_check() {
    let server = S3Server::get();
    let side = SideRuntime::start().unwrap();
    let error = block_on_local(|env| async move {
        let variables = server.variables.clone();
        let store = RemoteStore::from_variables(Cloud::S3, "no-such-bucket", "", variables, &side).unwrap();
        race::check(&store, &env, "s3://no-such-bucket").await.unwrap_err()
    })
    .unwrap();
    assert!(error.to_string().contains("bucket exists"), "{error}");
}

#[test]
fn a_memory_wal_conforms() {
    block_on_local(|env| async move { wal::conformance::check(&MemoryWal::new(1 << 20), env.random_u128()).await })
        .unwrap();
}

//! Which users may do what.

use crate::house::*;
use crate::support::Peer;
use heartbus_core::bus::{Attachment, Bus};
use heartbus_core::engine::Engine;
use heartbus_core::error::Error;
use heartbus_core::event::EventMask;
use heartbus_core::hub::dispatch::DispatchLimits;
use heartbus_core::service::{DecisionRecord, Request};
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

/// What another user sees, run by the tests below in a process of its own.
#[test]
fn as_another_user() {
    let Some(path) = std::env::var_os("HEARTBUS_TEST_SOCKET") else { return };
    let path = Path::new(&path);
    let shown =
        |result: Result<(), Error>| result.map_or_else(|error| format!("{:?}: {}", error.kind, error.message), |()| "welcome".into());
    println!("client> {}", shown(Bus::connect(path, PATIENCE).and_then(|mut bus| bus.send_to("n", b"hello", 0))));
    println!("door> {}", shown(Bus::connect(path, PATIENCE).and_then(|mut bus| bus.close_door())));
    let decide = Request::Decide { question: 1, decision: DecisionRecord::Allow };
    println!("decide> {}", shown(Bus::connect(path, PATIENCE).and_then(|mut bus| bus.ask(&decide).map(drop))));
    println!("worker> {}", shown(Attachment::attach(path, PATIENCE).map(drop)));
}

#[test]
fn another_user_is_kept_out_by_the_file_and_by_the_engine() {
    let house = House::in_process();
    let Some(answers) = ask_as_nobody(&house.path) else { return };
    assert!(answers["client"].starts_with("Io: No right to use"), "{answers:?}");
    // The file's rights are one wall, the credentials another.
    fs::set_permissions(&house.path, fs::Permissions::from_mode(0o666)).unwrap();
    let answers = ask_as_nobody(&house.path).unwrap();
    for what in ["client", "door", "worker"] {
        assert_eq!(answers[what], "Io: The bus socket is open to the server's own user only (see bus_group)", "{what}");
    }
}

#[test]
fn a_group_may_ask_but_neither_work_nor_close_the_door() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = Folder::new();
    let mut config = config(&folder.socket());
    config.bus.as_mut().unwrap().group = Some(NOBODY.to_string());
    let engine = Engine::start_for_workers(&config, DispatchLimits::default(), EventMask::ALL).unwrap();
    let found = fs::metadata(folder.socket()).unwrap();
    assert_eq!((found.permissions().mode() & 0o777, found.gid()), (0o660, NOBODY));
    let mut peer = Peer::over(TcpStream::connect(engine.local_addr()).unwrap());
    peer.send(6, 0, r#"{"node_id":"n"}"#);
    peer.frame();
    let answers = ask_as_nobody(&folder.socket()).unwrap();
    assert_eq!(answers["client"], "welcome");
    assert_eq!(answers["door"], "Io: Only the server's own user may change how it runs");
    assert_eq!(answers["decide"], answers["door"], "nor let anybody in");
    assert_eq!(answers["worker"], "Io: Workers must be of the same user as the server");
    assert_eq!(peer.frame().text(), "hello");
    chown(folder.socket(), None, Some(0)).unwrap();
    assert!(ask_as_nobody(&folder.socket()).unwrap()["client"].starts_with("Io: No right to use"));
}

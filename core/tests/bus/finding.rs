//! How a server is found by its path or name.

use crate::house::*;
use heartbus_core::bus::{self, Attachment, Bus};
use heartbus_core::engine::Engine;
use heartbus_core::error::ErrorKind;
use heartbus_core::inbox::Inbox;
use heartbus_core::settings::InboxLimits;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

#[test]
fn nobody_at_the_path_is_told_with_the_path() {
    let folder = Folder::new();
    let path = folder.socket();
    let error = Bus::connect(&path, PATIENCE).err().unwrap();
    assert_eq!(error.kind, ErrorKind::Io);
    assert_eq!(error.message, format!("No Heartbus server at {}: No such file or directory", path.display()));
    assert_eq!(kind(Attachment::attach(&path, PATIENCE).map(drop)), ErrorKind::Io);
    leave_behind(&path);
    assert_eq!(
        Bus::connect(&path, PATIENCE).err().unwrap().message,
        format!("No Heartbus server at {}: Connection refused", path.display())
    );
}

#[test]
fn a_queue_that_stays_full_costs_the_timeout() {
    let folder = Folder::new();
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    socket.bind(&socket2::SockAddr::unix(folder.socket()).unwrap()).unwrap();
    socket.listen(0).unwrap();
    let _first = UnixStream::connect(folder.socket()).unwrap();
    assert_eq!(kind(Bus::connect(&folder.socket(), Duration::from_millis(30)).map(drop)), ErrorKind::Timeout);
    assert!(bus::is_taken(&folder.socket()));
}

#[test]
fn a_name_becomes_paths_in_the_usual_folders_and_only_good_names_do() {
    let paths = bus::default_paths("a.b-c_1");
    assert!(paths.contains(&PathBuf::from("/run/heartbus/a.b-c_1.sock")), "{paths:?}");
    assert!(paths.contains(&format!("/tmp/heartbus-{}/a.b-c_1.sock", rustix::process::geteuid().as_raw()).into()), "{paths:?}");
    let long = "x".repeat(65);
    for name in ["", "a/b", "a b", "é", &long] {
        assert_eq!(kind(bus::path_to_bind(name)), ErrorKind::Config, "{name}");
        assert_eq!(kind(Bus::find(name, PATIENCE).map(drop)), ErrorKind::Config, "{name}");
    }
    let error = Bus::find("nobody-has-this-name", PATIENCE).err().unwrap();
    assert!(error.kind == ErrorKind::Io && error.message.contains("nobody-has-this-name.sock or /"), "{}", error.message);
}

#[test]
fn a_server_is_found_by_its_name_and_by_a_similar_one_it_is_told_of() {
    let name = format!("test-{}", std::process::id());
    let path = bus::path_to_bind(&name).unwrap();
    assert!(bus::default_paths(&name).contains(&path));
    let engine = Engine::start(&config(&path), Inbox::new(InboxLimits::default()).unwrap()).unwrap();
    assert_eq!(Bus::find(&name, PATIENCE).unwrap().path(), path);
    let error = Bus::find(&format!("{name}-other"), PATIENCE).err().unwrap();
    // Others run their tests at the same time, and eight are told of.
    assert!(error.message.contains(&path.display().to_string()) || error.message.matches(".sock").count() > 8, "{}", error.message);
    drop(engine);
    assert!(!path.exists());
}

//! The socket file: made, kept, left behind and taken by others.

use crate::house::*;
use crate::support::deadline;
use heartbus_core::bus::{self, Bus};
use heartbus_core::engine::Engine;
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::event::{Event, EventMask};
use heartbus_core::hub::dispatch::DispatchLimits;
use heartbus_core::inbox::Inbox;
use heartbus_core::settings::{BusConfig, InboxLimits, ServerConfig};
use socket2::SockRef;
use std::collections::HashSet;
use std::fs;
use std::net::Shutdown;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn start_error(config: &ServerConfig) -> Error {
    Engine::start(config, Inbox::new(InboxLimits::default()).unwrap()).map(drop).unwrap_err()
}

#[test]
fn the_socket_is_the_owners_alone_and_goes_with_the_server() {
    let house = House::in_process();
    let found = fs::metadata(&house.path).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    assert!(bus::is_taken(&house.path));
    house.engine.stop();
    assert!(!house.path.exists() && !bus::is_taken(&house.path));
}

#[test]
fn a_second_server_is_refused_and_does_not_touch_the_first() {
    let house = House::in_process();
    let error = start_error(&config(&house.path));
    assert_eq!((error.kind, error.message), (ErrorKind::Io, format!("{} is in use by another server", house.path.display())));
    assert_eq!(Engine::check(&config(&house.path)).unwrap_err().kind, ErrorKind::Io);
    house.assert_well();
}

#[test]
fn of_servers_that_start_at_once_exactly_one_gets_the_socket() {
    let deadline = deadline();
    loop {
        let folder = Folder::new();
        let config = config(&folder.socket());
        // So that all of them want to clear it away.
        leave_behind(&folder.socket());
        let began = Instant::now();
        let engines: Vec<_> = std::thread::scope(|scope| {
            let start = || Engine::start(&config, Inbox::new(InboxLimits::default()).unwrap()).ok();
            let threads: Vec<_> = (0..6).map(|_| scope.spawn(start)).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        });
        // They wait half a second for each other and no longer.
        if engines.len() > 1 && began.elapsed() > Duration::from_millis(500) {
            assert!(Instant::now() < deadline, "they are held up all the time");
            continue;
        }
        assert_eq!(engines.len(), 1);
        assert_eq!(Bus::connect(&folder.socket(), PATIENCE).unwrap().welcome().unwrap().listen, engines[0].local_addr());
        return;
    }
}

#[test]
fn whoever_sees_the_socket_can_connect() {
    let folder = Folder::new();
    let path = folder.socket();
    for _ in 0..20 {
        std::thread::scope(|scope| {
            let caller = scope.spawn(|| {
                while !path.exists() {
                    std::hint::spin_loop();
                }
                Bus::connect(&path, PATIENCE).map(drop)
            });
            let engine = Engine::start(&config(&path), Inbox::new(InboxLimits::default()).unwrap()).unwrap();
            caller.join().unwrap().unwrap();
            drop(engine);
        });
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 0, "something is left");
    }
}

#[test]
fn what_a_dead_server_left_behind_is_replaced_but_nothing_else() {
    let folder = Folder::new();
    leave_behind(&folder.socket());
    Engine::check(&config(&folder.socket())).unwrap();
    drop(Engine::start(&config(&folder.socket()), Inbox::new(InboxLimits::default()).unwrap()).unwrap());
    fs::write(folder.socket(), "precious").unwrap();
    assert!(start_error(&config(&folder.socket())).message.contains("is no socket"));
    assert!(Engine::check(&config(&folder.socket())).is_err());
    assert_eq!(fs::read_to_string(folder.socket()).unwrap(), "precious");
    // Nor is anything that a link leads to, or a link that leads nowhere.
    let [target, link, dangling, own] = ["target", "link", "dangling", "folder"].map(|name| folder.0.join(name));
    fs::write(&target, "precious").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    std::os::unix::fs::symlink(folder.0.join("nothing"), &dangling).unwrap();
    fs::create_dir(&own).unwrap();
    for path in [&target, &link, &dangling, &own] {
        let kind = fs::symlink_metadata(path).unwrap().file_type();
        let refusal = format!("{} is no socket: it is not replaced", path.display());
        assert_eq!(start_error(&config(path)).message, refusal);
        assert_eq!(Engine::check(&config(path)).unwrap_err().message, refusal);
        assert_eq!(fs::symlink_metadata(path).unwrap().file_type(), kind);
    }
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    let missing = folder.0.join("missing/server.sock");
    assert_eq!(
        start_error(&config(&missing)).message,
        format!("Cannot open the bus socket {}: No such file or directory", missing.display())
    );
}

/// Run by the test below as nobody: what a start and a check say of a folder that others own.
#[test]
fn as_a_server_of_another_user() {
    let Some(path) = std::env::var_os("HEARTBUS_TEST_FOLDER") else { return };
    let mut config = config(&Path::new(&path).join("server.sock"));
    println!("folder> {}|{}", Engine::check(&config).unwrap_err().message, start_error(&config).message);
    config.bus.as_mut().unwrap().path = Path::new(&path).join("own/server.sock");
    config.bus.as_mut().unwrap().group = Some("0".into());
    println!("group> {}|{}", Engine::check(&config).unwrap_err().message, start_error(&config).message);
    println!("left> {}", fs::read_dir(Path::new(&path).join("own")).unwrap().count());
}

#[test]
fn a_check_says_what_the_start_would_say_and_leaves_nothing_behind() {
    let house = House::in_process();
    let folder = Folder::new();
    fs::write(folder.0.join("file"), "").unwrap();
    let taken = house.path.clone();
    let long = folder.0.join("x".repeat(100));
    let paths = [taken, folder.0.join("file"), folder.0.join("file/server.sock"), folder.0.join("missing/server.sock"), long];
    for path in paths {
        let config = config(&path);
        let error = Engine::check(&config).unwrap_err();
        assert!(error.message.contains(&path.display().to_string()), "{error}");
        assert_eq!(error, start_error(&config));
    }
    let mut unknown = config(&folder.socket());
    unknown.bus.as_mut().unwrap().group = Some("nobody-has-this-group".into());
    assert_eq!(Engine::check(&unknown).unwrap_err().message, "bus_group: there is no group nobody-has-this-group");
    assert_eq!(Engine::check(&unknown).unwrap_err(), start_error(&unknown));
    Engine::check(&config(&folder.socket())).unwrap();
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1, "nothing but the file");

    fs::create_dir(folder.0.join("own")).unwrap();
    chown(folder.0.join("own"), Some(NOBODY), Some(NOBODY)).ok();
    let Some(answers) = as_nobody("socket_file::as_a_server_of_another_user", "HEARTBUS_TEST_FOLDER", &folder.0) else { return };
    let both = |what: &str| answers[what].split_once('|').map(|(check, start)| (check.to_owned(), start.to_owned())).unwrap();
    let refusal = format!("Cannot open the bus socket {}: Permission denied", folder.socket().display());
    assert_eq!(both("folder"), (refusal.clone(), refusal));
    let refusal = format!("bus_group: only root and members of group 0 can give {} to it", folder.0.join("own/server.sock").display());
    assert_eq!(both("group"), (refusal.clone(), refusal));
    assert_eq!(answers["left"], "0");
}

/// Names of Unix sockets, as the kernel knows them: those who clean folders ask it.
fn names_in_use() -> HashSet<PathBuf> {
    let table = fs::read_to_string("/proc/net/unix").unwrap();
    table.lines().filter_map(|line| line.split(' ').next_back()).filter(|name| name.starts_with('/')).map(PathBuf::from).collect()
}

#[test]
fn the_kernel_knows_the_socket_by_the_name_of_its_file() {
    let folder = Folder::new();
    let real = folder.0.canonicalize().unwrap();
    std::os::unix::fs::symlink(&real, real.join("link")).unwrap();
    let here = std::env::current_dir().unwrap();
    let up: PathBuf = here.components().skip(1).map(|_| "..").collect();
    let ways = [real.join("server.sock"), real.join("link/server.sock"), up.join(real.strip_prefix("/").unwrap()).join("server.sock")];
    for path in ways {
        let engine = Engine::start(&config(&path), Inbox::new(InboxLimits::default()).unwrap()).unwrap();
        assert!(names_in_use().contains(&real.join("server.sock")), "{}", path.display());
        Bus::connect(&path, PATIENCE).unwrap().stats().unwrap();
        drop(engine);
        assert!(!real.join("server.sock").exists());
    }
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let deadline = deadline();
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_socket_that_somebody_removed_is_made_again_and_nobody_is_cut_off() {
    let house = House::for_workers();
    let mut old = house.bus();
    let mut worker = house.worker();
    let folder = house.path.parent().unwrap().to_owned();
    let moved = folder.with_extension("moved");
    for whole_folder in [false, true] {
        if whole_folder {
            fs::rename(&folder, &moved).unwrap();
            // A folder that is none of the usual ones is for whoever made it to make again.
            assert!(Bus::connect(&house.path, PATIENCE).is_err());
            fs::create_dir(&folder).unwrap();
        } else {
            fs::remove_file(&house.path).unwrap();
        }
        wait_for("the socket to be there again", || Bus::connect(&house.path, PATIENCE).is_ok());
        assert_eq!(fs::metadata(&house.path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(names_in_use().contains(&house.path.canonicalize().unwrap()));
        house.assert_well();
        old.stats().expect("who was there stays");
        drop(house.worker());
        let peer = house.register("n");
        worker.tell_until(|event| matches!(event, Event::Register { .. }));
        drop(peer);
        worker.tell_until(|event| matches!(event, Event::Left { .. }));
    }
    fs::remove_dir_all(&moved).unwrap();
    house.engine.stop();
    assert!(!house.path.exists(), "the new one is the server's own as well");
}

#[test]
fn a_socket_that_another_server_has_taken_is_left_to_it_until_it_ends() {
    let house = House::in_process();
    fs::remove_file(&house.path).unwrap();
    let other = UnixListener::bind(&house.path).unwrap();
    let found = fs::metadata(&house.path).unwrap().created().unwrap();
    // It tries to have its place back: whoever connects and says nothing is it.
    drop(other.accept().unwrap());
    drop(other.accept().unwrap());
    assert_eq!(fs::metadata(&house.path).unwrap().created().unwrap(), found);
    SockRef::from(&other).shutdown(Shutdown::Both).unwrap();
    wait_for("the server to have its socket back", || Bus::connect(&house.path, PATIENCE).is_ok_and(|mut bus| bus.stats().is_ok()));
}

#[test]
fn a_socket_file_that_is_another_servers_by_now_stays() {
    let house = House::in_process();
    fs::remove_file(&house.path).unwrap();
    let other = UnixListener::bind(&house.path).unwrap();
    house.engine.stop();
    assert!(house.path.exists());
    drop(other);
}

#[test]
fn a_server_that_cannot_listen_leaves_no_socket_behind() {
    let house = House::in_process();
    let folder = Folder::new();
    let config = ServerConfig { port: house.engine.local_addr().port(), ..config(&folder.socket()) };
    assert!(start_error(&config).message.starts_with("Cannot listen on"));
    assert!(!folder.socket().exists());
}

#[test]
fn settings_that_cannot_be_right_are_refused() {
    let folder = Folder::new();
    let with = |change: &dyn Fn(&mut BusConfig)| {
        let mut config = config(&folder.socket());
        change(config.bus.as_mut().unwrap());
        start_error(&config)
    };
    assert_eq!(with(&|bus| bus.name = "a/b".into()).kind, ErrorKind::Config);
    assert_eq!(with(&|bus| bus.group = Some("no-such-group".into())).message, "bus_group: there is no group no-such-group");
    let long = ServerConfig { max_frame_bytes: u32::MAX, ..config(&folder.socket()) };
    assert_eq!(start_error(&long).kind, ErrorKind::Config);
    let none = ServerConfig { bus: None, ..config(&folder.socket()) };
    assert_eq!(kind(Engine::start_for_workers(&none, DispatchLimits::default(), EventMask::ALL).map(drop)), ErrorKind::Config);
    let limits = DispatchLimits { batch_events: 0, ..DispatchLimits::default() };
    assert_eq!(kind(Engine::start_for_workers(&config(&folder.socket()), limits, EventMask::ALL).map(drop)), ErrorKind::Config);
    assert!(!folder.socket().exists());
}

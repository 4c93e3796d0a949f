//! The servers that are measured, each a process of its own on a free port, bound to the server's cores.
//!
//! Owns starting, waiting until they listen, and stopping. Peers that are not installed are left out, and said so.

use crate::floor::Reply;
use crate::proc;
use crate::protocol::Protocol;
use crate::{Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, kill_process};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to listen, to answer, to stop.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where `scripts/test-js --install` puts the library.
const WS: &str = "clients/js/node_modules/ws";

/// Which cores the two sides use.
#[derive(Clone, Debug)]
pub struct Cores {
    pub server: Vec<usize>,
    pub load: Vec<usize>,
}

/// How our server is started.
#[derive(Clone, Debug)]
pub struct Ours {
    pub mode: &'static str,
    pub threads: usize,
    pub timeout: f64,
    /// Reports that it waits for before it says what it saw.
    pub expect: usize,
    /// A socket for other processes.
    pub bus: bool,
    /// Publications that are kept of each topic.
    pub history: usize,
}

impl Default for Ours {
    fn default() -> Self {
        Self { mode: "idle", threads: 1, timeout: 300.0, expect: 0, bus: false, history: 0 }
    }
}

/// A process to be measured, however it was started.
#[derive(Copy, Clone, Debug)]
pub struct Target {
    pub protocol: Protocol,
    pub address: SocketAddr,
    pub pid: u32,
}

impl Target {
    /// Nanoseconds on a core, so far.
    pub fn cpu(&self) -> u64 {
        proc::cpu(self.pid)
    }

    pub fn memory(&self) -> u64 {
        proc::memory(self.pid)
    }

    /// Waits until it has nothing to do any more: what is behind it is not counted as what follows.
    pub fn settle(&self) {
        let deadline = Instant::now() + PATIENCE;
        let mut before = self.cpu();
        while Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(200));
            let now = self.cpu();
            if now - before < 4_000_000 {
                return;
            }
            before = now;
        }
    }
}

pub struct Server {
    pub target: Target,
    child: Child,
    output: Option<BufReader<ChildStdout>>,
    folder: PathBuf,
}

impl Server {
    /// `None` when the program is not installed.
    pub fn start(protocol: Protocol, reply: Reply, ours: &Ours, cores: &Cores) -> Result<Option<Self>> {
        let port = free_port()?;
        let folder = std::env::temp_dir().join(format!("heartbus-bench-{}-{port}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let Some(mut command) = command(protocol, reply, ours, port, &folder)? else {
            fs::remove_dir_all(&folder)?;
            return Ok(None);
        };
        command.stdin(Stdio::null()).stdout(if matches!(protocol, Protocol::Heartbus(_) | Protocol::WebSocket) {
            Stdio::piped()
        } else {
            Stdio::null()
        });
        let log = fs::File::create(folder.join("stderr"))?;
        command.stderr(log);
        proc::run_on(&cores.server)?;
        let child = command.spawn();
        proc::run_on(&cores.load)?;
        let mut child = child?;
        let output = child.stdout.take().map(BufReader::new);
        let server =
            Self { target: Target { protocol, address: (Ipv4Addr::LOCALHOST, port).into(), pid: child.id() }, child, output, folder };
        server.wait_until_it_listens()?;
        Ok(Some(server))
    }

    /// The socket that [`Ours::bus`] asked for.
    pub fn bus(&self) -> PathBuf {
        self.folder.join("bus.sock")
    }

    /// A line that the server prints, which is JSON.
    pub fn report(&mut self) -> Result<serde_json::Value> {
        let mut line = String::new();
        let output = self.output.as_mut().ok_or_else(|| Error::new("the server prints nothing"))?;
        let patience = Timespec::try_from(2 * PATIENCE).map_err(|error| Error::new(error.to_string()))?;
        if output.buffer().is_empty() && poll(&mut [PollFd::new(output.get_ref(), PollFlags::IN)], Some(&patience))? == 0 {
            return Err(Error::new("the server said nothing in time"));
        }
        output.read_line(&mut line)?;
        serde_json::from_str(&line).map_err(|_| Error::new(format!("the server said {line:?} and {:?}", self.complaints())))
    }

    fn complaints(&self) -> String {
        fs::read_to_string(self.folder.join("stderr")).unwrap_or_default()
    }

    fn wait_until_it_listens(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.target.address).is_err() {
            if Instant::now() > deadline {
                return Err(Error::new(format!("{} does not listen: {}", self.target.protocol.name(), self.complaints())));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        if let Some(pid) = proc::pid_of(&self.child) {
            let _ = kill_process(pid, Signal::TERM);
        }
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        // Only for one that does not listen to the signal; for the others this does nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn command(protocol: Protocol, reply: Reply, ours: &Ours, port: u16, folder: &Path) -> Result<Option<Command>> {
    let port = port.to_string();
    let file = |name: &str, text: String| -> Result<PathBuf> {
        let path = folder.join(name);
        fs::write(&path, text)?;
        Ok(path)
    };
    let mut command;
    match protocol {
        Protocol::Floor(dialect) => {
            command = Command::new(std::env::current_exe()?);
            let reply = match reply {
                Reply::Heartbeat => "heartbeat",
                Reply::Register => "register",
                Reply::Broadcast => "broadcast",
                Reply::Publish => "publish",
            };
            command.args(["floor", "--port", &port, "--dialect", dialect.name(), "--reply", reply, "--threads", &ours.threads.to_string()]);
        }
        Protocol::Heartbus(_) | Protocol::WebSocket => {
            command = Command::new("php");
            let extension = std::env::var("HEARTBUS_SO").unwrap_or_else(|_| "build/heartbus.so".into());
            command.args(["-d", &format!("extension={}", fs::canonicalize(&extension)?.display()), "-d", "memory_limit=-1"]);
            command.args(["bench/server.php", "--port", &port, "--mode", ours.mode, "--threads", &ours.threads.to_string()]);
            command.args(["--timeout", &ours.timeout.to_string(), "--expect", &ours.expect.to_string()]);
            if protocol == Protocol::WebSocket {
                command.arg("--websocket");
            }
            if ours.history > 0 {
                command.args(["--history", &ours.history.to_string()]);
            }
            if ours.bus {
                command.args(["--bus".as_ref(), folder.join("bus.sock").as_os_str()]);
            }
        }
        Protocol::Ws => {
            let Some(program) = find("node").filter(|_| Path::new(WS).is_dir()) else { return Ok(None) };
            command = Command::new(program);
            command.args(["bench/ws.cjs", &port, WS]);
        }
        Protocol::Redis => {
            let Some(program) = find("redis-server") else { return Ok(None) };
            command = Command::new(program);
            command.args(["--port", &port, "--bind", "127.0.0.1", "--maxclients", "15000", "--save", "", "--appendonly", "no"]);
            command.args(["--tcp-backlog", "4096", "--tcp-keepalive", "0", "--protected-mode", "no"]).current_dir(folder);
        }
        Protocol::Mqtt => {
            let Some(program) = find("mosquitto") else { return Ok(None) };
            let settings = format!(
                "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nset_tcp_nodelay true\nmax_connections -1\nlog_type error\n"
            );
            command = Command::new(program);
            command.arg("-c").arg(file("mosquitto.conf", settings)?);
        }
        Protocol::Nats => {
            let Some(program) = find("nats-server") else { return Ok(None) };
            let settings = format!("host: 127.0.0.1\nport: {port}\nping_interval: \"60m\"\nmax_connections: 15000\n");
            command = Command::new(program);
            command.arg("-c").arg(file("nats.conf", settings)?);
        }
    }
    Ok(Some(command))
}

/// Debian puts some servers where the search path of a user does not look.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/sbin", "/usr/local/sbin"]).map(|folder| Path::new(folder).join(program)).find(|path| path.is_file())
}

/// A port below those that the system gives to outgoing connections, so that none of ours takes it meanwhile.
pub fn free_port() -> Result<u16> {
    for _ in 0..1000 {
        let port = fastrand::u16(20_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(Error::new("no port is free"))
}

/// The peers that can be measured, and the packages of those that cannot.
pub fn peers() -> (Vec<Protocol>, Vec<&'static str>) {
    let all = [(Protocol::Redis, "redis-server"), (Protocol::Mqtt, "mosquitto"), (Protocol::Nats, "nats-server")];
    let (here, missing): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, program)| find(program).is_some());
    (here.into_iter().map(|(protocol, _)| protocol).collect(), missing.into_iter().map(|(_, program)| program).collect())
}

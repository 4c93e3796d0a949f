//! The server that is attacked, and how one speaks to it.

use crate::protocol::Dialect;
use crate::server::free_port;
use crate::{Error, Result, proc};
use heartbus_core::bus::Bus;
use heartbus_core::wire::FrameType;
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

/// How long a node may be silent. The healthy ones beat four times in it.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(2);
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Arena {
    pub(super) server: Child,
    address: SocketAddr,
    folder: PathBuf,
}

impl Arena {
    pub(super) fn open(mode: &str, total_buffer_bytes: u64) -> Result<Self> {
        let port = free_port()?;
        let folder = std::env::temp_dir().join(format!("heartbus-attack-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let settings = json!({
            "heartbeat_timeout": HEARTBEAT_TIMEOUT.as_secs(),
            "total_buffer_bytes": total_buffer_bytes,
            // At the main port, where every other attack meets it as well.
            "websocket": true,
            "bus": folder.join("bus.sock"),
        });
        let extension = std::env::var("HEARTBUS_SO").unwrap_or_else(|_| "build/heartbus.so".into());
        let server = Command::new("php")
            .args(["-d", &format!("extension={}", std::fs::canonicalize(extension)?.display()), "-d", "memory_limit=-1"])
            .args(["bench/attack.php", "--port", &port.to_string(), "--mode", mode, "--settings", &settings.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let arena = Self { server, address: (Ipv4Addr::LOCALHOST, port).into(), folder };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(arena.address).is_err() {
            if Instant::now() > deadline {
                return Err(Error::new("the server does not listen"));
            }
            sleep(Duration::from_millis(20));
        }
        Ok(arena)
    }

    pub(super) fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        // A server that reads no more is an answer as well.
        stream.set_write_timeout(Some(Duration::from_millis(500)))?;
        Ok(stream)
    }

    /// A connection whose node is online, in v2.
    pub(super) fn registered(&self, id: &str, metadata: &Value) -> Result<TcpStream> {
        let mut stream = self.connect()?;
        stream.write_all(&register(id, metadata))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        read_frame(&mut stream)?;
        Ok(stream)
    }

    pub(super) fn bus(&self) -> Result<Bus> {
        Bus::connect(&self.folder.join("bus.sock"), PATIENCE).map_err(|error| Error::new(error.to_string()))
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = proc::pid_of(&self.server).ok_or_else(|| Error::new("the server has no process"))?;
        Ok(kill_process(pid, signal)?)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Takes what the server sends, so that it never waits for us.
pub(super) fn read_away(stream: &TcpStream) -> Result<()> {
    let mut stream = stream.try_clone()?;
    stream.set_read_timeout(None)?;
    thread::spawn(move || while stream.read(&mut [0; 65_536]).is_ok_and(|count| count > 0) {});
    Ok(())
}

pub(super) fn read_frame(stream: &mut TcpStream) -> Result<()> {
    let mut header = [0; 12];
    stream.read_exact(&mut header)?;
    let len = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    std::io::copy(&mut stream.take(len.into()), &mut std::io::sink())?;
    Ok(())
}

pub(super) fn register(id: &str, metadata: &Value) -> Vec<u8> {
    let payload = json!({ "node_id": id, "metadata": metadata, "protocol": 2 });
    Dialect::V2.frame(FrameType::REGISTER, 0, payload.to_string().as_bytes())
}

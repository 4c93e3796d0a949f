//! A manager of Firetower's, played from the formats of its two ports: frames over TCP, and gRPC for subscriptions.

use super::gateway::frame;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Response};
use prost::Message;
use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

#[derive(Clone, PartialEq, Message)]
struct Subscriptions {
    #[prost(string, repeated, tag = "1")]
    topic: Vec<String>,
    #[prost(string, tag = "2")]
    ip: String,
}

#[derive(Default)]
pub(crate) struct State {
    /// Connections of gateways by their address.
    pub gateways: HashMap<String, TcpStream>,
    /// How many each has announced of each topic.
    pub counts: BTreeMap<(String, String), i64>,
    /// All frames that came, as they were.
    pub frames: Vec<Vec<u8>>,
    pub refuses: bool,
}

pub(crate) struct OldManager {
    pub state: Arc<Mutex<State>>,
    pub frames: SocketAddr,
    pub grpc: SocketAddr,
}

impl OldManager {
    pub(crate) fn start() -> Self {
        Self::at(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    pub(crate) fn at(listener: TcpListener) -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let frames = listener.local_addr().unwrap();
        let served = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = served.clone();
                thread::spawn(move || relay(&stream, &state));
            }
        });
        let (address, grpc) = std::sync::mpsc::sync_channel(1);
        let served = state.clone();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            tokio::task::LocalSet::new().block_on(&runtime, async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                address.send(listener.local_addr().unwrap()).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::task::spawn_local(answer_calls(stream, served.clone()));
                }
            });
        });
        Self { state, frames, grpc: grpc.recv().unwrap() }
    }

    /// How many all gateways that are connected have announced of a topic: a call may be answered before the connection is looked at.
    pub(crate) fn count(&self, topic: &str) -> i64 {
        let state = self.state.lock().unwrap();
        let of_topic = state.counts.iter().filter(|((of, ip), _)| of == topic && state.gateways.contains_key(ip));
        of_topic.map(|(_, count)| count).sum()
    }

    /// What a program of the platform's has it relay.
    pub(crate) fn relay(&self, frame: &[u8]) {
        let mut peer = TcpStream::connect(self.frames).unwrap();
        peer.write_all(frame).unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        let _ = peer.read(&mut [0; 64]);
    }

    /// All gateways lose it, and it forgets them.
    pub(crate) fn hang_up(&self) {
        let mut state = self.state.lock().unwrap();
        state.gateways.drain().for_each(|(_, stream)| drop(stream.shutdown(Shutdown::Both)));
        state.counts.clear();
    }
}

fn relay(mut stream: &TcpStream, state: &Mutex<State>) {
    let address = stream.peer_addr().unwrap().to_string();
    let mut gateway = stream.try_clone().unwrap();
    gateway.write_all(&frame("heartbeat", "0", "system", "*", b"heartbeat")).unwrap();
    state.lock().unwrap().gateways.insert(address.clone(), gateway);
    let (mut received, mut buffer) = (Vec::new(), [0; 16 * 1024]);
    loop {
        while let Some(header) = received.first_chunk::<14>() {
            let len = 14 + i32::from_be_bytes(header[10..].try_into().unwrap()) as usize;
            if received.len() < len {
                break;
            }
            let frame: Vec<u8> = received.drain(..len).collect();
            let line = frame[14..].split(|byte| *byte == b'\n').next().unwrap();
            let topic = String::from_utf8(line.to_vec()).unwrap().split(' ').nth(3).unwrap().to_owned();
            let mut state = state.lock().unwrap();
            let gateways: Vec<String> = state.counts.keys().filter(|(of, _)| *of == topic).map(|(_, ip)| ip.clone()).collect();
            for ip in gateways {
                // The sender as well.
                if let Some(gateway) = state.gateways.get_mut(&ip) {
                    let _ = gateway.write_all(&frame);
                }
            }
            state.frames.push(frame);
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => received.extend(&buffer[..count]),
        }
    }
    let mut state = state.lock().unwrap();
    state.gateways.remove(&address);
    state.counts.retain(|(_, ip), _| *ip != address);
}

async fn answer_calls(stream: tokio::net::TcpStream, state: Arc<Mutex<State>>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let state = state.clone();
        tokio::task::spawn_local(async move {
            let (head, mut body) = request.into_parts();
            assert_eq!(
                (head.headers["content-type"].as_bytes(), head.headers["te"].as_bytes()),
                (&b"application/grpc"[..], &b"trailers"[..])
            );
            let mut bytes = BytesMut::new();
            while let Some(piece) = body.data().await {
                let piece = piece.unwrap();
                body.flow_control().release_capacity(piece.len()).unwrap();
                bytes.put(piece);
            }
            assert_eq!((bytes[0], u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize), (0, bytes.len() - 5));
            let call = Subscriptions::decode(&bytes[5..]).unwrap();
            let is_refused = {
                let mut state = state.lock().unwrap();
                for topic in call.topic {
                    match head.uri.path() {
                        "/topicproto.TopicService/SubscribeTopic" => *state.counts.entry((topic, call.ip.clone())).or_default() += 1,
                        "/topicproto.TopicService/UnSubscribeTopic" => {
                            let key = (topic, call.ip.clone());
                            let count = state.counts.get_mut(&key).expect("it had announced that");
                            *count -= 1;
                            if *count == 0 {
                                state.counts.remove(&key);
                            }
                        }
                        other => panic!("{other}"),
                    }
                }
                state.refuses
            };
            let response = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
            let mut answer = respond.send_response(response, false).unwrap();
            answer.send_data(Bytes::from_static(&[0; 5]), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", if is_refused { "14" } else { "0" }.parse().unwrap());
            answer.send_trailers(trailers).unwrap();
        });
    }
}

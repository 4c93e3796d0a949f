//! How a manager of Firetower's is told of subscriptions: by gRPC, two unary calls.
//!
//! Owns the HTTP/2 connection and the messages. Which topics are told is decided elsewhere.

use crate::hub::manager::Announcement;
use bytes::{BufMut, Bytes, BytesMut};
use h2::client::{self, SendRequest};
use http::{Method, Request, StatusCode, header};
use prost::Message;
use std::fmt::Display;
use std::future::poll_fn;
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, spawn_local};

/// In front of a message: whether it is compressed, and its length.
const PREFIX_LEN: usize = 5;

/// `SubscribeTopicRequest` and `UnSubscribeTopicRequest`, which look the same.
#[derive(Clone, PartialEq, Message)]
struct SubscriptionRequest {
    #[prost(string, repeated, tag = "1")]
    topic: Vec<String>,
    /// By which the manager knows the gateway: the address at our end of the connection that has the frames.
    #[prost(string, tag = "2")]
    ip: String,
}

pub(super) struct TopicService {
    requests: SendRequest<Bytes>,
    authority: String,
    ip: String,
    driver: AbortHandle,
}

impl Drop for TopicService {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl TopicService {
    /// `authority`: as whom the manager was asked for; `ip`: the gateway.
    pub(super) async fn over(stream: TcpStream, authority: String, ip: String) -> Result<Self, String> {
        let (requests, connection) = client::handshake(stream).await.map_err(said)?;
        // How that ended is seen by the next call.
        let driver = spawn_local(async move { drop(connection.await) }).abort_handle();
        Ok(Self { requests, authority, ip, driver })
    }

    pub(super) async fn tell(&mut self, announcement: Announcement) -> Result<(), String> {
        let method = if announcement.subscribes { "SubscribeTopic" } else { "UnSubscribeTopic" };
        let topic = announcement.topics.iter().map(ToString::to_string).collect();
        let message = SubscriptionRequest { topic, ip: self.ip.clone() };
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://{}/topicproto.TopicService/{method}", self.authority))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .body(())
            .map_err(said)?;
        poll_fn(|cx| self.requests.poll_ready(cx)).await.map_err(said)?;
        let (response, mut body) = self.requests.send_request(request, false).map_err(said)?;
        body.send_data(framed(&message), true).map_err(said)?;
        let (head, mut answer) = response.await.map_err(said)?.into_parts();
        if head.status != StatusCode::OK {
            return Err(format!("the answer is {}", head.status));
        }
        while let Some(piece) = answer.data().await {
            let len = piece.map_err(said)?.len();
            answer.flow_control().release_capacity(len).map_err(said)?;
        }
        // An answer without a message has its status in the head.
        let trailers = answer.trailers().await.map_err(said)?.unwrap_or(head.headers);
        match trailers.get("grpc-status").map(http::HeaderValue::as_bytes) {
            Some(b"0") => Ok(()),
            Some(status) => {
                let why = trailers.get("grpc-message").map_or_else(String::new, |why| String::from_utf8_lossy(why.as_bytes()).into_owned());
                Err(format!("gRPC status {} {why}", String::from_utf8_lossy(status)))
            }
            None => Err("the answer has no status of gRPC's".to_owned()),
        }
    }
}

fn framed(message: &impl Message) -> Bytes {
    let len = message.encoded_len();
    let mut framed = BytesMut::with_capacity(PREFIX_LEN + len);
    framed.put_u8(0);
    framed.put_u32(len as u32);
    // It has room.
    let _ = message.encode(&mut framed);
    framed.freeze()
}

fn said(why: impl Display) -> String {
    why.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_the_service_defines_them() {
        let message = SubscriptionRequest { topic: vec!["a".into(), "/b".into(), "a".into()], ip: "127.0.0.1:5".into() };
        assert_eq!(&framed(&message)[..], b"\0\0\0\0\x17\x0a\x01a\x0a\x02/b\x0a\x01a\x12\x0b127.0.0.1:5");
        assert_eq!(&framed(&SubscriptionRequest::default())[..], [0; PREFIX_LEN]);
    }
}

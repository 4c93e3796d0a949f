//! The request with which a WebSocket begins, and what is answered.
//!
//! Owns what RFC 6455 asks of it and how long it may be. Who may come from where is asked of whoever called ([`UpgradeRequest::origin`],
//! [`UpgradeRequest::path`]). Reads the head of the request with httparse.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use sha1::{Digest, Sha1};
use std::borrow::Cow;
use std::fmt::Write;

/// Of the request with its headers.
pub const MAX_LEN: usize = 8 * 1024;
const MAX_HEADERS: usize = 64;

/// RFC 6455, section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A request that a WebSocket may begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpgradeRequest<'a> {
    /// With its query.
    pub path: &'a str,
    pub host: &'a str,
    /// What a browser says of the page that opens the connection. Others mostly say nothing.
    pub origin: Option<&'a str>,
    /// In the order in which the client prefers them.
    pub subprotocols: Vec<&'a str>,
    /// The offer of the client's to compress that is taken, if one can be.
    pub deflate: Option<DeflateOffer>,
    accept: String,
}

/// An offer of permessage-deflate, as far as the answer depends on it.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct DeflateOffer {
    /// The window that our messages may refer back to. We send them as they are, so that each one is kept to.
    server_max_window_bits: Option<u8>,
}

/// Why a request is none, as its answer has it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct RequestError {
    pub status: u16,
    pub why: &'static str,
}

const fn wrong(status: u16, why: &'static str) -> RequestError {
    RequestError { status, why }
}

impl RequestError {
    /// Nobody on this path, or from this origin.
    pub const NOT_FOUND: Self = wrong(404, "There is no WebSocket on this path");
    pub const FORBIDDEN: Self = wrong(403, "This origin is not allowed");
    /// The request did not come within the time that it has.
    pub const TOO_LATE: Self = wrong(408, "The request took too long");
    pub const FULL: Self = wrong(503, "The server is full");
    pub const STOPPING: Self = wrong(503, "The server is shutting down");

    fn reason(self) -> &'static str {
        match self.status {
            400 => "Bad Request",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            408 => "Request Timeout",
            426 => "Upgrade Required",
            431 => "Request Header Fields Too Large",
            505 => "HTTP Version Not Supported",
            _ => "Service Unavailable",
        }
    }

    /// The whole answer; the connection is closed behind it.
    pub fn answer(self) -> String {
        let more = match self.status {
            405 => "Allow: GET\r\n",
            // RFC 6455, section 4.4: which version we speak; and that there is nothing else here.
            426 => "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            _ => "",
        };
        format!(
            "HTTP/1.1 {} {}\r\n{more}Content-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}\n",
            self.status,
            self.reason(),
            self.why.len() + 1,
            self.why
        )
    }
}

/// Whether a stream that begins like this is a request of HTTP's, and none of the bus.
pub fn is_http(front: &[u8]) -> bool {
    front.first().is_some_and(u8::is_ascii_uppercase)
}

/// The request at the front of `input`, and its length: what follows are frames already. `None`: not all of it is there.
///
/// # Errors
/// It is no request for a WebSocket.
pub fn parse(input: &[u8]) -> Result<Option<(UpgradeRequest<'_>, usize)>, RequestError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let seen = &input[..input.len().min(MAX_LEN)];
    let len = match request.parse(seen) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if input.len() < MAX_LEN => return Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Err(wrong(431, "The request is too long"));
        }
        Err(httparse::Error::Version) => return Err(wrong(505, "HTTP 1.1 is spoken here")),
        Err(_) => return Err(wrong(400, "This is no request")),
    };
    if request.method != Some("GET") {
        return Err(wrong(405, "A WebSocket begins with GET"));
    }
    if request.version != Some(1) {
        return Err(wrong(505, "HTTP 1.1 is spoken here"));
    }
    let headers = Headers(request.headers);
    if !headers.has_token("upgrade", "websocket") || !headers.has_token("connection", "upgrade") {
        return Err(wrong(426, "A WebSocket is spoken here"));
    }
    if headers.one("sec-websocket-version")? != Some("13") {
        return Err(wrong(426, "Version 13 is spoken here"));
    }
    let key = headers.one("sec-websocket-key")?.unwrap_or_default();
    if STANDARD.decode(key).map_or(0, |key| key.len()) != 16 {
        return Err(wrong(400, "Sec-WebSocket-Key is not 16 bytes in base64"));
    }
    let Some(host) = headers.one("host")? else { return Err(wrong(400, "Host is missing")) };
    let request = UpgradeRequest {
        path: request.path.unwrap_or_default(),
        host,
        origin: headers.one("origin")?,
        subprotocols: headers.tokens("sec-websocket-protocol").collect(),
        deflate: headers.tokens("sec-websocket-extensions").find_map(deflate_offer),
        accept: STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize()),
    };
    Ok(Some((request, len)))
}

/// The headers of a request. Names are told apart as HTTP does; what is no UTF-8 is as good as not there.
struct Headers<'h, 'a>(&'h [httparse::Header<'a>]);

impl<'a> Headers<'_, 'a> {
    fn all(&self, name: &'static str) -> impl Iterator<Item = &'a str> {
        let named = self.0.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
        named.filter_map(|header| std::str::from_utf8(header.value).ok()).map(str::trim)
    }

    /// A header that must not come twice: of two nobody knows which holds.
    fn one(&self, name: &'static str) -> Result<Option<&'a str>, RequestError> {
        let mut all = self.all(name);
        match (all.next(), all.next()) {
            (_, Some(_)) => Err(wrong(400, "A header comes twice that may come once")),
            (one, None) => Ok(one),
        }
    }

    fn tokens(&self, name: &'static str) -> impl Iterator<Item = &'a str> {
        self.all(name).flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
    }

    fn has_token(&self, name: &'static str, wanted: &str) -> bool {
        self.tokens(name).any(|token| token.eq_ignore_ascii_case(wanted))
    }
}

/// An offer that can be taken as it is answered: no context takeover either way.
fn deflate_offer(offer: &str) -> Option<DeflateOffer> {
    let mut parts = offer.split(';').map(str::trim);
    parts.next().filter(|name| name.eq_ignore_ascii_case("permessage-deflate"))?;
    parts.try_fold(DeflateOffer::default(), |offer, parameter| {
        let (name, value) =
            parameter.split_once('=').map_or((parameter, None), |(name, value)| (name.trim(), Some(value.trim().trim_matches('"'))));
        let bits = value.and_then(|value| value.parse().ok()).filter(|bits: &u8| (8..=15).contains(bits));
        match (name, value, bits) {
            ("server_no_context_takeover" | "client_no_context_takeover" | "client_max_window_bits", None, _) => Some(offer),
            ("client_max_window_bits", _, Some(_)) => Some(offer),
            ("server_max_window_bits", _, Some(bits)) => Some(DeflateOffer { server_max_window_bits: Some(bits) }),
            _ => None,
        }
    })
}

impl UpgradeRequest<'_> {
    /// A parameter of the path's query, by its name: of several the first one. What is no UTF-8 is as good as not there.
    pub fn query(&self, name: &str) -> Option<Cow<'_, str>> {
        let (_, query) = self.path.split_once('?')?;
        let value = query.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))?.1;
        percent_decode_str(value).decode_utf8().ok().filter(|value| !value.is_empty())
    }

    /// The path without its query.
    pub fn path_only(&self) -> &str {
        self.path.split(['?', '#']).next().unwrap_or_default()
    }

    /// The answer that makes it a WebSocket.
    pub fn accept(&self, subprotocol: Option<&str>, deflates: bool) -> String {
        let mut answer = String::with_capacity(256);
        answer.push_str("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ");
        answer.push_str(&self.accept);
        if let Some(subprotocol) = subprotocol {
            let _ = write!(answer, "\r\nSec-WebSocket-Protocol: {subprotocol}");
        }
        if let Some(offer) = self.deflate.filter(|_| deflates) {
            answer.push_str("\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover");
            if let Some(bits) = offer.server_max_window_bits {
                let _ = write!(answer, "; server_max_window_bits={bits}");
            }
        }
        answer.push_str("\r\n\r\n");
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = "GET /chat?x=1 HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

    fn with(more: &str) -> String {
        format!("{MINIMAL}{more}\r\n")
    }

    fn status(text: &str) -> u16 {
        parse(text.as_bytes()).unwrap_err().status
    }

    #[test]
    fn the_request_of_the_rfc_gets_the_answer_of_the_rfc() {
        let text = with("Origin: http://example.com\r\nSec-WebSocket-Protocol: chat, superchat\r\n");
        let input = format!("{text}\u{1}frames");
        let (request, len) = parse(input.as_bytes()).unwrap().unwrap();
        assert_eq!((len, request.path, request.path_only(), request.host), (text.len(), "/chat?x=1", "/chat", "server.example.com"));
        assert_eq!(
            (request.origin, &request.subprotocols[..], request.deflate),
            (Some("http://example.com"), &["chat", "superchat"][..], None)
        );
        let answer = request.accept(Some("chat"), true);
        assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n") && answer.ends_with("\r\n\r\n"));
        assert!(
            answer.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n")
                && answer.contains("\r\nSec-WebSocket-Protocol: chat\r\n")
        );
        assert!(!answer.contains("Extensions"));
    }

    #[test]
    fn a_request_may_come_in_parts_and_its_headers_in_any_case_and_order() {
        let text = with("");
        for cut in 0..text.len() {
            assert_eq!(parse(&text.as_bytes()[..cut]), Ok(None), "{cut}");
        }
        let text = "GET / HTTP/1.1\r\nsec-websocket-version:13\r\nCONNECTION: keep-alive, upgrade\r\nupgrade: WebSocket\r\nhost: h\r\n\
            SEC-WEBSOCKET-KEY:   dGhlIHNhbXBsZSBub25jZQ==  \r\n\r\n";
        assert!(parse(text.as_bytes()).unwrap().is_some());
    }

    #[test]
    fn what_is_no_request_for_a_websocket_is_told_why() {
        assert_eq!(status("GET / HTTP/1.1\r\nHost: h\r\n\r\n"), 426);
        assert_eq!(status(&with("").replace("GET", "POST")), 405);
        assert_eq!(status(&with("").replace("HTTP/1.1", "HTTP/1.0")), 505);
        assert_eq!(status(&with("").replace("HTTP/1.1", "HTTP/9.9")), 505);
        assert_eq!(status(&with("").replace("Version: 13", "Version: 8")), 426);
        assert_eq!(status(&with("").replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=")), 400);
        assert_eq!(status(&with("").replace("Sec-WebSocket-Key", "X")), 400);
        assert_eq!(status(&with("").replace("Host", "X")), 400);
        assert_eq!(status(&with("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")), 400);
        assert_eq!(status(&with("Origin: a\r\nOrigin: b\r\n")), 400);
        assert_eq!(status("NONSENSE\r\n\r\n"), 400);
        assert_eq!(status(&with(&"X: y\r\n".repeat(MAX_HEADERS))), 431);
        assert_eq!(status(&format!("{MINIMAL}X: {}", "y".repeat(MAX_LEN))), 431);
        let answer = parse(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap_err().answer();
        assert!(answer.starts_with("HTTP/1.1 426 Upgrade Required\r\n") && answer.contains("\r\nSec-WebSocket-Version: 13\r\n"));
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())) && head.ends_with("Connection: close"));
    }

    #[test]
    fn an_offer_to_compress_is_taken_where_it_can_be_kept() {
        let can =
            |offer: &str| parse(with(&format!("Sec-WebSocket-Extensions: {offer}\r\n")).as_bytes()).unwrap().unwrap().0.deflate.is_some();
        for offer in [
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; server_no_context_takeover; client_max_window_bits=\"10\"",
            "x-webkit-deflate-frame, permessage-deflate",
            "permessage-deflate; server_max_window_bits=10",
            "permessage-deflate; server_max_window_bits=7, permessage-deflate",
        ] {
            assert!(can(offer), "{offer}");
        }
        for offer in [
            "x-webkit-deflate-frame",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; x",
        ] {
            assert!(!can(offer), "{offer}");
        }
        let text = with("Sec-WebSocket-Extensions: permessage-deflate\r\n");
        let (request, _) = parse(text.as_bytes()).unwrap().unwrap();
        assert!(request.accept(None, true).contains("\r\nSec-WebSocket-Extensions: permessage-deflate; server_no"));
        assert!(!request.accept(None, false).contains("Extensions"));
        let answer = |offer: &str| {
            let text = with(&format!("Sec-WebSocket-Extensions: {offer}\r\n"));
            parse(text.as_bytes()).unwrap().unwrap().0.accept(None, true)
        };
        assert!(
            answer("permessage-deflate; server_max_window_bits=9").contains("client_no_context_takeover; server_max_window_bits=9\r\n")
        );
        assert!(!answer("permessage-deflate; client_max_window_bits=9, permessage-deflate; server_max_window_bits=9").contains("bits"));
    }

    #[test]
    fn the_first_byte_tells_http_from_the_bus() {
        assert!(is_http(b"GET / HTTP/1.1"));
        assert!(!is_http(b"\xab\x12") && !is_http(b"") && !is_http(b"{"));
    }
}

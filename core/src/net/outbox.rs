//! What waits to be written to one connection, in the order of sending; but answers to heartbeats stand in front.
//!
//! Owns how it is kept, so that what waits takes little more memory than its bytes, and how it is handed to the socket. Does not
//! know when that is done, nor the bound on it, which is the link's.

use super::transport::Transport;
use crate::hub::frame::{MAX_HEAD, QueuedFrame};
use crate::wire::{self, Dialect, framing};
use bytes::BufMut;
use std::collections::VecDeque;
use std::io::IoSlice;

/// Pieces handed to one `sendmsg`. More would not make a call cheaper that is already dominated by copying.
const PIECES: usize = 64;
/// What is no longer than this altogether is joined first: copying it twice is less than what `sendmsg` takes to look
/// at each piece, and the frames of a fan-out are a small head and a shared body.
pub(super) const SMALL: usize = 1024;
/// A frame that has to wait for its peer and is no longer than this is copied behind the one before: the frame itself would take as
/// much memory as its bytes.
const COPIED: usize = 128;
/// Copies and replies come together in pieces up to this long.
const CHUNK: usize = 16 * 1024;
/// A queue that grew longer gives memory back when it is a quarter full.
pub(super) const USUAL_QUEUE: usize = 64;

#[derive(Default)]
pub(super) struct Outbox {
    pieces: VecDeque<Piece>,
    /// Bytes of the pieces that are not written yet,
    len: usize,
    /// and those of the first piece that are.
    written: usize,
    /// So many bytes at the front of the first piece are the end of a frame that was begun before it.
    begun: usize,
    /// So many pieces from the front on are not overtaken by answers to heartbeats: the last of them, if any, has such answers.
    ahead: usize,
    /// From the first frame on that has to be in v2, until the peer speaks it.
    held: VecDeque<Piece>,
    held_len: usize,
    /// Memory of the pieces that are bytes.
    bytes: usize,
}

enum Piece {
    QueuedFrame(QueuedFrame),
    Bytes(Vec<u8>),
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Self::QueuedFrame(frame) => frame.len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }

    /// What it takes in memory, where it is bytes.
    fn capacity(&self) -> usize {
        match self {
            Self::QueuedFrame(_) => 0,
            Self::Bytes(bytes) => bytes.capacity(),
        }
    }
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.held.is_empty()
    }

    /// Whether there is something that the socket could take.
    pub(super) fn has_backlog(&self) -> bool {
        !self.pieces.is_empty()
    }

    /// Bytes that the socket is to take.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes that wait for the peer to speak v2.
    pub(super) fn held_len(&self) -> usize {
        self.held_len
    }

    /// Queues a frame. `waits`: the socket is known to take nothing now.
    pub(super) fn push(&mut self, frame: QueuedFrame, speaks_v2: bool, waits: bool) {
        let is_held = !self.held.is_empty() || !speaks_v2 && frame.dialect() == Dialect::V2;
        *(if is_held { &mut self.held_len } else { &mut self.len }) += frame.len();
        let queue = if is_held { &mut self.held } else { &mut self.pieces };
        if (waits || is_held) && frame.len() <= COPIED {
            let is_ahead = !is_held && self.ahead == queue.len();
            let chunk = chunk(queue, is_ahead, &mut self.bytes, frame.len());
            frame.write_head(chunk);
            chunk.extend_from_slice(frame.body());
        } else {
            queue.push_back(Piece::QueuedFrame(frame));
        }
    }

    /// Queues whole replies. Answers to heartbeats go before everything that is not begun, whatever it is, and keep their order; all
    /// others go behind what waits already.
    pub(super) fn push_replies(&mut self, mut replies: &[u8]) {
        while let Some(len) = wire::framed_len(replies) {
            let (reply, rest) = replies.split_at(len.min(replies.len()));
            if framing::is_sign_of_life(reply) {
                self.push_ahead(reply);
            } else {
                self.push_bytes(reply);
            }
            replies = rest;
        }
        self.push_bytes(replies);
    }

    /// Queues replies of which the socket has taken the first `written` bytes, when nothing else waits.
    pub(super) fn push_rest(&mut self, replies: &[u8], written: usize) {
        debug_assert!(self.pieces.is_empty(), "it was written, so nothing stood before it");
        let end = boundary(replies, 0, written);
        self.begun = end - written;
        self.push_bytes(&replies[written..end]);
        self.push_replies(&replies[end..]);
    }

    fn push_bytes(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.len += bytes.len();
            let is_ahead = self.ahead == self.pieces.len();
            chunk(&mut self.pieces, is_ahead, &mut self.bytes, bytes.len()).extend_from_slice(bytes);
        }
    }

    fn push_ahead(&mut self, reply: &[u8]) {
        self.len += reply.len();
        let before = self.ahead.checked_sub(1).and_then(|last| self.pieces.get_mut(last));
        if let Some(Piece::Bytes(bytes)) = before.filter(|piece| piece.len() + reply.len() <= CHUNK) {
            extend(bytes, &mut self.bytes, reply.len());
            bytes.extend_from_slice(reply);
            return;
        }
        if self.ahead == 0 && self.cut() {
            self.ahead = 1;
        }
        self.bytes += reply.len();
        self.pieces.insert(self.ahead, Piece::Bytes(reply.to_vec()));
        self.ahead += 1;
    }

    /// Makes what is left of the frame that was begun a piece by itself. False when none was.
    fn cut(&mut self) -> bool {
        match self.pieces.front_mut() {
            Some(Piece::QueuedFrame(_)) => self.written > 0,
            Some(Piece::Bytes(bytes)) => {
                let end = boundary(bytes, self.begun, self.written);
                if end == 0 {
                    return false;
                }
                if end < bytes.len() {
                    // What stays is copied as well: it is the rest of one short frame, in a piece that may be long.
                    self.bytes -= bytes.capacity();
                    let (first, rest) = (bytes[..end].to_vec(), bytes[end..].to_vec());
                    self.bytes += first.capacity() + rest.capacity();
                    *bytes = first;
                    self.pieces.insert(1, Piece::Bytes(rest));
                }
                true
            }
            None => false,
        }
    }

    /// Forgets everything but the rest of the frame that was begun: how many bytes that were, those held for v2 among them.
    pub(super) fn drop_waiting(&mut self) -> usize {
        let before = self.len + self.held_len;
        let begun = self.cut();
        self.pieces.truncate(usize::from(begun));
        self.len = self.pieces.front().map_or(0, |piece| piece.len() - self.written);
        if self.len == 0 {
            self.pieces.clear();
            (self.written, self.begun) = (0, 0);
        }
        self.pieces.shrink_to_fit();
        self.bytes = self.pieces.iter().map(Piece::capacity).sum();
        (self.held, self.held_len, self.ahead) = (VecDeque::new(), 0, 0);
        before - self.len
    }

    /// The peer has spoken v2: what was held for that is queued now. False when there was none.
    pub(super) fn release_held(&mut self) -> bool {
        self.len += std::mem::take(&mut self.held_len);
        let had_some = !self.held.is_empty();
        self.pieces.append(&mut self.held);
        self.held = VecDeque::new();
        had_some
    }

    /// One write of what waits, from its beginning: how many bytes were offered, and what the socket took of them.
    pub(super) fn send(&self, transport: &Transport, small: &mut [u8; SMALL]) -> (usize, rustix::io::Result<usize>) {
        let mut room = &mut small[..];
        let mut skip = self.written;
        for piece in &self.pieces {
            if piece.len() - skip > room.len() {
                return self.send_pieces(transport);
            }
            match piece {
                Piece::Bytes(bytes) => room.put_slice(&bytes[skip..]),
                Piece::QueuedFrame(frame) if skip == 0 => {
                    frame.write_head(&mut room);
                    room.put_slice(frame.body());
                }
                Piece::QueuedFrame(frame) => {
                    let mut head = [0; MAX_HEAD];
                    let (head, body) = rest_of(frame, skip, &mut head);
                    room.put_slice(head);
                    room.put_slice(body);
                }
            }
            skip = 0;
        }
        let len = SMALL - room.len();
        (len, transport.send(&small[..len]))
    }

    fn send_pieces(&self, transport: &Transport) -> (usize, rustix::io::Result<usize>) {
        let mut heads = [[0; MAX_HEAD]; PIECES / 2];
        let mut slices = [IoSlice::new(&[]); PIECES];
        let mut skip = self.written;
        for ((piece, head), pair) in self.pieces.iter().zip(&mut heads).zip(slices.chunks_exact_mut(2)) {
            let (first, second) = match piece {
                Piece::Bytes(bytes) => (&bytes[skip..], &[][..]),
                Piece::QueuedFrame(frame) => rest_of(frame, skip, head),
            };
            pair[0] = IoSlice::new(first);
            pair[1] = IoSlice::new(second);
            skip = 0;
        }
        let offered = slices.iter().map(|slice| slice.len()).sum();
        let used = 2 * self.pieces.len().min(PIECES / 2);
        (offered, transport.send_pieces(&slices[..used]))
    }

    /// Forgets what is written.
    pub(super) fn advance(&mut self, mut count: usize) {
        self.len -= count;
        while let Some(first) = self.pieces.front() {
            let left = first.len() - self.written;
            if count < left {
                self.written += count;
                break;
            }
            count -= left;
            self.written = 0;
            self.begun = 0;
            self.ahead = self.ahead.saturating_sub(1);
            self.bytes -= self.pieces.pop_front().map_or(0, |piece| piece.capacity());
        }
        let capacity = self.pieces.capacity();
        if capacity > USUAL_QUEUE && self.pieces.len() < capacity / 4 {
            self.pieces.shrink_to(USUAL_QUEUE.max(2 * self.pieces.len()));
        }
    }

    pub(super) fn queue_capacity(&self) -> usize {
        self.pieces.capacity() + self.held.capacity()
    }

    /// What it takes in memory beside the bodies of frames, which count themselves.
    pub(super) fn memory(&self) -> usize {
        self.bytes + self.queue_capacity() * size_of::<Piece>()
    }

    /// The memory that is free when this is dropped: bodies that others share are not.
    pub(super) fn alone(&self) -> usize {
        let bodies = self.pieces.iter().chain(&self.held).map(|piece| match piece {
            Piece::QueuedFrame(frame) => frame.alone(),
            Piece::Bytes(_) => 0,
        });
        self.memory() + bodies.sum::<usize>()
    }
}

/// The piece at the end that takes `more` bytes; a new one where that is `closed`. `memory` is that of all of them.
fn chunk<'a>(queue: &'a mut VecDeque<Piece>, closed: bool, memory: &mut usize, more: usize) -> &'a mut Vec<u8> {
    let fits = |piece: &Piece| matches!(piece, Piece::Bytes(bytes) if bytes.len() + more <= CHUNK);
    if closed || !queue.back().is_some_and(fits) {
        queue.push_back(Piece::Bytes(Vec::new()));
    }
    let Some(Piece::Bytes(bytes)) = queue.back_mut() else { unreachable!("it was found or put there") };
    extend(bytes, memory, more);
    bytes
}

/// Makes room for `more` bytes.
fn extend(bytes: &mut Vec<u8>, memory: &mut usize, more: usize) {
    let (len, before) = (bytes.len(), bytes.capacity());
    if len + more > before {
        bytes.reserve_exact((len + more).max(CHUNK.min(2 * before)) - len);
        *memory += bytes.capacity() - before;
    }
}

/// Where in whole frames, of which the first one begins at `at`, the first one begins that is not before `from`.
fn boundary(frames: &[u8], mut at: usize, from: usize) -> usize {
    while at < from {
        at += wire::framed_len(&frames[at..]).unwrap_or(usize::MAX).min(frames.len() - at).max(1);
    }
    at
}

/// Head and body behind the first `skip` bytes.
fn rest_of<'a>(frame: &'a QueuedFrame, skip: usize, head: &'a mut [u8; MAX_HEAD]) -> (&'a [u8], &'a [u8]) {
    frame.write_head(&mut &mut head[..]);
    let len = frame.head_len();
    (&head[skip.min(len)..len], &frame.body()[skip.saturating_sub(len)..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Memory;
    use crate::hub::frame::Body;
    use crate::hub::memory::Part;
    use crate::wire::{self, FrameType};
    use mio::net::TcpStream;
    use std::io::Read;
    use std::sync::Arc;

    fn frame(memory: &Arc<Memory>, dialect: Dialect, len: usize) -> QueuedFrame {
        QueuedFrame::new(dialect, FrameType::DATA, 7, Body::encode(dialect, &vec![b'x'; len], memory).unwrap())
    }

    fn encoded(dialect: Dialect, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        wire::encode(dialect, FrameType::DATA, 7, &vec![b'x'; len], &mut bytes).unwrap();
        bytes
    }

    fn sockets() -> (Transport, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        (TcpStream::from_std(socket).into(), peer)
    }

    /// Whatever is queued, in whatever pieces the socket takes it, the peer reads the same bytes.
    #[test]
    fn pieces_of_every_kind_and_length_are_written_in_order_whatever_the_socket_takes() {
        let memory = Arc::new(Memory::new(1));
        let mut random = fastrand::Rng::with_seed(5);
        let (socket, mut peer) = sockets();
        for _ in 0..300 {
            let mut outbox = Outbox::default();
            let mut expected = Vec::new();
            for _ in 0..random.usize(1..100) {
                let longest = random.usize(1..400);
                let len = random.usize(0..longest);
                if random.bool() {
                    let dialect = if random.bool() { Dialect::V1 } else { Dialect::V2 };
                    outbox.push(frame(&memory, dialect, len), true, random.bool());
                    expected.extend(encoded(dialect, len));
                } else {
                    outbox.push_bytes(&vec![b'y'; len]);
                    expected.extend(vec![b'y'; len]);
                }
            }
            // What the socket took is said to be less: the rest is sent, and read, once more.
            let mut small = [0; SMALL];
            let mut got = Vec::new();
            while outbox.has_backlog() {
                let (offered, taken) = outbox.send(&socket, &mut small);
                assert_eq!(taken, Ok(offered));
                let mut read = vec![0; offered];
                peer.read_exact(&mut read).unwrap();
                let counts = random.usize(0..=offered);
                got.extend_from_slice(&read[..counts]);
                outbox.advance(counts);
            }
            assert_eq!(got, expected);
            assert_eq!((outbox.len(), outbox.bytes, memory.of(Part::Output)), (0, 0, 0));
        }
    }

    /// What the peer is still to read.
    fn contents(outbox: &Outbox) -> Vec<u8> {
        let mut bytes = Vec::new();
        for piece in &outbox.pieces {
            match piece {
                Piece::QueuedFrame(frame) => {
                    frame.write_head(&mut bytes);
                    bytes.extend_from_slice(frame.body());
                }
                Piece::Bytes(more) => bytes.extend_from_slice(more),
            }
        }
        bytes.split_off(outbox.written)
    }

    fn reply(dialect: Dialect, frame_type: FrameType, number: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        wire::encode(dialect, frame_type, number as u32, number.to_string().repeat(number % 7).as_bytes(), &mut bytes).unwrap();
        bytes
    }

    fn is_heartbeat(frame: &[u8]) -> bool {
        wire::frame_type(frame) == Some(FrameType::HEARTBEAT_RES)
    }

    /// The model is a list of frames, of which the first may have been begun.
    #[derive(Default)]
    struct Model {
        frames: VecDeque<Vec<u8>>,
        written: usize,
    }

    impl Model {
        fn push(&mut self, frame: Vec<u8>) {
            let mut place = self.frames.len();
            if is_heartbeat(&frame) {
                let begun = usize::from(self.written > 0);
                place = begun + self.frames.iter().skip(begun).take_while(|frame| is_heartbeat(frame)).count();
            }
            self.frames.insert(place, frame);
        }

        fn advance(&mut self, count: usize) {
            self.written += count;
            while let Some(first) = self.frames.front().filter(|first| first.len() <= self.written) {
                self.written -= first.len();
                self.frames.pop_front();
            }
        }

        fn contents(&self) -> Vec<u8> {
            self.frames.iter().flatten().skip(self.written).copied().collect()
        }
    }

    #[test]
    fn answers_to_heartbeats_stand_before_all_that_is_not_begun_and_everything_else_keeps_its_order() {
        let memory = Arc::new(Memory::new(1));
        let mut random = fastrand::Rng::with_seed(8);
        for round in 0..300 {
            let (mut outbox, mut model) = (Outbox::default(), Model::default());
            let (many, longest) = (random.usize(1..20), [100, 400, 5000][round % 3]);
            for number in 0..random.usize(1..200) {
                let dialect = if random.bool() { Dialect::V1 } else { Dialect::V2 };
                if random.u8(0..3) == 0 {
                    let len = random.usize(0..longest);
                    outbox.push(frame(&memory, dialect, len), true, random.bool());
                    model.push(encoded(dialect, len));
                } else {
                    let types = [FrameType::HEARTBEAT_RES, FrameType::REGISTER, FrameType::PONG, FrameType::ERROR];
                    let replies: Vec<_> =
                        (0..random.usize(1..=many)).map(|n| reply(dialect, types[random.usize(0..4)], number + n)).collect();
                    let bytes = replies.concat();
                    if outbox.has_backlog() {
                        outbox.push_replies(&bytes);
                        replies.into_iter().for_each(|reply| model.push(reply));
                    } else {
                        let written = random.usize(0..bytes.len());
                        outbox.push_rest(&bytes, written);
                        model.frames.extend(replies);
                        model.advance(written);
                        // What was not begun then has its place as if it had come later.
                        let begun = usize::from(model.written > 0).min(model.frames.len());
                        let waiting = model.frames.split_off(begun);
                        waiting.into_iter().for_each(|frame| model.push(frame));
                    }
                }
                assert_eq!(contents(&outbox), model.contents());
                let count = random.usize(0..=outbox.len().min(2 * longest));
                outbox.advance(count);
                model.advance(count);
                assert_eq!(outbox.len(), model.contents().len());
                let bytes: usize = outbox.pieces.iter().map(Piece::capacity).sum();
                assert_eq!(outbox.bytes, bytes);
            }
            if random.bool() {
                outbox.push(frame(&memory, Dialect::V2, 50), false, true);
                let (before, begun) = (outbox.len() + 62, usize::from(model.written > 0));
                model.frames.truncate(begun);
                assert_eq!(outbox.drop_waiting(), before - model.contents().len());
                assert_eq!(contents(&outbox), model.contents());
                outbox.push_replies(&reply(Dialect::V2, FrameType::GOAWAY, 3));
                model.push(reply(Dialect::V2, FrameType::GOAWAY, 3));
                assert_eq!((contents(&outbox), outbox.held_len()), (model.contents(), 0));
            }
            outbox.advance(outbox.len());
            drop(outbox);
            assert_eq!(memory.of(Part::Output), 0);
        }
    }

    #[test]
    fn many_short_frames_that_wait_take_little_more_memory_than_their_bytes() {
        for (waits, speaks_v2) in [(true, true), (false, false)] {
            let memory = Arc::new(Memory::new(1));
            let mut outbox = Outbox::default();
            let shared = frame(&memory, Dialect::V2, 1);
            let mut bytes = 0;
            while bytes < 1 << 20 {
                bytes += shared.len();
                outbox.push(shared.clone(), speaks_v2, waits);
            }
            assert!(outbox.alone() < bytes + bytes / 8, "{} for {bytes}", outbox.alone());
        }
    }

    #[test]
    fn what_is_shared_is_nobodys_alone_and_what_is_written_is_given_back() {
        let memory = Arc::new(Memory::new(1));
        let (mut one, mut other) = (Outbox::default(), Outbox::default());
        let shared = frame(&memory, Dialect::V2, 100_000);
        one.push(shared.clone(), true, true);
        other.push(shared, true, true);
        let queue = 4 * size_of::<Piece>();
        assert!(one.alone() <= queue && other.alone() <= queue, "{} {}", one.alone(), other.alone());
        drop(one);
        assert!(other.alone() > 100_000);
        let counts = 2 * USUAL_QUEUE;
        for _ in 0..counts {
            other.push(frame(&memory, Dialect::V2, 1000), true, true);
        }
        other.advance(100_012 + (counts - 1) * 1012);
        assert!(other.pieces.len() == 1 && other.pieces.capacity() <= USUAL_QUEUE + 1, "{}", other.pieces.capacity());
        assert_eq!(memory.of(Part::Output), other.alone() - other.memory());
    }

    #[test]
    fn what_is_held_for_v2_keeps_its_place_behind_what_was_sent_before_it() {
        let memory = Arc::new(Memory::new(1));
        let mut outbox = Outbox::default();
        outbox.push(frame(&memory, Dialect::V1, 10), false, false);
        outbox.push(frame(&memory, Dialect::V2, 500), false, false);
        outbox.push(frame(&memory, Dialect::V1, 20), false, false);
        let v1 = |len| encoded(Dialect::V1, len).len();
        assert_eq!((outbox.pieces.len(), outbox.held_len()), (1, 512 + v1(20)));
        outbox.advance(v1(10));
        assert!(!outbox.has_backlog() && !outbox.is_empty());
        assert!(outbox.release_held() && !outbox.release_held());
        assert_eq!((outbox.held_len(), outbox.pieces.iter().map(Piece::len).sum::<usize>()), (0, 512 + v1(20)));
    }
}

//! What an application has a client send: data, heartbeats, pings, more nodes and fewer.

use super::node_set::Others;
use super::{ClientMachine, ClientRefusal, ClientState, OpenConnection};
use crate::hub::Now;
use crate::wire::{FrameType, control};

impl ClientMachine {
    /// Queues data. A channel id of 0 or less means the client's own channel.
    ///
    /// # Errors
    /// [`ClientRefusal::NotConnected`] also before the register reply: the own channel is not known until then.
    pub fn send(&mut self, payload: &[u8], channel_id: i64, now: Now) -> Result<(), ClientRefusal> {
        let result = match (self.own_channel(), &self.others) {
            _ if !matches!(self.state, ClientState::Open(OpenConnection { registered: true, .. })) => Err(ClientRefusal::NotConnected),
            // What was a node's channel on an older connection may be another's by now.
            (_, Some(others)) if channel_id > 0 && !others.has_channel(channel_id) => Err(ClientRefusal::NoSuchChannel),
            _ if channel_id > 0 => self.queue(FrameType::DATA, channel_id, payload),
            (Some(own), _) => self.queue(FrameType::DATA, own.into(), payload),
            (None, _) => Err(ClientRefusal::NotConnected),
        };
        result.inspect_err(|refusal| self.client_log.not_sent(self.id, *refusal, now))
    }

    /// Queues data of one of the client's nodes. Unlike a channel id, a node id stays the same over reconnects.
    ///
    /// # Errors
    /// As [`ClientMachine::send`], and [`ClientRefusal::NoSuchNode`].
    pub fn send_from(&mut self, node_id: &str, payload: &[u8], now: Now) -> Result<(), ClientRefusal> {
        let result = self.channel_of(node_id).and_then(|channel_id| self.queue(FrameType::DATA, channel_id.into(), payload));
        result.inspect_err(|refusal| self.client_log.not_sent(self.id, *refusal, now))
    }

    /// Queues a heartbeat of one of the client's nodes.
    ///
    /// # Errors
    /// As [`ClientMachine::send_from`].
    pub fn heartbeat(&mut self, node_id: &str, now: Now) -> Result<(), ClientRefusal> {
        let channel_id = self.channel_of(node_id)?;
        self.queue(FrameType::HEARTBEAT_REQ, channel_id.into(), &control::heartbeat_payload(now.unix))
    }

    /// Has the client carry one more node, on this connection and those to come. `metadata` is JSON text. A node that the
    /// server took away is told as [`ClientEvent::NodeLost`] and may be added again.
    ///
    /// # Errors
    /// [`ClientRefusal::NodeExists`], [`ClientRefusal::TooManyNodes`]; [`ClientRefusal::NotConnected`] when the client does not come back.
    pub fn add_node(&mut self, node_id: &str, metadata: &str) -> Result<(), ClientRefusal> {
        if !self.comes_back() {
            return Err(ClientRefusal::NotConnected);
        }
        let is_connected = self.is_connected();
        let own = self.own_channel();
        let is_asked = matches!(self.state, ClientState::Open(OpenConnection { was_refused: false, .. }));
        let others = self.others.get_or_insert_with(|| Box::new(Others::new(&self.node_id, own, is_connected, is_asked)));
        if others.channel_of(node_id).is_none() && others.len() >= self.settings.max_nodes {
            return Err(ClientRefusal::TooManyNodes);
        }
        let metadata = Some(metadata.trim()).filter(|text| *text != "[]").map(Box::from);
        if others.add(node_id, metadata, &self.node_id, is_connected) { Ok(()) } else { Err(ClientRefusal::NodeExists) }
    }

    /// Signs one of the added nodes off. Nothing is told of it any more.
    ///
    /// # Errors
    /// [`ClientRefusal::NoSuchNode`]; [`ClientRefusal::FirstNode`] for the client's own, which `disconnect` signs off.
    pub fn remove_node(&mut self, node_id: &str) -> Result<(), ClientRefusal> {
        let is_first = self.is_first(node_id);
        let Some(others) = &mut self.others else {
            return Err(if is_first { ClientRefusal::FirstNode } else { ClientRefusal::NoSuchNode });
        };
        if is_first && others.channel_of(node_id).is_some() {
            return Err(ClientRefusal::FirstNode);
        }
        let registered_on = others.remove(node_id).map_err(|()| ClientRefusal::NoSuchNode)?;
        self.sign_off(registered_on);
        Ok(())
    }

    /// Queues a PING.
    ///
    /// # Errors
    /// As [`ClientMachine::send`], but the register reply need not be there.
    pub fn ping(&mut self, now: Now) -> Result<(), ClientRefusal> {
        let result = if self.is_connected() { self.queue(FrameType::PING, 0, b"") } else { Err(ClientRefusal::NotConnected) };
        result.inspect_err(|refusal| self.client_log.no_ping(self.id, *refusal, now))
    }

    /// It is connected, or will be.
    pub(super) fn comes_back(&self) -> bool {
        match &self.state {
            ClientState::Open(_) | ClientState::Dialing { .. } | ClientState::Waiting { .. } => true,
            ClientState::HangingUp { .. } => !self.leaving,
            ClientState::Flushing { .. } | ClientState::Finished => false,
        }
    }

    fn channel_of(&self, node_id: &str) -> Result<u32, ClientRefusal> {
        let channel_id = match &self.others {
            Some(others) => others.channel_of(node_id).ok_or(ClientRefusal::NoSuchNode)?,
            None if self.is_first(node_id) => self.own_channel(),
            None => return Err(ClientRefusal::NoSuchNode),
        };
        // Channel 0 would mean the first node, or all of them.
        channel_id.filter(|id| *id != 0 && self.is_connected()).ok_or(ClientRefusal::NotConnected)
    }
}

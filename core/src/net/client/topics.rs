//! What a client's host asks of topics.

use super::Client;
use crate::error::Error;
use crate::hub::client::ClientMachine;
use crate::model::Position;

impl Client {
    /// Subscribes the client's first node to a topic or a filter, over this connection and each that follows: a topic goes on behind the last
    /// message that was told, whatever was published meanwhile. With `since` it begins behind that position; one that is there already
    /// begins anew there, and otherwise stays as it is. `Subscribed` tells the server's answer, `SubscribeRefused` that it will not.
    ///
    /// # Errors
    /// `InvalidArgument` when it is no filter, or has `since` and wildcards; `Limit` when there are
    /// [`crate::settings::ClientConfig::max_subscriptions`]; `Closed` when the client will not connect again; `WrongProcess`.
    pub fn subscribe(&self, filter: &str, since: Option<Position>) -> Result<(), Error> {
        self.command(|machine, _| machine.subscribe(filter, since))
    }

    /// Nothing more is told of a topic or a filter, but for what waits in the inbox, and for what is on its way through a filter.
    ///
    /// # Errors
    /// `NotFound` when there is no such subscription; `WrongProcess`.
    pub fn unsubscribe(&self, filter: &str) -> Result<(), Error> {
        self.command(|machine, _| machine.unsubscribe(filter))
    }

    /// Publishes to a topic, in the name of the client's first node. Returns when it is queued. With a number it is answered: `Published` or
    /// `PublishRefused` has it; without one only a refusal is told.
    ///
    /// # Errors
    /// As [`Client::send`]; `InvalidArgument` also when it is no name of a topic.
    pub fn publish(&self, topic: &str, data: &[u8], number: Option<u32>) -> Result<(), Error> {
        self.command(|machine, now| machine.publish(topic, data, number, now))
    }

    /// Behind which position a topic would go on, also with another client: that of its last message that was told. `None` before the
    /// first answer, for a filter, for what it has not subscribed to, and in another process.
    pub fn position(&self, topic: &str) -> Option<Position> {
        if self.is_own_process() { ClientMachine::position(&self.shared.machine(), topic) } else { None }
    }
}

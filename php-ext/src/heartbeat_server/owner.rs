//! What the PHP objects of a server's nodes and channels, its manager and its scheduler ask of it.

use super::Server;
use crate::backend::{Backend, Registration};
use crate::bindings::{Owner, Sent, Subject};
use crate::classes::{channel, channel_scheduler, node_manager};
use crate::objects::Objects;
use crate::php::Outcome;
use crate::running_server::{self, NodeServer};
use ext_php_rs::ffi::zend_object;
use ext_php_rs::types::Zval;
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::service::{Reply, Request};
use std::rc::{Rc, Weak};

impl Owner for Server {
    fn check_process(&self) -> Outcome {
        Self::check_process(self)
    }

    fn forget(&self, object: *mut zend_object, subject: &Subject) {
        match subject {
            Subject::Node(node) => self.objects.forget_node(node),
            Subject::Channel(node) => {
                let was_last = self.objects.forget_channel(object, node);
                self.unwatch(node.channel_id());
                if was_last {
                    self.resubscribe();
                }
            }
        }
    }

    fn set_metadata(&self, object: *mut zend_object, node: &Registration, members: &str) -> Outcome<Result<(), Error>> {
        let Some(engine) = self.backend()? else { return Ok(Ok(())) };
        let set = engine.ask(&Request::SetMetadata { node: node.id(), channel: node.channel_id(), members }).and_then(Reply::done);
        if set.is_ok() && matches!(&*engine, Backend::NextDoor(_)) {
            self.objects.hold(object, node, self.last_batch());
        }
        Ok(set)
    }

    fn send(&self, node: &Registration, data: &[u8]) -> Outcome<Sent> {
        let mut is_gone = false;
        let sent = self.ask(|engine| {
            let sent = engine.ask(&Request::SendTo { node: node.id(), channel: node.channel_id(), data });
            is_gone = sent.as_ref().is_err_and(|error| matches!(error.kind, ErrorKind::NotFound | ErrorKind::Closed));
            sent
        })?;
        Ok(match sent {
            Some(_) => Sent::Yes,
            None if is_gone => Sent::Gone,
            None => Sent::Refused,
        })
    }

    fn keep(&self, node: &Registration, channel: *mut zend_object) -> Outcome {
        if !channel::closed(channel) {
            self.check_is_told("Channel::recv()")?;
            self.objects.keep(node, channel);
        }
        Ok(())
    }

    fn let_go(&self, node: &Registration, channel: *mut zend_object) {
        drop(self.objects.let_go(node, channel));
    }
}

impl NodeServer for Server {
    fn check_process(&self) -> Outcome {
        Self::check_process(self)
    }

    fn check_is_told(&self, call: &str) -> Outcome {
        Self::check_is_told(self, call)
    }

    fn backend_if_started(&self) -> Outcome<Option<Rc<Backend>>> {
        Self::backend_if_started(self)
    }

    fn objects(&self) -> &Objects {
        &self.objects
    }

    fn channel_queue_size(&self) -> i64 {
        self.config.host.channel_max_queue_size
    }

    fn resubscribe(&self) {
        Self::resubscribe(self);
    }

    fn watch(&self, channel_id: u32) {
        Self::watch(self, channel_id);
    }
}

impl Server {
    pub(super) fn manager(&self) -> Outcome<Zval> {
        self.objects.manager(|| {
            let manager = node_manager::create(self.config.engine.heartbeat_timeout.as_secs_f64())?;
            running_server::show(&manager, self.as_node_server());
            Ok(manager)
        })
    }

    pub(super) fn scheduler(&self) -> Outcome<Zval> {
        self.objects.scheduler(|| {
            let scheduler = channel_scheduler::create()?;
            running_server::show(&scheduler, self.as_node_server());
            Ok(scheduler)
        })
    }

    fn as_node_server(&self) -> Weak<dyn NodeServer> {
        self.me.get().cloned().unwrap_or_default()
    }
}

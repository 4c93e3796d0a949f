//! How a server's process subscribes to topics: its methods, and what its callbacks are told. A message comes as an event like others.

use super::Kind::Message;
use super::{Role, Server, State, UntoldMessage};
use crate::arguments;
use crate::backend::Backend;
use crate::classes::position;
use crate::exception;
use crate::php::{Call, Callable, Outcome, bytes, text};
use ext_php_rs::ffi::zend_string;
use ext_php_rs::types::Zval;
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::event::HostMessage;
use heartbus_core::wire::topic::Filter;
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;

pub(super) fn subscribe(call: &mut Call<'_>) -> Outcome {
    let (mut filter, mut callback) = (ptr::null_mut::<zend_string>(), ptr::null_mut::<Zval>());
    arguments!(call, c"S|z", filter, callback)?;
    let server = call.held::<Server>()?;
    // SAFETY: an argument of this call, or null when it was left out.
    let is_given = unsafe { callback.as_ref() }.is_some_and(|callback| !callback.dereference().is_null());
    let callback = if is_given { Some(Rc::new(Callable::new(callback, 2)?)) } else { None };
    server.check_not_elsewhere("subscribe()")?;
    server.check_runs_here()?;
    let text = std::str::from_utf8(bytes(filter)).map_err(|_| exception::invalid_argument("A topic is valid UTF-8"))?;
    let filter = Filter::parse(text).map_err(|bad| exception::invalid_argument(&bad.to_string()))?;
    let replaced = server.subscriptions.borrow_mut().insert(filter, callback, None);
    server.resubscribe();
    if replaced.is_none()
        && let Err(error) = server.hear(text)
    {
        let _taken_back = server.subscriptions.borrow_mut().remove(text);
        server.resubscribe();
        return Err(exception::raise(&error));
    }
    drop(replaced);
    server.make_workers_for_callbacks(call.this())
}

pub(super) fn unsubscribe(call: &mut Call<'_>) -> Outcome {
    let mut filter = ptr::null_mut::<zend_string>();
    arguments!(call, c"S", filter)?;
    let server = call.held::<Server>()?;
    server.check_not_elsewhere("unsubscribe()")?;
    server.check_runs_here()?;
    let filter = std::str::from_utf8(bytes(filter)).unwrap_or_default();
    let removed = server.subscriptions.borrow_mut().remove(filter);
    call.result.set_bool(removed.is_some());
    if removed.is_some() {
        server.hear_no_more(filter)?;
        server.resubscribe();
    }
    Ok(())
}

impl Server {
    /// Tells an engine that has just started, or was attached to, what this process wants to hear.
    pub(super) fn hear_all(&self) -> Outcome {
        let filters = self.subscriptions.borrow().all();
        filters.iter().try_for_each(|(filter, _)| self.hear(filter)).map_err(|error| exception::raise(&error))
    }

    fn hear(&self, filter: &str) -> Result<(), Error> {
        match self.engine().as_deref() {
            Some(Backend::Here(engine)) if self.role.get() == Role::Whole && self.state.get() == State::Running => engine.subscribe(filter),
            // What a worker cannot have is told in the engine's log.
            Some(Backend::NextDoor(_)) => {
                self.say(|attachment| attachment.subscribe_topics(filter));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn hear_no_more(&self, filter: &str) -> Outcome {
        match self.engine().as_deref() {
            Some(Backend::Here(engine)) if self.role.get() == Role::Whole => match engine.unsubscribe(filter) {
                Err(error) if error.kind != ErrorKind::Closed => Err(exception::raise(&error)),
                _ => Ok(()),
            },
            Some(Backend::NextDoor(_)) => {
                self.say(|attachment| attachment.unsubscribe_topics(filter));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Tells those whose filters match, then who wants all messages.
    pub(super) fn tell_message(&self, message: Arc<HostMessage>) -> Outcome<bool> {
        *self.untold.borrow_mut() = Some(UntoldMessage { message, behind: None });
        self.tell_untold()
    }

    /// Goes on with a message where that was left: a callback that throws or suspends its fiber takes nothing from the others, which come
    /// before whatever is next.
    pub(super) fn tell_untold(&self) -> Outcome<bool> {
        let mut is_told = false;
        loop {
            let untold = self.untold.borrow_mut().take();
            let Some(UntoldMessage { message, behind }) = untold else { return Ok(is_told) };
            let HostMessage { topic, payload, position, from } = &*message;
            let from = from.as_ref().map_or_else(Zval::null, |id| text(&**id));
            let position = position.map_or_else(|| Ok(Zval::null()), position::position)?;
            let arguments = [text(&**topic), text(payload), from, position];
            let next = self.subscriptions.borrow().next(topic, behind.as_deref());
            match next {
                Some((filter, callback)) => {
                    *self.untold.borrow_mut() = Some(UntoldMessage { message, behind: Some(filter) });
                    callback.call(arguments)?;
                    is_told = true;
                }
                None => is_told |= self.call(Message, arguments)?,
            }
        }
    }
}

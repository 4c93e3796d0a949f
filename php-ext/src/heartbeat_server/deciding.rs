//! What a server's callbacks decide before it happens: whether a node may register, to what somebody may subscribe, and what may be
//! published.
//!
//! Owns what a callback's answer means. Who waits for it, and for how long, is the engine's business.

use super::{Kind, Server};
use crate::backend::{Backend, Registration, is_gone};
use crate::classes::peer;
use crate::config;
use crate::exception;
use crate::node;
use crate::php::{Outcome, entries, list, text, type_name, values, weak_string};
use ext_php_rs::types::{ZendHashTable, Zval};
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::event::{Asked, Question};
use heartbus_core::service::{DecisionRecord, Request};

/// What a callback says.
enum Verdict {
    Refuse,
    Allow,
    /// With members of metadata, as JSON text.
    WithMetadata(String),
    Topics(Vec<String>),
    Publication {
        topic: String,
        data: Vec<u8>,
    },
}

impl Verdict {
    fn record(&self) -> DecisionRecord<'_> {
        match self {
            Self::Refuse => DecisionRecord::Refuse,
            Self::Allow => DecisionRecord::Allow,
            Self::WithMetadata(members) => DecisionRecord::AllowWithMetadata(members),
            Self::Publication { topic, data } => DecisionRecord::AllowPublication { topic, data },
            Self::Topics(filters) => DecisionRecord::AllowTopics(filters.iter().map(String::as_str).collect()),
        }
    }
}

impl Server {
    /// Asks a callback. One that suspends its fiber answers when it returns, one that throws refuses.
    pub(super) fn tell_question(&self, question: &Question, node: Option<&Registration>, batch: u64) -> Outcome<bool> {
        // Whose question it is: another engine may be there by the time of the answer.
        let Some(engine) = self.engine() else { return Ok(false) };
        let kind = match &question.asked {
            Asked::Registration { .. } => Kind::Authenticate,
            Asked::Subscription { .. } => Kind::SubscribeBefore,
            Asked::Publication { .. } => Kind::PublishBefore,
        };
        let Some(callback) = self.callbacks.borrow()[kind as usize].clone() else { return Ok(false) };
        let who = |user: Option<&str>| match node {
            Some(node) => self.objects.node(&engine, node, Some(batch)),
            None => peer::peer(question.connection_id, question.peer, user),
        };
        let returned = match &question.asked {
            Asked::Registration { node_id, metadata } => {
                let ip = text(question.peer.ip().to_canonical().to_string());
                callback.call([text(&**node_id), node::metadata(metadata), ip])
            }
            Asked::Subscription { filters, user } => {
                let who = who(user.as_deref())?;
                callback.call([who, list(filters.iter().map(|filter| text(&**filter)).collect())])
            }
            Asked::Publication { topic, payload, user } => {
                let who = who(user.as_deref())?;
                callback.call([who, text(&**topic), text(payload)])
            }
        };
        let verdict = returned.and_then(|returned| verdict(&question.asked, kind, &returned));
        let decided = decide(&engine, question.number, verdict.as_ref().map_or(DecisionRecord::Refuse, Verdict::record));
        verdict?;
        match decided {
            Ok(()) => Ok(true),
            Err(error) => {
                // An answer that means nothing lets nobody in. Where that fails as well, the time will be up.
                let _ = decide(&engine, question.number, DecisionRecord::Refuse);
                Err(exception::raise(&error))
            }
        }
    }
}

/// What comes too late is nobody's fault, and counted by the engine.
fn decide(engine: &Backend, question: u32, decision: DecisionRecord<'_>) -> Result<(), Error> {
    match engine.ask(&Request::Decide { question, decision }) {
        Err(error) if error.kind != ErrorKind::NotFound && !is_gone(&error) => Err(error),
        _ => Ok(()),
    }
}

/// May run PHP code: what an array holds may encode itself.
fn verdict(asked: &Asked, kind: Kind, returned: &Zval) -> Outcome<Verdict> {
    let returned = returned.dereference();
    match (returned.bool(), returned.array()) {
        (Some(true), _) => Ok(Verdict::Allow),
        (Some(false), _) => Ok(Verdict::Refuse),
        (None, Some(array)) => match asked {
            Asked::Registration { .. } if array.is_empty() => Ok(Verdict::Allow),
            Asked::Registration { .. } => config::members(entries(array)).map(Verdict::WithMetadata),
            Asked::Subscription { .. } => filters(array),
            Asked::Publication { topic, payload, .. } => publication(array, topic, payload),
        },
        (None, None) => {
            let (event, returned) = (kind.name(), type_name(returned, false));
            Err(exception::type_error(&format!("The callback of '{event}' must return a bool or an array, {returned} returned")))
        }
    }
}

fn filters(array: &ZendHashTable) -> Outcome<Verdict> {
    let mut filters = Vec::new();
    for filter in values(array) {
        let filter = weak_string(filter)?.and_then(|filter| filter.string());
        let not_text = || exception::type_error("The callback of 'subscribe.before' must return a bool or an array of topics");
        filters.push(filter.ok_or_else(not_text)?);
    }
    Ok(if filters.is_empty() { Verdict::Refuse } else { Verdict::Topics(filters) })
}

fn publication(array: &ZendHashTable, topic: &str, payload: &[u8]) -> Outcome<Verdict> {
    let not_text =
        || exception::type_error("The callback of 'publish.before' must return a bool or an array with texts for topic, data or both");
    let text_of = |key: &str| match array.get(key) {
        Some(given) => weak_string(given)?.map_or_else(|| Err(not_text()), |text| Ok(Some(text))),
        None => Ok(None),
    };
    let (changed, data) = (text_of("topic")?, text_of("data")?);
    if changed.is_none() && data.is_none() {
        return Err(not_text());
    }
    let topic = changed.map_or_else(|| Ok(topic.to_owned()), |changed| changed.string().ok_or_else(not_text))?;
    let data = data.as_ref().and_then(Zval::zend_str).map_or(payload, |data| data.as_bytes()).to_vec();
    Ok(Verdict::Publication { topic, data })
}

//! Whatever happens to a client with many nodes, in any order, against a model of a server.

use crate::rig::*;

/// What may happen to a gateway, in any order.
#[derive(Clone, Debug)]
enum Happening {
    Add(u8),
    Remove(u8),
    /// The server handles so many frames, in order, and refuses or skips REGISTERs where it says so.
    Serve(Vec<Verdict>),
    /// Another client takes a node, or the server disconnects one.
    Take(u8, i64),
    Break,
    Pass,
}

#[derive(Clone, Copy, Debug)]
enum Verdict {
    Accept,
    Refuse,
    Skip,
}

fn happening() -> impl Strategy<Value = Happening> {
    let verdict = prop_oneof![6 => Just(Verdict::Accept), 1 => Just(Verdict::Refuse), 1 => Just(Verdict::Skip)];
    prop_oneof![
        6 => (2..8u8).prop_map(Happening::Add),
        3 => (2..8u8).prop_map(Happening::Remove),
        6 => prop::collection::vec(verdict, 1..6).prop_map(Happening::Serve),
        2 => ((1..8u8), prop_oneof![Just(403), Just(408), Just(409)]).prop_map(|(id, code)| Happening::Take(id, code)),
        1 => Just(Happening::Break),
        1 => Just(Happening::Pass),
    ]
}

/// A server that does what ours does with a connection's nodes.
#[derive(Default)]
struct Model {
    inbound: VecDeque<(u8, i64, String)>,
    nodes: BTreeMap<String, u32>,
    last_channel: u32,
}

impl Model {
    fn serve(&mut self, rig: &mut Rig, verdict: Verdict) {
        let Some((kind, channel_id, payload)) = self.inbound.pop_front() else { return };
        match (kind, verdict) {
            // Only a REGISTER: a goodbye that is skipped leaves the node with the server.
            (6, Verdict::Skip) => rig.receive(8, 0, &server_error("Rate limit exceeded", 429)),
            // Whom it has already it does not refuse.
            (6, Verdict::Refuse) if !self.nodes.contains_key(&named(&payload)) => rig.receive(8, 0, &server_error("why", 403)),
            (6, _) => {
                let id = named(&payload);
                self.last_channel += 1;
                let channel_id = *self.nodes.entry(id.clone()).or_insert(self.last_channel);
                reply(rig, &id, channel_id);
            }
            (7, _) => self.nodes.retain(|_, channel| i64::from(*channel) != channel_id),
            (1, _) => rig.receive(2, 0, ""),
            other => panic!("{other:?}"),
        }
    }

    /// True when that was the last node: the connection ends.
    fn take(&mut self, rig: &mut Rig, id: &str, code: i64) -> bool {
        let Some(channel_id) = self.nodes.remove(id) else { return false };
        let is_last = self.nodes.is_empty();
        if !is_last || code == 409 {
            rig.receive(8, if is_last { 0 } else { channel_id.into() }, &server_error("why", code));
        }
        is_last
    }
}

proptest! {
    /// Whatever happens: in the end the server has the nodes that the events told of and the program did not remove.
    #[test]
    fn client_and_server_agree_on_the_nodes_in_the_end(story in prop::collection::vec(happening(), 1..60)) {
        let mut rig = Rig::new(settings());
        let mut model = Model::default();
        // As the program knows it from its calls and the events.
        let mut told = BTreeMap::<String, u32>::new();
        let mut wanted = BTreeSet::from(["n1".to_owned()]);
        let (mut replaced, mut has_others) = (false, false);
        let ending = std::iter::repeat_n([Happening::Serve(vec![Verdict::Accept; 20]), Happening::Pass], 20).flatten();
        for happening in story.into_iter().chain(ending) {
            let mut is_broken = false;
            match happening {
                Happening::Add(n) => {
                    let id = format!("n{n}");
                    let added = rig.machine.add_node(&id, "[]");
                    has_others = true;
                    if rig.machine.phase() != ClientPhase::Finished {
                        prop_assert_eq!(added.is_ok(), wanted.insert(id));
                    }
                }
                Happening::Remove(n) => {
                    let id = format!("n{n}");
                    prop_assert_eq!(rig.machine.remove_node(&id).is_ok(), wanted.remove(&id));
                    told.remove(&id);
                }
                Happening::Serve(verdicts) => verdicts.into_iter().for_each(|verdict| model.serve(&mut rig, verdict)),
                Happening::Take(n, code) => is_broken = model.take(&mut rig, &format!("n{n}"), code),
                Happening::Break => is_broken = true,
                Happening::Pass => {
                    if rig.machine.phase() == ClientPhase::Open {
                        rig.pass_to_deadline();
                    }
                }
            }
            for event in rig.events() {
                match event {
                    ClientEvent::Register { node_id, channel_id } => drop(told.insert(node_id.to_string(), channel_id)),
                    ClientEvent::NodeLost { node_id, code, .. } => {
                        told.remove(&*node_id);
                        replaced |= &*node_id == "n1" && code == 409;
                        if &*node_id != "n1" || code == 409 {
                            prop_assert!(wanted.remove(&*node_id), "{} was lost twice", node_id);
                        }
                    }
                    // With one node this says it all.
                    ClientEvent::ServerError { code: 409, .. } if !has_others => wanted.clear(),
                    _ => {}
                }
            }
            if is_broken || rig.machine.phase() == ClientPhase::HangUp {
                rig.machine.handle_closed(SocketEnd::Closed, rig.now);
                rig.events();
            }
            if !rig.machine.is_connected() {
                told.clear();
                model.nodes.clear();
                model.inbound.clear();
            }
            if rig.machine.phase() == ClientPhase::Wait {
                rig.pass_to_deadline();
            }
            if rig.machine.phase() == ClientPhase::Dial {
                rig.machine.handle_connected(rig.now);
                rig.events();
            }
            if rig.machine.is_connected() {
                let written = rig.written();
                model.inbound.extend(written);
                prop_assert!(model.inbound.iter().filter(|frame| frame.0 == 6).count() <= 256);
            }
        }
        prop_assert_eq!(&told, &model.nodes);
        prop_assert_eq!(told.len(), if rig.machine.is_connected() { rig.machine.stats().nodes } else { 0 });
        let missing: Vec<_> = wanted.iter().filter(|id| !told.contains_key(*id)).collect();
        // The first one returns with the next connection only.
        prop_assert!(missing.iter().all(|id| *id == "n1") || rig.machine.phase() == ClientPhase::Finished, "{:?}", missing);
        prop_assert!(missing.is_empty() || !replaced || rig.machine.phase() == ClientPhase::Finished);
    }
}

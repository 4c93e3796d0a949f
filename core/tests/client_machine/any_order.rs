//! Whatever happens in any order: what must hold of one machine.

use crate::rig::*;

#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Dialled(bool),
    Receive(u8, String),
    Noise(Vec<u8>),
    Written(usize),
    WriteFailed,
    Closed,
    Send(usize),
    Ping,
    Resume,
    Disconnect,
}

fn step() -> impl Strategy<Value = Step> {
    let payload = prop_oneof![
        Just(register_reply("n1", 7)),
        Just(server_error("no", 500)),
        Just(server_error("Replaced by a newer connection", 409)),
        "[a-z]{0,20}"
    ];
    prop_oneof![
        4 => (0..30 * SECOND).prop_map(Step::Pass),
        4 => any::<bool>().prop_map(Step::Dialled),
        6 => (0u8..10, payload).prop_map(|(kind, payload)| Step::Receive(kind, payload)),
        1 => prop::collection::vec(any::<u8>(), 0..20).prop_map(Step::Noise),
        4 => (0usize..3000).prop_map(Step::Written),
        1 => Just(Step::WriteFailed),
        1 => Just(Step::Closed),
        4 => (0usize..3000).prop_map(Step::Send),
        1 => Just(Step::Ping),
        2 => Just(Step::Resume),
        1 => Just(Step::Disconnect),
    ]
}

proptest! {
    /// A shell that does what it is told, a host that is sometimes full, and everything else in any order.
    #[test]
    fn every_connection_opens_and_closes_once_and_nothing_follows_the_end(
        steps in prop::collection::vec((step(), any::<bool>()), 0..200), seed: u64,
    ) {
        const OUTBOX: usize = 4000;
        let mut rig = Rig::seeded(ClientConfig { max_reconnect_attempts: 3, outbox_bytes: OUTBOX, ..settings() }, seed);
        let (mut is_open, mut is_finished) = (false, false);
        for (step, host_has_room) in steps {
            match step {
                Step::Pass(micros) => rig.pass(micros),
                Step::Dialled(true) => rig.machine.handle_connected(rig.now),
                Step::Dialled(false) => rig.machine.handle_connect_failed(ErrorCause::Refused, "in words".into(), rig.now),
                Step::Receive(kind, payload) if rig.machine.is_reading() => rig.receive(kind, 7, &payload),
                Step::Noise(bytes) if rig.machine.is_reading() => rig.machine.handle_bytes(&bytes),
                Step::Receive(..) | Step::Noise(_) => {}
                Step::Written(len) => rig.machine.handle_written(len.min(rig.machine.outbox().len()), rig.now),
                Step::WriteFailed => rig.machine.handle_write_failed(ErrorCause::Lost, "in words".into(), rig.now),
                Step::Closed if rig.machine.is_reading() => rig.machine.handle_closed(SocketEnd::Closed, rig.now),
                Step::Closed => {}
                Step::Send(len) => {
                    let sent = rig.machine.send(&vec![b'x'; len], 0, rig.now);
                    prop_assert!(sent.is_err() || rig.machine.is_connected());
                }
                Step::Ping => drop(rig.machine.ping(rig.now)),
                Step::Resume => rig.machine.resume(rig.now),
                Step::Disconnect => rig.machine.disconnect(rig.now),
            }
            rig.machine.handle_timeout(rig.now);
            if rig.machine.phase() == ClientPhase::HangUp {
                rig.machine.handle_closed(SocketEnd::Closed, rig.now);
            }
            while let Some(event) = rig.machine.poll_event(rig.now) {
                prop_assert!(!is_finished, "{event:?} after the end");
                match event {
                    ClientEvent::Connect => {
                        prop_assert!(!is_open);
                        is_open = true;
                    }
                    ClientEvent::Close { .. } => is_open = false,
                    ClientEvent::Finished => {
                        prop_assert!(!is_open);
                        is_finished = true;
                    }
                    ClientEvent::Error { code, .. } => prop_assert_eq!(code == 1, !is_open),
                    ClientEvent::Data { .. } if !host_has_room => {
                        rig.machine.stall(event);
                        prop_assert!(!rig.machine.is_reading());
                    }
                    _ => prop_assert!(is_open, "{event:?} without a connection"),
                }
            }
            prop_assert_eq!(is_finished, rig.machine.phase() == ClientPhase::Finished);
            prop_assert!(rig.machine.deadline().is_none_or(|deadline| deadline > rig.now.mono), "a deadline passed unnoticed");
            prop_assert!(rig.machine.outbox().len() <= OUTBOX + 500, "{} bytes wait", rig.machine.outbox().len());
            if matches!(rig.machine.phase(), ClientPhase::Dial | ClientPhase::Wait | ClientPhase::Finished) {
                prop_assert!(!rig.machine.is_connected() && rig.machine.outbox().is_empty());
            }
        }
    }
}

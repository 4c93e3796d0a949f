use super::*;

/// What is known under every number that a byte holds: whatever is added shows here, and must be added to the list below it.
fn known<T: fmt::Debug>(from_number: impl Fn(u8) -> Option<T>) -> Vec<(u8, String)> {
    (0..=u8::MAX).filter_map(|number| Some((number, format!("{:?}", from_number(number)?)))).collect()
}

fn rows(names: &[&str]) -> Vec<(u8, String)> {
    (1..).zip(names.iter().map(|name| (*name).to_owned())).collect()
}

#[test]
fn kinds_reasons_and_departures_keep_the_numbers_under_which_other_releases_know_them() {
    let of_servers = [
        "Connect",
        "Register",
        "Heartbeat",
        "Data",
        "Left",
        "Close",
        "Buffer",
        "Message",
        "Authenticate",
        "SubscribeBefore",
        "PublishBefore",
        "Subscribe",
        "Unsubscribe",
    ];
    assert_eq!(known(EventKind::from_number), rows(&of_servers));
    assert_eq!(known(Departure::from_number), rows(&["Unregistered", "TimedOut", "Replaced", "Disconnected"]));
    assert_eq!(known(Fill::from_number), rows(&["Full", "Drained"]));
    let of_clients = [
        "Connect",
        "Register",
        "Heartbeat",
        "Data",
        "Pong",
        "ServerError",
        "Error",
        "Close",
        "Finished",
        "NodeLost",
        "Subscribed",
        "Message",
        "Published",
        "SubscribeRefused",
        "PublishRefused",
    ];
    assert_eq!(known(ClientEventKind::from_number), rows(&of_clients));
    let reasons = [
        "PeerClosed",
        "IoError",
        "BrokenStream",
        "FrameTooLong",
        "RegisterTimeout",
        "HeartbeatTimeout",
        "Replaced",
        "Kicked",
        "SlowConsumer",
        "ServerFull",
        "NotAllowed",
        "ServerStopped",
        "ConnectFailed",
        "Refused",
        "Disconnected",
        "Failed",
        "NotAuthenticated",
    ];
    assert_eq!(known(CloseReason::from_number), rows(&reasons));
    let causes = ["Refused", "NoSuchHost", "TimedOut", "Unreachable", "Lost", "Exhausted", "Other"];
    assert_eq!(known(ErrorCause::from_number), rows(&causes));
}

#[test]
fn what_a_number_stands_for_has_that_number() {
    for number in 0..=u8::MAX {
        assert!(CloseReason::from_number(number).is_none_or(|known| known.number() == number));
        assert!(EventKind::from_number(number).is_none_or(|known| known.number() == number));
        assert!(Departure::from_number(number).is_none_or(|known| known.number() == number));
    }
}

#[test]
fn the_bits_of_a_mask_are_those_of_the_bus_socket() {
    let bits: Vec<u32> = (0..=u8::MAX).filter_map(EventKind::from_number).map(|kind| EventMask::of(kind).0).collect();
    assert_eq!(bits, [1, 2, 4, 8, 16, 32, 128, 256, 512, 1024, 2048, 4096, 8192]);
    assert_eq!(EventMask::ALL, EventMask(0b11_0001_1011_1111), "each of them, not the retired one, and nothing that waits for an answer");
    assert_eq!(EventMask::DECISIONS, EventMask(0b1110_0000_0000));
}

#[test]
fn the_texts_are_those_that_logs_and_callbacks_have_had() {
    assert_eq!(CloseReason::Replaced.to_string(), "replaced by a newer connection");
    assert_eq!(CloseReason::Failed.as_str(), "internal error");
    assert_eq!(ErrorCause::Exhausted.to_string(), "out of resources");
}

#[test]
fn messages_of_topics_make_no_other_event_of_a_client_larger() {
    assert!(size_of::<ClientEvent>() <= 72, "{}", size_of::<ClientEvent>());
}

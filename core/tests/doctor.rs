//! What `scripts/doctor` asks of the machine is what a server needs there.

use heartbus_core::descriptor::{FLOOR, Shares};
use std::path::Path;
use std::process::Command;

/// Callers of the bus socket, as the engine has them at most.
const MOST_CALLERS: usize = 4352;

/// How many descriptors the doctor says that a process needs, and what else it says.
fn asked(connections: usize) -> (usize, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/doctor");
    let output = Command::new(script).arg(connections.to_string()).output().expect("scripts/doctor runs");
    let said = String::from_utf8(output.stdout).expect("text");
    let line = said.lines().find_map(|line| line.split_once("descriptors of a process: ")).expect("a line on descriptors").1;
    (line.split(' ').next().unwrap().parse().expect("a number"), said)
}

#[test]
fn with_the_limit_that_the_doctor_asks_for_a_server_lets_that_many_in_and_leaves_the_low_numbers() {
    for connections in [1, 6, 7, 8, 100, 1000, 10_000, 30_463, 30_464, 30_465, 100_000, 1_000_000, 10_000_000] {
        let (limit, said) = asked(connections);
        assert!(said.contains(&format!("For {connections} connections")), "{said}");
        let shares = Shares::of(limit, MOST_CALLERS);
        assert!(shares.connections >= connections, "{connections}: {limit} descriptors are {shares:?}");
        // Callers as far as the connections leave the limit to them.
        let callers = Shares::of(limit - FLOOR as usize, MOST_CALLERS).callers;
        assert!(connections + callers + FLOOR as usize <= limit, "{connections}: {limit} descriptors leave no low numbers");
        assert!(
            Shares::of(limit - FLOOR as usize - 9, MOST_CALLERS).connections < connections.max(9),
            "{connections}: {limit} descriptors are too many"
        );
    }
    // Both numbers stand in the README.
    let readme = include_str!("../../README.md");
    for (connections, written) in [(10_000, "12,581"), (100_000, "105,504")] {
        assert_eq!(asked(connections).0.to_string(), written.replace(',', ""));
        assert!(readme.contains(written), "{written}");
    }
}

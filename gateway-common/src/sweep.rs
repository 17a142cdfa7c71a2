//! The walk over `FLOWS` and `REVERSE`: which entries have ended. Pure decisions; userspace reads, asks and removes.
//!
//! An entry is *live* from its making until a sweep removes it, closing or not: so a slot never settles under a
//! flow whose last segments are still on their way.
//!
//! Removing a pair: `FLOWS` first, then read `REVERSE` again, and remove it only if [`reverse_fate`] still says so.

use crate::abi::{FLOWS_MAX, Flow, FlowKey, FlowPhase};

/// When a sweep looks, and how hard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Look {
    /// `CLOCK[0]`, read before the walk.
    pub now: u32,
    /// From [`pressed`].
    pub pressed: bool,
    /// Idle limit of UDP flows that go both ways, in ticks.
    pub streaming: u32,
}

/// Whether the tables are so full that opening and closing flows are given up early. `entries`: what the last walk found in
/// `FLOWS`.
pub const fn pressed(entries: u32) -> bool {
    entries > FLOWS_MAX / 2
}

/// What becomes of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    Keep,
    /// Its time is over, its endpoint is gone, or its other half is.
    Remove,
}

/// Fate of an entry of `FLOWS`. `twin`: what `REVERSE` holds under [`FlowKey::twin_of_flow`]. `endpoint_lives`:
/// whether `ENDPOINTS[flow.endpoint]` takes flows and still has the flow's address and port.
pub fn flow_fate(key: &FlowKey, twin: Option<&Flow>, endpoint_lives: bool, look: Look) -> Fate {
    match twin {
        Some(reverse)
            if endpoint_lives
                && returns_to(reverse, key)
                && !reverse.expired(look.now, look.pressed, look.streaming) =>
        {
            Fate::Keep
        }
        _ => Fate::Remove,
    }
}

/// Fate of an entry of `REVERSE`. `twin`: what `FLOWS` holds under [`FlowKey::twin_of_reverse`]. An entry whose twin is
/// not there (being made right now, or left over) is kept until it was idle for as long as it takes to open.
pub fn reverse_fate(key: &FlowKey, reverse: &Flow, twin: Option<&Flow>, endpoint_lives: bool, look: Look) -> Fate {
    let paired = twin.is_some_and(|flow| flow.addr == key.src && flow.port_be == key.src_port_be());
    let alone = Flow {
        phase: FlowPhase::Opening as u8,
        ..*reverse
    };
    let over = if paired {
        reverse.expired(look.now, look.pressed, look.streaming)
    } else {
        alone.expired(look.now, look.pressed, look.streaming)
    };
    if over || !endpoint_lives {
        Fate::Remove
    } else {
        Fate::Keep
    }
}

/// Whether an entry of `REVERSE` leads back through the VIP of `key`, a key of `FLOWS`.
fn returns_to(reverse: &Flow, key: &FlowKey) -> bool {
    reverse.addr == key.dst && reverse.port_be == key.dst_port_be()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::flow::{
        ASKED_TICKS, CLOSING_TICKS, ESTABLISHED_TICKS, OPENING_TICKS, PRESSED_TICKS, STREAMING_TICKS,
    };
    use crate::abi::v4_words;

    const CLIENT: [u32; 4] = v4_words(1);
    const VIP: [u32; 4] = v4_words(2);
    const ENDPOINT: [u32; 4] = v4_words(3);

    fn at(now: u32) -> Look {
        Look {
            now,
            pressed: false,
            streaming: STREAMING_TICKS,
        }
    }

    fn pair(phase: FlowPhase, seen: u32) -> (FlowKey, Flow, FlowKey, Flow) {
        let key = FlowKey {
            src: CLIENT,
            dst: VIP,
            ports: FlowKey::ports(10, 20),
            proto: 6,
        };
        let reverse = Flow {
            addr: VIP,
            macs: [0; 3],
            ifindex: 4,
            vip: 0,
            seen,
            port_be: 20,
            endpoint: 1,
            phase: phase as u8,
            fin_client: 0,
            fin_endpoint: 0,
            pad: 0,
        };
        let flow = Flow {
            addr: ENDPOINT,
            port_be: 30,
            phase: 0,
            ..reverse
        };
        (key, flow, key.twin_of_flow(&flow), reverse)
    }

    #[test]
    fn the_twins_name_each_other() {
        let (key, flow, twin, reverse) = pair(FlowPhase::Opening, 0);
        assert_eq!(
            twin,
            FlowKey {
                src: ENDPOINT,
                dst: CLIENT,
                ports: FlowKey::ports(30, 10),
                proto: 6
            }
        );
        assert_eq!(twin.twin_of_reverse(&reverse), key);
        assert_eq!(key.twin_of_flow(&flow), twin);
    }

    #[test]
    fn each_phase_has_its_own_idle_limit() {
        for (phase, ticks) in [
            (FlowPhase::Opening, OPENING_TICKS),
            (FlowPhase::Established, ESTABLISHED_TICKS),
            (FlowPhase::Closing, CLOSING_TICKS),
            (FlowPhase::Asked, ASKED_TICKS),
            (FlowPhase::Answered, ASKED_TICKS),
            (FlowPhase::Streaming, STREAMING_TICKS),
        ] {
            let (key, _, _, reverse) = pair(phase, 1000);
            assert_eq!(flow_fate(&key, Some(&reverse), true, at(1000 + ticks)), Fate::Keep);
            assert_eq!(flow_fate(&key, Some(&reverse), true, at(1001 + ticks)), Fate::Remove);
        }
    }

    #[test]
    fn the_setting_is_the_limit_of_streams_of_datagrams_and_bounds_the_other_udp_flows() {
        let (_, _, _, streaming) = pair(FlowPhase::Streaming, 0);
        assert!(!streaming.expired(9_000, false, 9_000) && streaming.expired(9_001, false, 9_000));
        let (_, _, _, asked) = pair(FlowPhase::Asked, 0);
        assert!(asked.expired(ASKED_TICKS + 1, false, 9_000));
        assert!(asked.expired(21, false, 20) && !asked.expired(20, true, 20));
        let (_, _, _, tcp) = pair(FlowPhase::Established, 0);
        assert!(!tcp.expired(21, false, 20));
    }

    #[test]
    fn only_a_question_gives_way_and_not_at_once() {
        for (phase, gives) in [
            (FlowPhase::Asked, true),
            (FlowPhase::Answered, true),
            (FlowPhase::Streaming, false),
            (FlowPhase::Opening, false),
            (FlowPhase::Established, false),
        ] {
            let (_, _, _, reverse) = pair(phase, 100);
            assert!(!reverse.gives_way(110) && !reverse.gives_way(99));
            assert_eq!(reverse.gives_way(111), gives, "{phase:?}");
        }
    }

    #[test]
    fn one_fin_leaves_the_other_direction_its_full_time_and_two_close() {
        let (_, _, _, mut reverse) = pair(FlowPhase::Established, 0);
        reverse.fin_client = 1;
        assert!(!reverse.expired(CLOSING_TICKS + 1, false, STREAMING_TICKS));
        reverse.fin_endpoint = 1;
        assert!(reverse.expired(CLOSING_TICKS + 1, false, STREAMING_TICKS));
    }

    #[test]
    fn a_stamp_newer_than_the_walk_is_no_age_and_the_clock_may_wrap() {
        let (_, _, _, reverse) = pair(FlowPhase::Opening, 5);
        assert!(!reverse.expired(3, false, STREAMING_TICKS));
        let (_, _, _, reverse) = pair(FlowPhase::Opening, u32::MAX - 5);
        assert!(!reverse.expired(5, false, STREAMING_TICKS));
        assert!(reverse.expired(OPENING_TICKS, false, STREAMING_TICKS));
    }

    #[test]
    fn under_pressure_opening_and_closing_flows_are_given_up_early_and_established_ones_never() {
        let look = Look {
            now: PRESSED_TICKS + 1,
            pressed: true,
            streaming: STREAMING_TICKS,
        };
        for (phase, fate) in [
            (FlowPhase::Opening, Fate::Remove),
            (FlowPhase::Established, Fate::Keep),
            (FlowPhase::Closing, Fate::Remove),
            (FlowPhase::Asked, Fate::Remove),
            (FlowPhase::Answered, Fate::Remove),
            (FlowPhase::Streaming, Fate::Keep),
        ] {
            let (key, _, twin, reverse) = pair(phase, 0);
            assert_eq!(flow_fate(&key, Some(&reverse), true, look), fate);
            let flow = Flow {
                addr: ENDPOINT,
                port_be: 30,
                ..reverse
            };
            assert_eq!(reverse_fate(&twin, &reverse, Some(&flow), true, look), fate);
        }
        assert!(!pressed(FLOWS_MAX / 2) && pressed(FLOWS_MAX / 2 + 1));
    }

    #[test]
    fn a_flow_ends_with_its_endpoint_and_with_its_twin() {
        let (key, _, twin, reverse) = pair(FlowPhase::Established, 0);
        assert_eq!(flow_fate(&key, Some(&reverse), false, at(0)), Fate::Remove);
        assert_eq!(flow_fate(&key, None, true, at(0)), Fate::Remove);
        let other = Flow { port_be: 99, ..reverse };
        assert_eq!(flow_fate(&key, Some(&other), true, at(0)), Fate::Remove);
        assert_eq!(reverse_fate(&twin, &reverse, None, true, at(OPENING_TICKS)), Fate::Keep);
        assert_eq!(
            reverse_fate(&twin, &reverse, None, true, at(OPENING_TICKS + 1)),
            Fate::Remove
        );
    }
}

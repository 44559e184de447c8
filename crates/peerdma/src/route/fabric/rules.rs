//! What one port, or one function, does with a TLP that travels up.
//!
//! The rules of PCIe 6.0 §6.12 with every register stated; which values a register
//! may have where it was not read is [`super::controls`]. ACS acts only here, where
//! a TLP enters a port from below or is about to leave its device: what travels down
//! is never examined. Errors come first, then the address.

use super::tlp::At;
use crate::pcie::acs::AcsBits;

/// The registers of a port or function that decide about what comes from below.
#[derive(Clone, Copy, Debug)]
pub(super) struct Port {
    /// ACS controls in force: bits without their capability bit read as zero.
    pub(super) controls: AcsBits,
    /// ACS Enhanced Capability, without which the controls from bit 7 on do not exist.
    pub(super) enhanced: bool,
    /// Bus Master Enable: memory requests from below are forwarded.
    pub(super) bus_master: bool,
}

/// Where a request's address leads, seen from the port that it enters from below.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Toward {
    /// Into this very port's windows: a U-turn.
    Own,
    /// Into a sibling's windows; `bit` is the egress vector's bit for that sibling.
    Peer {
        /// Egress control vector, bit of the sibling's port number.
        bit: bool,
    },
    /// Into a BAR of a downstream port of the same switch.
    DownstreamBar,
    /// Into a BAR of the switch's upstream port.
    UpstreamBar,
    /// Inside the switch's window, and in nobody's below it.
    Hole,
    /// Elsewhere.
    Above,
}

/// Where a port sends a TLP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// On towards the root, whatever the address.
    Up,
    /// Where the address or ID leads.
    Across,
    /// Stopped: ACS Violation.
    Violation,
    /// Stopped: Unsupported Request.
    Unsupported,
    /// The specification does not say.
    Undefined,
}

/// Which rule decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cause {
    SourceValidation,
    TranslationBlocking,
    BusMasterOff,
    UpstreamForwarding,
    NoUpstreamForwarding,
    DirectTranslated,
    PeerOpen,
    RequestRedirect,
    EgressBitClear,
    EgressBlocked,
    EgressRedirected,
    PortMemoryAllowed,
    PortMemoryBlocked,
    PortMemoryRedirected,
    PortMemoryUnspecified,
    Hole,
    HoleRedirected,
    CompletionOpen,
    CompletionRelaxed,
    CompletionRedirect,
    Elsewhere,
}

/// DSP Memory Target Access Control, bits 9:8 (PCIe 6.0 §7.7.11.3).
const DOWNSTREAM_TARGET: u32 = 8;
/// USP Memory Target Access Control, bits 11:10.
const UPSTREAM_TARGET: u32 = 10;
/// Unclaimed Request Redirect Control, bit 12.
const UNCLAIMED_REDIRECT: AcsBits = AcsBits::from_bits_retain(1 << 12);

/// A memory request that enters a root port or downstream port from below.
/// `source_inside` says whether the requester's bus is one of the port's.
pub(super) fn request(port: Port, at: At, source_inside: bool, toward: Toward) -> (Step, Cause) {
    let acs = port.controls;
    // Source Validation looks at the bus alone, Translation Blocking at AT alone; both
    // come before every other control (PCIe 6.0 §6.12.1.1).
    if acs.contains(AcsBits::SV) && !source_inside {
        return (Step::Violation, Cause::SourceValidation);
    }
    if acs.contains(AcsBits::TB) && at != At::Untranslated {
        return (Step::Violation, Cause::TranslationBlocking);
    }
    // §7.5.1.1.3: requests only; completions and messages pass.
    if !port.bus_master {
        return (Step::Unsupported, Cause::BusMasterOff);
    }
    match toward {
        Toward::DownstreamBar => port_memory(port, DOWNSTREAM_TARGET),
        Toward::UpstreamBar => port_memory(port, UPSTREAM_TARGET),
        // RR, EC and DT have no say about a U-turn.
        Toward::Own => u_turn(acs),
        Toward::Peer { bit } => peer(acs, at, bit),
        Toward::Hole if port.enhanced && acs.contains(UNCLAIMED_REDIRECT) => (Step::Up, Cause::HoleRedirected),
        Toward::Hole => (Step::Unsupported, Cause::Hole),
        Toward::Above => (Step::Up, Cause::Elsewhere),
    }
}

/// A request for a sibling: of a port in its switch, of a function in its device
/// (PCIe 6.0 §6.12.1.1, §6.12.1.2, and the table of §6.12.3). For a function
/// [`Step::Up`] means out on its link.
pub(super) fn peer(acs: AcsBits, at: At, bit: bool) -> (Step, Cause) {
    if at == At::Translated && acs.contains(AcsBits::DT) {
        return (Step::Across, Cause::DirectTranslated);
    }
    // With egress control on, redirection only decides what a set bit means.
    match (acs.contains(AcsBits::EC), acs.contains(AcsBits::RR), bit) {
        (false, false, _) => (Step::Across, Cause::PeerOpen),
        (false, true, _) => (Step::Up, Cause::RequestRedirect),
        (true, _, false) => (Step::Across, Cause::EgressBitClear),
        (true, false, true) => (Step::Violation, Cause::EgressBlocked),
        (true, true, true) => (Step::Up, Cause::EgressRedirected),
    }
}

/// Where a completion's requester is, seen from the port that the completion enters from below.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Homeward {
    /// Below this very port: a U-turn.
    Own,
    /// Below a sibling.
    Peer,
    /// Elsewhere.
    Above,
}

/// A completion that enters a port from below: neither SV, TB, RR, EC, DT nor Bus
/// Master Enable apply to it.
pub(super) fn completion(acs: AcsBits, relaxed: bool, homeward: Homeward) -> (Step, Cause) {
    match homeward {
        Homeward::Own => u_turn(acs),
        Homeward::Peer => completion_to_peer(acs, relaxed),
        Homeward::Above => (Step::Up, Cause::Elsewhere),
    }
}

/// A completion for a sibling, of a port or of a function. Relaxed Ordering exempts it,
/// since it may pass redirected writes anyway (PCIe 6.0 §6.12.1.1).
pub(super) fn completion_to_peer(acs: AcsBits, relaxed: bool) -> (Step, Cause) {
    match (acs.contains(AcsBits::CR), relaxed) {
        (false, _) => (Step::Across, Cause::CompletionOpen),
        (true, true) => (Step::Across, Cause::CompletionRelaxed),
        (true, false) => (Step::Up, Cause::CompletionRedirect),
    }
}

/// What comes up for the port's own side: forwarded up if Upstream Forwarding says so,
/// else nothing is specified.
fn u_turn(acs: AcsBits) -> (Step, Cause) {
    if acs.contains(AcsBits::UF) {
        (Step::Up, Cause::UpstreamForwarding)
    } else {
        (Step::Undefined, Cause::NoUpstreamForwarding)
    }
}

/// A request for a port's own BAR, which only ACS Enhanced covers.
fn port_memory(port: Port, field: u32) -> (Step, Cause) {
    if !port.enhanced {
        return (Step::Undefined, Cause::PortMemoryUnspecified);
    }
    match port.controls.bits() >> field & 3 {
        0 => (Step::Across, Cause::PortMemoryAllowed),
        1 => (Step::Violation, Cause::PortMemoryBlocked),
        2 => (Step::Up, Cause::PortMemoryRedirected),
        _ => (Step::Undefined, Cause::PortMemoryUnspecified),
    }
}

impl Cause {
    /// What was read and the rule that fired, in words.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::SourceValidation => "SV=1: the requester's bus is not below this port (PCIe 6.0 §6.12.1.1)",
            Self::TranslationBlocking => "TB=1: requests with a translated address are blocked (PCIe 6.0 §6.12.1.1)",
            Self::BusMasterOff => "bus mastering is off: memory requests from below are refused (PCIe 6.0 §7.5.1.1.3)",
            Self::UpstreamForwarding => "UF=1: what comes up for its own side goes on up (PCIe 6.0 §6.12.1.1)",
            Self::NoUpstreamForwarding => {
                "UF=0: what comes up for its own side has no specified way (PCIe 6.0 §6.12.1.1)"
            }
            Self::DirectTranslated => "DT=1: translated addresses go across (PCIe 6.0 §6.12.1.1)",
            Self::PeerOpen => "RR=0, EC=0: peer requests go across (PCIe 6.0 §6.12.3)",
            Self::RequestRedirect => "RR=1: peer requests go up (PCIe 6.0 §6.12.3)",
            Self::EgressBitClear => {
                "EC=1, vector bit of the egress clear: goes across, whatever RR is (PCIe 6.0 §6.12.3)"
            }
            Self::EgressBlocked => "EC=1, RR=0, vector bit of the egress set: blocked (PCIe 6.0 §6.12.3)",
            Self::EgressRedirected => "EC=1, RR=1, vector bit of the egress set: goes up (PCIe 6.0 §6.12.3)",
            Self::PortMemoryAllowed => "the port's own memory may be reached (PCIe 6.0 §7.7.11.3)",
            Self::PortMemoryBlocked => "requests for ports' own memory are blocked (PCIe 6.0 §7.7.11.3)",
            Self::PortMemoryRedirected => "requests for ports' own memory go up (PCIe 6.0 §7.7.11.3)",
            Self::PortMemoryUnspecified => {
                "without ACS Enhanced nothing says what becomes of requests for a port's own memory"
            }
            Self::Hole => "the address is inside the switch's window and below none of its ports (PCIe 6.0 §7.5.1.3)",
            Self::HoleRedirected => "unclaimed requests go up (PCIe 6.0 §7.7.11.3)",
            Self::CompletionOpen => "CR=0: completions go across (PCIe 6.0 §6.12.1.1)",
            Self::CompletionRelaxed => "CR=1, but a completion with relaxed ordering goes across (PCIe 6.0 §6.12.1.1)",
            Self::CompletionRedirect => "CR=1: completions go up (PCIe 6.0 §6.12.1.1)",
            Self::Elsewhere => "goes up",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATS: [At; 3] = [At::Untranslated, At::TranslationRequest, At::Translated];

    fn port(controls: AcsBits) -> Port {
        Port { controls, enhanced: false, bus_master: true }
    }

    fn step(controls: AcsBits, at: At, source_inside: bool, toward: Toward) -> Step {
        request(port(controls), at, source_inside, toward).0
    }

    #[test]
    fn source_validation_looks_at_the_bus_of_every_request() {
        for at in ATS {
            for toward in [Toward::Peer { bit: false }, Toward::Own, Toward::Above, Toward::Hole] {
                assert_eq!(step(AcsBits::SV, at, false, toward), Step::Violation);
            }
            assert_eq!(step(AcsBits::SV, at, true, Toward::Above), Step::Up);
            assert_eq!(step(AcsBits::all() - AcsBits::SV - AcsBits::TB, at, false, Toward::Above), Step::Up);
        }
    }

    #[test]
    fn translation_blocking_stops_whatever_is_not_untranslated_ahead_of_direct_translated() {
        for toward in [Toward::Peer { bit: false }, Toward::Own, Toward::Above] {
            for at in [At::TranslationRequest, At::Translated] {
                assert_eq!(step(AcsBits::TB | AcsBits::DT | AcsBits::UF, at, true, toward), Step::Violation);
            }
        }
        assert_eq!(step(AcsBits::TB, At::Untranslated, true, Toward::Peer { bit: true }), Step::Across);
    }

    #[test]
    fn redirection_and_egress_control_answer_as_their_table_says() {
        let table = [
            (AcsBits::empty(), false, Step::Across),
            (AcsBits::empty(), true, Step::Across),
            (AcsBits::RR, false, Step::Up),
            (AcsBits::RR, true, Step::Up),
            (AcsBits::EC, false, Step::Across),
            (AcsBits::EC, true, Step::Violation),
            (AcsBits::EC | AcsBits::RR, false, Step::Across),
            (AcsBits::EC | AcsBits::RR, true, Step::Up),
        ];
        for (controls, bit, expected) in table {
            for at in ATS {
                assert_eq!(step(controls, at, true, Toward::Peer { bit }), expected, "{controls} {bit} {at:?}");
            }
            let direct = controls | AcsBits::DT;
            assert_eq!(step(direct, At::Translated, true, Toward::Peer { bit }), Step::Across, "{direct}");
            for at in [At::Untranslated, At::TranslationRequest] {
                assert_eq!(step(direct, at, true, Toward::Peer { bit }), expected, "DT is for AT=10 alone");
            }
        }
    }

    #[test]
    fn a_u_turn_asks_upstream_forwarding_and_nothing_else() {
        let others = AcsBits::RR | AcsBits::EC | AcsBits::CR | AcsBits::DT | AcsBits::SV;
        for at in ATS {
            assert_eq!(step(others, at, true, Toward::Own), Step::Undefined);
            assert_eq!(step(others | AcsBits::UF, at, true, Toward::Own), Step::Up);
        }
        assert_eq!(completion(others, false, Homeward::Own).0, Step::Undefined);
        assert_eq!(completion(AcsBits::UF, false, Homeward::Own).0, Step::Up);
    }

    #[test]
    fn only_completion_redirect_moves_a_completion_and_relaxed_ordering_exempts_it() {
        let others = AcsBits::SV | AcsBits::TB | AcsBits::RR | AcsBits::EC | AcsBits::DT;
        assert_eq!(completion(others, false, Homeward::Peer).0, Step::Across);
        assert_eq!(completion(AcsBits::CR, false, Homeward::Peer).0, Step::Up);
        assert_eq!(completion(AcsBits::CR, true, Homeward::Peer).0, Step::Across);
        assert_eq!(step(AcsBits::CR, At::Untranslated, true, Toward::Peer { bit: true }), Step::Across);
    }

    #[test]
    fn bus_mastering_off_refuses_requests_after_the_acs_errors() {
        let off = |controls| Port { bus_master: false, ..port(controls) };
        assert_eq!(request(off(AcsBits::empty()), At::Untranslated, true, Toward::Above).0, Step::Unsupported);
        assert_eq!(request(off(AcsBits::SV), At::Untranslated, false, Toward::Above).0, Step::Violation);
    }

    #[test]
    fn the_enhanced_controls_exist_only_with_their_capability() {
        for (field, toward) in [(8, Toward::DownstreamBar), (10, Toward::UpstreamBar)] {
            for (value, expected) in [Step::Across, Step::Violation, Step::Up, Step::Undefined].into_iter().enumerate()
            {
                let controls = AcsBits::from_bits_retain((value as u16) << field);
                let enhanced = Port { enhanced: true, ..port(controls) };
                assert_eq!(request(enhanced, At::Untranslated, true, toward).0, expected);
                assert_eq!(step(controls, At::Untranslated, true, toward), Step::Undefined);
            }
        }
        let redirect = Port { enhanced: true, ..port(UNCLAIMED_REDIRECT) };
        assert_eq!(request(redirect, At::Untranslated, true, Toward::Hole).0, Step::Up);
        assert_eq!(step(UNCLAIMED_REDIRECT, At::Untranslated, true, Toward::Hole), Step::Unsupported);
    }
}
